"""Maps side by side on the channels: of one map, with ReLU, a copy for each of E edges, and the maps of E nodes.

    x (N, C, H, W)  or  E times (N, C, H, W)  ->  (N, E * C, H, W)
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels import channels_last, precision_of, unit_of
from models.kernels.depthwise import TYPES

ROWS, CHANNELS, WARPS = 32, 64, 4  # of a tile


def rectified_copies(x: Tensor, count: int) -> Tensor:
    """Of one map, after a ReLU."""
    return _Copies.apply(x, count)


def joined(maps: Sequence[Tensor]) -> Tensor:
    """Of maps of one shape and type. Their gradients are dense, which slices of the whole would not be."""
    return _Joined.apply(*maps)


class _Copies(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int) -> Tensor:
        x = channels_last(x)
        ctx.save_for_backward(x)
        ctx.count = count
        y = _wide(x, count)
        _launch(_copies, x, y, count)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        [x] = ctx.saved_tensors
        found = torch.empty_like(x)
        _launch(_gradient, x, channels_last(grad), ctx.count, found, SUM=TYPES[precision_of(x)])
        return found, None


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *maps: Tensor) -> Tensor:
        maps = tuple(channels_last(map) for map in maps)
        ctx.count = len(maps)
        y = _wide(maps[0], len(maps))
        _launch(_together, maps, y, len(maps))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        n, c, h, w = grad.shape
        found = tuple(torch.empty((n, c // ctx.count, h, w), dtype=grad.dtype, device=grad.device,
                                  memory_format=torch.channels_last) for _ in range(ctx.count))
        _launch(_apart, found, channels_last(grad), ctx.count)
        return found


def _wide(x: Tensor, count: int) -> Tensor:
    n, c, h, w = x.shape
    return torch.empty((n, count * c, h, w), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _launch(kernel: Any, narrow: Tensor | tuple[Tensor, ...], wide: Tensor, count: int, *more: Any,
            **constants: Any) -> None:
    n, c, h, w = (narrow if isinstance(narrow, Tensor) else narrow[0]).shape
    kernel[triton.cdiv(n * h * w, ROWS), triton.cdiv(c, CHANNELS)](
        narrow, wide, *more, n * h * w, c // unit_of(c), UNIT=unit_of(c), COUNT=count, ROWS=ROWS, CHANNELS=CHANNELS,
        num_warps=WARPS, **constants)


@triton.jit
def _block(rows, units, UNIT: tl.constexpr, COUNT: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """Of a program: where it reads in the narrow map and in the wide one, and whether that is within."""
    channels = units * UNIT
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    row = r.to(tl.int64)[:, None] * channels
    return row + c[None, :], row * COUNT + c[None, :], (r < rows)[:, None] & (c < channels)[None, :]


@triton.jit(do_not_specialize=["rows", "units"])
def _copies(x, y, rows, units, UNIT: tl.constexpr, COUNT: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    place, wide, known = _block(rows, units, UNIT, COUNT, ROWS, CHANNELS)
    value = tl.load(x + place, known, 0.0)
    value = tl.where(value < 0, 0.0, value)  # which keeps NaN
    for copy in tl.static_range(COUNT):
        tl.store(y + wide + copy * units * UNIT, value.to(y.dtype.element_ty), known)


@triton.jit(do_not_specialize=["rows", "units"])
def _gradient(x, grad, found, rows, units, UNIT: tl.constexpr, COUNT: tl.constexpr, ROWS: tl.constexpr,
              CHANNELS: tl.constexpr, SUM: tl.constexpr):
    place, wide, known = _block(rows, units, UNIT, COUNT, ROWS, CHANNELS)
    total = tl.zeros((ROWS, CHANNELS), SUM)
    for copy in tl.static_range(COUNT):
        total += tl.load(grad + wide + copy * units * UNIT, known, 0.0).to(SUM)
    total = tl.where(tl.load(x + place, known, 0.0) <= 0, 0.0, total)
    tl.store(found + place, total.to(found.dtype.element_ty), known)


@triton.jit(do_not_specialize=["rows", "units"])
def _together(maps, y, rows, units, UNIT: tl.constexpr, COUNT: tl.constexpr, ROWS: tl.constexpr,
              CHANNELS: tl.constexpr):
    place, wide, known = _block(rows, units, UNIT, COUNT, ROWS, CHANNELS)
    for map in tl.static_range(COUNT):
        tl.store(y + wide + map * units * UNIT, tl.load(maps[map] + place, known, 0.0), known)


@triton.jit(do_not_specialize=["rows", "units"])
def _apart(maps, y, rows, units, UNIT: tl.constexpr, COUNT: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    place, wide, known = _block(rows, units, UNIT, COUNT, ROWS, CHANNELS)
    for map in tl.static_range(COUNT):
        tl.store(maps[map] + place, tl.load(y + wide + map * units * UNIT, known, 0.0), known)
