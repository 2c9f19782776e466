"""The side that pictures are packed with, by what the files themselves show."""

from collections.abc import Sequence
from statistics import median

from pictures.reading import opened

SIZES = (32, 48, 64, 96, 128, 192, 224)  # pixels; networks halve the larger ones until at most 32 are left
LARGEST = 128  # that is chosen without being told
PACKED = 4e9  # bytes of a packed data set that is chosen without being told
LOOKED_AT = 64  # files


def automatic(paths: Sequence[str], pictures: int) -> tuple[int, str]:
    """The largest of SIZES that half of the pictures have on their shorter side, up to LARGEST and PACKED bytes in all;
    and why it is no larger, for people, where they are.

    Larger ones would invent pixels. Only the heads of some files are read; those of which none can be do not count.
    """
    step = max(1, len(paths) // LOOKED_AT)
    sides = [side for path in paths[::step] if (side := shorter_side(path))]
    reached = median(sides) if sides else SIZES[0]
    side = max((side for side in SIZES if side <= min(reached, LARGEST) and 4 * side**2 * pictures <= PACKED),
               default=SIZES[0])
    return side, _why(side, reached) if reached > side else ""


def _why(side: int, reached: float) -> str:
    larger = SIZES[SIZES.index(side) + 1]
    limit = (f"more than {LARGEST} takes --image-size" if side == LARGEST else f"the next size is {larger}"
             if larger > reached else f"at {larger} all of them would take more than {PACKED / 1e9:g} GB")
    return f"{side} pixels: half of the pictures have {reached:g} or more on their shorter side, and {limit}"


def shorter_side(path: str) -> int:
    """Pixels; 0 for what cannot be opened."""
    try:
        with opened(path, side=2**20) as image:  # so that no JPEG is at a fraction of its size
            return min(image.size)
    except Exception:  # what is wrong with it is told where it is decoded
        return 0
