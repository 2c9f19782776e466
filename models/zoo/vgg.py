"""VGG19: Simonyan and Zisserman, 2014, arXiv 1409.1556 (configuration E).

For 32x32 images: the five max pools bring 32 down to 1, so one linear layer stands in for the three wide
ones and their dropout, and batch normalisation (arXiv 1502.03167) follows every convolution.
20 040 522 parameters at 10 classes; the convolutions keep their biases.
Larger pictures: the first convolution has stride 2, and more such follow until the others begin at 32 or less; the
pools round up, so that five of them bring 24 and 28 down to 1 as well.
"""

from collections import OrderedDict

from torch import nn

from models.blocks import conv_bn_relu, pool_linear, stem

STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # (channels, convolutions before the max pool)


def vgg19(num_classes: int, side: int = 32) -> nn.Sequential:
    features: list[nn.Module] = []
    in_channels = 3
    for channels, repeats in STAGES:
        for _ in range(repeats):
            features.append(conv_bn_relu(in_channels, channels, 3, bias=True) if features
                            else stem(channels, side, bias=True))
            in_channels = channels
        features.append(nn.MaxPool2d(2, ceil_mode=True))  # 7 to 4 and 3 to 2: five times, from 24 pixels on
    return nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*features),
            head=pool_linear(in_channels, num_classes),
        )
    )
