"""The same picture twice: told by its files, and dropped if that is wished."""

import csv
import os

import numpy as np
import pytest

from own_pictures import left_out, make, make_classes, refused, sizes
from pictures.dataset import load
from pictures.reading import read_picture


@pytest.fixture
def root(tmp_path):
    return tmp_path / "pictures"


@pytest.fixture
def opened(root, tmp_path):
    """Open the data set in `root`."""
    return lambda data=root, **settings: load(str(data), tmp_path / "cache", **settings)


def table(tmp_path):
    """Number, split and path of each picture that is there twice."""
    [file] = (tmp_path / "cache").glob("*-duplicates.csv")
    return list(csv.reader(file.read_text(encoding="utf-8").splitlines()))


@pytest.fixture
def twice(root):
    for split, size in (("train", 6), ("val", 3), ("test", 3)):
        make_classes(root / split, cat=size, dog=size)
    make(root / "test/cat/a.png", like=1)
    make(root / "val/cat/b.png", like=1)
    make(root / "train/cat/c.png", like=1)
    make(root / "train/dog/d.png", like=2)
    make(root / "train/dog/e.png", like=2)
    return root


def test_duplicates_are_counted(twice, opened, tmp_path):
    pictures = opened()
    assert left_out(pictures) == {
        "duplicates": 1, "duplicates_files": [["train/dog/d.png", "train/dog/e.png"]],
        "duplicates_across": 2, "duplicates_across_files": [["test/cat/a.png", "val/cat/b.png"]]}
    assert sizes(pictures)[0] == [11, 11]
    assert pictures.summary().splitlines()[1:] == [
        "  2 pictures are in two of training, validation and test (test/cat/a.png = val/cat/b.png), whose accuracies "
        "then say too much",
        "  1 picture is there once more in the same class and part (train/dog/d.png = train/dog/e.png)",
        "  --drop-duplicates keeps one of equal pictures, and none of those that are in two classes",
        f"  {next((tmp_path / 'cache').glob('*-duplicates.csv'))} lists all that are there twice"]


@pytest.mark.parametrize("drop", [False, True])
def test_all_their_files_are_listed(twice, opened, tmp_path, drop):
    opened(drop_duplicates=drop)
    assert table(tmp_path) == [
        ["picture", "split", "path"], ["1", "test", "test/cat/a.png"], ["1", "validation", "val/cat/b.png"],
        ["1", "training", "train/cat/c.png"], ["2", "training", "train/dog/d.png"],
        ["2", "training", "train/dog/e.png"]]


def test_they_are_told_with_the_broken_ones(twice, opened, tmp_path):
    """One round of mending, not two; a line a kind for people."""
    (twice / "train/cat/bad.png").write_bytes(b"no picture")
    message = refused(opened)
    with pytest.raises(ValueError) as error:
        opened()
    assert [line.split(" ")[0] for line in error.value.lines[1:4]] == ["2", "1", "--drop-duplicates"]
    for words in ("1 of 30 pictures cannot be used: ", "; 2 pictures are in two of training, validation and test (test",
                  "; 1 picture is there once more in the same class and part (train", "-duplicates.csv lists them"):
        assert words in message, message
    assert len(table(tmp_path)) == 6 and message.count("--drop-duplicates") == 1
    assert "twice" not in refused(lambda: opened(drop_duplicates=True)), "which is what is done about them"


def test_duplicates_can_be_dropped(twice, opened):
    before = opened()
    pictures = opened(drop_duplicates=True)
    assert sizes(pictures) == ([6 + 3, 7 + 3], [4, 3], 6) and left_out(pictures) == {"duplicates_dropped": 3}
    assert pictures.checksum != before.checksum and "\n  3 duplicates dropped" in pictures.summary()
    kept = {image.tobytes() for images in (pictures.train_images, pictures.test_images) for image in images}
    assert kept == {image.tobytes() for images in (before.train_images, before.test_images) for image in images}
    assert len(kept) == len(pictures.train_images) + len(pictures.test_images)
    assert opened().checksum == before.checksum and opened().counts == before.counts


@pytest.fixture
def in_two_classes(root):
    """Three pictures, one of them in the test set too, and one with a copy in its own class."""
    for split, size in (("train", 6), ("val", 2), ("test", 3)):
        make_classes(root / split, cat=size, dog=size)
    for number, paths in enumerate((["train/cat/a.png", "train/dog/a.png"], ["train/cat/\udcff.png", "test/dog/b.png"],
                                    ["train/cat/c.png", "train/cat/d.png", "val/dog/c.png"])):
        for path in paths:
            make(root / path, like=number)
    make(root / "train/dog/e.png", like=9)
    make(root / "train/dog/f.png", like=9)
    return root


def test_pictures_in_two_classes_are_told_apart(in_two_classes, opened):
    pictures = opened()
    assert left_out(pictures) == {
        "duplicates": 1, "two_classes": 3,
        "duplicates_files": [["train/dog/e.png", "train/dog/f.png"]],
        "two_classes_files": [["test/dog/b.png", "train/cat/\udcff.png"], ["val/dog/c.png", "train/cat/c.png"]]}
    assert ("\n  3 pictures are in two classes (test/dog/b.png = train/cat/\\xff.png, val/dog/c.png = train/cat/c.png)"
            in pictures.summary())


def test_no_class_is_chosen_for_a_picture_in_two(in_two_classes, opened):
    """All its copies are dropped, and its classes' own copies are not counted as duplicates."""
    pictures = opened(drop_duplicates=True)
    assert sizes(pictures) == ([6 + 2, 6 + 1 + 2], [3, 3], 4)
    counts = left_out(pictures)
    assert counts.pop("two_classes_files") == opened().counts["two_classes_files"]
    assert counts == {"duplicates_dropped": 1, "two_classes_dropped": 7}
    assert "\n  1 duplicate dropped" in pictures.summary()
    assert pictures.summary().splitlines()[1].startswith(
        "  7 files dropped, since the same pictures are in two classes (test/dog/b.png = ")
    names = {os.path.basename(path) for split in ("train", "test") for path in pictures.paths(split)}
    assert not names & {"a.png", "b.png", "c.png", "d.png", "\udcff.png"} and {"e.png", "f.png"} & names == {"e.png"}


def test_a_class_of_which_only_conflicts_are_there(root, opened):
    make_classes(root, cat=6)
    for name in ("dog", "cat"):
        for number in range(3):
            make(root / name / f"same{number}.png", like=number)
    assert "class 'dog' has no picture left for training" in refused(lambda: opened(drop_duplicates=True))


def test_each_picture_knows_its_file(twice, opened, tmp_path):
    """Also when some are left out, and when another path to the folder was packed."""
    (twice / "train/cat/0.jpg").write_bytes(b"broken")
    (tmp_path / "link").symlink_to(twice)
    opened(skip_broken=True, drop_duplicates=True)
    pictures = opened(tmp_path / "link", skip_broken=True, drop_duplicates=True)
    for split in ("train", "test"):
        images, paths = getattr(pictures, f"{split}_images"), pictures.paths(split)
        assert len(paths) == len(images) and paths[0].startswith(f"{tmp_path}/link/{split}/")
        assert all(np.array_equal(image[:, :, :3], read_picture(path, 32, "pad"))
                   for image, path in zip(images, paths, strict=True))


def test_nothing_to_drop_changes_nothing(root, opened):
    make_classes(root, cat=5, dog=5)
    assert opened(drop_duplicates=True).checksum == opened().checksum
