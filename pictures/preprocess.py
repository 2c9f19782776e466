"""From a picture to what a network takes. Needs numpy and Pillow alone.

Training and predict.py read pictures by these lines, and a copy of this file lies beside every exported network, whose
metadata hold the arguments under "preprocess": `batch(paths, **preprocess)` is what the network was made for.

By themselves they refuse what Pillow does by itself: more than 178 megapixels (`Image.MAX_IMAGE_PIXELS = None`), HEIC
(`pillow_heif.register_heif_opener()`), and broken chunks beside the pixels, which pictures/reading.py goes around.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image

FITS = {"stretch": "not keeping its proportions", "crop": "of its largest square, in the middle",
        "pad": "keeping its proportions, with grey beside it"}
GREY = (128, 128, 128)  # beside a padded picture
TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
         5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
         8: Image.Transpose.ROTATE_90}  # what undoes an orientation of EXIF
ORIENTATION, BITS_PER_SAMPLE, PHOTOMETRIC = 0x0112, 258, 262  # tags of EXIF and TIFF
ROWS = 256  # at a time, where a copy of a whole large picture would take much memory

Range = tuple[float, float]  # the values shown as black and as white
GreyRange = Mapping[str, Range]  # of "integer" and of "float" pictures, each where it is known


def batch(paths: Iterable[str], side: int, fit: str = "stretch", grey_range: GreyRange | None = None) -> np.ndarray:
    """(N, 3, side, side) float32, red, green and blue in 0..1."""
    images = []
    for path in paths:
        with opened(path, side) as image:
            images.append(pixels(image, side, fit, grey_range))
    return scaled(np.stack(images))


def scaled(images: np.ndarray) -> np.ndarray:
    """(N, side, side, 3) uint8 -> (N, 3, side, side) float32 in 0..1."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 255


def opened(file: object, side: int) -> Image.Image:
    """A path or a binary file, not yet decoded; a large JPEG will be at a fraction of its size."""
    image = Image.open(file)
    image.draft("RGB", (2 * side, 2 * side))
    return image


def pixels(image: Image.Image, side: int, fit: str = "stretch", grey_range: GreyRange | None = None) -> np.ndarray:
    """(side, side, 3) uint8 of what `opened` gives.

    Turned as its EXIF data say; of an animation the first picture; what is transparent becomes white. Grey values of
    more than 8 bits: of the range that the file tells, else of `grey_range`, else of the usual one.
    """
    told = told_range(image)
    image.load()
    turn = TURNS.get(_orientation(image))
    image = _rgb(_grey(image, told, grey_range) if is_deep(image) else image)
    return np.asarray(_fitted(image if turn is None else image.transpose(turn), side, fit))


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # EXIF data that are none raise what they like; the picture is as good as without
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    """Pillow's own conversion shows the colours behind what is transparent."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    whole = Image.new("RGB", image.size)
    for top in range(0, image.height, ROWS):
        strip = image.crop((0, top, image.width, min(top + ROWS, image.height))).convert("RGBA")
        strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
        whole.paste(strip.convert("RGB"), (0, top))
    return whole


def _fitted(image: Image.Image, side: int, fit: str) -> Image.Image:
    if fit == "crop":
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        image = image.crop((left, top, left + edge, top + edge))
    share = side / max(image.size)
    size = tuple(max(1, round(length * share)) for length in image.size) if fit == "pad" else (side, side)
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    if size == (side, side):
        return image
    square = Image.new("RGB", (side, side), GREY)
    square.paste(image, ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


# ---- grey values of more than 8 bits, which Pillow's own conversion cuts off at 255


def is_deep(image: Image.Image) -> bool:
    return image.mode[0] in "IF"  # I, I;16 and its like, and F


def kind(image: Image.Image) -> str:
    return "float" if image.mode == "F" else "integer"


def told_range(image: Image.Image) -> Range | None:
    """The range of an image that is not decoded yet, where its file tells it.

    That of all 16 bits tells nothing: it is also that of files with the values of a camera's 12 bits.
    """
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))[0]
    if image.mode.startswith("I;16") and bits < 16:
        return 0, 2**bits - 1
    scaled = image.format == "PPM" and image.mode == "I" and _largest(image) < 65535  # by Pillow, to all 16 bits
    return (0, 65535) if scaled else None


def _largest(image: Image.Image) -> int:
    """The value that the head of a PGM file names."""
    decoder, arguments = image.tile[0][0], image.tile[0][3]
    return arguments[-1] if decoder.startswith("ppm") else 65535


def _usual_range(image: Image.Image) -> Range:
    """Of a picture by itself: all 16 bits; of 32, which no picture fills, its own."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return 0, 65535
    return spanning(*extremes(image))


def extremes(image: Image.Image) -> Range:
    """The smallest and the largest finite value; 0 and 0 if there is none."""
    values = np.asarray(image)
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def spanning(low: float, high: float) -> Range:
    """A range for values from `low` to `high`: a whole number of bits (1: 0 to 1) if they need at least half of it, or
    are all the same, else they themselves."""
    top = 2 ** max(1, math.ceil(high).bit_length()) - 1
    if low >= 0 and not 0 < high - low < top / 2:
        return 0, top
    return (low, high) if low < high else (low, low + 1)


def _grey(image: Image.Image, told: Range | None, known: GreyRange | None) -> Image.Image:
    """As 8 bits: 256 steps of equal width, which of all 16 bits are their upper 8."""
    low, high = told or (known or {}).get(kind(image)) or _usual_range(image)
    values = np.asarray(image)
    levels = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), ROWS):
        share = (values[top : top + ROWS].astype(np.float64) - low) / (high - low)
        levels[top : top + ROWS] = np.clip(np.nan_to_num(share * 256, nan=0), 0, 255)
    white_is_zero = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0  # Pillow sees to it with 8 bits alone
    return Image.fromarray(255 - levels if white_is_zero else levels)
