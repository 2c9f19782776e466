"""DPN-92, dual path network: Chen et al., 2017, arXiv 1707.01629 (table 1).

For 32x32 images: a 3x3 convolution of stride 1 replaces the 7x7 one of stride 2 and its max pool, so the
four stages work at 32, 16, 8 and 4 pixels. The well-known CIFAR version, followed here, also normalises and
activates after each convolution where the authors' code does so before. 34 236 634 parameters at 10 classes.
Larger pictures: the first convolution has stride 2, and more such follow until the stages begin at 32 or less.
"""

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.blocks import conv_bn, conv_bn_relu, pool_linear, stem


class Stage(NamedTuple):
    width: int  # channels of the 3x3 convolution in 32 groups
    residual: int  # channels of the path that is added to, as in ResNet
    dense: int  # channels that each block adds to the path that grows, as in DenseNet
    blocks: int
    stride: int  # of the first block


GROUPS = 32
STAGES = (
    Stage(96, 256, 16, 3, 1),
    Stage(192, 512, 32, 4, 2),
    Stage(384, 1024, 24, 20, 2),
    Stage(768, 2048, 128, 3, 2),
)


class DualPathBlock(nn.Module):
    """The first `residual` channels of the output are a sum, the others a concatenation.

    The first block of a stage projects its input to both paths; later blocks take it as it is.
    """

    def __init__(self, in_channels: int, stage: Stage, first: bool) -> None:
        super().__init__()
        stride = stage.stride if first else 1
        out_channels = stage.residual + stage.dense
        self.residual = stage.residual
        self.body = nn.Sequential(
            conv_bn_relu(in_channels, stage.width, 1),
            conv_bn_relu(stage.width, stage.width, 3, stride, GROUPS),
            conv_bn(stage.width, out_channels, 1),
        )
        self.shortcut = conv_bn(in_channels, out_channels, 1, stride) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x, y, r = self.shortcut(x), self.body(x), self.residual
        return torch.relu_(torch.cat([x[:, :r] + y[:, :r], x[:, r:], y[:, r:]], dim=1))


def dpn92(num_classes: int, side: int = 32) -> nn.Sequential:
    blocks = []
    channels = 64
    for stage in STAGES:
        for i in range(stage.blocks):
            blocks.append(DualPathBlock(channels, stage, first=i == 0))
            # Dense channels so far: one share from the projection and one from each block.
            channels = stage.residual + (i + 2) * stage.dense
    return nn.Sequential(
        OrderedDict(
            stem=stem(64, side),
            blocks=nn.Sequential(*blocks),
            head=pool_linear(channels, num_classes),
        )
    )
