"""ReLU, and a copy of the map for each of E edges: x (N, C, H, W) -> (N, E * C, H, W), for a convolution of all."""

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
    return _Copies.apply(x, count)


class _Copies(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int) -> Tensor:
        x, (n, c, h, w) = channels_last(x), x.shape
        y = torch.empty((n, count * c, h, w), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        ctx.save_for_backward(x)
        ctx.count = count
        _launch(_copies, x, y, count)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        [x] = ctx.saved_tensors
        found = torch.empty_like(x)
        _launch(_gradient, x, channels_last(grad), ctx.count, found, SUM=TYPES[precision_of(x)])
        return found, None


def _launch(kernel: Any, x: Tensor, wide: Tensor, count: int, *more: Any, **constants: Any) -> None:
    n, c, h, w = x.shape
    kernel[triton.cdiv(n * h * w, ROWS), triton.cdiv(c, CHANNELS)](
        x, wide, *more, n * h * w, c // unit_of(c), UNIT=unit_of(c), COUNT=count, ROWS=ROWS, CHANNELS=CHANNELS,
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
