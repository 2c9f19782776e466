"""The packed cache of a data set, and batches of it.

A data set is decoded once into a memory-mapped cache and from then on is a tensor that lives where the model is.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from files import read_json, write_json
from pictures import SIDE, folders
from pictures.augmentation import Augmentation, Draws, Normalization, words
from pictures.known import DATASETS, Split, mirrored_in
from pictures.split import everything, split

PLAIN = 256  # images a batch at most, where none is augmented
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

    @property
    def side(self) -> int:
        """S, of the images, in pixels."""
        return self.train_images.shape[1]


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


def _source(data: str, data_dir: Path) -> tuple[Callable[[], tuple[list[str], Split, Split]], str]:
    """What reads data set `data`, class names, training and test data, and the name of its cache."""
    if data in DATASETS:
        return lambda: DATASETS[data].read(data_dir), data
    root = Path(data)
    if not root.is_dir():
        raise ValueError(f"data = {data!r}: no such folder; allowed: {', '.join(DATASETS)}, a folder with train/ and "
                         "test/")
    files = folders.listing(root)
    return lambda: folders.read(root, files), f"{root.resolve().name}-{folders.fingerprint(root, files)}"


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


def _moments(images: np.ndarray) -> np.ndarray:
    """Sum and sum of squares of each image's channels, (N, 2, 3): the statistics of any subset follow at once."""
    moments = np.empty((len(images), 2, 3), np.int64)
    for start in range(0, len(images), 1000):  # in pieces, to keep memory flat
        piece = images[start : start + 1000, :, :, :3].reshape(-1, images.shape[1] ** 2, 3).astype(np.int64)
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
        return (self.ready(*drawn) for drawn in self.drawn(epoch, start))

    def drawn(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Draws | None]]:
        """What `ready` makes the same batches of: the numbers of their images, and the random choices."""
        generator = torch.Generator(self.pixels.device).manual_seed(self.seed * 100_003 + epoch)
        index = self.index
        if self.augmentation:
            index = index[torch.randperm(len(index), generator=generator, device=index.device)]
        for number, picked in enumerate(index.split(self.batch_size)[: len(self)]):
            draws = self.augmentation.draw(len(picked), generator) if self.augmentation else None
            if number >= start:
                yield picked[self.share], draws and draws.part(self.share)

    def ready(self, picked: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """One batch, by the same launches whatever was drawn."""
        fill = self.normalization.fill
        batch = self.augmentation(self.pixels, picked, draws, fill) if draws else self.pixels[picked]
        return self.normalization(batch), self.labels[picked]

    def plain(self, images: int) -> Iterator[Tensor]:
        """x alone of the first `images` of the split, which lie in stratified order, as they are, in even batches."""
        index = self.index[:images]
        for picked in index.tensor_split(-(-len(index) // PLAIN)):
            yield self.normalization(self.pixels[picked])


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
    normalization = Normalization.of(pictures.train_moments[train], device, pictures.side)
    mirrored = flip == "on" or (flip == "auto" and mirrored_in(pictures.name))
    crop_padding, cutout = (round(pixels_of_32 * pictures.side / SIDE) for pixels_of_32 in (crop_padding, cutout))
    augmentation = Augmentation(crop_padding, mirrored, cutout, augment, pictures.side)
    return Loaders(Batches(pixels, labels, train, normalization, batch_size, augmentation, seed, share),
                   None if val is None else Batches(pixels, labels, val, normalization, max(batch_size, PLAIN)))


def final_batches(pictures: Pictures, normalization: Normalization, batch_size: int) -> Batches:
    """The test images, in order; to be read once, when all choices are made."""
    device = normalization.mean.device
    pixels, labels = words(torch.from_numpy(pictures.test_images)), torch.from_numpy(pictures.test_labels)
    return Batches(pixels.to(device), labels.to(device), np.arange(len(labels)), normalization, max(batch_size, PLAIN))
