"""The candidate operations of DARTS (arXiv:1806.09055): (N, C, H, W) -> (N, C, H / stride, W / stride).

With `affine` they are those of a discrete network. Without, those of the supernet: batch norms have no weights, since
these would rescale what alpha weighs, and pooling is followed by one, since unnormalised it would weigh more.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.darts.depthwise import DepthwiseConv2d
from models.darts.pointwise import PointwiseConv2d


class Zero(nn.Module):
    """No connection: zeros of the shape that the others give."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, ::self.stride, ::self.stride])


class FactorizedReduce(nn.Module):
    """ReLU, then half the size: 1x1 convolutions of the even and of the odd pixels, side by side on the channels."""

    def __init__(self, c_in: int, c_out: int, affine: bool) -> None:
        super().__init__()
        self.even = PointwiseConv2d(c_in, c_out // 2)
        self.odd = PointwiseConv2d(c_in, c_out - c_out // 2)
        self.norm = nn.BatchNorm2d(c_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        even, odd = x[:, :, ::2, ::2].relu(), x[:, :, 1::2, 1::2].relu()  # the other half is never used
        return self.norm(torch.cat([self.even(even), self.odd(odd)], 1))

    def of_rectified(self, x: Tensor) -> Tensor:
        """The same of a map that a ReLU has been over."""
        return self.norm(torch.conv2d(x, self.kernel(), stride=2))

    def kernel(self) -> Tensor:
        """(c_out, c_in, 2, 2): both as one convolution of stride 2, whose gradient is not gathered pixel by pixel."""
        return torch.cat([nn.functional.pad(self.even.weight, (0, 1, 0, 1)),
                          nn.functional.pad(self.odd.weight, (1, 0, 1, 0))])


class ReluConvBn(nn.Sequential):
    """To `c_out` channels by a 1x1 convolution."""

    def __init__(self, c_in: int, c_out: int, affine: bool) -> None:
        super().__init__(nn.ReLU(), PointwiseConv2d(c_in, c_out), nn.BatchNorm2d(c_out, affine=affine))

    def of_rectified(self, x: Tensor) -> Tensor:
        """The same of a map that a ReLU has been over."""
        _, convolve, norm = self
        return norm(convolve(x))


def _depthwise_pointwise(channels: int, kernel: int, stride: int, dilation: int, affine: bool,
                         inplace: bool = False) -> list[nn.Module]:
    return [nn.ReLU(inplace), DepthwiseConv2d(channels, kernel, stride, dilation),
            PointwiseConv2d(channels, channels), nn.BatchNorm2d(channels, affine=affine)]


class SeparableConv(nn.Sequential):
    """ReLU, depthwise, pointwise, batch norm; all twice, the stride in the first."""

    def __init__(self, channels: int, kernel: int, stride: int, affine: bool) -> None:
        # The second ReLU overwrites what the first batch norm gives; nobody else reads it.
        super().__init__(*_depthwise_pointwise(channels, kernel, stride, 1, affine),
                         *_depthwise_pointwise(channels, kernel, 1, 1, affine, inplace=True))


class DilatedConv(nn.Sequential):
    """ReLU, depthwise with every other pixel left out, pointwise, batch norm."""

    def __init__(self, channels: int, kernel: int, stride: int, affine: bool) -> None:
        super().__init__(*_depthwise_pointwise(channels, kernel, stride, 2, affine))


def _pool(pool: nn.Module, channels: int, affine: bool) -> nn.Module:
    return pool if affine else nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False))


def _max_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    return _pool(nn.MaxPool2d(3, stride, 1), channels, affine)


def _avg_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    return _pool(nn.AvgPool2d(3, stride, 1, count_include_pad=False), channels, affine)


def _skip(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


BUILD: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "none": lambda channels, stride, affine: Zero(stride),
    "max_pool_3x3": _max_pool,
    "avg_pool_3x3": _avg_pool,
    "skip_connect": _skip,
    "sep_conv_3x3": lambda channels, stride, affine: SeparableConv(channels, 3, stride, affine),
    "sep_conv_5x5": lambda channels, stride, affine: SeparableConv(channels, 5, stride, affine),
    "dil_conv_3x3": lambda channels, stride, affine: DilatedConv(channels, 3, stride, affine),
    "dil_conv_5x5": lambda channels, stride, affine: DilatedConv(channels, 5, stride, affine),
}


def operation(name: str, channels: int, stride: int, affine: bool) -> nn.Module:
    """The operation `name` of genotype.OPERATIONS, from `channels` to as many."""
    return BUILD[name](channels, stride, affine)


class DropPath(nn.Module):
    """In training each sample's whole map is 0 with probability p, else divided by 1 - p (arXiv:1605.07648).

    It overwrites its input. The probability is held in a tensor, so that a captured CUDA graph follows its schedule.
    """

    keep: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.active = False
        self.register_buffer("keep", torch.ones(1, 1, 1, 1), persistent=False)  # 1 - p

    def set_probability(self, p: float, rising: bool = False) -> None:
        """`rising`: masks are drawn at 0 too, so that later only a tensor changes, and what was compiled stays."""
        if not 0 <= p < 1:
            raise ValueError(f"drop path probability = {p!r}: must be at least 0 and less than 1")
        self.active = p > 0 or rising
        self.keep.fill_(1 - p)

    def forward(self, x: Tensor) -> Tensor:
        if not (self.active and self.training):
            return x
        mask = torch.bernoulli(self.keep.expand(len(x), 1, 1, 1)) / self.keep
        return x.mul_(mask.to(x.dtype))


def drop_path(module: nn.Module) -> nn.Module:
    """`module` followed by a DropPath, unless it is the identity: a path that is only a connection is never cut."""
    return module if isinstance(module, nn.Identity) else nn.Sequential(module, DropPath())


# ---- of partial channels


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of `groups` groups, so that others pass by at the next edge (arXiv:1707.01083)."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2).contiguous(memory_format=torch.channels_last)
