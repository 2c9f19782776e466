"""Test-time augmentation: a network judges several views of each picture, and the mean of its logits counts."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHIFTS = ((0, 0, 0.5), (1, 1, 0.25), (-1, -1, 0.25))  # down and right in pixels, weight (Jordan 2024, arXiv:2404.00498)


class Views(nn.Module):
    """`network` on each picture as it is and shifted by a pixel both ways along the diagonal, all mirrored too if
    `mirrored`: three or six passes, (N, 3, H, W) -> (N, classes) mean logits. Shifted edges are reflected.
    """

    def __init__(self, network: nn.Module, mirrored: bool) -> None:
        super().__init__()
        self.network, self.mirrored = network, mirrored

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        padded, mean = F.pad(x, (1, 1, 1, 1), mode="reflect"), 0.0
        for down, right, weight in SHIFTS:
            view = padded[:, :, 1 - down : 1 - down + height, 1 - right : 1 - right + width]
            view = view.contiguous(memory_format=torch.channels_last)
            views = (view, view.flip(3)) if self.mirrored else (view,)
            mean = mean + weight / len(views) * sum(self.network(each).float() for each in views)
        return mean
