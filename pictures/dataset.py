"""Pictures: data sets, packed cache, stratified split, and loaders.

A data set is decoded once into a memory-mapped cache and from then on is a tensor that lives where the model is.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from files import read_json, write_json
from pictures.augmentation import SIDE, Augmentation, Draws, Normalization, words
from pictures.decoding import read_picture

FORMAT = 2  # of the cache; another number makes old caches be rebuilt


@dataclass(frozen=True)
class Pictures:
    """A packed data set. `*_images` (N, 32, 32, 4) uint8, `*_labels` (N,) int64, both memory maps."""

    name: str
    checksum: str  # sha256 of all pixels and labels
    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    train_moments: np.ndarray  # (N, 2, 3) int64: each image's sum and sum of squares of a channel
    test_images: np.ndarray
    test_labels: np.ndarray


# ---- from a data set to the packed cache


def load(data: str, data_dir: str | os.PathLike) -> Pictures:
    """Open data set `data` (cifar10, digits or a folder), packing it first if there is no whole cache of it.

    Safe when several processes start at once: one packs, the others wait. Raises ValueError with one line that
    names the file or folder at fault, OSError if `data_dir` cannot be written or the download fails.
    """
    source, key = _source(data, Path(data_dir))
    cache = Path(data_dir) / "cache" / key
    pictures = _open_cache(cache)
    if pictures is None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{cache}.lock"):
            pictures = _open_cache(cache)  # another process may have packed it while we waited
            if pictures is None:
                _pack(cache, data, *source())
                pictures = _open_cache(cache)
                assert pictures is not None, cache
    return pictures


Split = tuple[np.ndarray, np.ndarray]  # images (N, 32, 32, 4) uint8 with an empty fourth channel, labels (N,)
Source = Callable[[], tuple[list[str], Split, Split]]  # class names, train, test


def _source(data: str, data_dir: Path) -> tuple[Source, str]:
    """What reads data set `data`, and the name of its cache."""
    if data == "cifar10":
        return lambda: _read_cifar10(data_dir), "cifar10"
    if data == "digits":
        return _read_digits, "digits"
    root = Path(data)
    if not root.is_dir():
        raise ValueError(f"data = {data!r}: no such folder; allowed: cifar10, digits, a folder with train/ and test/")
    listing = _list_folder(root)
    # A changed, added or removed file makes another key, hence a fresh cache.
    files = [(f.path, f.stat().st_size, f.stat().st_mtime_ns) for files in listing.values() for f in files]
    digest = hashlib.sha256(repr((str(root.resolve()), files)).encode()).hexdigest()
    return lambda: _read_folder(root, listing), f"{root.resolve().name}-{digest[:16]}"


def _read_cifar10(data_dir: Path) -> tuple[list[str], Split, Split]:
    from torchvision.datasets import CIFAR10  # slow to import, and needed only to pack

    try:
        train, test = (CIFAR10(data_dir, train=train, download=True) for train in (True, False))
    except RuntimeError as error:  # a checksum that does not match
        raise ValueError(f"data = cifar10: {error}") from None
    except OSError as error:
        raise OSError(f"data = cifar10: the download failed ({error}); offline, put cifar-10-python.tar.gz into "
                      f"{data_dir} or give a folder of pictures as data") from None
    return train.classes, *((_four_channels(part.data), np.array(part.targets)) for part in (train, test))


def _read_digits() -> tuple[list[str], Split, Split]:
    """scikit-learn's 1797 scanned digits of 8x8 pixels, enlarged; every fifth or so is held out for the test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = [Image.fromarray((image * (255 / 16)).astype(np.uint8)) for image in digits.images]
    rgb = [image.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB") for image in grey]
    images, labels = _four_channels(np.stack([np.asarray(image) for image in rgb])), digits.target
    order = stratified_order(labels, seed=0)
    test, train = np.sort(order[:360]), np.sort(order[360:])
    return [str(name) for name in digits.target_names], (images[train], labels[train]), (images[test], labels[test])


def _list_folder(root: Path) -> dict[str, list[os.DirEntry]]:
    """The files of root/train/<class>/* and root/test/<class>/*, sorted; hidden files do not count."""
    listing = {}
    for split in ("train", "test"):
        if not (root / split).is_dir():
            raise ValueError(f"data = {root}: no folder {split}/; wanted: train/<class>/* and test/<class>/*")
        files = [file for folder in os.scandir(root / split) if folder.is_dir() and folder.name[0] != "."
                 for file in os.scandir(folder) if file.is_file() and file.name[0] != "."]
        listing[split] = sorted(files, key=lambda file: file.path)
    train, test = ({_class_of(file) for file in files} for files in listing.values())
    if len(train) < 2:
        raise ValueError(f"data = {root}: {len(train)} classes with pictures in train/; at least 2 are needed")
    if train != test:
        lacking, name = ("test", min(train - test)) if train - test else ("train", min(test - train))
        raise ValueError(f"data = {root}: class {name!r} has no pictures in {lacking}/; both need the same classes")
    return listing


def _class_of(file: os.DirEntry) -> str:
    return os.path.basename(os.path.dirname(file.path))


def _read_folder(root: Path, listing: dict[str, list[os.DirEntry]]) -> tuple[list[str], Split, Split]:
    classes = sorted({_class_of(file) for file in listing["train"]})
    splits = []
    for split, files in listing.items():
        images = np.zeros((len(files), SIDE, SIDE, 4), np.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            read = pool.map(lambda file: read_picture(file.path, SIDE), files)
            bar = tqdm(read, f"packing {root.name}/{split}", len(files), unit=" pictures", delay=2, disable=None)
            for i, image in enumerate(bar):
                images[i, :, :, :3] = image
        splits.append((images, np.array([classes.index(_class_of(file)) for file in files])))
    return classes, *splits


_ARRAYS = ("train_images", "train_labels", "train_moments", "test_images", "test_labels")


def _pack(cache: Path, name: str, classes: list[str], train: Split, test: Split) -> None:
    """Write the cache as a folder that appears whole, under its final name, or not at all."""
    work = Path(tempfile.mkdtemp(dir=cache.parent, prefix=f".{cache.name}."))
    try:
        checksum = hashlib.sha256()
        for array in (*train, *test):
            checksum.update(np.ascontiguousarray(array))
        arrays = (train[0], train[1].astype(np.int64), _moments(train[0]), test[0], test[1].astype(np.int64))
        for key, array in zip(_ARRAYS, arrays, strict=True):
            with open(work / f"{key}.npy", "wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
        sizes = {key: (work / f"{key}.npy").stat().st_size for key in _ARRAYS}
        meta = {"format": FORMAT, "name": name, "checksum": checksum.hexdigest(), "classes": classes, "sizes": sizes}
        write_json(work / "meta.json", meta)
        if cache.exists():  # a truncated or outdated one
            shutil.rmtree(cache)
        os.replace(work, cache)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _four_channels(images: np.ndarray) -> np.ndarray:
    """(N, 32, 32, 3) -> (N, 32, 32, 4): one 32-bit word a pixel."""
    return np.pad(images, ((0, 0), (0, 0), (0, 0), (0, 1)))


def _moments(images: np.ndarray) -> np.ndarray:
    """Sum and sum of squares of each image's channels, (N, 2, 3): the statistics of any subset follow at once."""
    moments = np.empty((len(images), 2, 3), np.int64)
    for start in range(0, len(images), 1000):  # in pieces, to keep memory flat
        piece = images[start : start + 1000, :, :, :3].reshape(-1, SIDE * SIDE, 3).astype(np.int64)
        moments[start : start + 1000, 0], moments[start : start + 1000, 1] = piece.sum(1), (piece**2).sum(1)
    return moments


def _open_cache(cache: Path) -> Pictures | None:
    """The cache as memory maps, or None if there is none or it is not whole."""
    if not cache.is_dir():
        return None
    try:
        meta = read_json(cache / "meta.json")
        whole = meta["format"] == FORMAT and all(
            (cache / f"{key}.npy").stat().st_size == size for key, size in meta["sizes"].items())
    except (ValueError, KeyError, TypeError, OSError):
        whole = False
    if not whole:
        print(f"{cache}: truncated or outdated cache, packing the data set again")
        return None
    # Mode c (copy on write) shares the pages of the file between processes and gives torch writable memory.
    arrays = {key: np.load(cache / f"{key}.npy", mmap_mode="c") for key in _ARRAYS}
    return Pictures(meta["name"], meta["checksum"], tuple(meta["classes"]), **arrays)


# ---- split


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random order of all indices in which every stretch holds the classes in their proportions (to within one).

    Each image gets a random rank within its class; images are sorted by rank over class size.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffled[np.argsort(rank[shuffled], kind="stable")]


def split(labels: np.ndarray, train_size: int, val_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint, stratified indices (train, validation) into the training data; sizes as in TrainingConfig."""
    n, classes = len(labels), len(np.unique(labels))
    val_size = val_size or n // 10
    train_size = train_size or n - val_size
    for key, size in (("val_size", val_size), ("train_size", train_size)):
        if size < classes:
            raise ValueError(f"{key} = {size}: must be at least {classes}, one image a class")
    if val_size + train_size > n:
        raise ValueError(f"train_size = {train_size} and val_size = {val_size}: at most {n} together")
    order = stratified_order(labels, seed)
    return order[val_size : val_size + train_size], order[:val_size]


def everything(labels: np.ndarray, train_size: int, seed: int) -> np.ndarray:
    """Stratified indices of all training data, or of `train_size` of them, without validation."""
    if train_size > len(labels):
        raise ValueError(f"train_size = {train_size}: at most {len(labels)}, as many as there are")
    return stratified_order(labels, seed)[: train_size or len(labels)]


# ---- batches


class Batches:
    """Ready batches of one split: x (B, 3, 32, 32) float32 channels_last, normalised, and y (B,), on the device.

    `batches.epoch(e, start)` depends on the seed and e alone, so that a run can go on from any batch of any epoch.
    With an augmentation the images come shuffled and a last, smaller batch is left out (one shape for all steps);
    without one they come in order and complete. `share`: the part of every batch that is wanted.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, index: np.ndarray, normalization: Normalization,
                 batch_size: int, augmentation: Augmentation | None = None, seed: int = 0,
                 share: slice = slice(None)) -> None:
        self.pixels, self.labels, self.normalization = pixels, labels, normalization
        self.index = torch.from_numpy(index).to(pixels.device)
        self.batch_size = min(batch_size, len(index))
        self.augmentation, self.seed, self.share = augmentation, seed, share

    @property
    def images(self) -> int:
        """Images an epoch."""
        return len(self) * self.batch_size if self.augmentation else len(self.index)

    def __len__(self) -> int:
        """Batches an epoch."""
        n = len(self.index)
        return n // self.batch_size if self.augmentation else -(-n // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator(self.pixels.device).manual_seed(self.seed * 100_003 + epoch)
        index = self.index
        if self.augmentation:
            index = index[torch.randperm(len(index), generator=generator, device=index.device)]
        for number, picked in enumerate(index.split(self.batch_size)[: len(self)]):
            draws = self.augmentation.draw(len(picked), generator) if self.augmentation else None
            if number >= start:
                yield self._batch(picked[self.share], draws and draws.part(self.share))

    def _batch(self, picked: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        fill = self.normalization.fill
        batch = self.augmentation(self.pixels, picked, draws, fill) if draws else self.pixels[picked]
        return self.normalization(batch), self.labels[picked]


class Loaders(NamedTuple):
    """Training and validation batches over one copy of the training images."""

    train: Batches
    val: Batches | None


def training_batches(pictures: Pictures, device: torch.device, *, train_size: int, val_size: int, batch_size: int,
                     crop_padding: int, flip: str, cutout: int, seed: int, augment: str = "basic",
                     all_data: bool = False, share: slice = slice(None)) -> Loaders:
    """Split the training images and make their loaders; the arguments are settings of TrainingConfig and RetrainConfig.

    With `all_data` none are set aside for validation. `share`: the part of each training batch for this process.
    """
    if all_data:
        train, val = everything(pictures.train_labels, train_size, seed), None
    else:
        train, val = split(pictures.train_labels, train_size, val_size, seed)
    pixels = words(torch.from_numpy(pictures.train_images)).to(device)
    labels = torch.from_numpy(pictures.train_labels).to(device)
    normalization = Normalization.of(pictures.train_moments[train], device)
    mirrored = flip == "on" or (flip == "auto" and pictures.name != "digits")  # a mirrored digit is no digit
    augmentation = Augmentation(crop_padding, mirrored, cutout, augment)
    return Loaders(Batches(pixels, labels, train, normalization, batch_size, augmentation, seed, share),
                   None if val is None else Batches(pixels, labels, val, normalization, max(batch_size, 256)))


def final_batches(pictures: Pictures, normalization: Normalization, batch_size: int) -> Batches:
    """The test images, in order; to be read once, when all choices are made."""
    device = normalization.mean.device
    pixels, labels = words(torch.from_numpy(pictures.test_images)), torch.from_numpy(pictures.test_labels)
    return Batches(pixels.to(device), labels.to(device), np.arange(len(labels)), normalization, max(batch_size, 256))
