"""MobileNet: Howard et al., 2017, arXiv 1704.04861 (table 1, width 1).

For 32x32 images: the first convolution has stride 1 in place of 2, so the last feature map is 2x2. The rest
of the table is kept (the sizes in it show that its last stride, printed as 2, is 1).
3 217 226 parameters at 10 classes.
Larger pictures: the first convolution has stride 2, and more such follow until the table begins at 32 or less.
"""

from collections import OrderedDict

from torch import nn

from models.blocks import conv_bn_relu, pool_linear, stem

# (channels, stride) of each depthwise separable convolution
LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def depthwise_separable(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """A 3x3 convolution within each channel, then a 1x1 convolution across them."""
    depthwise = conv_bn_relu(in_channels, in_channels, 3, stride, groups=in_channels)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=conv_bn_relu(in_channels, channels, 1)))


def mobilenet(num_classes: int, side: int = 32) -> nn.Sequential:
    layers = []
    in_channels = 32
    for channels, stride in LAYERS:
        layers.append(depthwise_separable(in_channels, channels, stride))
        in_channels = channels
    return nn.Sequential(
        OrderedDict(
            stem=stem(32, side),
            layers=nn.Sequential(*layers),
            head=pool_linear(in_channels, num_classes),
        )
    )
