"""Pieces that the convolutional families share."""

from torch import nn


def conv_bn(
    c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, *, bias: bool = False
) -> nn.Sequential:
    """Convolution that keeps the size (divided by the stride), then batch normalisation.

    The normalisation subtracts the mean, so a bias changes nothing; two families have it only because the
    well-known parameter counts include it.
    """
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out))


def conv_bn_relu(
    c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, *, bias: bool = False
) -> nn.Sequential:
    """`conv_bn`, then ReLU in place: batch normalisation keeps its input for the gradient, not its output."""
    return conv_bn(c_in, c_out, kernel, stride, groups, bias=bias).append(nn.ReLU(inplace=True))


def pool_linear(channels: int, num_classes: int) -> nn.Sequential:
    """The end of every network: (N, channels, H, W) -> mean over H and W -> (N, num_classes) logits."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
