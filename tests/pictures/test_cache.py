"""The packed cache: whole or not there, and as a fresh one would be."""

import errno
import multiprocessing
import os
import resource
import shutil

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from files import read_json, write_json
from own_pictures import make_classes, packed
from pictures import dataset


@pytest.fixture
def folder(tmp_path):
    for split, size in (("train", 6), ("test", 2)):
        make_classes(tmp_path / "set" / split, cat=size, dog=size)
    return tmp_path / "set"


def test_a_changed_file_is_seen(folder, tmp_path):
    before = dataset.load(str(folder), tmp_path / "cache")
    assert dataset.load(str(folder), tmp_path / "cache").checksum == before.checksum
    Image.new("RGB", (32, 32), "red").save(folder / "train/cat/0.png")
    assert dataset.load(str(folder), tmp_path / "cache").checksum != before.checksum


def test_full_disk_leaves_nothing_half_written(folder, tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))  # the nearest thing to a full disk
    try:
        with pytest.raises(OSError) as error:
            dataset.load(str(folder), tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert error.value.errno == errno.EFBIG or "requested and" in str(error.value)  # numpy reports a short write
    assert " needs 0.1 MB, " in str(error.value) and f"{tmp_path}/cache/cache has " in str(error.value)
    assert packed(tmp_path / "cache") == []


@pytest.mark.parametrize("name", ["train_images.npy", "test_labels.npy", "meta.json"])
def test_a_truncated_cache_is_rebuilt(folder, tmp_path, name, capsys):
    before = dataset.load(str(folder), tmp_path / "cache")
    [cache] = packed(tmp_path / "cache")
    os.truncate(cache / name, (cache / name).stat().st_size // 2)
    after = dataset.load(str(folder), tmp_path / "cache")
    assert "packing the data set again" in capsys.readouterr().out
    assert after.checksum == before.checksum and np.array_equal(after.train_labels, before.train_labels)


def load_and_report(folder, cache, results):
    results.put(dataset.load(str(folder), cache).checksum)


def test_a_cache_of_an_earlier_version_tells_what_a_fresh_one_does(tmp_path):
    """Format 4 was that of caches without the ranges of grey, and without the names of files that are there twice."""
    for name in ("a", "b", "c"):
        for label in ("cat", "dog"):
            (tmp_path / "set" / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((9, 9), 4000, np.uint16)).save(tmp_path / "set" / label / f"{name}.png")
    fresh = dataset.load(str(tmp_path / "set"), tmp_path)
    meta = read_json(fresh.folder / "meta.json")
    counts = {key: count for key, count in meta["counts"].items() if key in ("duplicates", "duplicates_across")}
    write_json(fresh.folder / "meta.json", {**meta, "format": 4, "counts": counts})
    again = dataset.load(str(tmp_path / "set"), tmp_path)
    assert "16-bit grey: values" in again.summary() and again.summary() == fresh.summary()
    assert again.checksum == fresh.checksum


def test_eight_processes_may_start_at_once(folder, tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=load_and_report, args=(folder, tmp_path / "cache", results)) for _ in range(8)]
    for process in processes:
        process.start()
    checksums = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 8
    assert checksums == {dataset.load(str(folder), tmp_path / "cache").checksum}
    assert len(packed(tmp_path / "cache")) == 1


def test_what_killed_processes_have_half_packed_is_removed(folder, tmp_path):
    """Of this data set and of others; never what a living process packs, which holds the lock."""
    cache = tmp_path / "cache" / "cache"
    packed_by = {name: cache / f".{name}.{'k' * 8}" for name in ("dead", "living")}
    for work in packed_by.values():
        work.mkdir(parents=True)
        (work / "train_images.npy").touch()
    (cache / ".settings").mkdir()
    with FileLock(cache / "living.lock"):
        first = dataset.load(str(folder), tmp_path / "cache").folder
    assert sorted(path.name for path in cache.glob(".*")) == [packed_by["living"].name, ".settings"]
    (cache / f".{first.name}.{'k' * 8}").mkdir()
    shutil.rmtree(first)
    dataset.load(str(folder), tmp_path / "cache")
    assert [path.name for path in cache.glob(".*")] == [".settings"]
