"""Every class in every split, and where today's splits already have that, exactly today's."""

import hashlib

import numpy as np
import pytest

from pictures import dataset
from pictures.split import everything, parts, split, validation_size


def sha(indices: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(indices)).hexdigest()[:16]


@pytest.mark.parametrize(("sizes", "train", "val", "all_of_it"), [
    ((0, 0, 0), "e2bb1dd528d48ad0", "021b68df1cbbe8a4", "2c04c00486ecd87d"),
    ((0, 0, 3), "1ea7e861407568ed", "dc0d4227b16959ff", "ade923109e65c7a3"),
    ((600, 200, 1), "f4a2bdc9eca2ce37", "17b1db56f18aedac", "ad6d7c319057c055"),
    ((800, 0, 2), "675239f6b2a3a436", "3c95a7af30f0a1cb", "728f6cbe7c3fe2cf")])
def test_digits_keep_their_splits(digits_dir, sizes, train, val, all_of_it):
    """Checkpoints go on by them. What is expected was computed before a class without a picture was mended."""
    labels = np.asarray(dataset.load("digits", digits_dir).train_labels)
    assert [sha(part) for part in split(labels, *sizes)] == [train, val]
    assert sha(everything(labels, sizes[0], sizes[2])) == all_of_it


@pytest.mark.parametrize(("sizes", "train", "val"), [
    ((0, 0, 0), "cb505ee10d07bdf9", "482f917ea8765dbf"),
    ((4000, 1000, 7), "9838f7cd48bb65fb", "07834bb05b07c2f4")])
def test_cifar10_keeps_its_splits(sizes, train, val):
    """By its labels alone, 5000 of each class in the order of a folder's files."""
    assert [sha(part) for part in split(np.repeat(np.arange(10), 5000), *sizes)] == [train, val]


@pytest.mark.parametrize("classes", [[8] * 12, [200, 2], [2] * 20, [1000, 3, 2, 50], [5, 7]])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_class_is_in_every_split(classes, seed):
    labels = np.repeat(np.arange(len(classes)), classes)
    train, val = split(labels, 0, 0, seed)
    assert set(labels[train]) == set(labels[val]) == set(labels)
    assert len(val) == validation_size(len(labels), len(classes))
    assert sorted([*train, *val]) == list(range(len(labels)))
    least = len(classes)
    train, val = split(labels, least, least, seed)
    assert sorted(labels[train]) == sorted(labels[val]) == list(range(least)) and not set(train) & set(val)
    assert sorted(labels[everything(labels, least, seed)]) == list(range(least))


def test_classes_of_one_picture_are_all_named():
    with pytest.raises(ValueError, match=r"too small, by 1 picture each: 'b', 'd'; .* 1 to train on and 1 for val"):
        split(np.array([0, 0, 1, 2, 2, 2, 3]), 0, 0, 0, "abcd")


def test_nobody_hears_of_a_val_size_that_nobody_set():
    with pytest.raises(ValueError, match=r"^train_size = 90: at most 80 of 96, validation takes 16$"):
        split(np.arange(96) % 16, 90, 0, 0)
    with pytest.raises(ValueError, match=r"^val_size = 90: must leave 16 of 96 images for training"):
        split(np.arange(96) % 16, 0, 90, 0)


def test_a_given_validation_set_is_the_validation_set():
    labels = np.concatenate([np.arange(40) % 4, np.arange(12) % 4])
    for all_data in (False, True):
        train, val = parts(labels, 12, train_size=0, val_size=0, seed=0, all_data=all_data)
        assert sorted(train) == list(range(40)) and sorted(val) == list(range(40, 52))
    train, val = parts(labels, 12, train_size=8, val_size=4, seed=0)
    assert np.bincount(labels[train]).tolist() == [2] * 4 and np.bincount(labels[val]).tolist() == [1] * 4
    assert train.max() < 40 <= val.min()
    with pytest.raises(ValueError, match=r"^val_size = 13: at most 12, as many as there are"):
        parts(labels, 12, train_size=0, val_size=13, seed=0)


@pytest.mark.parametrize("classes", [[300] * 4, [400, 9, 2, 30]])
def test_no_training_sees_what_another_one_is_judged_by(classes):
    labels = np.repeat(np.arange(len(classes)), classes)
    held = set(split(labels, 0, 0, 0, held_out=100)[1])
    assert len(held) == 100 and held == set(split(labels, 0, 100, 0)[1])
    for train_size, val_size in ((0, 0), (0, 10), (40, 10), (200, 100), (0, -1), (40, -1)):
        train, val = parts(labels, 0, train_size=train_size, val_size=val_size, seed=0, held_out=100)
        assert len(train) == (train_size or len(labels) - 100) and not set(train) & held
        assert val is None if val_size < 0 else set(val) <= held and len(val) == (val_size or 100)
        assert val is None or set(labels[val]) == set(range(len(classes)))
    train, val = parts(labels, 0, train_size=0, val_size=-1, seed=0)
    assert len(train) == len(labels) and val is None
    with pytest.raises(ValueError, match=r"^val_size = 101: must be at most held_out = 100$"):
        split(labels, 0, 101, 0, held_out=100)
    with pytest.raises(ValueError, match=r"^held_out = 2: must be at least 4"):
        split(labels, 0, 0, 0, held_out=2)
    with pytest.raises(ValueError, match=rf"^train_size = {len(labels)} and held_out = 100: at most {len(labels)}"):
        split(labels, len(labels), 0, 0, held_out=100)
