"""ReLU, then depthwise convolution; x (N, C, H, W), weight (E * C, 1, k, k) -> (N, E * C, H / stride, W / stride).

The E groups read the same C channels: neither the rectified map nor its E copies are ever written, and the gradient of
x is summed over the groups in registers. Dilation costs nothing, where cuDNN has its slowest kernels.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels import channels_last, precision_of, unit_of
from models.kernels.sums import total

NUMBERS, CHANNELS, WARPS = 2048, 32, 4  # of a tile of the map, and channels of it, at most
PARTS = 512  # of the map, whose weight gradients are summed at the end; more of a map of few channels
TYPES = {torch.float32: tl.float32, torch.float64: tl.float64}
VARYING = ["pixels", "height", "width", "out_height", "out_width", "units", "groups", "dilation"]


def rectified_depthwise(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """See above; an odd kernel, zero padding that keeps the size, divided by the stride."""
    return _Depthwise.apply(x, weight, stride, dilation)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        x = channels_last(x)
        taps = weight.flatten(1).T.contiguous()  # (k * k, E * C)
        ctx.save_for_backward(x, taps)
        ctx.shape = weight.shape
        ctx.stride, ctx.dilation = stride, dilation
        (n, c, h, w), out = x.shape, len(weight)
        y = torch.empty((n, out, -(-h // stride), -(-w // stride)), dtype=x.dtype, device=x.device,
                        memory_format=torch.channels_last)
        pixels, tile = n * y.shape[2] * y.shape[3], _tile(out, NUMBERS)
        _forward[triton.cdiv(pixels, tile["PIXELS"]), triton.cdiv(out, tile["CHANNELS"])](
            x, taps, y, pixels, h, w, *y.shape[2:], c // unit_of(c), out // c, dilation, **tile,
            **_constants(x, weight.shape, stride))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, taps = ctx.saved_tensors
        grad, (n, c, h, w), out, grads = channels_last(grad), x.shape, ctx.shape[0], [None, None]
        sizes = h, w, *grad.shape[2:], c // unit_of(c), out // c, ctx.dilation
        constants = _constants(x, ctx.shape, ctx.stride)
        if ctx.needs_input_grad[0]:
            grads[0] = torch.empty_like(x)
            tile = _tile(c, NUMBERS // 2)
            _input_gradient[triton.cdiv(n * h * w, tile["PIXELS"]), triton.cdiv(c, tile["CHANNELS"])](
                grad, x, taps, grads[0], n * h * w, *sizes, **tile, **constants)
        if ctx.needs_input_grad[1]:
            rows = n * grad.shape[2]
            tile = _tile(out, NUMBERS, CHANNELS * 2)
            parts = min(PARTS * CHANNELS * 2 // tile["CHANNELS"], rows)
            sums = torch.empty((parts, *ctx.shape), dtype=precision_of(x), device=x.device)
            _weight_gradient[parts, triton.cdiv(out, tile["CHANNELS"])](
                grad, x, sums, rows, *sizes, TAPS=triton.next_power_of_2(len(taps)), **tile, **constants)
            grads[1] = total(sums).to(taps.dtype)
        return *grads, None, None


def _constants(x: Tensor, weight: torch.Size, stride: int) -> dict[str, Any]:
    return {"UNIT": unit_of(x.shape[1]), "STRIDE": stride, "KERNEL": weight[-1],
            "SUM": TYPES[precision_of(x)], "num_warps": WARPS}


def _tile(channels: int, numbers: int, most: int = CHANNELS) -> dict[str, int]:
    width = min(triton.next_power_of_2(channels), most)
    return {"PIXELS": numbers // width, "CHANNELS": width}


@triton.jit(do_not_specialize=VARYING)
def _forward(x, weight, y, pixels, height, width, out_height, out_width, units, groups, dilation,
             UNIT: tl.constexpr, STRIDE: tl.constexpr, KERNEL: tl.constexpr,
             PIXELS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr):
    channels = units * UNIT
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    p = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    real = c < channels * groups
    row = p // out_width
    top = row % out_height * STRIDE - dilation * (KERNEL // 2)
    left = p % out_width * STRIDE - dilation * (KERNEL // 2)
    first = ((row // out_height).to(tl.int64) * height + top) * width + left
    corner = x + (first * channels)[:, None] + (c % channels)[None, :]
    total = tl.zeros((PIXELS, CHANNELS), SUM)
    for i in range(KERNEL):
        inside = (p < pixels) & (top + i * dilation >= 0) & (top + i * dilation < height)
        for j in tl.static_range(KERNEL):
            within = inside & (left + j * dilation >= 0) & (left + j * dilation < width)
            value = tl.load(corner + (i * dilation * width + j * dilation) * channels,
                            within[:, None] & real[None, :], 0.0).to(SUM)
            value = tl.where(value < 0, 0.0, value)  # which keeps NaN
            total += value * tl.load(weight + (i * KERNEL + j) * channels * groups + c, real, 0.0).to(SUM)[None, :]
    tl.store(y + p.to(tl.int64)[:, None] * (channels * groups) + c[None, :], total.to(y.dtype.element_ty),
             (p < pixels)[:, None] & real[None, :])


@triton.jit(do_not_specialize=VARYING)
def _input_gradient(grad, x, weight, found, pixels, height, width, out_height, out_width, units, groups,
                    dilation, UNIT: tl.constexpr, STRIDE: tl.constexpr, KERNEL: tl.constexpr,
                    PIXELS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr):
    channels = units * UNIT
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    p = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    real = c < channels
    row = p // width
    bottom = row % height + dilation * (KERNEL // 2)
    right = p % width + dilation * (KERNEL // 2)
    map = (row // height).to(tl.int64) * out_height
    total = tl.zeros((PIXELS, CHANNELS), SUM)
    for group in range(groups):
        for i in range(KERNEL):
            h = (bottom - i * dilation) // STRIDE
            inside = (p < pixels) & (bottom - i * dilation >= 0) & (h < out_height)
            inside = inside & (h * STRIDE == bottom - i * dilation)
            for j in tl.static_range(KERNEL):
                w = (right - j * dilation) // STRIDE
                within = inside & (right - j * dilation >= 0) & (w < out_width) & (w * STRIDE == right - j * dilation)
                place = ((map + h) * out_width + w) * (channels * groups) + group * channels
                value = tl.load(grad + place[:, None] + c[None, :], within[:, None] & real[None, :], 0.0).to(SUM)
                own = weight + ((i * KERNEL + j) * groups + group) * channels + c
                total += value * tl.load(own, real, 0.0).to(SUM)[None, :]
    place = p.to(tl.int64)[:, None] * channels + c[None, :]
    written = (p < pixels)[:, None] & real[None, :]
    total = tl.where(tl.load(x + place, written, 0.0) <= 0, 0.0, total)
    tl.store(found + place, total.to(found.dtype.element_ty), written)


@triton.jit(do_not_specialize=VARYING)
def _weight_gradient(grad, x, sums, pixels, height, width, out_height, out_width, units, groups, dilation,
                     UNIT: tl.constexpr, STRIDE: tl.constexpr, KERNEL: tl.constexpr,
                     PIXELS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr, TAPS: tl.constexpr):
    """Here `pixels` are rows of `grad`, of which each program takes some."""
    channels = units * UNIT
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    tap = tl.arange(0, TAPS)
    real = c < channels * groups
    down = tap // KERNEL * dilation - dilation * (KERNEL // 2)
    along = tap % KERNEL * dilation - dilation * (KERNEL // 2)
    total = tl.zeros((TAPS, CHANNELS), SUM)
    share = tl.cdiv(pixels, tl.num_programs(0))
    first = tl.program_id(0) * share
    for row in range(first, tl.minimum(first + share, pixels)):
        h = row % out_height * STRIDE + down
        inside = (tap < KERNEL * KERNEL) & (h >= 0) & (h < height)
        start = (tl.cast(row // out_height, tl.int64) * height + h) * width + along
        corner = x + (start * channels)[:, None] + (c % channels)[None, :]
        own = grad + tl.cast(row, tl.int64) * out_width * (channels * groups) + c
        for column in range(out_width):
            w = column * STRIDE + along
            within = inside & (w >= 0) & (w < width)
            value = tl.load(corner + column * STRIDE * channels, within[:, None] & real[None, :], 0.0).to(SUM)
            value = tl.where(value < 0, 0.0, value)  # which keeps NaN
            total += value * tl.load(own + column * channels * groups, real, 0.0).to(SUM)[None, :]
    place = (tl.program_id(0) * channels * groups + c)[None, :] * (KERNEL * KERNEL) + tap[:, None]
    tl.store(sums + place, total, (tap < KERNEL * KERNEL)[:, None] & real[None, :])
