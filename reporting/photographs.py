"""Pictures of the data set as the page shows them: a user's own file in its own shape, or what the cache holds,
enlarged; with a heat map beside it; a sheet of them as augmented."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pictures.augmentation import Augmentation, Normalization, channels, words
from pictures.preprocess import ORIENTATION
from pictures.reading import read_picture

if TYPE_CHECKING:
    from pictures.dataset import Pictures

LARGEST = 240  # pixels of the longer side
SHEET = (6, 8)  # pictures, and how often each is augmented
HEAT = 0.5  # how much of the heat map covers the picture
TURNED = range(5, 9)  # EXIF orientations in which width and height have changed places


def picture(file: str, cached: np.ndarray, largest: int = LARGEST, **how: Any) -> Image.Image:
    """The file, in its own shape, its longer side `largest`; without one `cached`, (S, S, 3 or 4) uint8, enlarged.

    `how`: fit and grey_range, as the network was trained with; what is not stretched for it is shown as square.
    """
    try:
        return _own(file, largest, **how)
    except (OSError, ValueError, Image.DecompressionBombError):  # it has no file, or that has gone
        return _enlarged(Image.fromarray(cached[:, :, :3].copy()), largest, 1.0)


def _own(file: str, largest: int, **how: Any) -> Image.Image:
    with Image.open(file) as image:
        width, height = image.size
        if image.getexif().get(ORIENTATION) in TURNED:
            width, height = height, width
    shape = width / height if how.get("fit", "stretch") == "stretch" else 1.0
    return _enlarged(Image.fromarray(read_picture(file, min(max(width, height), largest), **how)), largest, shape)


def _enlarged(image: Image.Image, largest: int, shape: float) -> Image.Image:
    """`shape`: width / height. What is much smaller keeps its pixels visible."""
    size = (largest, max(round(largest / shape), 1)) if shape >= 1 else (max(round(largest * shape), 1), largest)
    blocks = max(image.size) <= largest / 3
    return image.resize(size, Image.Resampling.NEAREST if blocks else Image.Resampling.LANCZOS)


def preprocessing(data: dict[str, Any]) -> dict[str, Any]:
    """How a result's network had its pictures read, as `picture` takes it."""
    return {key: data[key] for key in ("fit", "grey_range") if data.get(key)}


def with_heat(image: Image.Image, heat: np.ndarray) -> Image.Image:
    """The picture, and beside it the picture below its heat map, (H, W) in 0..1, which fits it whatever its shape."""
    from matplotlib import colormaps

    grey = Image.fromarray((255 * heat).astype(np.uint8)).resize(image.size, Image.Resampling.BICUBIC)
    color = Image.fromarray((255 * colormaps["turbo"](np.asarray(grey))[:, :, :3]).astype(np.uint8))
    pair = Image.new("RGB", (2 * image.width + 4, image.height), "#8a94a0")
    pair.paste(image, (0, 0))
    pair.paste(Image.blend(image, color, HEAT), (image.width + 4, 0))
    return pair


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=85)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    return buffer.getvalue()


# ---- training samples


def one_of_each(pictures: "Pictures") -> list[int]:
    """The number of the first training picture of each class, in the order of the classes."""
    return [int(np.flatnonzero(pictures.train_labels == label)[0]) for label in range(len(pictures.classes))]


def augmented(pictures: "Pictures", change: Augmentation, seed: int) -> Image.Image:
    """Training pictures, one a row: as it is, then as `change` makes it each time; twice as large."""
    import torch

    rows, times = SHEET
    chosen = one_of_each(pictures)[:rows]
    rows = len(chosen)
    pixels = words(torch.from_numpy(pictures.train_images[chosen]))
    index = torch.arange(rows).repeat_interleave(times)
    draws = change.draw(len(index), torch.Generator().manual_seed(seed))
    if change.flip and change.alternate:  # as in epochs that follow each other
        first, epoch = draws.flip[::times].repeat_interleave(times), torch.arange(times).repeat(rows)
        draws = draws._replace(flip=(first + epoch) % 2)
    fill = Normalization.of(pictures.train_moments, torch.device("cpu"), pictures.side).fill
    many = channels(change(pixels, index, draws, fill)).unflatten(0, (rows, times))
    both = torch.cat((channels(pixels)[:, None], many), 1).numpy()  # (rows, 1 + times, S, S, 3)
    side = both.shape[2] + 2
    sheet = np.pad(both, ((0, 0), (0, 0), (0, 2), (0, 2), (0, 0)), constant_values=138).transpose(0, 2, 1, 3, 4)
    image = Image.fromarray(sheet.reshape(rows * side, (1 + times) * side, 3)[:-2, :-2].copy())
    return image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST)
