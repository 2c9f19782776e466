"""ShuffleNet v1 with 2 groups: Zhang, Zhou, Lin and Sun, 2017, arXiv 1707.01083.

From the paper's table 1: stages of 4, 8 and 4 units with 200, 400 and 800 channels (the column g = 2), 24
channels after the first convolution, the first 1x1 convolution of the first stage without groups (its input
is too narrow), bottlenecks of a quarter of the width.

For 32x32 images: a 1x1 convolution of stride 1 replaces the 3x3 one of stride 2 and its max pool, so the
stages work at 16, 8 and 4 pixels. As in the popular public version (kuangliu/pytorch-cifar), the bottleneck
of a stride-2 unit is a quarter of what its own branch makes (176 of 200, 200 of 400, 400 of 800 channels;
average pooling brings the rest). Against it and with the paper, no ReLU follows the depthwise convolution.
That version does not run on Python 3, where its `/` makes channel counts floats, which nn.Conv2d refuses.
Larger pictures: 3x3 convolutions of stride 2, as the paper's first one is, until the units see at most 32.

887 582 parameters at 10 classes: 120 before the stages, 39 002 + 305 750 + 534 700 in them, 8 010 after.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from models.blocks import avg_pool, conv_bn, conv_bn_relu, halvings, pool_linear, stem

GROUPS = 2
STAGES = ((200, 4), (400, 8), (800, 4))  # (channels, units); the first unit of each has stride 2


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the groups: channel i of group g moves to place i * groups + g. Keeps the memory format."""
    if x.is_contiguous(memory_format=torch.channels_last):
        nhwc = x.permute(0, 2, 3, 1).unflatten(3, (groups, -1))  # (N, H, W, groups, C / groups)
        return nhwc.transpose(3, 4).flatten(3).permute(0, 3, 1, 2)  # (N, C, H, W)
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)  # (N, C, H, W)


class ShuffleUnit(nn.Module):
    """1x1 in groups, shuffle, 3x3 depthwise, 1x1 in groups; added to the input, or joined to its pooling."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups_in: int) -> None:
        super().__init__()
        self.stride, self.groups_in = stride, groups_in
        branch = out_channels if stride == 1 else out_channels - in_channels
        bottleneck = branch // 4
        self.reduce = conv_bn_relu(in_channels, bottleneck, 1, groups=groups_in)
        self.depthwise = conv_bn(bottleneck, bottleneck, 3, stride, groups=bottleneck)
        self.expand = conv_bn(bottleneck, branch, 1, groups=GROUPS)

    def forward(self, x: Tensor) -> Tensor:
        y = self.reduce(x)
        if self.groups_in > 1:
            y = channel_shuffle(y, self.groups_in)
        y = self.expand(self.depthwise(y))
        if self.stride == 1:
            return torch.relu_(x + y)
        return torch.relu_(torch.cat([y, avg_pool(x, 3, 2, count_padding=True)], dim=1))


def shufflenet_g2(num_classes: int, side: int = 32) -> nn.Sequential:
    units = []
    in_channels = 24
    for channels, repeats in STAGES:
        for i in range(repeats):
            groups_in = 1 if not units else GROUPS
            units.append(ShuffleUnit(in_channels, channels, 2 if i == 0 else 1, groups_in))
            in_channels = channels
    return nn.Sequential(
        OrderedDict(
            stem=stem(24, side) if halvings(side) else conv_bn_relu(3, 24, 1),
            units=nn.Sequential(*units),
            head=pool_linear(in_channels, num_classes),
        )
    )
