"""A user's own pictures, a folder or a table: listed, with a test set, and decoded."""

import dataclasses
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from files import atomic_write, read_json, write_json
from pictures.contents import Read, compact
from pictures.folders import in_folder
from pictures.grey import GreySeen, Values
from pictures.known import DATASETS
from pictures.listing import FORMS, File, Listing, alike, assert_usable, set_aside, shown, some
from pictures.reading import grey_range, most_workers, read_with_values
from pictures.sizes import automatic
from pictures.tables import in_table

SKIP = "--skip-broken goes on without them"


def listed(data: str, data_dir: Path, test_share: float, skip_broken: bool, drop_duplicates: bool = False,
           remember: bool = True) -> Listing:
    """What `data` holds; where it has no test set, one is set aside. ValueError names all that forbids its use.

    Which pictures are in that test set is kept in `data_dir`, so that it holds when others are added; if `remember`.
    """
    if not os.path.exists(data):
        raise ValueError(f"data = {data!r}: no such folder or file; allowed: {', '.join(DATASETS)}, {FORMS}")
    found = in_table(data, drop_duplicates) if os.path.isfile(data) else in_folder(data)
    if found.split_names and "train" not in found.split_names:
        raise ValueError(f"data = {shown(data)}: no row is of train, all are of {' and '.join(found.split_names)}")
    found = dataclasses.replace(found, notes=(*alike(found.classes), *found.notes))
    memory = data_dir / "test_sets" / f"{place_name(data)}-{test_share:g}.json"
    known = _remembered(memory)
    found = set_aside(found, test_share, known)
    assert_usable(found, skip_broken)
    if remember and found.test_share:
        _remember(memory, known, {file.path: file.split for file in found.of("train", "test")})
    return found


def _remembered(memory: Path) -> dict[str, str]:
    """The split of each picture, as it was when the test set was set aside; ValueError if that cannot be read."""
    if not memory.exists():
        return {}
    try:
        splits = read_json(memory)
        return {path: split for split in ("train", "test") for path in _paths(splits[split])}
    except (ValueError, KeyError, TypeError) as error:
        why = str(error).removeprefix(f"{memory}: ") if isinstance(error, ValueError) else "no lists of train and test"
        raise ValueError(f"{memory}: {why}; it keeps which pictures are the test set: delete it to choose these "
                         "anew") from None


def _paths(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(path, str) for path in value):
        raise TypeError
    return value


def _remember(memory: Path, known: dict[str, str], now: dict[str, str]) -> None:
    """Also what is gone by now, as it may come back; a file with nothing new is left as it is."""
    if now.items() - known.items():
        all_splits = known | now
        write_json(memory, {split: [path for path, its in all_splits.items() if its == split]
                            for split in ("train", "test")})


def place_name(data: str) -> str:
    """A short name for files about it, the same by whatever path it is named."""
    real = os.path.realpath(data)
    readable = re.sub(r"[^A-Za-z0-9_.-]", "_", os.path.basename(real))[:40]
    return f"{readable}-{hashlib.sha256(os.fsencode(real)).hexdigest()[:8]}"


# ---- decoding


def side_of(listing: Listing, image_size: str) -> tuple[int, str]:
    """To which its pictures are brought, and why it is no larger, where that is to be told; `image_size`: a setting."""
    paths = [listing.path(file) for file in listing.files]
    return automatic(paths, len(paths)) if image_size == "auto" else (int(image_size), "")


def read(listing: Listing, side: int, fit: str, skip_broken: bool, list_file: Path) -> Read:
    """All pictures that can be decoded. The others are listed in a file, and without `skip_broken` it is refused."""
    files, test_files = listing.of("train", "val"), listing.of("test")
    ranges = grey_range(listing.path(file) for file in listing.of("train"))
    how = {"side": side, "fit": fit, "grey_range": ranges}
    train, good, broken, values = _decoded(listing, files, "train", how)
    test, good_test, more, test_values = _decoded(listing, test_files, "test", how)
    if broken := [*listing.broken, *broken, *more]:
        with atomic_write(list_file, "wb") as file:
            file.write(b"".join(os.fsencode(line) + b"\n" for line in broken))
    refused = f"{told(listing, broken)}. {list_file} lists all; {SKIP}" if broken and not skip_broken else ""
    val = int(good[len(listing.of("train")) :].sum())
    paths = ([file.path for file in itertools.compress(*those)] for those in ((files, good), (test_files, good_test)))
    seen = GreySeen(ranges)
    for found in (*values[len(listing.of("train")) :], *test_values):
        seen.add(found)
    return Read(listing.classes, train, test, val, len(broken), *paths, ranges, seen.lines(), refused)


def told(listing: Listing, broken: Sequence[str]) -> str:
    of = len(listing.files) + len(listing.broken)
    lines = "; ".join(some(listing, broken))
    return f"data = {shown(' '.join(listing.data.split()))}: {len(broken)} of {of} pictures cannot be used: {lines}"


def _decoded(listing: Listing, files: list[File], split: str,
             how: Mapping[str, Any]) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, list[str],
                                              list[Values | None]]:
    """Images (N, side, side, 4) uint8 and labels (N,) of the good ones, which of the files these are, what is wrong
    with the others, and the grey values of each file, if they are of more than 8 bits. The pictures go straight into
    their places: memory is that of the result."""
    images = np.zeros((len(files), how["side"], how["side"], 4), np.uint8)
    values: list[Values | None] = [None] * len(files)

    def decode(number: int) -> str:
        try:
            images[number, :, :, :3], values[number] = read_with_values(listing.path(files[number]), **how)
            return ""
        except ValueError as error:
            return str(error)

    problems = _in_threads(decode, len(files), f"packing {shown(os.path.basename(listing.data))}/{split}")
    good = np.array([not problem for problem in problems], bool)
    labels = np.array(listing.labels(files), np.int64)
    return (compact(images, good), labels[good]), good, [problem for problem in problems if problem], values


def _in_threads(task: object, n: int, title: str) -> list[str]:
    with ThreadPoolExecutor(min(os.cpu_count() or 1, most_workers())) as pool:
        found: Iterable[str] = pool.map(task, range(n))
        return list(tqdm(found, title, n, unit=" pictures", delay=2, disable=None))
