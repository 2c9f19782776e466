"""GoogLeNet: Szegedy et al., 2014, arXiv 1409.4842 (table 1).

For 32x32 images: one 3x3 convolution to 192 channels replaces everything before inception (3a), so the
three groups of modules work at 32, 16 and 8 pixels. Batch normalisation follows every convolution, two 3x3
convolutions replace each 5x5 (arXiv 1512.00567), and the auxiliary classifiers and the dropout are gone.
6 166 250 parameters at 10 classes; the convolutions keep their biases.
Larger pictures: a 3x3 convolution of stride 2 for each halving down to 32 or less; as in the paper 64 channels come
before the 192, at whose width the early ones would cost as much as all modules.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from models.blocks import conv_bn_relu, pool_linear, stem

# Channels: 1x1 branch; 3x3 branch, reduced and out; "5x5" branch, reduced and out; pool branch. None: halve.
STAGES = (
    (64, 96, 128, 16, 32, 32),  # 3a
    (128, 128, 192, 32, 96, 64),  # 3b
    None,
    (192, 96, 208, 16, 48, 64),  # 4a
    (160, 112, 224, 24, 64, 64),  # 4b
    (128, 128, 256, 24, 64, 64),  # 4c
    (112, 144, 288, 32, 64, 64),  # 4d
    (256, 160, 320, 32, 128, 128),  # 4e
    None,
    (256, 160, 320, 32, 128, 128),  # 5a
    (384, 192, 384, 48, 128, 128),  # 5b
)


class Inception(nn.Module):
    """Four branches side by side, concatenated.

    The three 1x1 convolutions that read the input directly are one convolution whose output is split: the
    same function and the same parameters, with one pass over the input in place of three.
    """

    def __init__(self, in_channels: int, c1: int, r3: int, c3: int, r5: int, c5: int, c_pool: int) -> None:
        super().__init__()
        self.widths = [c1, r3, r5]
        self.pointwise = conv_bn_relu(in_channels, sum(self.widths), 1, bias=True)
        self.branch3 = conv_bn_relu(r3, c3, 3, bias=True)
        self.branch5 = nn.Sequential(conv_bn_relu(r5, c5, 3, bias=True), conv_bn_relu(c5, c5, 3, bias=True))
        project = conv_bn_relu(in_channels, c_pool, 1, bias=True)
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), project)
        self.out_channels = c1 + c3 + c5 + c_pool

    def forward(self, x: Tensor) -> Tensor:
        y1, y3, y5 = self.pointwise(x).split(self.widths, dim=1)
        return torch.cat([y1, self.branch3(y3), self.branch5(y5), self.branch_pool(x)], dim=1)


def googlenet(num_classes: int, side: int = 32) -> nn.Sequential:
    modules: list[nn.Module] = []
    channels = 192
    for widths in STAGES:
        if widths is None:
            modules.append(nn.MaxPool2d(3, 2, 1))
        else:
            modules.append(Inception(channels, *widths))
            channels = modules[-1].out_channels
    return nn.Sequential(
        OrderedDict(
            stem=stem(192, side, inner=64, bias=True),
            inception=nn.Sequential(*modules),
            head=pool_linear(channels, num_classes),
        )
    )
