"""ResNet18: He, Zhang, Ren and Sun, 2015, arXiv 1512.03385.

For 32x32 images: a 3x3 convolution of stride 1 replaces the 7x7 one of stride 2 and its max pool, so the
four stages work at 32, 16, 8 and 4 pixels. 11 173 962 parameters at 10 classes.
Larger pictures: it has stride 2, and more such convolutions follow until the stages begin at 32 or less.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from models.blocks import conv_bn, conv_bn_relu, pool_linear, stem

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # (channels, stride of the first of the two blocks)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is projected where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv_bn_relu(in_channels, channels, 3, stride),
            conv_bn(channels, channels, 3),
        )
        same_shape = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if same_shape else conv_bn(in_channels, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.residual(x) + self.shortcut(x))


def resnet18(num_classes: int, side: int = 32) -> nn.Sequential:
    blocks = []
    in_channels = 64
    for channels, stride in STAGES:
        blocks += [BasicBlock(in_channels, channels, stride), BasicBlock(channels, channels, 1)]
        in_channels = channels
    return nn.Sequential(
        OrderedDict(
            stem=stem(64, side),
            blocks=nn.Sequential(*blocks),
            head=pool_linear(in_channels, num_classes),
        )
    )
