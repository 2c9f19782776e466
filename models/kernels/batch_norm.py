"""Batch norm by the statistics of the batch, of several maps at once: their weighed sum, one map, if that is wanted.

    y = sum over k of weights[k] * (x[k] - mean[k]) / sqrt(var[k] + eps)      maps x[k] (N, C, H, W), weights[k] (C,)

Of one map it may go on with a bias, as the layers of a network do.

Each pass reads every map once and writes its result; PyTorch's own kernels for channels_last reach a quarter of the
memory's speed. Means and variances are those of parts, merged as Chan, Golub and LeVeque do (1983): no cancellation.
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
from models.kernels.sums import total

ROWS, CHANNELS, WARPS = 64, 32, 4  # of a tile
PROGRAMS = 528  # that share a sum: four for each multiprocessor of a large GPU
MERGED, NARROW = 256, 16  # parts and channels at once
VARYING = ["rows", "units", "parts"]


def normalized(maps: Sequence[Tensor], weights: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5,
               running: tuple[Tensor, Tensor] | None = None, momentum: float = 0.1) -> Tensor:
    """See above; weights (K, C), bias (C,). `running`: mean and variance, which move towards those of the only map."""
    return _Normalized.apply(weights, bias, running, momentum, eps, *maps)


class _Normalized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor | None, bias: Tensor | None, running: tuple[Tensor, Tensor] | None,
                momentum: float, eps: float, *maps: Tensor) -> Tensor:
        maps = tuple(channels_last(map) for map in maps)
        sizes = _Sizes(maps, weights is not None, bias is not None)
        kept = torch.empty((len(maps), sizes.parts, 2, sizes.channels), dtype=sizes.sum, device=maps[0].device)
        statistics, y = kept.new_empty(len(maps), 2, sizes.channels), torch.empty_like(maps[0])
        weights = weights.contiguous() if sizes.weighed else statistics  # where there are none, none are read
        bias = bias if sizes.biased else statistics
        _statistics[sizes.parts, sizes.blocks](maps, kept, sizes.rows, sizes.units, sizes.parts, **sizes.constants)
        _merged[triton.cdiv(sizes.channels, NARROW), len(maps)](
            kept, statistics, *(running or (statistics, statistics)), sizes.rows, sizes.units, sizes.parts, eps,
            momentum, UNIT=sizes.unit, TRACKED=running is not None, CHANNELS=NARROW, MERGED=MERGED,
            SUM=TYPES[sizes.sum], num_warps=WARPS)
        _applied[triton.cdiv(sizes.rows, ROWS), sizes.blocks](
            maps, statistics, weights, bias, y, sizes.rows, sizes.units, sizes.parts, **sizes.constants)
        ctx.save_for_backward(statistics, weights, *maps)
        ctx.sizes, ctx.of_bias = sizes, bias.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        statistics, weights, *maps = ctx.saved_tensors
        sizes, grad, maps = ctx.sizes, channels_last(grad), tuple(maps)
        kept = torch.empty((sizes.parts, len(maps) + 1, sizes.channels), dtype=sizes.sum, device=grad.device)
        _sums[sizes.parts, sizes.blocks](grad, maps, statistics, kept, sizes.rows, sizes.units, sizes.parts,
                                         **sizes.constants)
        sums, founds = total(kept), (None,) * len(maps)
        if any(ctx.needs_input_grad[-len(maps) :]):
            founds = tuple(torch.empty_like(map) for map in maps)
            _gradients[triton.cdiv(sizes.rows, ROWS), sizes.blocks](
                grad, maps, statistics, weights, sums, founds, sizes.rows, sizes.units, sizes.parts,
                **sizes.constants)
        of_weights = sums[1:].to(weights.dtype) if sizes.weighed else None
        return of_weights, sums[0].to(ctx.of_bias) if sizes.biased else None, None, None, None, *founds


class _Sizes:
    def __init__(self, maps: Sequence[Tensor], weighed: bool, biased: bool) -> None:
        n, self.channels, h, w = maps[0].shape
        self.rows, self.unit, self.sum = n * h * w, unit_of(self.channels), precision_of(maps[0])
        self.units, self.blocks = self.channels // self.unit, triton.cdiv(self.channels, CHANNELS)
        self.parts = max(1, min(PROGRAMS // self.blocks, triton.cdiv(self.rows, ROWS)))
        self.weighed, self.biased = weighed, biased
        self.constants = {"UNIT": self.unit, "COUNT": len(maps), "WEIGHED": weighed, "BIASED": biased,
                          "ROWS": ROWS, "CHANNELS": CHANNELS, "SUM": TYPES[self.sum], "num_warps": WARPS}


@triton.jit(do_not_specialize=VARYING)
def _statistics(maps, kept, rows, units, parts, UNIT: tl.constexpr, COUNT: tl.constexpr, WEIGHED: tl.constexpr,
                BIASED: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr):
    """Of each part: means, and sums of squared distances from them; (K, parts, 2, C)."""
    channels = units * UNIT
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    share = tl.cdiv(rows, parts)
    first = tl.program_id(0) * share
    end = tl.minimum(first + share, rows)
    count = tl.maximum(end - first, 1)
    for k in tl.static_range(COUNT):
        # Distances from the mean of the first rows, which is close, keep all digits.
        r = first + tl.arange(0, ROWS)
        known = (r < end)[:, None] & (c < channels)[None, :]
        x = tl.load(maps[k] + r.to(tl.int64)[:, None] * channels + c[None, :], known, 0.0).to(SUM)
        near = tl.sum(x, 0) / tl.minimum(count, ROWS)
        distance = tl.zeros((ROWS, CHANNELS), SUM)
        square = tl.zeros((ROWS, CHANNELS), SUM)
        for start in range(first, end, ROWS):
            r = start + tl.arange(0, ROWS)
            known = (r < end)[:, None] & (c < channels)[None, :]
            x = tl.load(maps[k] + r.to(tl.int64)[:, None] * channels + c[None, :], known, 0.0).to(SUM)
            x = tl.where(known, x - near[None, :], 0.0)
            distance += x
            square += x * x
        moved = tl.sum(distance, 0)
        place = kept + (k * parts + tl.program_id(0)) * 2 * channels + c
        tl.store(place, near + moved / count, c < channels)
        tl.store(place + channels, tl.sum(square, 0) - moved * moved / count, c < channels)


@triton.jit(do_not_specialize=[*VARYING, "eps", "momentum"])
def _merged(kept, statistics, running_mean, running_variance, rows, units, parts, eps, momentum, UNIT: tl.constexpr,
            TRACKED: tl.constexpr, CHANNELS: tl.constexpr, MERGED: tl.constexpr, SUM: tl.constexpr):
    """Mean and 1 / sqrt(variance + eps) of each map; (K, 2, C)."""
    channels = units * UNIT
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    k = tl.program_id(1)
    share = tl.cdiv(rows, parts)
    mean = tl.zeros((CHANNELS,), SUM)
    for start in range(0, parts, MERGED):
        part = start + tl.arange(0, MERGED)
        count = tl.minimum(tl.maximum(rows - part * share, 0), share)
        known = (count > 0)[:, None] & (part < parts)[:, None] & (c < channels)[None, :]
        place = kept + (k * parts + part)[:, None] * 2 * channels + c[None, :]
        mean += tl.sum(tl.where(known, tl.load(place, known, 0.0) * (count.to(SUM) / rows)[:, None], 0.0), 0)
    variance = tl.zeros((CHANNELS,), SUM)
    for start in range(0, parts, MERGED):
        part = start + tl.arange(0, MERGED)
        count = tl.minimum(tl.maximum(rows - part * share, 0), share)
        known = (count > 0)[:, None] & (part < parts)[:, None] & (c < channels)[None, :]
        place = kept + (k * parts + part)[:, None] * 2 * channels + c[None, :]
        apart = tl.load(place, known, 0.0) - mean[None, :]
        spread = tl.load(place + channels, known, 0.0) / rows + apart * apart * (count.to(SUM) / rows)[:, None]
        variance += tl.sum(tl.where(known, spread, 0.0), 0)
    tl.store(statistics + k * 2 * channels + c, mean, c < channels)
    tl.store(statistics + (k * 2 + 1) * channels + c, 1 / tl.sqrt(variance + eps), c < channels)
    if TRACKED:  # the variance without bias, as PyTorch has it
        before = tl.load(running_mean + c, c < channels, 0.0)
        tl.store(running_mean + c, before + momentum * (mean - before), c < channels)
        before = tl.load(running_variance + c, c < channels, 0.0)
        unbiased = variance * rows / tl.maximum(rows - 1, 1)
        tl.store(running_variance + c, before + momentum * (unbiased - before), c < channels)


@triton.jit(do_not_specialize=VARYING)
def _applied(maps, statistics, weights, bias, y, rows, units, parts, UNIT: tl.constexpr, COUNT: tl.constexpr,
             WEIGHED: tl.constexpr, BIASED: tl.constexpr, ROWS: tl.constexpr,
             CHANNELS: tl.constexpr, SUM: tl.constexpr):
    channels = units * UNIT
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = c < channels
    known = (r < rows)[:, None] & real[None, :]
    place = r.to(tl.int64)[:, None] * channels + c[None, :]
    total = tl.zeros((ROWS, CHANNELS), SUM)
    for k in tl.static_range(COUNT):
        mean = tl.load(statistics + k * 2 * channels + c, real, 0.0)
        scale = tl.load(statistics + (k * 2 + 1) * channels + c, real, 0.0)
        if WEIGHED:
            scale *= tl.load(weights + k * channels + c, real, 0.0).to(SUM)
        total += (tl.load(maps[k] + place, known, 0.0).to(SUM) - mean[None, :]) * scale[None, :]
    if BIASED:
        total += tl.load(bias + c, real, 0.0).to(SUM)[None, :]
    tl.store(y + place, total.to(y.dtype.element_ty), known)


@triton.jit(do_not_specialize=VARYING)
def _sums(grad, maps, statistics, kept, rows, units, parts, UNIT: tl.constexpr, COUNT: tl.constexpr,
          WEIGHED: tl.constexpr, BIASED: tl.constexpr, ROWS: tl.constexpr,
          CHANNELS: tl.constexpr, SUM: tl.constexpr):
    """Of each part: of the gradient, and of its products with each normalised map; (parts, K + 1, C)."""
    channels = units * UNIT
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    real = c < channels
    share = tl.cdiv(rows, parts)
    first = tl.program_id(0) * share
    end = tl.minimum(first + share, rows)
    for k in tl.static_range(COUNT):
        mean = tl.load(statistics + k * 2 * channels + c, real, 0.0)
        scale = tl.load(statistics + (k * 2 + 1) * channels + c, real, 0.0)
        plain = tl.zeros((ROWS, CHANNELS), SUM)
        product = tl.zeros((ROWS, CHANNELS), SUM)
        for start in range(first, end, ROWS):
            r = start + tl.arange(0, ROWS)
            known = (r < end)[:, None] & real[None, :]
            place = r.to(tl.int64)[:, None] * channels + c[None, :]
            x = (tl.load(maps[k] + place, known, 0.0).to(SUM) - mean[None, :]) * scale[None, :]
            slope = tl.load(grad + place, known, 0.0).to(SUM)
            plain += slope
            product += slope * x
        if k == 0:
            tl.store(kept + tl.program_id(0) * (COUNT + 1) * channels + c, tl.sum(plain, 0), real)
        tl.store(kept + (tl.program_id(0) * (COUNT + 1) + k + 1) * channels + c, tl.sum(product, 0), real)


@triton.jit(do_not_specialize=VARYING)
def _gradients(grad, maps, statistics, weights, sums, founds, rows, units, parts, UNIT: tl.constexpr,
               COUNT: tl.constexpr, WEIGHED: tl.constexpr, BIASED: tl.constexpr,
               ROWS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr):
    """Ioffe & Szegedy 2015, arXiv:1502.03167, section 3."""
    channels = units * UNIT
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = c < channels
    known = (r < rows)[:, None] & real[None, :]
    place = r.to(tl.int64)[:, None] * channels + c[None, :]
    slope = tl.load(grad + place, known, 0.0).to(SUM)
    plain = tl.load(sums + c, real, 0.0) / rows
    for k in tl.static_range(COUNT):
        mean = tl.load(statistics + k * 2 * channels + c, real, 0.0)
        scale = tl.load(statistics + (k * 2 + 1) * channels + c, real, 0.0)
        product = tl.load(sums + (k + 1) * channels + c, real, 0.0) / rows
        x = (tl.load(maps[k] + place, known, 0.0).to(SUM) - mean[None, :]) * scale[None, :]
        weight = scale
        if WEIGHED:
            weight *= tl.load(weights + k * channels + c, real, 0.0).to(SUM)
        found = (slope - plain[None, :] - x * product[None, :]) * weight[None, :]
        tl.store(founds[k] + place, found.to(founds[k].dtype.element_ty), known)
