"""Files of torch.save: written whole, and read only if their content is what was written.

Such a file is a zip archive, with a CRC-32 of each of its parts. torch writes these and never looks at them; here they
are compared before anything is unpickled. So files of earlier versions are guarded as well, and torch.load reads all.
"""

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from files import atomic_write


class NotWhole(ValueError):
    """The content is not what was written; says why, without the file's name."""


def write(path: Path, content: dict[str, Any], before: str | os.PathLike | None = None) -> None:
    """Write tensors and plain types, atomically; `before`: as in atomic_write. OSError if the disk is full."""
    with atomic_write(path, "wb", before, lambda: _size(content)) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # how torch tells of a failed write, when it closes its archive
            raise error.__context__ if isinstance(error.__context__, OSError) else OSError(
                f"{path}: cannot be written ({error})") from None


def read(path: Path, device: torch.device) -> Any:
    """What `write` wrote, with its tensors on `device`; NotWhole if it is damaged or holds more than plain types."""
    check(path)
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError:  # torch would advise to load it in an unsafe way
        raise NotWhole("it cannot be read as tensors and plain types") from None
    except (RuntimeError, EOFError, OSError, KeyError, TypeError, ValueError) as error:
        raise NotWhole((str(error) or type(error).__name__).splitlines()[0]) from None


def looked_at(path: Path) -> Any:
    """The same of a file that `check` has found whole, with tensors that are read only where they are used."""
    return torch.load(path, weights_only=True, mmap=True)


def check(path: Path) -> None:
    """NotWhole if a part of the file is not what was written; reads it once, 0.7 s a gigabyte."""
    if not path.stat().st_size:
        raise NotWhole("it is empty")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no zip archive, as torch.save writes them; cut short, or something else")
        with zipfile.ZipFile(path) as archive:
            if part := archive.testzip():
                raise ValueError(f"the CRC-32 of its part {part} is another one")
    except Exception as error:  # a damaged archive raises errors of many kinds
        raise NotWhole(f"damaged: {str(error) or type(error).__name__}") from None


def _size(content: dict[str, Any]) -> int:
    """Bytes that `write` takes."""
    counter = _Counter()
    torch.save(content, counter)
    return counter.size


class _Counter(io.RawIOBase):
    """Counts what is written to it."""

    size = 0

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self.size += len(piece)
        return len(piece)
