"""Atomic files: what is written is whole or not there at all.

Every file of a run goes through a temporary name, fsync and `os.replace`, so that a crash, a full disk or a
killed trial never leaves half a file, and several processes may write the same path at once: the last one wins. What
a kill leaves is the temporary file, `.NAME.RANDOM.part`; its writer holds a lock on it, which dies with the writer.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# The second form: earlier versions, without locks, whose files nobody writes any more.
TORN = re.compile(r"\..+\.[a-z0-9_]{8}\.part|\.[\w-]+\.(json|jsonl|pt|png|csv|md|html)\.[a-z0-9_]{8}")
PIECE = 1 << 20  # bytes that are read at once


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "w", before: str | os.PathLike | None = None,
                 size: Callable[[], int] | None = None) -> Iterator[IO]:
    """Open a temporary file beside `path`; on success it replaces `path`, on any error it is removed.

    Text is UTF-8 whatever the locale; a file's name that is not even text is written with backslashes.
    `before`: where the file that is replaced is kept. `size`: the bytes that are needed, asked only where there is no
    room. Raises OSError (folder not writable, disk full), which names file and folder, with `path` untouched.
    """
    path = Path(path)
    text = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = _temporary(path)
    except OSError as error:
        raise _told(error, f"{path}: no file can be written to {path.parent}") from None
    try:
        with os.fdopen(handle, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
            if before:
                _keep(path, Path(before))
            os.replace(name, path)  # before the file is closed, which ends its lock
    except BaseException as error:
        written = _unlinked(name)
        if isinstance(error, OSError) and error.filename is None and error.errno in NO_ROOM:
            raise no_room(error, path, size and size(), written) from None
        raise


def remove_torn(folder: str | os.PathLike) -> None:
    """Remove what `atomic_write` of a process that was killed has left in `folder`; never what a living one writes."""
    for file in Path(folder).glob(".*"):
        if TORN.fullmatch(file.name) and file.is_file():
            with contextlib.suppress(OSError):  # gone by now, or of somebody else
                handle = os.open(file, os.O_RDWR)
                try:
                    if locked(handle):
                        os.unlink(file)
                finally:
                    os.close(handle)


def locked(handle: int) -> bool:
    """Whether the open file is ours by now: nobody else holds its lock, which ends with those who have it open."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def no_room(error: OSError, path: Path, needs: int | None = None, written: int = 0) -> OSError:
    """The error of a full disk or quota with what `path` needs, and what its folder has; both in bytes."""
    has = written if error.errno == errno.EDQUOT else shutil.disk_usage(path.parent).free  # no quota can be asked
    words = f"{has / 1e6:.1f} MB"
    return _told(error, f"{path} needs more than the {words} that {path.parent} has" if needs is None else
                 f"{path} needs {needs / 1e6:.1f} MB, {path.parent} has {words}")


def _temporary(path: Path) -> tuple[int, str]:
    """A new file beside `path`, locked as long as it is open: its handle and name."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with contextlib.suppress(OSError):  # where a disk has no locks remove_torn gets none either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # remove_torn came first


def _unlinked(name: str) -> int:
    """Remove a file, if it is there; its size in bytes."""
    with contextlib.suppress(FileNotFoundError):
        size = os.stat(name).st_size
        os.unlink(name)
        return size
    return 0


def _keep(path: Path, before: Path) -> None:
    """Give the file at `path`, if there is one, a second name; a copy where a disk has no such names."""
    before.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        try:
            os.link(path, before)
        except OSError:
            shutil.copyfile(path, before)


def _told(error: OSError, words: str) -> OSError:
    """The error with words in place of a temporary file's name."""
    told = type(error)(f"{error.strerror or error}: {words}")
    told.errno = error.errno
    return told


def digest(path: str | os.PathLike) -> str:
    """CRC-32 of a file's bytes, as zip archives hold it: 8 hexadecimal digits."""
    found = 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            found = zlib.crc32(piece, found)
    return f"{found:08x}"


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinity, which JSON does not have, raise ValueError."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, allow_nan=False)
        file.write("\n")


def write_jsonl(path: str | os.PathLike, records: Iterable[dict]) -> None:
    """Write one JSON object a line."""
    with atomic_write(path) as file:
        file.writelines(json.dumps(record, allow_nan=False) + "\n" for record in records)


def read_json(path: str | os.PathLike) -> Any:
    """Read JSON; a missing or broken file raises ValueError with one line that names it, and line and column."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"), object_pairs_hook=_unique)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{path}: not valid JSON ({place}: {_reason(error)})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not valid JSON (byte {error.start + 1} is not UTF-8)") from None
    except RecursionError:
        raise ValueError(f"{path}: not valid JSON (nested too deeply)") from None
    except KeyError as error:
        raise ValueError(f"{path}: not valid JSON (key {error} stands twice)") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; KeyError for a key that stands twice in it."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise KeyError(next(key for key in keys if keys.count(key) > 1))
    return found


def _reason(error: json.JSONDecodeError) -> str:
    """What is wrong, where the parser says only what it expected."""
    before, here = error.doc[: error.pos].rstrip(), error.doc[error.pos :]
    if not here:
        return "it ends too early" if before else "it is empty"
    if here.startswith(("//", "/*", "#")):
        return "it has no comments"
    if before.endswith(",") and here[0] in "}]":
        return f"a comma before {here[0]}"
    return f"{error.msg}, found {here.split()[0][:20]!r}" if here.split() else error.msg


def read_object(path: str | os.PathLike) -> dict | None:
    """Read a JSON object; None where there is none, or no whole one."""
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
