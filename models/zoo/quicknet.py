"""quicknet: a small network that learns in minutes, after airbench94 of Jordan 2024, arXiv:2404.00498.

A frozen first layer whitens patches of the pictures; three blocks of two 3x3 convolutions follow, whose first one is
pooled at once, so that little is computed on large maps. It is made for the recipe `quick` of retrain.py, and what each
of its ingredients is worth there tells `python -m benchmarks.recipe`. 1 972 792 parameters at 10 classes.

`prepare` sets the first layer by training pictures; without it, that layer is a random one.
Larger pictures: the whitened patches lie side by side, which halves the maps and loses nothing, and 3x3 convolutions of
stride 2 follow until the blocks begin at 32 or less.
"""

from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks import BatchNorm2d, halvings

WIDTHS = (64, 256, 256)  # channels of the blocks
PATCH = 2  # side in pixels of what is whitened
EPS = 5e-4  # added to the variances of patches: what hardly varies is noise
DEAD = 1e-6  # share of all variance under which an axis holds nothing; batch norm would blow nothing up to noise
SCALE = 1 / 9  # of the logits, which begin near 0


class Whitening(nn.Conv2d):
    """(N, 3, S, S) -> (N, 24, s, s): patches along their 12 principal axes, scaled to variance 1, and the negatives.

    s is S - 1, or S / 2 with patches side by side. The filters are frozen, the bias is trained. Computed in float32:
    where channels hardly differ, as in grey pictures, they cancel out but for the 8 bits of a bfloat16.
    """

    def __init__(self, stride: int) -> None:
        axes = 3 * PATCH**2
        super().__init__(3, 2 * axes, PATCH, stride)
        self.weight.requires_grad_(False)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        if not torch.is_autocast_enabled(kind):
            return super().forward(x)
        with torch.autocast(kind, enabled=False):
            return super().forward(x).to(torch.get_autocast_dtype(kind))

    @torch.no_grad()
    def prepare(self, images: Iterable[Tensor]) -> None:
        """Set the filters by batches of normalised training pictures, x (B, 3, S, S) each."""
        covariance, count = 0.0, 0
        for x in images:
            patches = F.unfold(x.float(), self.kernel_size, stride=self.stride).transpose(1, 2).flatten(0, 1).double()
            covariance, count = covariance + patches.T @ patches, count + len(patches)
        variances, axes = torch.linalg.eigh((covariance / count).cpu())  # the same on every device
        alive = (variances > DEAD * variances.sum()).nonzero()[:, 0]
        if len(alive):  # those of grey pictures are four: then each comes three times
            chosen = alive[torch.arange(len(axes)) % len(alive)]
            filters = (axes / (variances.clamp(min=0) + EPS).sqrt())[:, chosen].T.unflatten(1, self.weight.shape[1:])
            self.weight.copy_(torch.cat((filters, -filters)))


class Norm(BatchNorm2d):
    """Batch norm without a scale: the weight stays 1."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.weight.requires_grad_(False)


class Linear(nn.Linear):
    """Without bias, its outputs scaled down."""

    scale = SCALE

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(channels, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


def conv(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    """3x3, of which the first filters pass their inputs on: Zagoruyko and Komodakis 2017, arXiv:1706.00388."""
    layer = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[:c_in])
    return layer


def block(c_in: int, c_out: int) -> nn.Sequential:
    """(N, c_in, H, W) -> (N, c_out, H // 2, W // 2)"""
    return nn.Sequential(conv(c_in, c_out), nn.MaxPool2d(2), Norm(c_out), nn.GELU(),
                         conv(c_out, c_out), Norm(c_out), nn.GELU())


class QuickNet(nn.Sequential):
    def prepare(self, images: Iterable[Tensor]) -> None:
        """Before a training: whiten by its pictures, batches x (B, 3, S, S)."""
        self.stem[0].prepare(images)


def quicknet(num_classes: int, side: int = 32) -> QuickNet:
    count = halvings(side)
    stem = nn.Sequential(Whitening(PATCH if count else 1), nn.GELU())
    width = stem[0].out_channels
    for _ in range(count - 1):
        stem.extend((conv(width, width, 2), Norm(width), nn.GELU()))
    blocks = [block(c_in, c_out) for c_in, c_out in zip((width, *WIDTHS), WIDTHS, strict=False)]
    head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), Linear(WIDTHS[-1], num_classes))
    return QuickNet(OrderedDict(stem=stem, blocks=nn.Sequential(*blocks), head=head))
