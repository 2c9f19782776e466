"""AutoAugment's operations one by one, in plain form: what pictures/autoaugment.py must equal, bit for bit."""

import torch
from torch import Tensor

from pictures.autoaugment import GREY, OPERATIONS, Drawn


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
