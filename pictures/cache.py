"""The packed cache of a data set: arrays that are memory-mapped, written once, whole or not at all.

Beside them lie the digests of all its files, which are compared whenever it is opened: a damaged one is packed anew.
"""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from files import digest, no_room, read_json, read_object, write_json
from pictures import duplicates
from pictures.contents import Read, Refused
from pictures.summary import summary, warnings

FORMAT = 6  # of the cache; another number makes old caches be rebuilt
META, PATHS, DIGESTS = "meta.json", "paths.json", "digests.json"  # in it; PATHS: the files that were packed


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

    def digests(self, index: Iterable[int]) -> np.ndarray:
        """Of these training images, (N,) int64."""
        return duplicates.digests(self.train_images[number] for number in index)

    @property
    def side(self) -> int:
        """S, of the images, in pixels."""
        return self.train_images.shape[1]

    def summary(self, validation: int = 0) -> str:
        """A few lines about the data set; `validation`: images that are used for it, if that is known."""
        own = self.train_labels[: len(self.train_labels) - self.given_val]
        return summary(self.classes, own, self.test_size, validation or self.given_val, self.counts, self.notes)


TORN = re.compile(r"\.(.+)\.[a-z0-9_]{8}")  # a folder that was being packed
_ARRAYS = ("train_images", "train_labels", "train_moments", "test_images", "test_labels")


def pack(cache: Path, read: Read, drop_duplicates: bool, more: Mapping[str, Any] = MappingProxyType({}),
         table: Path | None = None) -> None:
    """Write the cache as a folder that appears whole, under its final name, or not at all. `more` counts to keep;
    `table`: where the files go that are there twice. ValueError if it is refused, with what is there twice too."""
    copies = duplicates.copies(read)
    if table:
        duplicates.write_table(read, copies, table)
    if read.refused:
        told = [] if drop_duplicates else warnings(duplicates.counted(read, copies))
        raise Refused([read.refused, *told, *([f"{table} lists them"] if told and table else [])])
    ranges = {"grey_range": dict(read.grey_range), "grey_unlike": list(read.grey_unlike)}
    ranges = {key: found for key, found in ranges.items() if found}
    read, counts = (duplicates.without(read, copies) if drop_duplicates else
                    (read, duplicates.counted(read, copies)))
    _assert_classes(read)
    remove_torn(cache)
    work = Path(tempfile.mkdtemp(dir=cache.parent, prefix=f".{cache.name}."))
    try:
        counts = ({"broken": read.broken} if read.broken else {}) | counts | ranges | more
        _write(work, read, cache)
        write_json(work / META, {
            "format": FORMAT, "checksum": _checksum(read), "classes": read.classes, "test_size": len(read.test[1]),
            "given_val": read.given_val, "counts": counts})
        if read.test_paths:
            write_json(work / PATHS, {"train": read.train_paths, "test": read.test_paths})
        write_json(work / DIGESTS, {file.name: digest(file) for file in sorted(work.iterdir())})
        if cache.exists():  # a damaged or outdated one
            shutil.rmtree(cache)
        os.replace(work, cache)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write(work: Path, read: Read, cache: Path) -> None:
    """Write all arrays; OSError tells what `cache` needs and there is."""
    (train, train_labels), (test, test_labels) = read.train, read.test
    arrays = (train, train_labels.astype(np.int64), _moments(train), test, test_labels.astype(np.int64))
    try:
        for key, array in zip(_ARRAYS, arrays, strict=True):
            with open(work / f"{key}.npy", "wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        shutil.rmtree(work)
        raise no_room(error, cache, sum(array.nbytes for array in arrays)) from None


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
    """The cache as memory maps, or None if there is none, or it is damaged, which is told."""
    if not cache.is_dir():
        return None
    if wrong := _wrong(cache):
        print(f"{cache}: {wrong}, packing the data set again", flush=True)
        return None
    meta = read_json(cache / META)
    # Mode c (copy on write) shares the pages of the file between processes and gives torch writable memory.
    arrays = {key: np.load(cache / f"{key}.npy", mmap_mode="c") for key in _ARRAYS}
    return Pictures(name, meta["checksum"], tuple(meta["classes"]), **arrays, folder=cache,
                    **{key: meta[key] for key in ("test_size", "given_val", "counts")})


def _wrong(cache: Path) -> str:
    """Why it cannot be used; reads all of it, 0.2 s for 60 000 pictures of 32x32."""
    if (read_object(cache / META) or {}).get("format", FORMAT) != FORMAT:
        return "a cache of another version"
    digests, needed = read_object(cache / DIGESTS) or {}, {META, *(f"{key}.npy" for key in _ARRAYS)}
    if not needed <= digests.keys() <= {*needed, PATHS}:
        return f"damaged ({DIGESTS})"
    damaged = [name for name, told in digests.items() if _digest(cache / name) != told]
    return f"damaged ({', '.join(damaged)})" if damaged else ""


def _digest(file: Path) -> str | None:
    """None for a file that cannot be read."""
    try:
        return digest(file)
    except OSError:
        return None


def remove_torn(cache: Path) -> None:
    """Remove what killed processes have left half packed, of this cache, whose lock is held, and of all others."""
    for work in cache.parent.glob(".*"):
        if work.is_dir() and (key := TORN.fullmatch(work.name)):
            with contextlib.suppress(Timeout, OSError), contextlib.ExitStack() as stack:
                if key[1] != cache.name:
                    stack.enter_context(FileLock(cache.parent / f"{key[1]}.lock", timeout=0))
                shutil.rmtree(work)
