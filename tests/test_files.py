"""Files: what is wrong with JSON, and where; what a kill leaves; what a full disk and a folder to read alone say."""

import contextlib
import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from artifacts import tensor_file
from artifacts.run_folder import RunFolder
from config import HpoConfig
from conftest import ROOT
from files import atomic_write, read_json, read_object, remove_torn, write_json


def test_json_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    for number, mark in enumerate((b"", b"\xef\xbb\xbf")):
        (tmp_path / f"{number}.json").write_bytes(mark + '{"ä": [1e-3, true]}'.encode())
        assert read_json(tmp_path / f"{number}.json") == {"ä": [0.001, True]}


@pytest.mark.parametrize(("content", "words"), [
    ('{\n  "a": 1,\n}', "not valid JSON (line 3, column 1: a comma before })"),
    ("[1, 2,]", "not valid JSON (line 1, column 7: a comma before ])"),
    ('{\n  "a": 1  // why\n}', "not valid JSON (line 2, column 11: it has no comments)"),
    ('# why\n{"a": 1}', "not valid JSON (line 1, column 1: it has no comments)"),
    ("{'a': 1}", "not valid JSON (line 1, column 2: Expecting property name enclosed in double quotes, found "),
    ('{"a": None}', "not valid JSON (line 1, column 7: Expecting value, found 'None}')"),
    ('{"a": 1', "not valid JSON (line 1, column 8: it ends too early)"),
    ("", "not valid JSON (line 1, column 1: it is empty)"),
    ('{"a": 1, "b": {"c": 1, "c": 2}}', "not valid JSON (key 'c' stands twice)"),
    (b'{"a": "\xe9"}', "not valid JSON (byte 8 is not UTF-8)"), ("[" * 100_000, "not valid JSON (nested too deeply)")],
    ids=lambda value: ascii(value)[:30])
def test_broken_json_says_what_and_where(tmp_path: Path, content: str | bytes, words: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as error:
        read_json(file)
    assert str(error.value).startswith(f"{file}: ") and words in str(error.value) and "\n" not in str(error.value)
    assert not isinstance(error.value, json.JSONDecodeError) and read_object(file) is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        read_json(tmp_path / "a.json")


# ---- what a kill leaves

WRITER = """
import sys
from files import atomic_write
with atomic_write(sys.argv[1]) as file:
    file.write("half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def writer(path: Path) -> Iterator[subprocess.Popen]:
    """A process in the middle of writing `path`."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, path], cwd=ROOT, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "writing\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*"))


def test_what_a_killed_process_has_half_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".DS_Store", ".settings", ".lock", ".vimrc.part", ".hidden.settings"):
        (tmp_path / name).touch()
    others = hidden(tmp_path)
    with writer(tmp_path / "metrics.jsonl") as dead, writer(tmp_path / "checkpoint.pt") as living:
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert len(hidden(tmp_path)) == len(others) + 2
        remove_torn(tmp_path)
        [left] = set(hidden(tmp_path)) - set(others)
        assert left.startswith(".checkpoint.pt.")
        living.communicate("")
        assert living.returncode == 0 and (tmp_path / "checkpoint.pt").read_text() == "half"
    remove_torn(tmp_path)
    assert hidden(tmp_path) == others


def test_a_start_of_a_run_removes_what_earlier_versions_and_kills_have_left(tmp_path: Path) -> None:
    for name in (".metrics.jsonl.x3k9_abc", ".checkpoint.pt.0a1b2c3d", ".model.pt.0a1b2c3d.part"):
        (tmp_path / name).write_text("half")
    RunFolder(tmp_path, HpoConfig())
    assert hidden(tmp_path) == []


def test_a_writer_whose_file_is_removed_before_it_is_locked_makes_another(tmp_path: Path, monkeypatch) -> None:
    """The one moment in which it could be taken for one that nobody writes."""
    lock, calls = fcntl.flock, []

    def late(handle: int, how: int) -> None:
        if not calls:
            calls.append(remove_torn)
            remove_torn(tmp_path)
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    write_json(tmp_path / "a.json", 1)
    assert calls and read_json(tmp_path / "a.json") == 1 and hidden(tmp_path) == []


# ---- no room, or not to be written


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system may be mounted here, which takes root; the tests with an OSError of their own ran")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_names_the_file_and_what_there_is(small_disk: Path) -> None:
    with pytest.raises(OSError) as error, atomic_write(small_disk / "runs" / "a.csv") as file:
        file.write("x" * 1_000_000)
    told = str(error.value)
    assert error.value.errno == errno.ENOSPC and "Errno" not in told
    assert re.fullmatch(rf"No space left on device: {small_disk}/runs/a.csv needs more than the 0\.3 MB that "
                        rf"{small_disk}/runs has", told), told
    assert not list((small_disk / "runs").iterdir())


def test_tensors_tell_how_much_they_need(small_disk: Path) -> None:
    with pytest.raises(OSError, match=rf"^No space left on device: {small_disk}/c.pt needs 4\.0 MB, {small_disk} has "
                       r"0\.3 MB$"):
        tensor_file.write(small_disk / "c.pt", {"a": torch.zeros(1_000_000)})
    assert not list(small_disk.iterdir())


@pytest.mark.parametrize(("number", "words"), [
    (errno.ENOSPC, r"No space left on device: \S+/a.json needs more than the [\d.]+ MB that \S+ has"),
    (errno.EDQUOT, r"Disk quota exceeded: \S+/a.json needs more than the 0\.0 MB that \S+ has")])
def test_no_room_names_file_and_folder(tmp_path: Path, monkeypatch, number: int, words: str) -> None:
    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as error:
        write_json(tmp_path / "a.json", 1)
    assert re.fullmatch(words, str(error.value)) and error.value.errno == number and not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch, number: int) -> None:
    """By an error of our own, as root may write everywhere."""
    def refused(**where: object) -> None:
        raise OSError(number, os.strerror(number), f"{tmp_path}/.a.json.12345678.part")

    monkeypatch.setattr("tempfile.mkstemp", refused)
    with pytest.raises(OSError) as error:
        write_json(tmp_path / "a.json", 1)
    words = f"{os.strerror(number)}: {tmp_path}/a.json: no file can be written to {tmp_path}"
    assert str(error.value) == words and error.value.errno == number
