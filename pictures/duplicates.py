"""Pictures that a data set holds twice or more: equal in each pixel, as they are packed."""

import csv
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from files import atomic_write
from pictures.contents import Read, compact
from pictures.listing import shown

PAIRS = 2  # of equal files: those that are named on the screen
SPLITS = ("test", "validation", "training")  # the first of equal pictures, which is kept, in this order


class Copies(NamedTuple):
    """Of all images of a data set, in the order test, validation, training."""

    split: np.ndarray  # (N,) number in SPLITS
    first: np.ndarray  # (N,) the number of the first one that equals it
    again: np.ndarray  # (N,) bool: it equals an earlier one
    across: np.ndarray  # (N,) bool: and that one is in another split
    differs: np.ndarray  # (N,) bool: and that one is of another class
    conflict: np.ndarray  # (N,) bool: among those that equal it are two classes


def digests(images: Iterable[np.ndarray]) -> np.ndarray:
    """(N,) int64 of images (S, S, 4) uint8: the same for equal ones, and, of N others, for a pair in 2^64."""
    return np.array([int.from_bytes(hashlib.blake2b(image, digest_size=8).digest(), "little", signed=True)
                     for image in images], np.int64)


def copies(read: Read) -> Copies:
    own = len(read.train[1]) - read.given_val
    images, labels = (itertools.chain(test, train[own:], train[:own])
                      for test, train in zip(read.test, read.train, strict=True))
    _, index, inverse = np.unique(digests(images), return_index=True, return_inverse=True)
    first, classes = index[inverse], np.array(list(labels), int)
    split = np.repeat(range(3), [len(read.test[1]), read.given_val, own])
    differs = classes != classes[first]
    return Copies(split, first, first != np.arange(len(first)), split != split[first], differs,
                  np.isin(first, first[differs]))


def counted(read: Read, found: Copies) -> dict[str, Any]:
    """`two_classes`: pictures of which copies are in two classes; of the others, that equal an earlier one in the
    order test, validation, training: `duplicates_across`, those in another split than that one, and `duplicates`, in
    the same. None counts twice. Of each kind some files, under its name and `_files`."""
    which = {"duplicates": found.again & ~found.across & ~found.conflict,
             "duplicates_across": found.across & ~found.conflict, "two_classes": found.differs}
    counts = {"duplicates": int(which["duplicates"].sum()), "duplicates_across": int(which["duplicates_across"].sum()),
              "two_classes": len(np.unique(found.first[found.differs])),
              **{f"{key}_files": _pairs(read, found, mask) for key, mask in which.items()}}
    return {key: count for key, count in counts.items() if count}


def without(read: Read, found: Copies) -> tuple[Read, dict[str, Any]]:
    """Keeps the first one, in the same order: the test set is never smaller for what is in the training data. Of copies
    in two classes none is kept: which class is right is not known."""
    left_out = found.again | found.conflict
    if not left_out.any():
        return read, {}
    test, val, train = np.split(~left_out, [len(read.test[1]), len(read.test[1]) + read.given_val])
    kept = np.concatenate([train, val]), test
    parts = ((compact(images, mask), labels[mask])
             for (images, labels), mask in zip((read.train, read.test), kept, strict=True))
    paths = (list(itertools.compress(*those)) for those in zip((read.train_paths, read.test_paths), kept, strict=True))
    counts = {"duplicates_dropped": int((found.again & ~found.conflict).sum()),
              "two_classes_dropped": int(found.conflict.sum()), "two_classes_files": _pairs(read, found, found.differs)}
    names = ("train", "test", "given_val", "train_paths", "test_paths")
    return (read._replace(**dict(zip(names, (*parts, int(val.sum()), *paths), strict=True))),
            {key: count for key, count in counts.items() if count})


# ---- their files


def write_table(read: Read, found: Copies, file: Path) -> None:
    """All files of which there are two or more, equal ones below each other; nothing if there are none."""
    paths = _paths(read)
    numbers = sorted(np.flatnonzero(np.isin(found.first, found.first[found.again])), key=lambda n: (found.first[n], n))
    if not paths or not numbers:
        return
    with atomic_write(file) as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(("picture", "split", "path"))
        for picture, (_, equal) in enumerate(itertools.groupby(numbers, lambda number: found.first[number]), 1):
            rows.writerows((picture, SPLITS[found.split[number]], shown(paths[number])) for number in equal)


def _paths(read: Read) -> Sequence[str]:
    """In the order of Copies; none of a data set without files."""
    own = len(read.train[1]) - read.given_val
    return [*read.test_paths, *read.train_paths[own:], *read.train_paths[:own]]


def _pairs(read: Read, found: Copies, which: np.ndarray) -> list[list[str]]:
    """Two equal files, of the first pictures that have such among `which`."""
    paths = _paths(read)
    numbers, places = np.unique(found.first[which], return_index=True)
    others = np.flatnonzero(which)[places]
    return [[paths[one], paths[other]] for one, other in zip(numbers[:PAIRS], others[:PAIRS], strict=True) if paths]
