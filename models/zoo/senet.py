"""SENet18: squeeze-and-excitation, Hu, Shen, Albanie, Sun and Wu, 2017, arXiv 1709.01507, in a pre-activation
ResNet18, He, Zhang, Ren and Sun, 2016, arXiv 1603.05027.

For 32x32 images: a 3x3 convolution of stride 1 replaces the 7x7 one of stride 2 and its max pool. The
well-known CIFAR version, followed here, normalises and activates after this first convolution and not once
more before the final pooling, where the pre-activation paper would. 11 260 354 parameters at 10 classes.
Larger pictures: that convolution has stride 2, and more such follow until the blocks begin at 32 or less.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from models.blocks import BatchNorm2d, pool_linear, stem

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # (channels, stride of the first of the two blocks)
REDUCTION = 16  # of the channels, between squeeze and excitation


def squeeze_excitation(channels: int) -> nn.Sequential:
    """(N, C, H, W) -> (N, C, 1, 1): a weight from 0 to 1 for each channel of each image."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(channels, channels // REDUCTION, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels // REDUCTION, channels, 1),
        nn.Sigmoid(),
    )


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after normalisation and ReLU, reweighted by channel, around a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(BatchNorm2d(in_channels), nn.ReLU(inplace=True))
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False),
            BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )
        self.excitation = squeeze_excitation(channels)
        same_shape = stride == 1 and in_channels == channels
        self.projection = None if same_shape else nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a = self.activation(x)
        shortcut = x if self.projection is None else self.projection(a)
        y = self.residual(a)
        return torch.addcmul(shortcut, y, self.excitation(y))


def senet18(num_classes: int, side: int = 32) -> nn.Sequential:
    blocks = []
    in_channels = 64
    for channels, stride in STAGES:
        blocks += [
            PreActivationBlock(in_channels, channels, stride),
            PreActivationBlock(channels, channels, 1),
        ]
        in_channels = channels
    return nn.Sequential(
        OrderedDict(
            stem=stem(64, side),
            blocks=nn.Sequential(*blocks),
            head=pool_linear(in_channels, num_classes),
        )
    )
