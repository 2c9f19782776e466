"""AutoAugment's policy for CIFAR-10 (Cubuk et al. 2019, arXiv:1805.09501, appendix), whole batches at a time.

Each image draws one of 25 sub-policies: two operations in a row, each carried out with its probability at its
magnitude, where that has a sign with a random one. No image is looked at by itself and nothing waits for the device:
every batch takes the same steps. A movement is an affine map, most other operations are a table from old to new grey
levels of a channel; what an image does not draw becomes the identity.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

# (operation, probability, magnitude 0..9), the first and the second, of each sub-policy
POLICY = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)
OPERATIONS = ("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
              "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert")
SIGNED = OPERATIONS[1:10]
GREY = 128  # of what a movement uncovers


def strength(operation: str, magnitude: int) -> float:
    """What the policy's magnitude 0..9 means to an operation, in its unit."""
    if operation == "Posterize":
        return float(round(4 * magnitude / 9))  # bits that are lost
    share = magnitude / 9
    return {"ShearX": 0.3, "ShearY": 0.3,  # pixels a pixel
            "TranslateX": 150 / 331, "TranslateY": 150 / 331,  # of the side
            "Rotate": 30.0,  # degrees
            "Brightness": 0.9, "Color": 0.9, "Contrast": 0.9, "Sharpness": 0.9,  # away from 1, the picture as it is
            "Solarize": -255.0,  # grey levels from 255: from there on a level is inverted
            }.get(operation, 0.0) * share


class Drawn(NamedTuple):
    """What is done to the images of a batch: row 0 first, then row 1."""

    operation: Tensor  # (2, B) int64, into OPERATIONS
    strength: Tensor  # (2, B) float32, with its sign


def draw(size: int, generator: torch.Generator) -> Drawn:
    """Independent draws for `size` images, on the generator's device."""
    device = generator.device
    codes, chances, strengths = _tables_of_the_policy(device)
    sub_policy = torch.randint(len(POLICY), (size,), generator=generator, device=device)
    carried_out = torch.rand(size, 2, generator=generator, device=device) < chances[sub_policy]
    sign = torch.randint(2, (size, 2), generator=generator, device=device) * 2 - 1
    operation = torch.where(carried_out, codes[sub_policy], 0)
    signed = (operation >= 1) & (operation <= len(SIGNED))
    return Drawn(operation.T, (torch.where(signed, sign, 1) * strengths[sub_policy]).T)


@functools.cache  # a copy to the device would be waited for
def _tables_of_the_policy(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Operation, probability and strength, each (25, 2)."""
    return (torch.tensor([[OPERATIONS.index(name) for name, _, _ in pair] for pair in POLICY], device=device),
            torch.tensor([[chance for _, chance, _ in pair] for pair in POLICY], device=device),
            torch.tensor([[strength(name, magnitude) for name, _, magnitude in pair] for pair in POLICY],
                         device=device))


def apply(images: Tensor, drawn: Drawn) -> Tensor:
    """(B, 3, H, W) uint8 -> the same."""
    for operation, power in zip(*drawn, strict=True):
        images = _apply_one(images, operation, power)
    return images


def _apply_one(images: Tensor, operation: Tensor, power: Tensor) -> Tensor:
    """Every image its one operation: all kinds are computed for all images, and each is the identity for the others."""
    def only(name: str) -> Tensor:
        return torch.where(operation == OPERATIONS.index(name), power, 0.0)

    moved = _move(images, only("ShearX"), only("ShearY"), only("TranslateX"), only("TranslateY"), only("Rotate"))
    grey = _grey(moved)
    blended = _blend(moved.float(), grey, 1 + only("Color"))
    blended = _blend(blended, _smooth(moved), 1 + only("Sharpness")).clamp(0, 255).to(torch.uint8)
    tables = _tables(moved, grey, operation, power)  # (B, 3, 256); of images that were neither blended nor moved
    return tables.gather(2, blended.flatten(2).long()).view_as(images)


# ---- movements


def _move(images: Tensor, shear_x: Tensor, shear_y: Tensor, translate_x: Tensor, translate_y: Tensor,
          degrees: Tensor) -> Tensor:
    """The nearest pixel; shears leave the upper left corner, rotations the centre where it is. All but images (B,)."""
    height, width = images.shape[2:]
    angle = torch.deg2rad(degrees)
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    x = torch.arange(width, device=images.device) + 0.5  # centres of pixels
    y = (torch.arange(height, device=images.device) + 0.5)[:, None]
    dx, dy = x - width / 2, y - height / 2
    # Where the pixel at (x, y) comes from, (B, H, W).
    shift_x, shift_y = (translate_x * width).trunc()[:, None, None], (translate_y * height).trunc()[:, None, None]
    from_x = cos * dx - sin * dy + width / 2 + shear_x[:, None, None] * y + shift_x
    from_y = sin * dx + cos * dy + height / 2 + shear_y[:, None, None] * x + shift_y
    column, row = from_x.floor().long(), from_y.floor().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    picked = images.flatten(2).gather(2, source.flatten(1)[:, None].expand(-1, images.shape[1], -1)).view_as(images)
    return torch.where(inside[:, None], picked, GREY)


# ---- mixtures with a grey or a smoothed picture


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """factor (B,): 0 gives `other`, 1 the images as they are, more what is further away from `other`."""
    factor = factor.view(-1, 1, 1, 1)
    return torch.where(factor == 1, images, other + factor * (images - other))


def _grey(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W) float32, whole levels."""
    red, green, blue = images.to(torch.int32).split(1, dim=1)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).float()  # 0.299, 0.587, 0.114 of 65536


def _smooth(images: Tensor) -> Tensor:
    """The mean of 3x3 pixels, the middle one counted five times, in whole levels; the rim as it is."""
    pixels = images.float()
    height, width = images.shape[2:]
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * pixels[:, :, 1:-1, 1:-1]
    smooth = pixels.clone()
    smooth[:, :, 1 : height - 1, 1 : width - 1] = (total / 13).round()
    return smooth


# ---- tables of grey levels


def _tables(images: Tensor, grey: Tensor, operation: Tensor, power: Tensor) -> Tensor:
    """The new level of each level, (B, 3, 256) uint8; the identity for the operations that are no table."""
    level = torch.arange(256.0, device=images.device).expand(len(images), 3, 256)
    power = power.view(-1, 1, 1)
    mean = (grey.mean((2, 3)) + 0.5).floor()[..., None]
    counts = _histogram(images)  # (B, 3, 256)
    step = (2 ** power.clamp(0, 8)).round()  # a power of a GPU may be a little less
    tables = {
        "Brightness": level * (1 + power),
        "Contrast": mean + (1 + power) * (level - mean),
        "Posterize": (level / step).floor() * step,
        "Solarize": torch.where(level >= 255 + power, 255 - level, level),
        "AutoContrast": _stretched(level, counts),
        "Equalize": _equalized(level, counts),
        "Invert": 255 - level,
    }
    chosen = level
    for name, table in tables.items():
        chosen = torch.where((operation == OPERATIONS.index(name)).view(-1, 1, 1), table, chosen)
    return chosen.clamp(0, 255).to(torch.uint8)


def _histogram(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, 3, 256) float32, pixels of each level."""
    flat = images.flatten(2).long()
    counts = torch.zeros(*flat.shape[:2], 256, device=images.device)
    return counts.scatter_add_(2, flat, torch.ones_like(flat, dtype=torch.float32))


def _stretched(level: Tensor, counts: Tensor) -> Tensor:
    """From the darkest to the brightest level that there is, to 0 to 255."""
    found = counts > 0
    low = torch.where(found, level, 255.0).amin(2, keepdim=True)
    high = torch.where(found, level, 0.0).amax(2, keepdim=True)
    return torch.where(high > low, (level - low) * 255 / (high - low).clamp_min(1), level)


def _equalized(level: Tensor, counts: Tensor) -> Tensor:
    """Equally many pixels of all levels, as near as can be; in the whole numbers of Pillow."""
    last = torch.where(counts > 0, level, 0.0).amax(2, keepdim=True)
    step = ((counts.sum(2, keepdim=True) - counts.gather(2, last.long())) / 255).floor()
    before = counts.cumsum(2) - counts
    return torch.where(step > 0, ((before + (step / 2).floor()) / step.clamp_min(1)).floor(), level)
