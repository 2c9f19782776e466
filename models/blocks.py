"""Pieces that the convolutional families share, and what becomes of pictures that are larger than 32x32.

The body of every network is made for maps of at most BODY pixels a side: a stem halves larger pictures until they are.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from models.kernels import usable

SIZES = (32, 48, 64, 96, 128, 192, 224)  # sides of pictures that all networks are built for
BODY = 32


def halvings(side: int) -> int:
    """How often the stem halves pictures of this side; ValueError if no network is built for them."""
    if side not in SIZES:
        raise ValueError(f"side = {side!r}: must be one of {', '.join(map(str, SIZES))}")
    count = 0
    while side > BODY << count:
        count += 1
    return count


def body_side(side: int) -> int:
    """The side of the first map after the stem."""
    return side >> halvings(side)


class BatchNorm2d(nn.BatchNorm2d):
    """PyTorch's, which on a GPU takes the batch's statistics by a kernel of our own, of large maps in half the time."""

    def forward(self, x: Tensor) -> Tensor:
        fits = x.ndim == 4 and x.shape[1] == self.num_features and x.numel() > x.shape[1]  # PyTorch tells if not
        of_batch = self.training or self.running_mean is None
        if not (fits and of_batch and self.momentum is not None and usable(x)):
            return super().forward(x)
        from models.kernels.batch_norm import normalized  # Triton, which not every machine has

        weights, bias = (self.weight[None], self.bias) if self.affine else (None, None)
        running = (self.running_mean, self.running_var, self.num_batches_tracked)
        return normalized([x], weights, bias, eps=self.eps, momentum=self.momentum,
                          running=None if self.running_mean is None else running)


def avg_pool(x: Tensor, kernel: int, stride: int, count_padding: bool) -> Tensor:
    """Padded by half of the kernel. PyTorch's own gradient of that, in channels_last, is wrong on a GPU in 2.11
    (github.com/pytorch/pytorch/issues/188344, of June 2026)."""
    if usable(x):
        from models.kernels import pooling  # Triton, which not every machine has

        return pooling.avg_pool(x, kernel, stride, count_padding)
    pooled = nn.functional.avg_pool2d(x.contiguous() if on_gpu(x) else x, kernel, stride, kernel // 2,
                                      count_include_pad=count_padding)
    return pooled.contiguous(memory_format=torch.channels_last) if on_gpu(x) else pooled


def on_gpu(x: Tensor) -> bool:
    return x.is_cuda


def max_pool(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Padded by half of the kernel."""
    if usable(x):
        from models.kernels import pooling  # Triton, which not every machine has

        return pooling.max_pool(x, kernel, stride)
    return nn.functional.max_pool2d(x, kernel, stride, kernel // 2)


def conv_bn(
    c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, *, bias: bool = False
) -> nn.Sequential:
    """Convolution that keeps the size (divided by the stride), then batch normalisation.

    The normalisation subtracts the mean, so a bias changes nothing; two families have it only because the
    well-known parameter counts include it.
    """
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=bias)
    return nn.Sequential(conv, BatchNorm2d(c_out))


def conv_bn_relu(
    c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, *, bias: bool = False
) -> nn.Sequential:
    """`conv_bn`, then ReLU in place: batch normalisation keeps its input for the gradient, not its output."""
    return conv_bn(c_in, c_out, kernel, stride, groups, bias=bias).append(nn.ReLU(inplace=True))


def stem(channels: int, side: int, *, inner: int | None = None, bias: bool = False) -> nn.Sequential:
    """(N, 3, side, side) -> (N, channels, body, body), body = body_side(side).

    At 32 a 3x3 convolution; beyond, it has stride 2, and there is one such for each halving, with `inner` channels
    (as many as in the end, if none is given) before the last.
    """
    count = halvings(side)
    widths = [3, *[inner or channels] * (count - 1), channels]
    first, *others = (conv_bn_relu(c_in, c_out, 3, 2 if count else 1, bias=bias) for c_in, c_out in pairwise(widths))
    return first.extend(others)


def pool_linear(channels: int, num_classes: int) -> nn.Sequential:
    """The end of every network: (N, channels, H, W) -> mean over H and W -> (N, num_classes) logits."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
