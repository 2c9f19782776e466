"""Pointwise convolution whose weight gradient, on a CPU, is one matrix product: oneDNN's takes up to 1.6 times as
long."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.darts.depthwise import as_autocast

WIDE = 64  # input channels from which on the product is the faster one
PARTS = 8  # a product over many rows is split among the cores only as a batch of products


class PointwiseConv2d(nn.Conv2d):
    """(N, c_in, H, W) -> (N, c_out, H, W), no bias."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and self.in_channels > WIDE and self.weight.requires_grad and torch.is_grad_enabled():
            return _Pointwise.apply(*as_autocast(x, self.weight))
        return super().forward(x)


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.conv2d(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        grad_x = torch.conv2d(grad, weight.transpose(0, 1)) if ctx.needs_input_grad[0] else None
        return grad_x, product(rows_of(grad), rows_of(x))[:, :, None, None]


def rows_of(map: Tensor) -> Tensor:
    """(N, C, H, W) -> (N * H * W, C), in channels_last the same memory."""
    return map.permute(0, 2, 3, 1).reshape(-1, map.shape[1])


def product(left: Tensor, right: Tensor) -> Tensor:
    """left.T @ right of matrices (M, .) with many rows."""
    if len(left) % PARTS:
        return left.T @ right
    return torch.bmm(left.unflatten(0, (PARTS, -1)).mT, right.unflatten(0, (PARTS, -1))).sum(0)
