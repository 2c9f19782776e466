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

from models.kernels import PART, channels_last, unit_of
from models.kernels.sums import total

SUMMED = 64  # rows of a tile, of the sum over all rows; PART otherwise
LEAST, MOST = 16, 256  # columns of a tile, and bytes of them
DEPTH = 64  # columns that are multiplied at once
PROGRAMS = 528  # that share the sum over all rows


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """See above. float32 is multiplied as PyTorch's own convolutions are told to: as TF32, or with all its bits. Of
    float64, and of one group, it is theirs."""
    return _pointwise(x, weight, False)[0]


def pointwise_with_parts(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor | None]:
    """Besides the map the statistics of its parts that batch_norm.py goes on with, (parts, 2, E * C); None if PyTorch
    computes it."""
    return _pointwise(x, weight, True)


def _pointwise(x: Tensor, weight: Tensor, told: bool) -> tuple[Tensor, Tensor | None]:
    groups = x.shape[1] // weight.shape[1]
    if groups == 1 or x.dtype == torch.float64:
        return torch.conv2d(x, weight, groups=groups), None
    return _Pointwise.apply(x, weight, told)


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, told: bool) -> tuple[Tensor, Tensor]:
        x, weight = channels_last(x), weight.contiguous()
        ctx.save_for_backward(x, weight)
        count = triton.cdiv(x.numel() // x.shape[1], PART) if told else 0
        parts = torch.empty((count, 2, x.shape[1]), dtype=torch.float32, device=x.device)
        ctx.mark_non_differentiable(parts)
        return _multiplied(x, weight, parts), parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), grad, grads = ctx.saved_tensors, channels_last(grad), [None, None]
        if ctx.needs_input_grad[0]:
            grads[0] = _multiplied(grad, weight, transposed=True)
        if ctx.needs_input_grad[1]:
            rows, channels, groups, constants = _sizes(x, weight)
            blocks = triton.cdiv(weight.shape[1], constants["COLUMNS"])
            parts = max(1, min(PROGRAMS // (groups * blocks**2), triton.cdiv(rows, SUMMED)))
            sums = torch.empty((parts, *weight.shape), dtype=torch.float32, device=x.device)
            _weight_gradient[parts, groups, blocks**2](grad, x, sums, rows, channels, groups, ROWS=SUMMED, **constants)
            grads[1] = total(sums).to(weight.dtype)
        return *grads, None


def _multiplied(x: Tensor, weight: Tensor, parts: Tensor | None = None, transposed: bool = False) -> Tensor:
    """`parts`, if there are any, get the statistics."""
    rows, channels, groups, constants = _sizes(x, weight)
    y, depth = torch.empty_like(x), min(constants["COLUMNS"], DEPTH)
    _products[triton.cdiv(rows, PART), groups, triton.cdiv(weight.shape[1], constants["COLUMNS"])](
        x, weight, y, y if parts is None else parts, rows, channels, groups, TRANSPOSED=transposed,
        TOLD=parts is not None and len(parts) > 0, DEPTH=depth, DEPTHS=triton.cdiv(weight.shape[1], depth), ROWS=PART,
        **constants)
    return y


def _sizes(x: Tensor, weight: Tensor) -> tuple[int, int, int, dict[str, Any]]:
    """Rows, channels as a multiple of a unit, groups; constants."""
    (n, wide, h, w), channels = x.shape, weight.shape[1]
    ieee = torch.backends.cudnn.conv.fp32_precision == "ieee" or torch.version.hip  # AMD's know no TF32
    unit, columns = unit_of(channels), min(max(triton.next_power_of_2(channels), LEAST), MOST // x.itemsize)
    return n * h * w, channels // unit, wide // channels, {
        "UNIT": unit, "COLUMNS": columns, "PRECISION": "ieee" if ieee else "tf32",
        "num_warps": 8 if columns > DEPTH else 4}


@triton.jit(do_not_specialize=["rows", "units", "groups"])
def _products(x, weight, y, parts, rows, units, groups, TRANSPOSED: tl.constexpr, TOLD: tl.constexpr,
              UNIT: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, DEPTHS: tl.constexpr,
              ROWS: tl.constexpr, PRECISION: tl.constexpr):
    channels = units * UNIT
    group = tl.program_id(1)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    row = r.to(tl.int64)[:, None] * (channels * groups) + group * channels
    own = weight + group * channels * channels
    product = tl.zeros((ROWS, COLUMNS), tl.float32)
    for depth in tl.static_range(DEPTHS):
        d = depth * DEPTH + tl.arange(0, DEPTH)
        map = tl.load(x + row + d[None, :], (r < rows)[:, None] & (d < channels)[None, :], 0.0)
        square = (d < channels)[:, None] & (c < channels)[None, :]
        if TRANSPOSED:
            factor = tl.load(own + d[:, None] * channels + c[None, :], square, 0.0)
        else:
            factor = tl.load(own + c[None, :] * channels + d[:, None], square, 0.0)
        product += tl.dot(map, factor, input_precision=PRECISION)
    known = (r < rows)[:, None] & (c < channels)[None, :]
    stored = product.to(y.dtype.element_ty)
    tl.store(y + row + c[None, :], stored, known)
    if TOLD:  # of what is stored: means, and sums of squared distances from them
        stored = stored.to(tl.float32)
        mean = tl.sum(tl.where(known, stored, 0.0), 0) / tl.minimum(rows - tl.program_id(0) * ROWS, ROWS)
        apart = tl.where(known, stored - mean[None, :], 0.0)
        place = parts + tl.program_id(0) * 2 * channels * groups + group * channels + c
        tl.store(place, mean, c < channels)
        tl.store(place + channels * groups, tl.sum(apart * apart, 0), c < channels)


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
