"""Atomic files: what is written is whole or not there at all.

Every file of a run goes through a temporary name, fsync and `os.replace`, so that a crash, a full disk or a
killed trial never leaves half a file, and several processes may write the same path at once: the last one wins.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path`; on success it replaces `path`, on any error it is removed.

    Text is UTF-8 whatever the locale; a file's name that is not even text is written with backslashes.
    Raises OSError (folder not writable, disk full) with `path` untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace"}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


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
