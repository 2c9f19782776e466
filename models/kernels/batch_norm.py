"""Batch norm by the statistics of the batch, of several maps at once: their weighed sum, one map, if that is wanted.

    y = sum over k of weights[k] * (x[k] - mean[k]) / sqrt(var[k] + eps)      maps x[k] (N, C, H, W), weights[k] (C,)

Of one map it may go on as the layers of a network do: with a bias, a ReLU, a factor for each sample.

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

from models.kernels import PART, channels_last, precision_of, unit_of
from models.kernels.depthwise import TYPES
from models.kernels.sums import total

ROWS, CHANNELS, WARPS = 64, 32, 4  # of a tile
PROGRAMS = 528  # that share a sum: four for each multiprocessor of a large GPU
MERGED, NARROW = (256, 1024), 8  # parts at once, few or many, and channels
VARYING = ["rows", "units", "parts", "pixels"]


def normalized(maps: Sequence[Tensor], weights: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5,
               running: tuple[Tensor, ...] | None = None, momentum: float = 0.1, rectified: bool = False,
               parts: Tensor | None = None) -> Tensor:
    """See above; weights (K, C), bias (C,). Of the only map: `running` is mean and variance, which move towards its
    own, and perhaps a counter; `rectified`: a ReLU follows; `parts` is what pointwise.py tells of it."""
    return _Normalized.apply(weights, bias, None, parts, running, momentum, eps, rectified, 1, *maps)[0]


def normalized_apart(map: Tensor, count: int, weight: Tensor, bias: Tensor, *, eps: float,
                     running: tuple[Tensor, ...] | None, momentum: float, kept: Tensor | None,
                     parts: Tensor | None = None) -> tuple[Tensor, ...]:
    """Of a map whose channels are `count` groups: each of these as a map of its own, and if there is `kept` (N, count)
    multiplied with that, sample by sample."""
    return _Normalized.apply(weight[None], bias, kept, parts, running, momentum, eps, False, count, map)


class _Normalized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor | None, bias: Tensor | None, kept: Tensor | None, found: Tensor | None,
                running: tuple[Tensor, ...] | None, momentum: float, eps: float, rectified: bool, pieces: int,
                *maps: Tensor) -> tuple[Tensor, ...]:
        maps = tuple(channels_last(map) for map in maps)
        sizes, (n, _, h, w) = _Sizes(maps, weights, bias, kept, rectified, pieces), maps[0].shape
        parts, share = sizes.parts, triton.cdiv(sizes.rows, sizes.parts)
        if found is None:
            found = torch.empty((len(maps), parts, 2, sizes.channels), dtype=sizes.sum, device=maps[0].device)
            _statistics[parts, sizes.blocks](maps, found, *sizes.numbers[:3], UNIT=sizes.unit, PIECES=pieces,
                                             **sizes.tile)
        else:
            parts, share = len(found), PART
        statistics = found.new_empty(len(maps), 2, sizes.channels)
        ys = tuple(torch.empty((n, sizes.channels // pieces, h, w), dtype=maps[0].dtype, device=maps[0].device,
                               memory_format=torch.channels_last) for _ in range(pieces))
        tracked = (*(running or ()), *[statistics] * 3)[:3]
        _merged[triton.cdiv(sizes.channels, NARROW), len(maps)](
            found, statistics, *tracked, *sizes.numbers[:2], parts, share, eps, momentum, UNIT=sizes.unit,
            PIECES=pieces, TRACKED=len(running or ()), CHANNELS=NARROW, MERGED=MERGED[parts > MERGED[0]],
            SUM=TYPES[sizes.sum], num_warps=WARPS)
        # Where there are none, none are read.
        factors = [statistics if factor is None else factor.contiguous() for factor in (weights, bias, kept)]
        _applied[triton.cdiv(sizes.rows, ROWS), sizes.blocks](maps, statistics, *factors, ys, *sizes.numbers,
                                                              **sizes.constants)
        ctx.save_for_backward(statistics, *factors, *maps)
        ctx.sizes = sizes
        return ys

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        statistics, weights, bias, kept, *maps = ctx.saved_tensors
        sizes, grads, maps = ctx.sizes, tuple(channels_last(grad) for grad in grads), tuple(maps)
        found = torch.empty((sizes.parts, len(maps) + 1, sizes.channels), dtype=sizes.sum, device=statistics.device)
        factors = statistics, weights, bias, kept
        _sums[sizes.parts, sizes.blocks](grads, maps, *factors, found, *sizes.numbers, **sizes.constants)
        sums, founds = total(found), (None,) * len(maps)
        if any(ctx.needs_input_grad[-len(maps) :]):
            founds = tuple(torch.empty_like(map) for map in maps)
            _gradients[triton.cdiv(sizes.rows, ROWS), sizes.blocks](grads, maps, *factors, sums, founds, *sizes.numbers,
                                                                    **sizes.constants)
        of_weights = sums[1:].to(weights.dtype) if sizes.constants["WEIGHED"] else None
        of_bias = sums[0].to(bias.dtype) if sizes.constants["BIASED"] else None
        return of_weights, of_bias, *[None] * 7, *founds


class _Sizes:
    def __init__(self, maps: Sequence[Tensor], weights: Tensor | None, bias: Tensor | None, kept: Tensor | None,
                 rectified: bool, pieces: int) -> None:
        n, self.channels, h, w = maps[0].shape
        width = self.channels // pieces
        self.rows, self.unit, self.sum = n * h * w, unit_of(width), precision_of(maps[0])
        self.blocks = pieces * triton.cdiv(width, CHANNELS)  # none is of two pieces
        self.parts = max(1, min(PROGRAMS // self.blocks, triton.cdiv(self.rows, ROWS)))
        self.numbers = self.rows, width // self.unit, self.parts, h * w
        self.tile = {"COUNT": len(maps), "ROWS": ROWS, "CHANNELS": CHANNELS, "SUM": TYPES[self.sum], "num_warps": WARPS}
        self.constants = {"UNIT": self.unit, "PIECES": pieces, "WEIGHED": weights is not None,
                          "BIASED": bias is not None, "RECTIFIED": rectified, "KEPT": kept is not None, **self.tile}


# A program has a block of channels of one piece: all of them are units * UNIT * PIECES.


@triton.jit
def _block(units, UNIT: tl.constexpr, PIECES: tl.constexpr, CHANNELS: tl.constexpr):
    """Its channels, and where they begin; whether they are real."""
    width = units * UNIT
    blocks = tl.cdiv(width, CHANNELS)
    first = tl.program_id(1) // blocks * width
    own = tl.program_id(1) % blocks * CHANNELS + tl.arange(0, CHANNELS)
    return first + own, first, own < width


@triton.jit(do_not_specialize=VARYING[:3])
def _statistics(maps, found, rows, units, parts, UNIT: tl.constexpr, PIECES: tl.constexpr, COUNT: tl.constexpr,
                ROWS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr):
    """Of each part: means, and sums of squared distances from them; (K, parts, 2, C)."""
    channels = units * UNIT * PIECES
    c, _, real = _block(units, UNIT, PIECES, CHANNELS)
    share = tl.cdiv(rows, parts)
    first = tl.program_id(0) * share
    end = tl.minimum(first + share, rows)
    count = tl.maximum(end - first, 1)
    for k in tl.static_range(COUNT):
        # Distances from the mean of the first rows, which is close, keep all digits.
        r = first + tl.arange(0, ROWS)
        known = (r < end)[:, None] & real[None, :]
        x = tl.load(maps[k] + r.to(tl.int64)[:, None] * channels + c[None, :], known, 0.0).to(SUM)
        near = tl.sum(x, 0) / tl.minimum(count, ROWS)
        distance = tl.zeros((ROWS, CHANNELS), SUM)
        square = tl.zeros((ROWS, CHANNELS), SUM)
        for start in range(first, end, ROWS):
            r = start + tl.arange(0, ROWS)
            known = (r < end)[:, None] & real[None, :]
            x = tl.load(maps[k] + r.to(tl.int64)[:, None] * channels + c[None, :], known, 0.0).to(SUM)
            x = tl.where(known, x - near[None, :], 0.0)
            distance += x
            square += x * x
        moved = tl.sum(distance, 0)
        place = found + (k * parts + tl.program_id(0)) * 2 * channels + c
        tl.store(place, near + moved / count, real)
        tl.store(place + channels, tl.sum(square, 0) - moved * moved / count, real)


@triton.jit(do_not_specialize=[*VARYING[:3], "share", "eps", "momentum"])
def _merged(found, statistics, running_mean, running_variance, counter, rows, units, parts, share, eps, momentum,
            UNIT: tl.constexpr, PIECES: tl.constexpr, TRACKED: tl.constexpr, CHANNELS: tl.constexpr,
            MERGED: tl.constexpr, SUM: tl.constexpr):
    """Mean and 1 / sqrt(variance + eps) of each map; (K, 2, C). TRACKED: how many running statistics there are."""
    channels = units * UNIT * PIECES
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    k = tl.program_id(1)
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
def _factors(kept, r, first, pixels, units, inside, UNIT: tl.constexpr, PIECES: tl.constexpr):
    """(ROWS, 1) of `kept`, of the piece that begins at channel `first`."""
    return tl.load(kept + r // pixels * PIECES + first // (units * UNIT), inside, 0.0)[:, None]


@triton.jit(do_not_specialize=VARYING)
def _applied(maps, statistics, weights, bias, kept, ys, rows, units, parts, pixels, UNIT: tl.constexpr,
             PIECES: tl.constexpr, COUNT: tl.constexpr, WEIGHED: tl.constexpr, BIASED: tl.constexpr,
             RECTIFIED: tl.constexpr, KEPT: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
             SUM: tl.constexpr):
    channels = units * UNIT * PIECES
    c, first, real = _block(units, UNIT, PIECES, CHANNELS)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
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
        total *= _factors(kept, r, first, pixels, units, r < rows, UNIT, PIECES).to(SUM)
    own = r.to(tl.int64)[:, None] * (units * UNIT) + (c - first)[None, :]
    for piece in tl.static_range(PIECES):
        tl.store(ys[piece] + own, total.to(ys[piece].dtype.element_ty), known & (first == piece * units * UNIT))


@triton.jit
def _slopes(grads, x, weights, bias, kept, r, c, inside, real, first, pixels, units, UNIT: tl.constexpr,
            PIECES: tl.constexpr, WEIGHED: tl.constexpr, BIASED: tl.constexpr, RECTIFIED: tl.constexpr,
            KEPT: tl.constexpr, SUM: tl.constexpr):
    """(ROWS, CHANNELS), of the sum of the norms; x is the only map, normalised, where there is a ReLU."""
    known = inside[:, None] & real[None, :]
    own = r.to(tl.int64)[:, None] * (units * UNIT) + (c - first)[None, :]
    slope = tl.load(grads[0] + own, known & (first == 0), 0.0).to(SUM)
    for piece in tl.static_range(1, PIECES):
        slope += tl.load(grads[piece] + own, known & (first == piece * units * UNIT), 0.0).to(SUM)
    if KEPT:
        slope *= _factors(kept, r, first, pixels, units, inside, UNIT, PIECES).to(SUM)
    if RECTIFIED:
        if WEIGHED:
            x = x * tl.load(weights + c, real, 0.0).to(SUM)[None, :]
        if BIASED:
            x = x + tl.load(bias + c, real, 0.0).to(SUM)[None, :]
        slope = tl.where(x > 0, slope, 0.0)
    return slope


@triton.jit(do_not_specialize=VARYING)
def _sums(grads, maps, statistics, weights, bias, kept, found, rows, units, parts, pixels, UNIT: tl.constexpr,
          PIECES: tl.constexpr, COUNT: tl.constexpr, WEIGHED: tl.constexpr, BIASED: tl.constexpr,
          RECTIFIED: tl.constexpr, KEPT: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr):
    """Of each part: of the gradient, and of its products with each normalised map; (parts, K + 1, C)."""
    channels = units * UNIT * PIECES
    c, first, real = _block(units, UNIT, PIECES, CHANNELS)
    share = tl.cdiv(rows, parts)
    begin = tl.program_id(0) * share
    end = tl.minimum(begin + share, rows)
    for k in tl.static_range(COUNT):
        mean = tl.load(statistics + k * 2 * channels + c, real, 0.0)
        scale = tl.load(statistics + (k * 2 + 1) * channels + c, real, 0.0)
        plain = tl.zeros((ROWS, CHANNELS), SUM)
        product = tl.zeros((ROWS, CHANNELS), SUM)
        for start in range(begin, end, ROWS):
            r = start + tl.arange(0, ROWS)
            known = (r < end)[:, None] & real[None, :]
            place = r.to(tl.int64)[:, None] * channels + c[None, :]
            x = (tl.load(maps[k] + place, known, 0.0).to(SUM) - mean[None, :]) * scale[None, :]
            slope = _slopes(grads, x, weights, bias, kept, r, c, r < end, real, first, pixels, units, UNIT, PIECES,
                            WEIGHED, BIASED, RECTIFIED, KEPT, SUM)
            plain += slope
            product += slope * x
        if k == 0:
            tl.store(found + tl.program_id(0) * (COUNT + 1) * channels + c, tl.sum(plain, 0), real)
        tl.store(found + (tl.program_id(0) * (COUNT + 1) + k + 1) * channels + c, tl.sum(product, 0), real)


@triton.jit(do_not_specialize=VARYING)
def _gradients(grads, maps, statistics, weights, bias, kept, sums, founds, rows, units, parts, pixels,
               UNIT: tl.constexpr, PIECES: tl.constexpr, COUNT: tl.constexpr, WEIGHED: tl.constexpr,
               BIASED: tl.constexpr, RECTIFIED: tl.constexpr, KEPT: tl.constexpr, ROWS: tl.constexpr,
               CHANNELS: tl.constexpr, SUM: tl.constexpr):
    """Ioffe & Szegedy 2015, arXiv:1502.03167, section 3."""
    channels = units * UNIT * PIECES
    c, first, real = _block(units, UNIT, PIECES, CHANNELS)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    known = (r < rows)[:, None] & real[None, :]
    place = r.to(tl.int64)[:, None] * channels + c[None, :]
    plain = tl.load(sums + c, real, 0.0) / rows
    for k in tl.static_range(COUNT):
        mean = tl.load(statistics + k * 2 * channels + c, real, 0.0)
        scale = tl.load(statistics + (k * 2 + 1) * channels + c, real, 0.0)
        product = tl.load(sums + (k + 1) * channels + c, real, 0.0) / rows
        x = (tl.load(maps[k] + place, known, 0.0).to(SUM) - mean[None, :]) * scale[None, :]
        slope = _slopes(grads, x, weights, bias, kept, r, c, r < rows, real, first, pixels, units, UNIT, PIECES,
                        WEIGHED, BIASED, RECTIFIED, KEPT, SUM)
        weight = scale
        if WEIGHED:
            weight *= tl.load(weights + k * channels + c, real, 0.0).to(SUM)
        found = (slope - plain[None, :] - x * product[None, :]) * weight[None, :]
        tl.store(founds[k] + place, found.to(founds[k].dtype.element_ty), known)
