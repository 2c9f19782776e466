"""Augmentation and normalisation of whole batches, on the device where the images live.

A pixel is kept as red, green, blue and an unused fourth byte, that is as one 32-bit word: picking, cropping and
flipping a whole batch is then a single gather of words, on a CPU as on a GPU.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pictures import autoaugment


def words(images: Tensor) -> Tensor:
    """(..., 4) uint8 -> (...) int32, the same memory."""
    return images.view(torch.int32).squeeze(-1)


def four_bytes(pixels: Tensor) -> Tensor:
    """The inverse."""
    return pixels.unsqueeze(-1).view(torch.uint8)


def channels(pixels: Tensor) -> Tensor:
    """(...) int32 -> (..., 3) uint8, the same memory."""
    return four_bytes(pixels)[..., :3]


class Draws(NamedTuple):
    """The random choices of a batch, one a image, each (B,)."""

    top: Tensor  # of the crop, -padding..padding
    left: Tensor
    flip: Tensor  # 0 or 1
    cut_y: Tensor  # centre of the cutout square, 0..S - 1
    cut_x: Tensor
    policy: autoaugment.Drawn | None = None  # (2, B), unlike the others

    def part(self, images: slice) -> "Draws":
        """Those of some of the images."""
        policy = self.policy and autoaugment.Drawn(*(rows[:, images] for rows in self.policy))
        return Draws(*(draw[images] for draw in self[:-1]), policy)


@dataclass(frozen=True)
class Augmentation:
    """Random crop with padding, horizontal flip, a policy, and cutout (DeVries & Taylor 2017, arXiv:1708.04552)."""

    crop_padding: int  # pixels
    flip: bool
    cutout: int  # side of the square in pixels, 0: off
    policy: str = "basic"  # none, or "autoaugment"
    side: int = 32  # S, of the images
    alternate: bool = False  # flip each image in every other epoch (Jordan 2024, arXiv:2404.00498), not by a draw
    reflect: bool = False  # what lies outside of an image is its mirror image

    def draw(self, size: int, generator: torch.Generator) -> Draws:
        """Independent draws for `size` images, on the generator's device."""
        def uniform(rows: int, low: int, high: int) -> Tensor:
            return torch.randint(low, high + 1, (rows, size), generator=generator, device=generator.device)

        [flip] = uniform(1, 0, 1) if self.flip else torch.zeros(1, size, dtype=torch.int64, device=generator.device)
        top, left = uniform(2, -self.crop_padding, self.crop_padding)
        cut_y, cut_x = uniform(2, 0, self.side - 1)
        policy = autoaugment.draw(size, generator) if self.policy == "autoaugment" else None
        return Draws(top, left, flip, cut_y, cut_x, policy)

    def __call__(self, pixels: Tensor, index: Tensor, draws: Draws, fill: Tensor) -> Tensor:
        """Pick and augment: pixels (N, S, S) int32, index (B,) -> (B, S, S) int32.

        What lies outside of the image, if it is not its mirror image, and the cutout square become `fill`.
        """
        grid, mirror, squares = _tables(self.side, self.cutout, pixels.device)
        place = torch.stack((draws.top, draws.left))[:, :, None] + grid  # (2, B, S): source of each row and column
        place[1].addcmul_(draws.flip[:, None], mirror)
        if self.reflect:  # 2 1 | 0 1 .. S-1 | S-2
            place = self.side - 1 - (self.side - 1 - place.abs()).abs()
        near = place.clamp(0, self.side - 1)
        # One flat gather: half the time of indexing with three tensors, on a CPU.
        starts = torch.add(near[0], index[:, None], alpha=self.side)  # where each source row begins
        source = torch.add(near[1][:, None], starts[:, :, None], alpha=self.side)  # (B, S, S)
        batch = pixels.view(-1).index_select(0, source.view(-1)).view_as(source)
        outside = place != near
        blank = outside[0][:, :, None] | outside[1][:, None]
        if draws.policy:
            batch = torch.where(blank, fill, batch)
            images = channels(batch).permute(0, 3, 1, 2)
            levels = images.to(torch.float32, memory_format=torch.contiguous_format)
            images.copy_(autoaugment.apply(levels, draws.policy))
            blank = torch.zeros_like(blank)
        if self.cutout:
            rows, columns = squares[torch.stack((draws.cut_y, draws.cut_x))]  # each (B, S)
            blank = blank | rows[:, :, None] & columns[:, None]
        return torch.where(blank, fill, batch)


@functools.cache  # a copy to the device would be waited for
def _tables(side: int, cutout: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Positions 0..S - 1; what a flip adds to them; for each centre of a cutout square where that is, (S, S) bool."""
    grid = torch.arange(side, device=device)
    start = grid[:, None] - cutout // 2
    return grid, side - 1 - 2 * grid, (grid >= start) & (grid < start + cutout)


class Normalization:
    """(x - mean) / std with the statistics of the training split; `mean` and `std` (3,) in 0..1. `side`: S."""

    def __init__(self, mean: Tensor, std: Tensor, side: int = 32) -> None:
        self.mean, self.std, self.side = mean, std, side
        self.fill = words(F.pad((mean * 255).round().to(torch.uint8), (0, 1)))  # the mean colour
        self._scale = 1 / (255 * std)
        self._shift = (-mean / std).repeat(side * side)  # of a whole image: sums over long rows, not three channels

    @classmethod
    def of(cls, moments: np.ndarray, device: torch.device, side: int = 32) -> "Normalization":
        """From `Pictures.train_moments` of the images of a split, (N, 2, 3)."""
        mean, square = moments.sum(0) / (len(moments) * side * side)
        std = np.sqrt(np.maximum(square - mean**2, 1))  # one grey level at least: no division by 0 in a blank channel
        return cls(*(torch.tensor(value / 255, dtype=torch.float32, device=device) for value in (mean, std)), side)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, S, S) int32 -> (B, 3, S, S) float32, channels_last."""
        scaled = four_bytes(pixels).float()[..., :3] * self._scale  # all four at once: half the time of three, on a CPU
        return scaled.view(len(pixels), -1).add_(self._shift).view(*pixels.shape, 3).permute(0, 3, 1, 2)
