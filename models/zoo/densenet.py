"""DenseNet121: Huang, Liu, van der Maaten and Weinberger, 2016, arXiv 1608.06993 (table 1, DenseNet-BC).

For 32x32 images: a plain 3x3 convolution of stride 1 replaces the 7x7 one of stride 2 and its max pool, so
the four blocks work at 32, 16, 8 and 4 pixels. 6 956 298 parameters at 10 classes.
Larger pictures: 3x3 convolutions of stride 2, each normalised and activated as the paper's first one is, until the
blocks begin at 32 or less.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from models.blocks import BatchNorm2d, halvings, pool_linear, stem

GROWTH = 32  # channels that each layer adds
BLOCKS = (6, 12, 24, 16)  # layers in each block


def bn_relu_conv(in_channels: int, out_channels: int, kernel_size: int) -> list[nn.Module]:
    return [
        BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
    ]


class DenseLayer(nn.Module):
    """(N, C, H, W) -> (N, C + GROWTH, H, W): all that came before, and what this layer adds to it."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        bottleneck = 4 * GROWTH
        self.new = nn.Sequential(
            *bn_relu_conv(in_channels, bottleneck, 1),
            *bn_relu_conv(bottleneck, GROWTH, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.new(x)], dim=1)


def transition(channels: int) -> nn.Sequential:
    """Halve the channels and the size.

    The paper pools after the 1x1 convolution. Both are linear and act on different axes, so they commute;
    this order gives the same result for a quarter of the multiplications.
    """
    norm, relu, conv = bn_relu_conv(channels, channels // 2, 1)
    return nn.Sequential(norm, relu, nn.AvgPool2d(2), conv)


def densenet121(num_classes: int, side: int = 32) -> nn.Sequential:
    channels = 2 * GROWTH
    first = stem(channels, side) if halvings(side) else nn.Conv2d(3, channels, 3, padding=1, bias=False)
    layers: list[nn.Module] = []
    for block, repeats in enumerate(BLOCKS):
        if block > 0:
            layers.append(transition(channels))
            channels //= 2
        for _ in range(repeats):
            layers.append(DenseLayer(channels))
            channels += GROWTH
    layers += [BatchNorm2d(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(
        OrderedDict(
            stem=first,
            layers=nn.Sequential(*layers),
            head=pool_linear(channels, num_classes),
        )
    )
