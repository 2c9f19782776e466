"""Pointwise convolution of E groups: x (N, E * C, H, W), weight (E * C, C, 1, 1) -> (N, E * C, H, W).

In channels_last that is E products of matrices, of many rows with few columns; cuDNN slices the groups apart for it,
and puts them together again.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels import channels_last, unit_of
from models.kernels.sums import total

ROWS = 128  # of a tile
LEAST, MOST = 16, 256  # columns of a tile, and bytes of them
DEPTH = 64  # columns that are multiplied at once
PROGRAMS = 528  # that share the sum over all rows


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """See above. float32 is multiplied as PyTorch's own convolutions are told to: as TF32, or with all its bits. Of
    float64, and of one group, it is theirs."""
    groups = x.shape[1] // weight.shape[1]
    if groups == 1 or x.dtype == torch.float64:
        return torch.conv2d(x, weight, groups=groups)
    return _Pointwise.apply(x, weight)


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x, weight = channels_last(x), weight.contiguous()
        ctx.save_for_backward(x, weight)
        return _multiplied(x, weight, transposed=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (x, weight), grad, grads = ctx.saved_tensors, channels_last(grad), [None, None]
        if ctx.needs_input_grad[0]:
            grads[0] = _multiplied(grad, weight, transposed=True)
        if ctx.needs_input_grad[1]:
            rows, channels, groups, constants = _sizes(x, weight)
            blocks = triton.cdiv(weight.shape[1], constants["COLUMNS"])
            parts = max(1, min(PROGRAMS // (groups * blocks**2), triton.cdiv(rows, ROWS)))
            sums = torch.empty((parts, *weight.shape), dtype=torch.float32, device=x.device)
            _weight_gradient[parts, groups, blocks**2](grad, x, sums, rows, channels, groups, **constants)
            grads[1] = total(sums).to(weight.dtype)
        return tuple(grads)


def _multiplied(x: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    rows, channels, groups, constants = _sizes(x, weight)
    y = torch.empty_like(x)
    _products[triton.cdiv(rows, ROWS), groups, triton.cdiv(weight.shape[1], constants["COLUMNS"])](
        x, weight, y, rows, channels, groups, TRANSPOSED=transposed, DEPTH=(depth := min(constants["COLUMNS"], DEPTH)),
        PARTS=triton.cdiv(weight.shape[1], depth), **constants)
    return y


def _sizes(x: Tensor, weight: Tensor) -> tuple[int, int, int, dict[str, Any]]:
    """Rows, channels as a multiple of a unit, groups; constants."""
    (n, wide, h, w), channels = x.shape, weight.shape[1]
    ieee = torch.backends.cudnn.conv.fp32_precision == "ieee" or torch.version.hip  # AMD's know no TF32
    unit, columns = unit_of(channels), min(max(triton.next_power_of_2(channels), LEAST), MOST // x.itemsize)
    return n * h * w, channels // unit, wide // channels, {
        "UNIT": unit, "COLUMNS": columns, "ROWS": ROWS, "PRECISION": "ieee" if ieee else "tf32",
        "num_warps": 8 if columns > DEPTH else 4}


@triton.jit(do_not_specialize=["rows", "units", "groups"])
def _products(x, weight, y, rows, units, groups, TRANSPOSED: tl.constexpr, UNIT: tl.constexpr, COLUMNS: tl.constexpr,
              DEPTH: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr, PRECISION: tl.constexpr):
    channels = units * UNIT
    group = tl.program_id(1)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    row = r.to(tl.int64)[:, None] * (channels * groups) + group * channels
    own = weight + group * channels * channels
    product = tl.zeros((ROWS, COLUMNS), tl.float32)
    for part in tl.static_range(PARTS):
        d = part * DEPTH + tl.arange(0, DEPTH)
        map = tl.load(x + row + d[None, :], (r < rows)[:, None] & (d < channels)[None, :], 0.0)
        square = (d < channels)[:, None] & (c < channels)[None, :]
        if TRANSPOSED:
            factor = tl.load(own + d[:, None] * channels + c[None, :], square, 0.0)
        else:
            factor = tl.load(own + c[None, :] * channels + d[:, None], square, 0.0)
        product += tl.dot(map, factor, input_precision=PRECISION)
    tl.store(y + row + c[None, :], product.to(y.dtype.element_ty), (r < rows)[:, None] & (c < channels)[None, :])


@triton.jit(do_not_specialize=["rows", "units", "groups"])
def _weight_gradient(grad, x, sums, rows, units, groups, UNIT: tl.constexpr, COLUMNS: tl.constexpr,
                     ROWS: tl.constexpr, PRECISION: tl.constexpr):
    channels = units * UNIT
    group = tl.program_id(1)
    blocks = tl.cdiv(channels, COLUMNS)
    out = tl.program_id(2) // blocks * COLUMNS + tl.arange(0, COLUMNS)
    c = tl.program_id(2) % blocks * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS, COLUMNS), tl.float32)
    share = tl.cdiv(rows, tl.num_programs(0))
    first = tl.program_id(0) * share
    end = tl.minimum(first + share, rows)
    for start in range(first, end, ROWS):
        r = start + tl.arange(0, ROWS)
        row = r.to(tl.int64)[:, None] * (channels * groups) + group * channels
        slope = tl.load(grad + row + out[None, :], (r < end)[:, None] & (out < channels)[None, :], 0.0)
        map = tl.load(x + row + c[None, :], (r < end)[:, None] & (c < channels)[None, :], 0.0)
        total += tl.dot(tl.trans(slope), map, input_precision=PRECISION)
    place = (tl.program_id(0) * groups + group) * channels * channels + out[:, None] * channels + c[None, :]
    tl.store(sums + place, total, (out < channels)[:, None] & (c < channels)[None, :])
