"""Pointwise convolution with its own weight gradient against PyTorch's, and both kinds of convolution in bfloat16."""

import pytest
import torch
from torch import nn

from models.darts.depthwise import DepthwiseConv2d
from models.darts.pointwise import WIDE, PointwiseConv2d, product


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("c_in", [6, WIDE + 1, 2 * WIDE])
def test_equals_pytorch(c_in, layout):
    fast, x = PointwiseConv2d(c_in, 7).double(), torch.randn(3, c_in, 4, 6, dtype=torch.float64)
    x = x.to(memory_format=layout).requires_grad_()
    y, plain = fast(x), torch.conv2d(x, fast.weight)
    direction = torch.randn_like(y)
    found, expected = (torch.autograd.grad((out * direction).sum(), [x, fast.weight]) for out in (y, plain))
    torch.testing.assert_close(y, plain)
    torch.testing.assert_close(found, expected)


def test_only_the_gradients_that_are_wanted():
    conv, x = PointwiseConv2d(2 * WIDE, 4), torch.randn(2, 2 * WIDE, 4, 4)
    conv(x).sum().backward()
    assert conv.weight.grad is not None and x.grad is None
    conv.requires_grad_(False)
    conv(x.requires_grad_()).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("rows", [16, 13])  # in parts, and whole
def test_product(rows):
    left, right = torch.randn(rows, 3, dtype=torch.float64), torch.randn(rows, 5, dtype=torch.float64)
    torch.testing.assert_close(product(left, right), left.T @ right)


@pytest.mark.parametrize("conv", [PointwiseConv2d(2 * WIDE, 8), DepthwiseConv2d(8, 3), DepthwiseConv2d(8, 5, 2),
                                  DepthwiseConv2d(8, 3, 1, 2)], ids=["pointwise", "3x3", "5x5", "dilated"])
def test_gradients_under_autocast(conv):
    """bfloat16 within, float32 outside, as PyTorch's own; to the precision of bfloat16."""
    conv = conv.to(memory_format=torch.channels_last)
    x = torch.randn(4, conv.in_channels, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y, plain = conv(x), nn.Conv2d.forward(conv, x)
    assert y.dtype == torch.bfloat16
    direction = torch.randn_like(y)
    found, expected = (torch.autograd.grad((out * direction).sum(), [x, conv.weight]) for out in (y, plain))
    assert all(grad.dtype == torch.float32 for grad in found)
    for grad, other in zip(found, expected, strict=True):
        assert (grad - other).norm() < 0.01 * other.norm()
