"""Reading anybody's picture file within the bounds of memory, and the range of the grey values in many of them."""

import contextlib
import functools
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pictures import preprocess
from pictures.bare import JPEG, PNG, bare
from pictures.grey import Values

LARGEST = 2**30  # bytes of a decoded picture
LARGE = 2**26  # from so many bytes on, pictures are decoded one after another
COPIES = 3  # of a picture at most: as decoded, in colours, turned
HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis"}

turn: contextlib.AbstractContextManager = threading.Lock()  # to decode a large picture; workers share one


def read_picture(path: str, side: int, fit: str = "stretch",
                 grey_range: preprocess.GreyRange | None = None) -> np.ndarray:
    """(side, side, 3) uint8; any format and size that Pillow reads. ValueError with one line if it does not.

    What becomes of it, and what the arguments mean, is in `preprocess.pixels`.
    """
    return read_with_values(path, side, fit, grey_range)[0]


def read_with_values(path: str, side: int, fit: str = "stretch",
                     grey_range: preprocess.GreyRange | None = None) -> tuple[np.ndarray, Values | None]:
    """As `read_picture`, and the grey values of more than 8 bits, where its file does not tell their range."""
    def use(image: Image.Image) -> tuple[np.ndarray, Values | None]:
        told = preprocess.told_range(image)  # as long as it is not decoded
        return preprocess.pixels(image, side, fit, grey_range), _values(image, told)

    try:
        return _read(path, side, use)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: too large, {error}") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path}: not a picture that Pillow can read{_hint(path)}") from None
    except Exception as error:  # the decoders of a broken file raise what they like
        raise ValueError(f"{path}: broken picture ({str(error) or type(error).__name__})") from None


def _read(path: str, side: int, use: Callable[[Image.Image], Any]) -> Any:
    """What `use` makes of an opened picture, if need be without what is in the file beside its pixels."""
    try:
        with opened(path, side) as image:
            return use(image)
    except Exception:
        if not _head(path).startswith((PNG, JPEG)):
            raise
        pixels_alone = io.BytesIO(bare(Path(path).read_bytes()))
    with opened(pixels_alone, side) as image:
        return use(image)


@contextlib.contextmanager
def opened(file: str | io.BytesIO, side: int) -> Iterator[Image.Image]:
    """An opened picture that may be decoded within the bounds of memory, a large one while no other is."""
    _prepare_pillow()
    try:
        image = preprocess.opened(file, side)
    except UnidentifiedImageError:
        if not _register_heif():
            raise
        image = preprocess.opened(file, side)
    with image, turn if _bytes(image) > LARGE else contextlib.nullcontext():
        yield image


def _bytes(image: Image.Image) -> int:
    """Of a picture when it is decoded, four a pixel; DecompressionBombError if too many.

    A progressive JPEG, also if read at a fraction, is in memory as the coefficients of its whole size, two bytes each.
    """
    scale = (getattr(image, "decoderconfig", ()) or (1,))[0]
    width, height = (length * scale for length in image.size)
    size = width * height * (6 if "progressive" in image.info else 4 / scale**2)
    if size > LARGEST:
        raise Image.DecompressionBombError(f"{width} x {height} pixels: {size / 2**30:.2f} GiB of memory, more than "
                                           f"the {LARGEST / 2**30:g} GiB that a picture may take")
    return int(size)


@functools.cache
def _prepare_pillow() -> None:
    """Its own bound is on what a file holds, not on what is decoded; its warnings are of tags that nobody asks for."""
    Image.MAX_IMAGE_PIXELS = None
    warnings.filterwarnings("ignore", module=r"PIL\.")


@functools.cache
def _register_heif() -> bool:
    """Whether pillow-heif is installed; Pillow then reads HEIC."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _hint(path: str) -> str:
    """What to install for a format that this Pillow does not know."""
    head = _head(path)
    if head[4:8] != b"ftyp" or head[8:12] not in HEIF or _register_heif():
        return ""
    return ("; AVIF takes Pillow 11.3 or later" if head[8:11] == b"avi" else
            "; HEIC takes the package pillow-heif (pip install pillow-heif)")


def _head(path: str) -> bytes:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(26)
    return b""


# ---- the range of grey values of more than 8 bits


def grey_range(paths: Iterable[str]) -> dict[str, preprocess.Range]:
    """One range for all pictures whose files do not tell theirs, of integer and of floating values; {} without any.

    These are decoded for it, of others the first bytes are read. Broken ones are left to those who use them.
    """
    found: dict[str, preprocess.Range] = {}
    with ThreadPoolExecutor(min(os.cpu_count() or 1, most_workers())) as pool:
        for kind, low, high in filter(None, pool.map(values_of, paths)):
            least, most = found.get(kind, (low, high))
            found[kind] = min(least, low), max(most, high)
    return {kind: preprocess.spanning(*extremes) for kind, extremes in sorted(found.items())}


def values_of(path: str) -> Values | None:
    """Of such a picture."""
    head = _head(path)
    if head.startswith((JPEG, b"GIF8")) or (head.startswith(PNG) and head[24:25] <= b"\x08"):  # bits a sample
        return None

    try:
        return _read(path, 1, lambda image: _values(image, preprocess.told_range(image)))
    except Exception:  # as above
        return None


def _values(image: Image.Image, told: preprocess.Range | None) -> Values | None:
    if told or not preprocess.is_deep(image):
        return None
    return Values(preprocess.kind(image), *preprocess.extremes(image))


# ---- memory


def most_workers() -> int:
    """So many decode at once in at most half of the memory: small pictures all of them, a largest one of them."""
    room = _memory() / 2 - COPIES * LARGEST
    return max(1, int(room / (COPIES * LARGE + 2**26)))  # and what a process takes by itself


def _memory() -> int:
    """Bytes of this machine, or fewer if its container is allowed fewer."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such file; "max"
            found.append(int(Path(limit).read_text(encoding="utf-8")))
    return min(found)
