"""Depthwise convolution whose gradients are as fast as itself on a CPU: PyTorch's own take 10 to 30 times as long.

oneDNN is fast, in channels_last, for every depthwise forward pass, and for the weight gradient at dilation 1 if the
kernel is at most 3 wide and the map at least as high as the kernel. Both gradients come down to these:

- input gradient: the forward convolution of the output's gradient with the flipped kernel
- at stride 2: each of the four grids of every other pixel sees every other row and column of the kernel
- 5 wide: two kernels of 3 columns, which share the middle one
- dilation 2: dilation 1 on the four grids, as four images; at stride 2 on the first of them
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class DepthwiseConv2d(nn.Conv2d):
    """(N, channels, H, W) -> (N, channels, H / stride, W / stride), no bias; an odd kernel."""

    def __init__(self, channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel - 1) // 2
        super().__init__(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return depthwise(x, self.weight, self.stride[0], self.dilation[0])


def depthwise(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """x (N, C, H, W), weight (C, 1, k, k), odd k; zero padding keeps the size, divided by the stride."""
    ours = weight.shape[-1] in (3, 5) and dilation in (1, 2) and stride in (1, 2)
    if ours and x.device.type == "cpu" and torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _Depthwise.apply(*as_autocast(x, weight), stride, dilation)
    return convolve(x, weight, stride, dilation)


def as_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In the type that autocast, if it is on, computes convolutions in: it does not look into functions of our own."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)


def convolve(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """As `depthwise`, with PyTorch's own gradients."""
    padding = dilation * (weight.shape[-1] - 1) // 2
    return torch.conv2d(x, weight, None, stride, padding, dilation, len(weight))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.dilation = stride, dilation
        return convolve(x, weight, stride, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, dilation = ctx.stride, ctx.dilation
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = joined(input_gradients(grad, weight, stride, dilation), x.shape)
        if ctx.needs_input_grad[1]:
            [grad_weight] = weight_gradients(x, [grad], weight.shape[-1], dilation, stride)
        return grad_x, grad_weight, None, None


def spread(grad: Tensor, stride: int, shape: torch.Size) -> Tensor:
    """(N, C, H / stride, W / stride) -> (N, C, H, W) with zeros in between."""
    full = torch.zeros(shape, dtype=grad.dtype, device=grad.device).to(memory_format=torch.channels_last)
    full[:, :, ::stride, ::stride] = grad
    return full


def input_gradients(grad: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> list[Tensor]:
    """Stride 1: the gradient (N, C, H, W). Stride 2: on the grids of every other pixel in the order of `every_other`,
    each as large as `grad`; with dilation 2 only the first one, which is all that the kernel reaches."""
    flipped = weight.flip(2, 3)
    if stride == 1 or dilation == 2:
        return [convolve(grad, flipped, 1, 1 if stride == 2 else dilation)]
    flipped = nn.functional.pad(flipped, ((5 - weight.shape[-1]) // 2,) * 4)
    return [convolve(grad, nn.functional.pad(flipped[:, :, row::2, column::2], (column, 0, row, 0)))
            for row in range(2) for column in range(2)]


def joined(grids: list[Tensor], shape: torch.Size) -> Tensor:
    """What `input_gradients` gives as one map (N, C, H, W)."""
    if grids[0].shape == shape:
        return grids[0]
    grids = grids + [torch.zeros_like(grids[0])] * (4 - len(grids))
    return woven(torch.cat(grids))[:, :, : shape[2], : shape[3]]


def weight_gradients(x: Tensor, grads: Sequence[Tensor], kernel: int, dilation: int = 1,
                     stride: int = 1) -> list[Tensor]:
    """Gradients (C, 1, k, k) of kernels that share their input x (N, C, H, W); grads (N, C, H / stride, W / stride)."""
    if dilation == 2 and stride == 2:
        return weight_gradients(x[:, :, ::2, ::2], grads, kernel)
    if dilation == 2 and x.shape[2] % 2 == x.shape[3] % 2 == 0:
        return weight_gradients(every_other(x), [every_other(grad) for grad in grads], kernel)
    if kernel != 5 or dilation != 1:
        padding = (dilation * (kernel - 1) // 2,) * 2
        return [_weight_gradient(x, grad, (kernel, kernel), padding, dilation, stride) for grad in grads]
    rows = 2
    if x.shape[2] < kernel:
        x, rows = nn.functional.pad(x, (0, 0, 2, 2)), 0
    side = x.new_zeros(*x.shape[:3], 2).to(memory_format=torch.channels_last)  # `cat` takes a third of `pad`'s time
    found = []
    for padded in (torch.cat([side, x], 3), torch.cat([x, side], 3)):  # columns of the kernel: 0 to 2, 2 to 4
        found.append([_weight_gradient(padded, grad, (5, 3), (rows, 0), 1, stride) for grad in grads])
    return [torch.cat([left, right[..., 1:]], -1) for left, right in zip(*found, strict=True)]


def _weight_gradient(x: Tensor, grad: Tensor, kernel: tuple[int, int], padding: tuple[int, int],
                     dilation: int, stride: int) -> Tensor:
    weight = x.new_empty(x.shape[1], 1, *kernel)  # only its shape counts
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, padding, [dilation] * 2, False, [0, 0], len(weight),
        [False, True, False])[1]


def every_other(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (4N, C, H/2, W/2): the grids of even or odd rows and columns, channels_last; H and W even."""
    n, c, h, w = x.shape
    grids = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c).permute(2, 4, 0, 1, 3, 5)
    return grids.reshape(4 * n, h // 2, w // 2, c).permute(0, 3, 1, 2)


def woven(grids: Tensor) -> Tensor:
    """The inverse of `every_other`."""
    n, c, h, w = grids.shape
    x = grids.permute(0, 2, 3, 1).reshape(2, 2, n // 4, h, w, c).permute(2, 3, 0, 4, 1, 5)
    return x.reshape(n // 4, 2 * h, 2 * w, c).permute(0, 3, 1, 2)
