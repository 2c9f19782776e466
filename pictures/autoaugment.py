"""AutoAugment's policy for CIFAR-10 (Cubuk et al. 2019, arXiv:1805.09501, appendix), whole batches at a time.

Each image draws one of 25 sub-policies: two operations in a row, each carried out with its probability at its
magnitude, where that has a sign with a random one. No image is looked at by itself and nothing waits for the device:
every batch takes the same steps, and what an image does not draw becomes the identity. An operation is a movement, an
affine map; or a mixture with another picture, a black, grey, blank or smoothed one; or a table from old to new levels
of a channel. All numbers are exact in float32 but for angles, strengths and quotients.
"""

import functools
from collections import namedtuple
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
Each = namedtuple("Each", OPERATIONS)  # a value for each operation
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
    sub_policy = torch.randint(len(POLICY), (size,), generator=generator, device=device)
    chance = torch.rand(size, 2, generator=generator, device=device)
    column = torch.randint(2, 4, (size, 2, 1), generator=generator, device=device)  # of the strength's sign
    drawn = _constants(device).policy[sub_policy]
    operation = drawn[..., 0] * (chance < drawn[..., 1])
    return Drawn(operation.long().T, drawn.gather(2, column)[..., 0].T)


class _Constants(NamedTuple):
    policy: Tensor  # (25, 2, 4): operation, its probability, its strength with negative and with positive sign
    codes: Tensor  # (15,): of the operations
    levels: Tensor  # (256,)
    grey: Tensor  # (3, 1, 1): shares of the channels in the grey level
    half: Tensor  # (3, 1, 1): a half in all
    one: Tensor


@functools.cache  # a copy to the device would be waited for
def _constants(device: torch.device) -> _Constants:
    def tensor(*values: float | list) -> Tensor:
        return torch.tensor(values, device=device)

    policy = [[[OPERATIONS.index(name), chance, strength(name, magnitude) * (-1 if name in SIGNED else 1),
                strength(name, magnitude)] for name, chance, magnitude in pair] for pair in POLICY]
    grey = tensor(19595, 38470, 7471) / 65536  # 0.299, 0.587, 0.114
    return _Constants(tensor(*policy), torch.arange(len(OPERATIONS), device=device),
                      torch.arange(256.0, device=device), grey.view(3, 1, 1), tensor(0.5, 0.0, 0.0).view(3, 1, 1),
                      tensor(1.0))


@functools.cache
def _centres(side: int, device: torch.device) -> Tensor:
    """(S,): of the pixels of a row."""
    return torch.arange(side, device=device) + 0.5


def apply(images: Tensor, drawn: Drawn) -> Tensor:
    """(B, 3, S, S) uint8, or whole numbers in float32 -> the same."""
    levels = images.to(torch.float32, memory_format=torch.contiguous_format)
    for plan in _plans(drawn, images.shape[-1]):
        levels = _carry_out(plan, levels)
    return levels.to(images.dtype)


# ---- what the draws alone decide, for both rows at once


class _Plan(NamedTuple):
    """Of one row."""

    chosen: Each  # each (B, 1, 1, 1): 1 for the operation that an image drew, 0 for the others
    factor: Tensor  # (B, 1, 1, 1): of a mixture; 1 is the image itself
    source: Tensor  # (B, 1, S * S) int64: the pixel that comes to each place
    inside: Tensor  # (B, 1, S, S): 0 where none comes from within the image, else 1
    uncovered: Tensor  # (B, 1, S, S): GREY there, else 0
    table: Tensor  # (B, 1, 256): new levels, by the operations that need not look at the image


def _plans(drawn: Drawn, side: int) -> list[_Plan]:
    constants = _constants(drawn.operation.device)
    marks = (drawn.operation[..., None] == constants.codes).float()  # (2, B, 15)
    strengths = marks * drawn.strength[..., None]
    chosen, power = Each(*marks.unbind(2)), Each(*strengths.unbind(2))
    source, inside = _movements(chosen, power, _centres(side, drawn.operation.device))
    parts = (marks[..., None, None, None], (strengths[..., 6:10].sum(2) + 1)[..., None, None, None],
             source.flatten(2)[:, :, None], inside[:, :, None], ((1 - inside) * GREY)[:, :, None],
             _fixed_tables(chosen, power, constants.levels)[:, :, None])
    return [_Plan(Each(*mark.unbind(1)), *others) for mark, *others in zip(*parts, strict=True)]


def _movements(chosen: Each, power: Each, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest pixel, and whether there is one, both (2, B, S, S); shears leave the upper left corner, rotations
    the centre where it is.
    """
    side, angle = len(centres), torch.deg2rad(power.Rotate)
    cos, sin = angle.cos(), angle.sin()
    centre = (chosen.Rotate * (side / 2))[..., None]
    shift = (torch.stack((power.TranslateX, power.TranslateY), 2) * side).trunc() + centre
    away = (centres - centre)[:, :, None]  # (2, B, 1, S), to the right or down
    right = torch.stack((cos, sin + power.ShearY), 2)[..., None] * away  # (2, B, 2, S): in x and y of the source
    down = torch.stack((power.ShearX - sin, cos), 2)[..., None] * away
    place = (right[..., None, :] + down[..., None]).add_(shift[..., None, None])  # (2, B, 2, S, S)
    near = place.clamp(0, side * (1 - 2**-24))  # the float32 before S: the last place within an image
    inside = (place == near).unbind(2)
    x, y = near.long().unbind(2)
    return torch.add(x, y, alpha=side), (inside[0] & inside[1]).float()


def _fixed_tables(chosen: Each, power: Each, levels: Tensor) -> Tensor:
    """(2, B, 256), of Posterize, Solarize and Invert, which is Solarize from level 0 on; else the identity."""
    step = (2 ** power.Posterize).round_()[..., None]  # a power of a GPU may be a little less
    kept = (levels / step).floor_() * step
    threshold = (256 - chosen.Solarize).add_(power.Solarize).add_(chosen.Invert, alpha=-256)
    return torch.where(levels >= threshold[..., None], 255 - kept, kept)


# ---- one row


def _carry_out(plan: _Plan, images: Tensor) -> Tensor:
    """(B, 3, S, S), whole levels -> the same."""
    picked = images.flatten(2).gather(2, plan.source.expand(-1, 3, -1)).view_as(images)
    moved = torch.addcmul(plan.uncovered, picked, plan.inside)
    level = _mixed(plan, moved).long().flatten(2)
    return _tables(plan, level).gather(2, level).view_as(images)


def _mixed(plan: _Plan, images: Tensor) -> Tensor:
    """With black for Brightness, with their own grey for Color, that of their mean for Contrast, and smoothed."""
    constants = _constants(images.device)
    grey = torch.addcmul(constants.half, images, constants.grey).sum(1, keepdim=True).floor_()
    mean = (grey.mean((2, 3), keepdim=True) + 0.5).floor_()
    other = torch.addcmul(mean * plan.chosen.Contrast, grey, plan.chosen.Color)
    other = torch.addcmul(other, _smooth(images), plan.chosen.Sharpness)
    return (images - other).mul_(plan.factor).add_(other).clamp_(0, 255)


def _smooth(images: Tensor) -> Tensor:
    """The mean of 3x3 pixels, the middle one counted five times, in whole levels; the rim as it is."""
    rows = (images[:, :, :-2] + images[:, :, 1:-1]).add_(images[:, :, 2:])
    total = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:]).add_(images[:, :, 1:-1, 1:-1], alpha=4)
    smooth = images.clone()
    torch.div(total, 13, out=smooth[:, :, 1:-1, 1:-1]).round_()
    return smooth


def _tables(plan: _Plan, level: Tensor) -> Tensor:
    """The new level of each level, (B, 3, 256), for images of the levels (B, 3, S * S) int64.

    AutoContrast stretches from the darkest to the brightest level that there is, to 0 to 255; Equalize makes all levels
    equally many, as near as can be, in the whole numbers of Pillow. Where either cannot, the table is the identity.
    """
    constants = _constants(level.device)
    counts = torch.zeros(len(level), 3, 257, device=level.device)
    counts[..., 1:].scatter_add_(2, level, constants.one.expand_as(level))
    darker = counts.cumsum(2)[..., :-1]  # pixels below each level
    low, high = level.aminmax(dim=2, keepdim=True)
    step = torch.div(darker.gather(2, high), 255, rounding_mode="floor")
    stretch = plan.chosen.AutoContrast[..., 0] > 0
    above = torch.where(stretch, (constants.levels - low) * 255, torch.add(darker, step, alpha=0.5))
    width = torch.where(stretch, high - low, step * plan.chosen.Equalize[..., 0])
    return torch.where(width > 0, (above / width).floor_().clamp_(max=255), plan.table)
