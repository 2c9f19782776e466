"""Pooling over windows of an odd kernel, padded by half of it: (N, C, H, W) -> (N, C, ceil(H / stride), ...).

PyTorch's own average has wrong gradients on a GPU in 2.11, in channels_last with padding
(github.com/pytorch/pytorch/issues/188344, of June 2026), and both take several times as long.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels import channels_last, precision_of, unit_of
from models.kernels.depthwise import TYPES

PIXELS, CHANNELS, WARPS = 32, 32, 4  # of a tile
VARYING = ["pixels", "height", "width", "out_height", "out_width", "units"]


def avg_pool(x: Tensor, kernel: int, stride: int, count_padding: bool) -> Tensor:
    """The mean of a window; of all its places, or of those within the map."""
    return _Pool.apply(x, kernel, stride, False, count_padding)


def max_pool(x: Tensor, kernel: int, stride: int) -> Tensor:
    """The largest value of a window; of equal ones the first has the gradient."""
    return _Pool.apply(x, kernel, stride, True, False)


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: int, stride: int, largest: bool, count_padding: bool) -> Tensor:
        x, (n, c, h, w) = channels_last(x), x.shape
        y = torch.empty((n, c, -(-h // stride), -(-w // stride)), dtype=x.dtype, device=x.device,
                        memory_format=torch.channels_last)
        places = torch.empty_like(y, dtype=torch.uint8) if largest else y  # where in its window the largest is
        ctx.constants = {"UNIT": unit_of(c), "KERNEL": kernel, "STRIDE": stride, "LARGEST": largest,
                         "COUNT_PADDING": count_padding, "PIXELS": PIXELS, "CHANNELS": CHANNELS,
                         "SUM": TYPES[precision_of(x)], "num_warps": WARPS}
        ctx.sizes, ctx.shape, pixels = (h, w, *y.shape[2:], c // unit_of(c)), x.shape, n * y.shape[2] * y.shape[3]
        _forward[triton.cdiv(pixels, PIXELS), triton.cdiv(c, CHANNELS)](x, y, places, pixels, *ctx.sizes,
                                                                        **ctx.constants)
        ctx.save_for_backward(*[places] * largest)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad, (n, c, h, w) = channels_last(grad), ctx.shape
        found = torch.empty(ctx.shape, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last)
        [places] = ctx.saved_tensors or [grad]
        _gradient[triton.cdiv(n * h * w, PIXELS), triton.cdiv(c, CHANNELS)](grad, places, found, n * h * w, *ctx.sizes,
                                                                            **ctx.constants)
        return found, None, None, None, None


@triton.jit(do_not_specialize=VARYING)
def _forward(x, y, places, pixels, height, width, out_height, out_width, units, UNIT: tl.constexpr,
             KERNEL: tl.constexpr, STRIDE: tl.constexpr, LARGEST: tl.constexpr, COUNT_PADDING: tl.constexpr,
             PIXELS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr):
    channels = units * UNIT
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    p = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    real = c < channels
    row = p // out_width
    top = row % out_height * STRIDE - KERNEL // 2
    left = p % out_width * STRIDE - KERNEL // 2
    first = ((row // out_height).to(tl.int64) * height + top) * width + left
    corner = x + (first * channels)[:, None] + c[None, :]
    total = tl.zeros((PIXELS, CHANNELS), SUM)
    count = tl.zeros((PIXELS,), SUM)
    if LARGEST:
        total += float("-inf")
        place = tl.zeros((PIXELS, CHANNELS), tl.uint8)
    for i in tl.static_range(KERNEL):
        for j in tl.static_range(KERNEL):
            within = (p < pixels) & (top + i >= 0) & (top + i < height) & (left + j >= 0) & (left + j < width)
            value = corner + (i * width + j) * channels
            if LARGEST:
                value = tl.load(value, within[:, None] & real[None, :], float("-inf")).to(SUM)
                above = (value > total) | (value != value)
                total = tl.where(above, value, total)
                place = tl.where(above, i * KERNEL + j, place).to(tl.uint8)
            else:
                total += tl.load(value, within[:, None] & real[None, :], 0.0).to(SUM)
                count += within.to(SUM)
    known = (p < pixels)[:, None] & real[None, :]
    target = p.to(tl.int64)[:, None] * channels + c[None, :]
    if LARGEST:
        tl.store(places + target, place, known)
    elif COUNT_PADDING:
        total /= KERNEL * KERNEL
    else:
        total /= tl.maximum(count, 1.0)[:, None]
    tl.store(y + target, total.to(y.dtype.element_ty), known)


@triton.jit(do_not_specialize=VARYING)
def _gradient(grad, places, found, pixels, height, width, out_height, out_width, units, UNIT: tl.constexpr,
              KERNEL: tl.constexpr, STRIDE: tl.constexpr, LARGEST: tl.constexpr, COUNT_PADDING: tl.constexpr,
              PIXELS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr):
    channels = units * UNIT
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    p = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    real = c < channels
    row = p // width
    bottom = row % height + KERNEL // 2
    right = p % width + KERNEL // 2
    map = (row // height).to(tl.int64) * out_height
    total = tl.zeros((PIXELS, CHANNELS), SUM)
    for i in tl.static_range(KERNEL):
        h = (bottom - i) // STRIDE
        rows = tl.minimum(h * STRIDE - KERNEL // 2 + KERNEL, height) - tl.maximum(h * STRIDE - KERNEL // 2, 0)
        inside = (p < pixels) & (bottom >= i) & (h < out_height) & (h * STRIDE == bottom - i)
        for j in tl.static_range(KERNEL):
            w = (right - j) // STRIDE
            columns = tl.minimum(w * STRIDE - KERNEL // 2 + KERNEL, width) - tl.maximum(w * STRIDE - KERNEL // 2, 0)
            within = inside & (right >= j) & (w < out_width) & (w * STRIDE == right - j)
            source = (((map + h) * out_width + w) * channels)[:, None] + c[None, :]
            value = tl.load(grad + source, within[:, None] & real[None, :], 0.0).to(SUM)
            if LARGEST:
                place = tl.load(places + source, within[:, None] & real[None, :], 255)
                total += tl.where(place == i * KERNEL + j, value, 0.0)
            elif COUNT_PADDING:
                total += value / (KERNEL * KERNEL)
            else:
                total += value / tl.maximum(rows * columns, 1).to(SUM)[:, None]
    target = p.to(tl.int64)[:, None] * channels + c[None, :]
    tl.store(found + target, total.to(found.dtype.element_ty), (p < pixels)[:, None] & real[None, :])
