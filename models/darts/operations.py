"""The candidate operations of DARTS (arXiv:1806.09055): (N, C, H, W) -> (N, C, H / stride, W / stride).

With `affine` they are those of a discrete network. Without, those of the supernet: batch norms have no weights, since
these would rescale what alpha weighs, and pooling is followed by one, since unnormalised it would weigh more.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.blocks import BatchNorm2d, avg_pool, max_pool
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
        self.norm = BatchNorm2d(c_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        even, odd = x[:, :, ::2, ::2].relu(), x[:, :, 1::2, 1::2].relu()  # the other half is never used
        return self.norm(torch.cat([self.even(even), self.odd(odd)], 1))

    def of_rectified(self, x: Tensor) -> Tensor:
        """The same of a map that a ReLU has been over."""
        return self.norm(torch.conv2d(x, self.kernel(), stride=2))

    def kernel(self) -> Tensor:
        """(c_out, c_in, 2, 2): both as one convolution of stride 2, whose gradient is not gathered pixel by pixel."""
        return reducing_kernels(self.even.weight, self.odd.weight)


def reducing_kernels(even: Tensor, odd: Tensor, count: int = 1) -> Tensor:
    """Of `count` edges: (count * c_even, c_in, 1, 1) and (count * c_odd, c_in, 1, 1) -> (count * c, c_in, 2, 2)"""
    padded = nn.functional.pad(even, (0, 1, 0, 1)), nn.functional.pad(odd, (1, 0, 1, 0))
    return torch.cat([half.unflatten(0, (count, -1)) for half in padded], 1).flatten(0, 1)


class ReluConvBn(nn.Sequential):
    """To `c_out` channels by a 1x1 convolution."""

    def __init__(self, c_in: int, c_out: int, affine: bool) -> None:
        super().__init__(nn.ReLU(), PointwiseConv2d(c_in, c_out), BatchNorm2d(c_out, affine=affine))

    def of_rectified(self, x: Tensor) -> Tensor:
        """The same of a map that a ReLU has been over."""
        _, convolve, norm = self
        return norm(convolve(x))


class Chain(nn.Sequential):
    """ReLU, depthwise, pointwise, batch norm; `times` times, the stride in the first."""

    def __init__(self, channels: int, kernel: int, dilation: int, times: int, stride: int, affine: bool) -> None:
        layers: list[nn.Module] = []
        for number in range(times):
            # A later ReLU overwrites what the batch norm before it gives; nobody else reads it.
            layers += [nn.ReLU(inplace=number > 0),
                       DepthwiseConv2d(channels, kernel, 1 if number else stride, dilation),
                       PointwiseConv2d(channels, channels), BatchNorm2d(channels, affine=affine)]
        super().__init__(*layers)

    def steps(self) -> list[tuple[DepthwiseConv2d, PointwiseConv2d, BatchNorm2d]]:
        """Its layers but the ReLUs, of each time."""
        layers = list(self)
        return list(zip(layers[1::4], layers[2::4], layers[3::4], strict=True))


# ---- the space: an operation is declared once, for all forms of the supernet, the discrete network and NNI's space

Pooling = Callable[[Tensor, int], Tensor]  # (N, C, H, W) and a stride -> (N, C, H / stride, W / stride)


class Shape(NamedTuple):
    """Of a Chain."""

    kernel: int
    dilation: int
    times: int


class Operation(NamedTuple):
    """One candidate. The fast forms of the supernet compute it by one of the last four; with none it has no such."""

    build: Callable[[int, int, bool], nn.Module]  # channels, stride, affine
    chain: Shape | None = None
    pool: Pooling | None = None  # before a norm
    skip: bool = False
    zero: bool = False


def chain(kernel: int, dilation: int, times: int) -> Operation:
    """A candidate that is a Chain."""
    return Operation(lambda channels, stride, affine: Chain(channels, kernel, dilation, times, stride, affine),
                     chain=Shape(kernel, dilation, times))


class Pool(nn.Module):
    """A pooling as a module."""

    def __init__(self, pool: Pooling, stride: int) -> None:
        super().__init__()
        self.pool, self.stride = pool, stride

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x, self.stride)


def pool(function: Pooling) -> Operation:
    """A candidate that is a Pool."""
    def build(channels: int, stride: int, affine: bool) -> nn.Module:
        return Pool(function, stride) if affine else nn.Sequential(Pool(function, stride),
                                                                   BatchNorm2d(channels, affine=False))
    return Operation(build, pool=function)


def _max_pool(x: Tensor, stride: int) -> Tensor:
    return max_pool(x, 3, stride)


def _avg_pool(x: Tensor, stride: int) -> Tensor:
    return avg_pool(x, 3, stride, count_padding=False)


def _skip(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


# In the order of the alphas; none comes first. Another one, such as SPACE["sep_conv_7x7"] = chain(7, 1, 2), is declared
# here, or by a script of its own before it imports anything that knows the space (genotype.py).
SPACE: dict[str, Operation] = {
    "none": Operation(lambda channels, stride, affine: Zero(stride), zero=True),
    "max_pool_3x3": pool(_max_pool),
    "avg_pool_3x3": pool(_avg_pool),
    "skip_connect": Operation(_skip, skip=True),
    "sep_conv_3x3": chain(3, dilation=1, times=2),
    "sep_conv_5x5": chain(5, dilation=1, times=2),
    "dil_conv_3x3": chain(3, dilation=2, times=1),
    "dil_conv_5x5": chain(5, dilation=2, times=1),
}


def operation(name: str, channels: int, stride: int, affine: bool) -> nn.Module:
    """The operation `name` of SPACE, from `channels` to as many."""
    return SPACE[name].build(channels, stride, affine)


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
        kept = torch.bernoulli(self.keep.expand(len(x), 1, 1, 1))
        mask = torch.div(kept, self.keep, out=x.new_empty(kept.shape))  # in the type of x, without a cast of its own
        return x.mul_(mask)


def drop_path(module: nn.Module) -> nn.Module:
    """`module` followed by a DropPath, unless it is the identity: a path that is only a connection is never cut."""
    return module if isinstance(module, nn.Identity) else nn.Sequential(module, DropPath())


# ---- of partial channels


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of `groups` groups, so that others pass by at the next edge (arXiv:1707.01083)."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2).contiguous(memory_format=torch.channels_last)
