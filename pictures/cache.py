"""The packed cache of a data set: arrays that are memory-mapped, written once, whole or not at all."""

import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from files import read_json, read_object, write_json
from pictures.preprocess import GreyRange
from pictures.summary import summary

FORMAT = 4  # of the cache; another number makes old caches be rebuilt
PATHS = "paths.json"  # in it: the files that were packed
PAIRS = 2  # of equal files in two classes: those that are named


@dataclass(frozen=True)
class Pictures:
    """A packed data set. `*_images` (N, S, S, 4) uint8, `*_labels` (N,) int64, both memory maps."""

    name: str
    checksum: str  # sha256 of all pixels and labels
    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    train_moments: np.ndarray  # (N, 2, 3) int64: each image's sum and sum of squares of a channel
    test_images: np.ndarray
    test_labels: np.ndarray
    test_size: int = 0  # test images; to know it the test set need not be touched
    given_val: int = 0  # so many of the training images, the last, are a validation set that was given
    counts: Mapping[str, Any] = field(default_factory=dict)  # what was left out or set aside, and grey_range
    notes: tuple[str, ...] = ()
    folder: Path | None = None  # of the cache
    root: str = ""  # of the files that were packed

    def paths(self, split: str) -> list[str]:
        """The files of the images of train or test, in their order; none of a data set that has a name."""
        found = (read_object(self.folder / PATHS) or {}) if self.folder else {}
        return [os.path.join(self.root, path) for path in found.get(split, ())]

    @property
    def side(self) -> int:
        """S, of the images, in pixels."""
        return self.train_images.shape[1]

    def summary(self, validation: int = 0) -> str:
        """A few lines about the data set; `validation`: images that are used for it, if that is known."""
        own = self.train_labels[: len(self.train_labels) - self.given_val]
        return summary(self.classes, own, self.test_size, validation or self.given_val, self.counts, self.notes)


class Read(NamedTuple):
    """A data set as it was read. Of a split: images (N, S, S, 4) uint8, labels (N,)."""

    classes: list[str]
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    given_val: int = 0  # as in Pictures
    broken: int = 0  # pictures that could not be read, and are not among these
    train_paths: Sequence[str] = ()  # below one root; none where there are no files
    test_paths: Sequence[str] = ()
    grey_range: GreyRange = MappingProxyType({})  # of values of more than 8 bits, found in the training pictures
    grey_unlike: Sequence[str] = ()  # what is told of other pictures that do not keep to it


_ARRAYS = ("train_images", "train_labels", "train_moments", "test_images", "test_labels")


def pack(cache: Path, read: Read, drop_duplicates: bool, more: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Write the cache as a folder that appears whole, under its final name, or not at all. `more` counts to keep."""
    ranges = {"grey_range": dict(read.grey_range), "grey_unlike": list(read.grey_unlike)}
    ranges = {key: found for key, found in ranges.items() if found}
    read, counts = _without_duplicates(read) if drop_duplicates else (read, _count_duplicates(read))
    _assert_classes(read)
    work = Path(tempfile.mkdtemp(dir=cache.parent, prefix=f".{cache.name}."))
    try:
        counts = ({"broken": read.broken} if read.broken else {}) | counts | ranges | more
        write_json(work / "meta.json", {
            "format": FORMAT, "checksum": _checksum(read), "classes": read.classes, "sizes": _write(work, read),
            "test_size": len(read.test[1]), "given_val": read.given_val, "counts": counts})
        if read.test_paths:
            write_json(work / PATHS, {"train": read.train_paths, "test": read.test_paths})
        if cache.exists():  # a truncated or outdated one
            shutil.rmtree(cache)
        os.replace(work, cache)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write(work: Path, read: Read) -> dict[str, int]:
    """Write all arrays; their sizes in bytes."""
    (train, train_labels), (test, test_labels) = read.train, read.test
    arrays = (train, train_labels.astype(np.int64), _moments(train), test, test_labels.astype(np.int64))
    for key, array in zip(_ARRAYS, arrays, strict=True):
        with open(work / f"{key}.npy", "wb") as file:
            np.save(file, array)
            file.flush()
            os.fsync(file.fileno())
    return {key: (work / f"{key}.npy").stat().st_size for key in _ARRAYS}


def _checksum(read: Read) -> str:
    checksum = hashlib.sha256()
    for array in (*read.train, *read.test):
        checksum.update(np.ascontiguousarray(array))
    if read.given_val:
        checksum.update(f"validation {read.given_val}".encode())
    return checksum.hexdigest()


def _moments(images: np.ndarray) -> np.ndarray:
    """Sum and sum of squares of each image's channels, (N, 2, 3): the statistics of any subset follow at once."""
    moments = np.empty((len(images), 2, 3), np.int64)
    for start in range(0, len(images), 1000):  # in pieces, to keep memory flat
        piece = images[start : start + 1000, :, :, :3].reshape(-1, images.shape[1] ** 2, 3).astype(np.int64)
        moments[start : start + 1000, 0], moments[start : start + 1000, 1] = piece.sum(1), (piece**2).sum(1)
    return moments


def _assert_classes(read: Read) -> None:
    """ValueError names the classes of which a split has nothing left."""
    own = len(read.train[1]) - read.given_val
    splits = {"training": read.train[1][:own], "validation": read.train[1][own:], "test": read.test[1]}
    lost = [f"class {name!r} has no picture left for {split}" for split, labels in splits.items()
            if len(labels) or split != "validation"
            for number, name in enumerate(read.classes) if number not in labels]
    if lost:
        raise ValueError(f"of what can be used {'; '.join(lost)}")


def open_cache(cache: Path, name: str) -> Pictures | None:
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
    return Pictures(name, meta["checksum"], tuple(meta["classes"]), **arrays, folder=cache,
                    **{key: meta[key] for key in ("test_size", "given_val", "counts")})


# ---- pictures that there are twice, by their pixels as they are packed


class _Copies(NamedTuple):
    """Of all images of a data set, in the order test, validation, training."""

    first: np.ndarray  # (N,) the number of the first one that equals it
    again: np.ndarray  # (N,) bool: it equals an earlier one
    across: np.ndarray  # (N,) bool: and that one is in another split
    differs: np.ndarray  # (N,) bool: and that one is of another class
    conflict: np.ndarray  # (N,) bool: among those that equal it are two classes


def _copies(read: Read) -> _Copies:
    own = len(read.train[1]) - read.given_val
    images, labels = (itertools.chain(test, train[own:], train[:own])
                      for test, train in zip(read.test, read.train, strict=True))
    seen: dict[bytes, int] = {}
    first = np.array([seen.setdefault(hashlib.blake2b(image, digest_size=16).digest(), number)
                      for number, image in enumerate(images)], int)
    classes = np.array(list(labels), int)
    split = np.repeat(range(3), [len(read.test[1]), read.given_val, own])
    differs = classes != classes[first]
    return _Copies(first, first != np.arange(len(first)), split != split[first], differs,
                   np.isin(first, first[differs]))


def _count_duplicates(read: Read) -> dict[str, Any]:
    """`duplicates`: pictures that equal an earlier one, in the order test, validation, training; `duplicates_across`:
    those of them that are in another split than that one; `two_classes`: pictures of which copies are in two classes,
    and files that show it."""
    copies = _copies(read)
    found = {"duplicates": int(copies.again.sum()), "duplicates_across": int(copies.across.sum()),
             "two_classes": len(np.unique(copies.first[copies.differs])), "two_classes_files": _conflicts(read, copies)}
    return {key: count for key, count in found.items() if count}


def _conflicts(read: Read, copies: _Copies) -> list[list[str]]:
    """Two equal files of two classes, of the first pictures that have such; none of a data set without files."""
    own = len(read.train[1]) - read.given_val
    paths = [*read.test_paths, *read.train_paths[own:], *read.train_paths[:own]]
    numbers, places = np.unique(copies.first[copies.differs], return_index=True)
    others = np.flatnonzero(copies.differs)[places]
    return [[paths[one], paths[other]] for one, other in zip(numbers[:PAIRS], others[:PAIRS], strict=True) if paths]


def _without_duplicates(read: Read) -> tuple[Read, dict[str, Any]]:
    """Keeps the first one, in the same order: the test set is never smaller for what is in the training data. Of copies
    in two classes none is kept: which class is right is not known."""
    copies = _copies(read)
    left_out = copies.again | copies.conflict
    if not left_out.any():
        return read, {}
    test, val, train = np.split(~left_out, [len(read.test[1]), len(read.test[1]) + read.given_val])
    kept = np.concatenate([train, val]), test
    parts = ((compact(images, mask), labels[mask])
             for (images, labels), mask in zip((read.train, read.test), kept, strict=True))
    paths = (list(itertools.compress(*those)) for those in zip((read.train_paths, read.test_paths), kept, strict=True))
    found = {"duplicates_dropped": int((copies.again & ~copies.conflict).sum()),
             "two_classes_dropped": int(copies.conflict.sum()), "two_classes_files": _conflicts(read, copies)}
    return (Read(read.classes, *parts, int(val.sum()), read.broken, *paths),
            {key: count for key, count in found.items() if count})


def compact(images: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Those images that are kept, moved to the front of the same memory; a copy would double it."""
    if kept.all():
        return images
    for to, number in enumerate(np.flatnonzero(kept)):
        images[to] = images[number]
    return images[: kept.sum()]
