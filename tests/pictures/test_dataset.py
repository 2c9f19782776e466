"""Pictures: reading, cache, split, and augmentation against a plain per-image reference."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.counting import Launches
from own_pictures import packed
from pictures import dataset
from pictures import split as splits
from pictures.augmentation import Augmentation, Normalization, channels, words


@pytest.fixture
def folder(tmp_path):
    """A small data set of 2 classes in formats, sizes and modes that people have."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)
                image = Image.fromarray(pixels).convert(["RGB", "L", "P", "RGBA", "CMYK", "RGB"][i % 6])
                suffix = ["jpg", "png", "gif", "webp", "tiff", "bmp"][i % 6]
                image.save(tmp_path / "set" / split / name / f"{i}.{suffix}")
    return tmp_path / "set"


# ---- reading and packing


def test_folder_is_packed_with_labels_by_class_name(folder, tmp_path):
    (folder / "train/cat/.hidden").write_text("a file manager's own")
    pictures = dataset.load(str(folder), tmp_path / "cache", fit="crop")
    assert pictures.classes == ("cat", "dog")
    assert pictures.train_images.shape == (12, 32, 32, 4) and pictures.test_images.shape == (4, 32, 32, 4)
    assert pictures.train_labels.tolist() == [0] * 6 + [1] * 6
    with Image.open(folder / "train/dog/1.png") as image:  # 50x41
        square = image.convert("RGB").crop((4, 0, 45, 41))
        expected = np.asarray(square.resize((32, 32), Image.Resampling.LANCZOS))
    assert np.array_equal(pictures.train_images[7, :, :, :3], expected)


@pytest.mark.parametrize("side", [32, 48, 224])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_pictures_of_any_side_and_fit_are_packed(folder, tmp_path, side, fit):
    pictures = dataset.load(str(folder), tmp_path / "cache", image_size=str(side), fit=fit)
    assert pictures.train_images.shape == (12, side, side, 4) and pictures.side == side
    assert (pictures.counts["side"], pictures.counts["fit"]) == (side, fit)
    with Image.open(folder / "train/dog/1.png") as image:
        image = image.convert("RGB")
        expected = {"crop": lambda: image.crop((4, 0, 45, 41)), "pad": lambda: image, "stretch": lambda: image}[fit]()
        size = (side, round(side * 41 / 50)) if fit == "pad" else (side, side)
        expected = np.asarray(expected.resize(size, Image.Resampling.LANCZOS))
    top = (side - size[1]) // 2
    assert np.array_equal(pictures.train_images[7, top : top + size[1], :, :3], expected)
    assert fit != "pad" or (pictures.train_images[7, :top, :, :3] == 128).all()
    device, sizes = torch.device("cpu"), {"train_size": 8, "val_size": 4, "batch_size": 4}
    loaders = dataset.training_batches(pictures, device, **sizes, crop_padding=4, flip="on", cutout=8, seed=0)
    x, _ = next(loaders.train.epoch(0))
    train = pictures.train_images[loaders.train.index.numpy(), :, :, :3].astype(float) / 255
    assert x.shape == (4, 3, side, side) and loaders.train.normalization.mean.numpy() == pytest.approx(
        train.mean((0, 1, 2)), abs=1e-6)
    assert (loaders.train.augmentation.crop_padding, loaders.train.augmentation.cutout) == (side // 8, side // 4)


def test_each_side_and_fit_has_a_cache_and_a_checksum_of_its_own(folder, tmp_path):
    found = [dataset.load(str(folder), tmp_path / "cache", image_size=size, fit=fit)
             for size, fit in (("32", "pad"), ("auto", "pad"), ("32", "stretch"), ("48", "pad"))]
    assert [pictures.checksum == found[0].checksum for pictures in found] == [True, True, False, False]
    assert len([path for path in (tmp_path / "cache/cache").iterdir() if path.is_dir()]) == 3


def test_a_known_data_set_tells_of_a_test_share_that_is_not_used(digits_dir):
    notes = dataset.load("digits", digits_dir, test_share=0.3).notes
    assert notes == ("--test-share 0.3 not used: the data has a test set",)


def test_a_known_data_set_can_be_enlarged(digits_dir, tmp_path):
    small, large = dataset.load("digits", digits_dir), dataset.load("digits", tmp_path, image_size="48")
    assert large.side == 48 and small.side == 32 and np.array_equal(large.train_labels, small.train_labels)
    expected = Image.fromarray(small.train_images[3, :, :, :3]).resize((48, 48), Image.Resampling.LANCZOS)
    assert np.array_equal(large.train_images[3, :, :, :3], np.asarray(expected)) and large.counts == {"side": 48}


def remove_all(folder):
    shutil.rmtree(folder)


def empty(folder):
    for split in ("train", "test"):
        shutil.rmtree(folder / split)
        (folder / split).mkdir()


def one_class(folder):
    shutil.rmtree(folder / "train/dog")
    shutil.rmtree(folder / "test/dog")


def lacking_in_test(folder):
    shutil.rmtree(folder / "test/dog")


def broken(folder):
    path = folder / "train/cat/0.jpg"
    path.write_bytes(path.read_bytes()[:300])


def zero_bytes(folder):
    (folder / "train/dog/1.png").write_bytes(b"")


def not_an_image(folder):
    (folder / "test/dog/notes").write_text("not a picture")


@pytest.mark.parametrize(("damage", "words"), [
    (remove_all, ["no such folder", "cifar10, digits"]),
    (empty, ["0 classes", "at least 2"]),
    (one_class, ["1 class", "at least 2"]),
    (lacking_in_test, ["'dog'", "test/"]),
    (broken, ["train/cat/0.jpg", "broken"]),
    (zero_bytes, ["train/dog/1.png", "not a picture"]),
    (not_an_image, ["test/dog/notes", "not a picture"]),
])
def test_bad_folders_are_named_and_leave_nothing(folder, tmp_path, damage, words):
    damage(folder)
    with pytest.raises(ValueError) as error:
        dataset.load(str(folder), tmp_path / "cache")
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
    assert packed(tmp_path / "cache") == []


def test_digits(digits_dir):
    pictures = dataset.load("digits", digits_dir)
    assert len(pictures.train_labels) == 1437 and len(pictures.test_labels) == 360 and len(pictures.classes) == 10


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    import torchvision

    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", offline)
    with pytest.raises(OSError, match=r"offline, put cifar-10-python\.tar\.gz into"):
        dataset.load("cifar10", tmp_path)


def test_cifar10_as_pictures(cifar10_dir, tmp_path_factory):
    pictures = dataset.load(str(cifar10_dir), tmp_path_factory.mktemp("cifar"))
    assert np.bincount(pictures.train_labels).tolist() == [5000] * 10
    assert np.bincount(pictures.test_labels).tolist() == [1000] * 10
    normalization = Normalization.of(pictures.train_moments, torch.device("cpu"))
    assert torch.allclose(normalization.mean, torch.tensor([0.4914, 0.4822, 0.4465]), atol=2e-3)  # as published


# ---- split


def test_split_is_disjoint_stratified_and_stable():
    labels = np.repeat(np.arange(5), [500, 300, 100, 60, 40])
    train, val = splits.split(labels, 0, 0, seed=3)
    assert len(val) == 100 and len(train) == 900 and not set(train) & set(val)
    assert np.bincount(labels[val]).tolist() == [50, 30, 10, 6, 4]
    again = splits.split(labels, 0, 0, seed=3)
    assert np.array_equal(train, again[0]) and np.array_equal(val, again[1])
    assert not np.array_equal(val, splits.split(labels, 0, 0, seed=4)[1])
    small, _ = splits.split(labels, 100, 100, seed=3)
    assert len(small) == 100 and np.abs(np.bincount(labels[small]) - [50, 30, 10, 6, 4]).max() <= 1


@pytest.mark.parametrize(
    ("train_size", "val_size", "words"), [(95, 10, "at most 100"), (3, 0, "at least 4"), (0, 2, "at least 4")])
def test_impossible_splits_are_refused(train_size, val_size, words):
    with pytest.raises(ValueError, match=words):
        splits.split(np.arange(100) % 4, train_size, val_size, seed=0)


# ---- batches


def plain_augmentation(image, top, left, flip, cut_y, cut_x, cutout, fill):
    """One (S, S, 3) image at a time: pad, crop at (top, left), flip, blank the square."""
    side = len(image)
    padded = np.empty((side + 32, side + 32, 3), np.uint8)
    padded[:] = fill
    padded[16 : 16 + side, 16 : 16 + side] = image
    out = padded[16 + top : 16 + side + top, 16 + left : 16 + side + left].copy()
    if flip:
        out = out[:, ::-1].copy()
    for y in range(cut_y - cutout // 2, cut_y - cutout // 2 + cutout):
        for x in range(cut_x - cutout // 2, cut_x - cutout // 2 + cutout):
            if 0 <= y < side and 0 <= x < side:
                out[y, x] = fill
    return out


@pytest.mark.parametrize(
    ("padding", "flip", "cutout"), [(4, True, 8), (0, True, 0), (16, False, 16), (2, False, 7), (0, False, 0)])
@pytest.mark.parametrize("side", [32, 48, 96])
def test_augmentation_equals_the_plain_reference(padding, flip, cutout, side):
    rng = np.random.default_rng(1)
    images = np.pad(rng.integers(0, 256, (20, side, side, 3), dtype=np.uint8), ((0, 0), (0, 0), (0, 0), (0, 1)))
    index = torch.from_numpy(rng.permutation(20)[:16])
    normalization = Normalization(torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.2, 0.3, 0.4]), side)
    augmentation = Augmentation(padding, flip, cutout, side=side)
    draws = augmentation.draw(16, torch.Generator().manual_seed(5))
    batch = augmentation(words(torch.from_numpy(images)), index, draws, normalization.fill)
    fill = np.array([0.1, 0.5, 0.9]) * 255
    for i in range(16):
        drawn = [int(draw[i]) for draw in draws[:5]]
        expected = plain_augmentation(images[index[i], :, :, :3], *drawn, cutout, fill.round())
        assert np.array_equal(channels(batch)[i].numpy(), expected)
    x = normalization(batch)
    expected = (channels(batch).double() / 255 - torch.tensor([0.1, 0.5, 0.9])) / torch.tensor([0.2, 0.3, 0.4])
    assert x.shape == (16, 3, side, side) and x.is_contiguous(memory_format=torch.channels_last)
    assert (x.permute(0, 2, 3, 1) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("padding", "flip", "cutout", "most"), [(4, True, 8, 21), (0, False, 0, 16)])
def test_a_batch_is_few_launches(padding, flip, cutout, most):
    """Draws, augmentation and normalisation; what is made once for all batches does not count."""
    normalization, generator = Normalization(torch.full((3,), 0.4), torch.full((3,), 0.2)), torch.Generator()
    augmentation, images = Augmentation(padding, flip, cutout), torch.zeros(20, 32, 32, dtype=torch.int32)

    def batch():
        draws = augmentation.draw(16, generator)
        normalization(augmentation(images, torch.arange(16), draws, normalization.fill))

    batch()
    with Launches() as launches:
        batch()
    assert launches.total - launches.of["arange"] <= most, launches.of


@pytest.mark.parametrize("side", [32, 48])
def test_draws_are_independent_and_uniform(side):
    draws = Augmentation(4, True, 8, side=side).draw(20_000, torch.Generator().manual_seed(0))
    for draw, low, high in zip(draws[:5], (-4, -4, 0, 0, 0), (4, 4, 1, side - 1, side - 1), strict=True):
        counts = torch.bincount(draw.long() - low, minlength=high - low + 1)
        share = 1 / (high - low + 1)
        assert len(counts) == high - low + 1
        assert (counts / 20_000 - share).abs().max() < 5 * (share / 20_000) ** 0.5
    assert torch.corrcoef(torch.stack([draw.double() for draw in draws[:5]])).fill_diagonal_(0).abs().max() < 0.04


def test_statistics_are_those_of_the_training_split(digits_dir):
    pictures = dataset.load("digits", digits_dir)
    train, _ = splits.split(pictures.train_labels, 0, 0, seed=0)
    normalization = Normalization.of(pictures.train_moments[train], torch.device("cpu"))
    values = pictures.train_images[train][..., :3].astype(np.float64) / 255
    assert np.allclose(normalization.mean, values.mean((0, 1, 2)), atol=1e-6)
    assert np.allclose(normalization.std, values.std((0, 1, 2)), atol=1e-6)


@pytest.fixture(scope="module")
def loaders(digits_dir):
    return dataset.training_batches(dataset.load("digits", digits_dir), torch.device("cpu"), train_size=0, val_size=0,
                                 batch_size=100, crop_padding=4, flip="auto", cutout=8, seed=0)


def test_an_epoch_depends_on_seed_and_epoch_alone(loaders):
    first, again, other = ([x for x, _ in loaders.train.epoch(e)] for e in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert len(first) == len(loaders.train) == 12 and loaders.train.images == 1200


def test_validation_is_complete_and_plain(loaders):
    batches = list(loaders.val.epoch(0))
    y = torch.cat([y for _, y in batches])
    assert len(batches) == len(loaders.val) and len(y) == loaders.val.images == 143
    assert torch.equal(y, loaders.val.labels[loaders.val.index])


def test_digits_are_not_mirrored_unless_asked(digits_dir):
    pictures = dataset.load("digits", digits_dir)
    sizes = dict(train_size=0, val_size=0, batch_size=100, crop_padding=4, cutout=8, seed=0)
    for flip, expected in (("auto", False), ("on", True), ("off", False)):
        loaders = dataset.training_batches(pictures, torch.device("cpu"), flip=flip, **sizes)
        assert loaders.train.augmentation.flip is expected
