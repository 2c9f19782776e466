"""Fast depthwise convolution against PyTorch's own."""

import pytest
import torch

from models.darts.depthwise import DepthwiseConv2d, every_other, woven


@pytest.mark.parametrize("size", [(8, 8), (12, 6), (7, 9), (1, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_equals_pytorch(kernel, stride, dilation, size):
    torch.manual_seed(0)
    fast = DepthwiseConv2d(6, kernel, stride, dilation).double()
    x = torch.randn(3, 6, *size, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    plain = torch.conv2d(x, fast.weight, None, stride, fast.padding, dilation, groups=6)
    target = torch.randn_like(plain)
    expected = torch.autograd.grad((plain * target).sum(), [x, fast.weight])
    found = torch.autograd.grad((fast(x) * target).sum(), [x, fast.weight])
    torch.testing.assert_close(fast(x), plain)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_float32_too(kernel, dilation):
    torch.manual_seed(0)
    fast = DepthwiseConv2d(16, kernel, 1, dilation)
    x = torch.randn(4, 16, 16, 16).to(memory_format=torch.channels_last).requires_grad_()
    plain = torch.conv2d(x, fast.weight, None, 1, fast.padding, dilation, groups=16)
    expected = torch.autograd.grad(plain.square().sum(), [x, fast.weight])
    torch.testing.assert_close(torch.autograd.grad(fast(x).square().sum(), [x, fast.weight]), expected,
                               rtol=1e-4, atol=1e-3)


def test_only_the_gradients_that_are_wanted():
    conv = DepthwiseConv2d(4, 3)
    conv.weight.requires_grad_(False)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    conv(x).sum().backward()
    assert x.grad is not None and conv.weight.grad is None
    conv.requires_grad_(True)
    conv(x.detach()).sum().backward()
    assert conv.weight.grad is not None


def test_every_other_pixel_and_back():
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    grids = every_other(x)
    assert torch.equal(grids[:2], x[:, :, ::2, ::2]) and torch.equal(grids[-2:], x[:, :, 1::2, 1::2])
    assert torch.equal(woven(grids), x)
