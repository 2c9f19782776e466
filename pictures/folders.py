"""What a folder of pictures is: train/<class>/* and test/<class>/* for a data set, anything below for predictions."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pictures import SIDE
from pictures.decoding import read_picture

Listing = dict[str, list[os.DirEntry]]  # train and test -> their files


def listing(root: Path) -> Listing:
    """The files of root/train/<class>/* and root/test/<class>/*, sorted; hidden files do not count."""
    found = {}
    for split in ("train", "test"):
        if not (root / split).is_dir():
            raise ValueError(f"data = {root}: no folder {split}/; wanted: train/<class>/* and test/<class>/*")
        files = [file for folder in os.scandir(root / split) if folder.is_dir() and folder.name[0] != "."
                 for file in os.scandir(folder) if file.is_file() and file.name[0] != "."]
        found[split] = sorted(files, key=lambda file: file.path)
    train, test = ({_class_of(file) for file in files} for files in found.values())
    if len(train) < 2:
        raise ValueError(f"data = {root}: {len(train)} classes with pictures in train/; at least 2 are needed")
    if train != test:
        lacking, name = ("test", min(train - test)) if train - test else ("train", min(test - train))
        raise ValueError(f"data = {root}: class {name!r} has no pictures in {lacking}/; both need the same classes")
    return found


def _class_of(file: os.DirEntry) -> str:
    return os.path.basename(os.path.dirname(file.path))


def fingerprint(root: Path, files: Listing) -> str:
    """Another one as soon as a file is changed, added or removed."""
    facts = [(f.path, f.stat().st_size, f.stat().st_mtime_ns) for part in files.values() for f in part]
    return hashlib.sha256(repr((str(root.resolve()), facts)).encode()).hexdigest()[:16]


def read(root: Path, listing: Listing) -> tuple[list[str], tuple, tuple]:
    """Class names, then images (N, 32, 32, 4) uint8 and labels (N,) of train and of test."""
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


def find_pictures(root: str) -> Iterator[str]:
    """`root` itself if it is a file, else all files below it in the order of their names; hidden ones do not count.

    Only one folder a level is held in memory. Links to folders are not followed: they may lead back up.
    """
    if not os.path.isdir(root):
        yield root
        return
    with os.scandir(root) as entries:
        listing = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
    for entry in listing:
        if entry.is_dir(follow_symlinks=False):
            yield from find_pictures(entry.path)
        elif entry.is_file():
            yield entry.path
