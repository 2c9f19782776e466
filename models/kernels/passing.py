"""A node of PC-DARTS (Xu et al. 2020, arXiv:1907.05737): what its edges have computed of a share of the channels, what
passes by on the others, weighed and summed, and all channels interleaved.

    total (N, C / G, H, W), K maps x (N, C, H, W) of which the first C / G channels do not count, shares (K,) -> y
    y[:, i * G] = total[:, i],  y[:, i * G + g] = sum over k of shares[k] * x[k][:, g * C / G + i],  g = 1 to G - 1
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels import channels_last, precision_of, unit_of
from models.kernels.depthwise import TYPES
from models.kernels.sums import total as summed

NUMBERS, CHANNELS, WARPS = 2048, 64, 4  # of a tile, and channels of it, at most
PROGRAMS = 1056  # that share the products with the gradient


def interleaved(total: Tensor, shares: Tensor, *maps: Tensor) -> Tensor:
    """See above."""
    return _Interleaved.apply(total, shares, *maps)


class _Interleaved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, total: Tensor, shares: Tensor, *maps: Tensor) -> Tensor:
        total, maps = channels_last(total), tuple(channels_last(map) for map in maps)
        ctx.save_for_backward(shares, *maps)
        y = torch.empty_like(maps[0])
        rows, units, tile = _sizes(maps, total.shape[1])
        _forward[triton.cdiv(rows, tile["ROWS"]), triton.cdiv(y.shape[1], tile["CHANNELS"])](
            total, shares, maps, y, rows, units, **tile)
        ctx.mixed = total.shape[1]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        (shares, *maps), grad = ctx.saved_tensors, channels_last(grad)
        n, c, h, w = grad.shape
        rows, units, tile = _sizes(maps, ctx.mixed)
        blocks = triton.cdiv(c, tile["CHANNELS"])
        parts = min(PROGRAMS // blocks, triton.cdiv(rows, tile["ROWS"]))
        found = tuple(torch.empty_like(map) for map in maps)
        own = torch.empty((n, ctx.mixed, h, w), dtype=grad.dtype, device=grad.device,
                          memory_format=torch.channels_last)
        products = torch.empty((parts * blocks, len(maps)), dtype=precision_of(grad), device=grad.device)
        _gradients[parts, blocks](grad, shares, tuple(maps), own, found, products, rows, units, **tile)
        return own, summed(products).to(shares.dtype), *found


def _sizes(maps: Any, mixed: int) -> tuple[int, int, dict[str, Any]]:
    """Rows, channels of total as a multiple of a unit, constants."""
    (n, c, h, w), unit = maps[0].shape, unit_of(mixed)
    width = min(triton.next_power_of_2(c), CHANNELS)
    return n * h * w, mixed // unit, {
        "UNIT": unit, "GROUPS": c // mixed, "COUNT": len(maps), "ROWS": NUMBERS // width, "CHANNELS": width,
        "SUM": TYPES[precision_of(maps[0])], "num_warps": WARPS}


@triton.jit(do_not_specialize=["rows", "units"])
def _forward(total, shares, maps, y, rows, units, UNIT: tl.constexpr, GROUPS: tl.constexpr, COUNT: tl.constexpr,
             ROWS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr):
    mixed = units * UNIT
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    known = (r < rows)[:, None] & (c < mixed * GROUPS)[None, :]
    passing = known & (c % GROUPS > 0)[None, :]
    row = r.to(tl.int64)[:, None]
    source = (c % GROUPS * mixed + c // GROUPS)[None, :]
    found = tl.load(total + row * mixed + (c // GROUPS)[None, :], known & (c % GROUPS == 0)[None, :], 0.0).to(SUM)
    for k in tl.static_range(COUNT):
        found += tl.load(shares + k).to(SUM) * tl.load(maps[k] + row * (mixed * GROUPS) + source, passing, 0.0).to(SUM)
    tl.store(y + row * (mixed * GROUPS) + c[None, :], found.to(y.dtype.element_ty), known)


@triton.jit(do_not_specialize=["rows", "units"])
def _gradients(grad, shares, maps, own, founds, products, rows, units, UNIT: tl.constexpr, GROUPS: tl.constexpr,
               COUNT: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr):
    """Here the channels are those of the maps."""
    mixed = units * UNIT
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    place = (c % mixed * GROUPS + c // mixed)[None, :]
    share = tl.cdiv(rows, tl.num_programs(0))
    first = tl.program_id(0) * share
    end = tl.minimum(first + share, rows)
    for k in tl.static_range(COUNT):
        weight = tl.load(shares + k).to(SUM)
        product = tl.zeros((ROWS, CHANNELS), SUM)
        for start in range(first, end, ROWS):
            r = start + tl.arange(0, ROWS)
            known = (r < end)[:, None] & (c < mixed * GROUPS)[None, :]
            row = r.to(tl.int64)[:, None]
            slope = tl.load(grad + row * (mixed * GROUPS) + place, known, 0.0).to(SUM)
            if k == 0:
                tl.store(own + row * mixed + c[None, :], slope.to(own.dtype.element_ty), known & (c < mixed)[None, :])
            slope = tl.where((c < mixed)[None, :], 0.0, slope)
            whole = row * (mixed * GROUPS) + c[None, :]
            product += slope * tl.load(maps[k] + whole, known, 0.0).to(SUM)
            tl.store(founds[k] + whole, (slope * weight).to(founds[k].dtype.element_ty), known)
        program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        tl.store(products + program * COUNT + k, tl.sum(tl.sum(product, 1), 0))
