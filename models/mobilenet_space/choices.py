"""What MobileNet's 13 blocks may hold in the search space of stage 2: operations and skips, each a module and its cost.

The list of them in words is in space.py.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.blocks import body_side, conv_bn, conv_bn_relu
from models.zoo.mobilenet import LAYERS
from models.zoo.senet import REDUCTION, squeeze_excitation

STEM, SIDE = 32, 32  # channels of the first feature map; the side of images if none is given
SKIP_REACH = 3  # earlier feature maps that a skip may come from
SKIP_BLOCKS = (3, 5, 7, 9, 11)


class Block(NamedTuple):
    """One of the 13 places for an operation; `number` from 1, `size` of its input (N, c_in, size, size), `side` of the
    images."""

    number: int
    c_in: int
    c_out: int
    stride: int
    size: int
    side: int = SIDE

    @property
    def size_out(self) -> int:
        return -(-self.size // self.stride)  # a convolution of stride 2 makes 4 of 7

    @property
    def same_shape(self) -> bool:
        return self.stride == 1 and self.c_in == self.c_out

    @property
    def op_label(self) -> str:
        return f"block{self.number:02d}_op"

    @property
    def skip_label(self) -> str:
        return f"block{self.number:02d}_skip"


@cache
def blocks_of(side: int) -> tuple[Block, ...]:
    """The blocks for images of this side; ValueError if no network is built for them."""
    blocks, channels, size = [], STEM, body_side(side)
    for number, (c_out, stride) in enumerate(LAYERS, 1):
        blocks.append(Block(number, channels, c_out, stride, size, side))
        channels, size = c_out, blocks[-1].size_out
    return tuple(blocks)


BLOCKS = blocks_of(SIDE)


# ---- operations, each a module and its cost


class Residual(nn.Sequential):
    """x + f(x)"""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Excitation(nn.Sequential):
    """x * f(x), f being a weight for each channel"""

    def forward(self, x: Tensor) -> Tensor:
        return x * super().forward(x)


def _separable(block: Block, kernel: int, excite: bool = False, residual: bool = False) -> nn.Sequential:
    parts = OrderedDict(depthwise=conv_bn_relu(block.c_in, block.c_in, kernel, block.stride, groups=block.c_in))
    if excite:
        parts["excitation"] = Excitation(*squeeze_excitation(block.c_in))
    parts["pointwise"] = (conv_bn if residual else conv_bn_relu)(block.c_in, block.c_out, 1)
    return (Residual if residual else nn.Sequential)(parts)


def _inverted(block: Block, expansion: float) -> nn.Sequential:
    inner = int(block.c_in * expansion)
    parts = OrderedDict(expand=conv_bn_relu(block.c_in, inner, 1),
                        depthwise=conv_bn_relu(inner, inner, 3, block.stride, groups=inner),
                        project=conv_bn(inner, block.c_out, 1))
    return (Residual if block.same_shape else nn.Sequential)(parts)


def _identity(block: Block) -> nn.Sequential:
    return nn.Sequential()


class Cost(NamedTuple):
    """Multiply-adds are those of convolutions and linear layers, for one image."""

    parameters: int
    macs: int


def total(costs: Iterable[Cost]) -> Cost:
    return Cost(*map(sum, zip(*costs, strict=True)))


def conv_bn_cost(c_in: int, c_out: int, kernel: int, size: int) -> Cost:
    """Of a convolution with normalisation and an output of (N, c_out, size, size); depthwise: c_in = 1."""
    weights = c_in * c_out * kernel**2
    return Cost(weights + 2 * c_out, weights * size**2)


def _separable_cost(block: Block, kernel: int, excite: bool = False, residual: bool = False) -> Cost:
    size, inner = block.size_out, block.c_in // REDUCTION
    squeeze = 2 * block.c_in * inner
    return total([conv_bn_cost(1, block.c_in, kernel, size), conv_bn_cost(block.c_in, block.c_out, 1, size),
                  Cost(squeeze + inner + block.c_in, squeeze) if excite else Cost(0, 0)])


def _inverted_cost(block: Block, expansion: float) -> Cost:
    inner, size = int(block.c_in * expansion), block.size_out
    return total([conv_bn_cost(block.c_in, inner, 1, block.size), conv_bn_cost(1, inner, 3, size),
                  conv_bn_cost(inner, block.c_out, 1, size)])


def _identity_cost(block: Block) -> Cost:
    return Cost(0, 0)


class Operation(NamedTuple):
    build: Callable[[Block], nn.Sequential]
    cost: Callable[[Block], Cost]


def _separable_operation(**kwargs: Any) -> Operation:
    return Operation(partial(_separable, **kwargs), partial(_separable_cost, **kwargs))


def _inverted_operation(expansion: float) -> Operation:
    return Operation(partial(_inverted, expansion=expansion), partial(_inverted_cost, expansion=expansion))


OPERATIONS = {
    "dw3": _separable_operation(kernel=3),
    "dw5": _separable_operation(kernel=5),
    "dw7": _separable_operation(kernel=7),
    "se_dw3": _separable_operation(kernel=3, excite=True),
    "ir2_dw3": _inverted_operation(2),
    "thin_dw3": _inverted_operation(1 / 4),
    "res_dw3": _separable_operation(kernel=3, residual=True),
    "identity": Operation(_identity, _identity_cost),
}
SAME_SHAPE_ONLY = frozenset({"res_dw3", "identity"})


def operations(block: Block) -> list[str]:
    """The block's choices of an operation."""
    return [name for name in OPERATIONS if block.same_shape or name not in SAME_SHAPE_ONLY]


# ---- skips


class NoSkip(nn.Module):
    def forward(self, x: Tensor, maps: list[Tensor]) -> Tensor:
        return x


class Skip(nn.Module):
    """The block's input with feature map number `source` (0: the stem) averaged to its size, in as many channels."""

    def __init__(self, block: Block, source: int) -> None:
        super().__init__()
        channels, size = _map_shape(block, source)
        factor = -(-size // block.size)  # 2 from 7 to 4: the last pixel stays alone
        self.source = source
        self.pool = nn.AvgPool2d(factor, ceil_mode=True) if factor > 1 else nn.Identity()
        self.merge = conv_bn_relu(block.c_in + channels, block.c_in, 1)

    def forward(self, x: Tensor, maps: list[Tensor]) -> Tensor:
        return self.merge(torch.cat([x, self.pool(maps[self.source])], 1))


def _map_shape(block: Block, source: int) -> tuple[int, int]:
    """(channels, size) of the feature map after the stem (0) or after a block, of the network that `block` is in."""
    following = blocks_of(block.side)[source]
    return following.c_in, following.size


def skips(block: Block) -> dict[str, int | None]:
    """The block's choices of a skip: name -> number of the feature map, nearest first; {} if it has none."""
    if block.number not in SKIP_BLOCKS:
        return {}
    sources = range(block.number - 2, -1, -1)[:SKIP_REACH]  # the map number - 1 is the block's own input
    return {"none": None, **{f"block{source:02d}" if source else "stem": source for source in sources}}


def build_skip(block: Block, source: int | None) -> nn.Module:
    return NoSkip() if source is None else Skip(block, source)


def skip_cost(block: Block, source: int | None) -> Cost:
    if source is None:
        return Cost(0, 0)
    return conv_bn_cost(block.c_in + _map_shape(block, source)[0], block.c_in, 1, block.size)
