"""Batch norm by the statistics of the batch, of several maps at once: their weighed sum, one map, if that is wanted.

    y = sum over k of weights[k] * (x[k] - mean[k]) / sqrt(var[k] + eps)      maps x[k] (N, C, H, W), weights[k] (C,)

Of one map it may go on as the layers of a network do: with a bias, a ReLU and a factor for each sample.

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
VARYING = ["rows", "units", "parts", "pixels", "groups"]


def normalized(maps: Sequence[Tensor], weights: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5,
               running: tuple[Tensor, ...] | None = None, momentum: float = 0.1, rectified: bool = False,
               kept: Tensor | None = None) -> Tensor:
    """See above; weights (K, C), bias (C,). Of the only map: `running` is mean and variance, which move towards its
    own, and perhaps a counter; `rectified`: a ReLU follows; then `kept` (N, E): each sample's E groups of channels are
    multiplied with these."""
    return _Normalized.apply(weights, bias, kept, running, momentum, eps, rectified, *maps)


class _Normalized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor | None, bias: Tensor | None, kept: Tensor | None,
                running: tuple[Tensor, ...] | None, momentum: float, eps: float, rectified: bool,
                *maps: Tensor) -> Tensor:
        maps = tuple(channels_last(map) for map in maps)
        sizes = _Sizes(maps, weights, bias, kept, rectified)
        found = torch.empty((len(maps), sizes.parts, 2, sizes.channels), dtype=sizes.sum, device=maps[0].device)
        statistics, y = found.new_empty(len(maps), 2, sizes.channels), torch.empty_like(maps[0])
        _statistics[sizes.parts, sizes.blocks](maps, found, *sizes.numbers[:3], UNIT=sizes.unit, **sizes.tile)
        tracked = (*(running or ()), *[statistics] * 3)[:3]
        _merged[triton.cdiv(sizes.channels, NARROW), len(maps)](
            found, statistics, *tracked, *sizes.numbers[:3], eps, momentum, UNIT=sizes.unit, TRACKED=len(running or ()),
            CHANNELS=NARROW, MERGED=MERGED, SUM=TYPES[sizes.sum], num_warps=WARPS)
        # Where there are none, none are read.
        factors = [statistics if factor is None else factor.contiguous() for factor in (weights, bias, kept)]
        _applied[triton.cdiv(sizes.rows, ROWS), sizes.blocks](maps, statistics, *factors, y, *sizes.numbers,
                                                              **sizes.constants)
        ctx.save_for_backward(statistics, *factors, *maps)
        ctx.sizes = sizes
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        statistics, weights, bias, kept, *maps = ctx.saved_tensors
        sizes, grad, maps = ctx.sizes, channels_last(grad), tuple(maps)
        found = torch.empty((sizes.parts, len(maps) + 1, sizes.channels), dtype=sizes.sum, device=grad.device)
        factors = statistics, weights, bias, kept
        _sums[sizes.parts, sizes.blocks](grad, maps, *factors, found, *sizes.numbers, **sizes.constants)
        sums, founds = total(found), (None,) * len(maps)
        if any(ctx.needs_input_grad[-len(maps) :]):
            founds = tuple(torch.empty_like(map) for map in maps)
            _gradients[triton.cdiv(sizes.rows, ROWS), sizes.blocks](grad, maps, *factors, sums, founds, *sizes.numbers,
                                                                    **sizes.constants)
        of_weights = sums[1:].to(weights.dtype) if sizes.constants["WEIGHED"] else None
        of_bias = sums[0].to(bias.dtype) if sizes.constants["BIASED"] else None
        return of_weights, of_bias, None, None, None, None, None, *founds


class _Sizes:
    def __init__(self, maps: Sequence[Tensor], weights: Tensor | None, bias: Tensor | None, kept: Tensor | None,
                 rectified: bool) -> None:
        n, self.channels, h, w = maps[0].shape
        self.rows, self.unit, self.sum = n * h * w, unit_of(self.channels), precision_of(maps[0])
        self.blocks = triton.cdiv(self.channels, CHANNELS)
        self.parts = max(1, min(PROGRAMS // self.blocks, triton.cdiv(self.rows, ROWS)))
        groups = 1 if kept is None else kept.shape[1]
        self.numbers = self.rows, self.channels // self.unit, self.parts, h * w, groups
        self.tile = {"COUNT": len(maps), "ROWS": ROWS, "CHANNELS": CHANNELS, "SUM": TYPES[self.sum], "num_warps": WARPS}
        self.constants = {"UNIT": self.unit, "WEIGHED": weights is not None, "BIASED": bias is not None,
                          "RECTIFIED": rectified, "KEPT": kept is not None, **self.tile}


@triton.jit(do_not_specialize=VARYING[:3])
def _statistics(maps, found, rows, units, parts, UNIT: tl.constexpr, COUNT: tl.constexpr, ROWS: tl.constexpr,
                CHANNELS: tl.constexpr, SUM: tl.constexpr):
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
        place = found + (k * parts + tl.program_id(0)) * 2 * channels + c
        tl.store(place, near + moved / count, c < channels)
        tl.store(place + channels, tl.sum(square, 0) - moved * moved / count, c < channels)


@triton.jit(do_not_specialize=[*VARYING[:3], "eps", "momentum"])
def _merged(found, statistics, running_mean, running_variance, counter, rows, units, parts, eps, momentum,
            UNIT: tl.constexpr, TRACKED: tl.constexpr, CHANNELS: tl.constexpr, MERGED: tl.constexpr, SUM: tl.constexpr):
    """Mean and 1 / sqrt(variance + eps) of each map; (K, 2, C). TRACKED: how many running statistics there are."""
    channels = units * UNIT
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    k = tl.program_id(1)
    share = tl.cdiv(rows, parts)
    mean = tl.zeros((CHANNELS,), SUM)
    for start in range(0, parts, MERGED):
        part = start + tl.arange(0, MERGED)
        count = tl.minimum(tl.maximum(rows - part * share, 0), share)
        known = (count > 0)[:, None] & (part < parts)[:, None] & (c < channels)[None, :]
        place = found + (k * parts + part)[:, None] * 2 * channels + c[None, :]
        mean += tl.sum(tl.where(known, tl.load(place, known, 0.0) * (count.to(SUM) / rows)[:, None], 0.0), 0)
    variance = tl.zeros((CHANNELS,), SUM)
    for start in range(0, parts, MERGED):
        part = start + tl.arange(0, MERGED)
        count = tl.minimum(tl.maximum(rows - part * share, 0), share)
        known = (count > 0)[:, None] & (part < parts)[:, None] & (c < channels)[None, :]
        place = found + (k * parts + part)[:, None] * 2 * channels + c[None, :]
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
    if TRACKED == 3:
        tl.store(counter, tl.load(counter) + 1, tl.program_id(0) == 0)


@triton.jit
def _factors(kept, r, c, channels, pixels, groups, known):
    """(ROWS, CHANNELS) of `kept`."""
    return tl.load(kept + (r // pixels * groups)[:, None] + (c // (channels // groups))[None, :], known, 0.0)


@triton.jit(do_not_specialize=VARYING)
def _applied(maps, statistics, weights, bias, kept, y, rows, units, parts, pixels, groups, UNIT: tl.constexpr,
             COUNT: tl.constexpr, WEIGHED: tl.constexpr, BIASED: tl.constexpr, RECTIFIED: tl.constexpr,
             KEPT: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr):
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
    if RECTIFIED:
        total = tl.where(total < 0, 0.0, total)  # which keeps NaN
    if KEPT:
        total *= _factors(kept, r, c, channels, pixels, groups, known).to(SUM)
    tl.store(y + place, total.to(y.dtype.element_ty), known)


@triton.jit
def _slopes(grad, x, weights, bias, kept, r, c, place, channels, pixels, groups, known, WEIGHED: tl.constexpr,
            BIASED: tl.constexpr, RECTIFIED: tl.constexpr, KEPT: tl.constexpr, SUM: tl.constexpr):
    """(ROWS, CHANNELS), of the sum of the norms; x is the only map, normalised, where there is a ReLU."""
    slope = tl.load(grad + place, known, 0.0).to(SUM)
    if KEPT:
        slope *= _factors(kept, r, c, channels, pixels, groups, known).to(SUM)
    if RECTIFIED:
        if WEIGHED:
            x = x * tl.load(weights + c, c < channels, 0.0).to(SUM)[None, :]
        if BIASED:
            x = x + tl.load(bias + c, c < channels, 0.0).to(SUM)[None, :]
        slope = tl.where(x > 0, slope, 0.0)
    return slope


@triton.jit(do_not_specialize=VARYING)
def _sums(grad, maps, statistics, weights, bias, kept, found, rows, units, parts, pixels, groups, UNIT: tl.constexpr,
          COUNT: tl.constexpr, WEIGHED: tl.constexpr, BIASED: tl.constexpr, RECTIFIED: tl.constexpr,
          KEPT: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr):
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
            slope = _slopes(grad, x, weights, bias, kept, r, c, place, channels, pixels, groups, known, WEIGHED, BIASED,
                            RECTIFIED, KEPT, SUM)
            plain += slope
            product += slope * x
        if k == 0:
            tl.store(found + tl.program_id(0) * (COUNT + 1) * channels + c, tl.sum(plain, 0), real)
        tl.store(found + (tl.program_id(0) * (COUNT + 1) + k + 1) * channels + c, tl.sum(product, 0), real)


@triton.jit(do_not_specialize=VARYING)
def _gradients(grad, maps, statistics, weights, bias, kept, sums, founds, rows, units, parts, pixels, groups,
               UNIT: tl.constexpr, COUNT: tl.constexpr, WEIGHED: tl.constexpr, BIASED: tl.constexpr,
               RECTIFIED: tl.constexpr, KEPT: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
               SUM: tl.constexpr):
    """Ioffe & Szegedy 2015, arXiv:1502.03167, section 3."""
    channels = units * UNIT
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = c < channels
    known = (r < rows)[:, None] & real[None, :]
    place = r.to(tl.int64)[:, None] * channels + c[None, :]
    plain = tl.load(sums + c, real, 0.0) / rows
    for k in tl.static_range(COUNT):
        mean = tl.load(statistics + k * 2 * channels + c, real, 0.0)
        scale = tl.load(statistics + (k * 2 + 1) * channels + c, real, 0.0)
        product = tl.load(sums + (k + 1) * channels + c, real, 0.0) / rows
        x = (tl.load(maps[k] + place, known, 0.0).to(SUM) - mean[None, :]) * scale[None, :]
        slope = _slopes(grad, x, weights, bias, kept, r, c, place, channels, pixels, groups, known, WEIGHED, BIASED,
                        RECTIFIED, KEPT, SUM)
        weight = scale
        if WEIGHED:
            weight *= tl.load(weights + k * channels + c, real, 0.0).to(SUM)
        found = (slope - plain[None, :] - x * product[None, :]) * weight[None, :]
        tl.store(founds[k] + place, found.to(founds[k].dtype.element_ty), known)
