"""What CUDA's kernels answer where it is not what those of the CPU answer: seen without a GPU, on tensors of the CPU.

    with as_on_cuda():
        step(model, batch)

The CPU computes, and the results get what they would have on a GPU: their shape, their memory format, their rounding.
Each entry names the place in PyTorch's sources, aten/src/ATen/native/, as of 2.14. What a GPU's clock shows, what is
random there, and what cuDNN itself refuses, stays unseen.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._prims_common import suggest_memory_format
from torch.utils._python_dispatch import TorchDispatchMode

from models import blocks
from models.darts import depthwise, pointwise

aten = torch.ops.aten
TF32_LOST = 13  # of float32's 23 bits of mantissa
OPTIMIZER = sys.modules[torch.optim.Optimizer.__module__]  # torch.optim hides its name
NCHW, NHWC = torch.contiguous_format, torch.channels_last


class CudaAnswers(TorchDispatchMode):
    """Operations that are called inside of it answer as on CUDA.

    `copied`: convolutions, gradients apart, that cuDNN first has to lay their input out anew for, in a launch more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.copied = 0

    def __torch_dispatch__(self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        if func is aten.convolution.default:
            self.copied += not args[0].is_contiguous(memory_format=conv_format(*args[:2]))
        return ANSWERS.get(func, func)(*args, **(kwargs or {}))


@contextmanager
def as_on_cuda() -> Iterator[CudaAnswers]:
    """Besides, what has a way of its own on a CPU takes that of a GPU, torch's optimizers by lists of tensors too."""
    with (mock.patch.object(depthwise, "depthwise", depthwise.convolve),
          mock.patch.object(pointwise.PointwiseConv2d, "forward", nn.Conv2d.forward),
          mock.patch.object(blocks, "on_gpu", lambda x: True),
          mock.patch.object(OPTIMIZER, "_get_foreach_kernels_supported_devices", lambda: ["cpu"]),
          CudaAnswers() as answers):
        yield answers


# ---- TF32


def tf32(x: Tensor | None, allowed: bool) -> Tensor | None:
    """Rounded to TF32's 10 bits of mantissa, to the nearest, as tensor cores read it."""
    if x is None or not allowed or x.dtype != torch.float32:
        return x
    bits = x.view(torch.int32)
    return ((bits + (1 << TF32_LOST - 1)) & -(1 << TF32_LOST)).view(torch.float32)


def conv_tf32() -> bool:
    return torch.backends.cudnn.conv.fp32_precision == "tf32"


def matmul_tf32() -> bool:
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


# ---- convolutions


def conv_format(x: Tensor, weight: Tensor) -> torch.memory_format:
    """ConvUtils.h, cudnn_conv_suggest_memory_format: never channels_last in float64."""
    last = NHWC in (suggest_memory_format(x), suggest_memory_format(weight)) and x.dtype != torch.float64
    return NHWC if last else NCHW


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
    """Convolution.cpp, _convolution; the bias is added in float32."""
    allowed = conv_tf32()
    found = aten.convolution.default(tf32(x, allowed), tf32(weight, allowed), None, *how)
    found = found.contiguous(memory_format=conv_format(x, weight))
    return found if bias is None else found.add_(bias.view(-1, 1, 1))


def convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *how: Any) -> list[Tensor | None]:
    """cudnn/ConvShared.cpp, cudnn_convolution_backward: the gradients of input and weight are in one format."""
    allowed = conv_tf32()
    *found, bias = aten.convolution_backward.default(
        tf32(grad, allowed), tf32(x, allowed), tf32(weight, allowed), *how)
    form = conv_format(x, weight)
    found = [each if each is None else each.contiguous(memory_format=form) for each in found]
    return [*found, None if bias is None else grad.sum((0, 2, 3))]


def product(func: Callable[..., Tensor], first: int) -> Callable[..., Tensor]:
    """cuda/Blas.cpp: matrices are rounded if told so; arguments from `first` on are matrices."""
    def answer(*args: Any, **kwargs: Any) -> Tensor:
        return func(*args[:first], *(tf32(arg, matmul_tf32()) for arg in args[first:]), **kwargs)
    return answer


# ---- batch norm


def batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None,
               training: bool, momentum: float, eps: float) -> tuple[Tensor, ...]:
    """cuda/Normalization.cu, batch_norm_cuda_out: in evaluation too, the statistics that were used."""
    found, *saved = aten.native_batch_norm.default(x, weight, bias, mean, var, training, momentum, eps)
    return found, *(saved if training else (mean.clone(), (var + eps).rsqrt()))


def batch_norm_backward(grad: Tensor, x: Tensor, weight: Tensor | None, *how: Any) -> tuple[Tensor | None, ...]:
    """cuda/Normalization.cu, batch_norm_backward_cuda, and cudnn/BatchNorm.cpp, cudnn_batch_norm_backward."""
    (mean, _, _, _, train, _, mask) = how
    found = aten.native_batch_norm_backward.default(grad, x, weight, *how)
    if train and weight is not None and mean is not None:  # cuDNN's
        return found[0].contiguous(memory_format=suggest_memory_format(x)), *found[1:]
    last = [each.is_contiguous(memory_format=NHWC) for each in (x, grad)]
    grad_x = found[0]
    if mask[0]:  # NCHW, in some releases, where the gradient lies otherwise than x
        grad_x = grad_x.contiguous(memory_format=NHWC if all(last) and train else NCHW)
    if not all(last):  # batch_norm_backward_cuda_template, batch_norm_backward_reduce_cuda_template
        if weight is None and any(mask[1:]):
            raise RuntimeError("tensor does not have a device")  # that of the undefined weight is asked for
        return grad_x, *found[1:]
    # cuda/Normalization.cuh, batch_norm_backward_reduce_cuda_channels_last_template: the mask does not count
    if weight is None:
        return grad_x, x.new_empty(0), x.new_empty(0)
    return grad_x, *aten.native_batch_norm_backward.default(grad, x, weight, *how[:-1], [False, True, True])[1:]


# ---- optimizers


def fused(func: Callable[..., Any]) -> Callable[..., Any]:
    """cuda/FusedSgdKernel.cu, FusedAdamKernel.cu: they refuse what ForeachUtils.h, check_fast_path_restrictions, does
    not find laid out alike."""
    def answer(params: list[Tensor], grads: list[Tensor], *states: Any, **kwargs: Any) -> Any:
        lists = [params, grads, *(states[:2] if "adam" in str(func) else states[:1])]
        for tensors in zip(*filter(None, lists), strict=True):
            strides = {tuple(s for s, n in zip(t.stride(), t.shape, strict=True) if n > 1) for t in tensors}
            if len(strides) > 1:
                raise RuntimeError("params, grads and their averages must have same dtype, device, and layout")
        return func(params, grads, *states, **kwargs)
    return answer


# ---- pooling


def avg_pool_backward(grad: Tensor, x: Tensor, kernel: list[int], stride: list[int], padding: list[int],
                      *others: Any) -> Tensor:
    """cuda/AveragePool2d.cu of 2.11: in channels_last a pixel has the gradient of the one that lies the padding
    above and to the left of it (github.com/pytorch/pytorch/issues/188344)."""
    found = aten.avg_pool2d_backward.default(grad, x, kernel, stride, padding, *others)
    return found.roll(padding, (2, 3)) if suggest_memory_format(x) == NHWC else found


# ---- arithmetic


def divide(x: Tensor, y: Tensor | float) -> Tensor:
    """cuda/BinaryDivTrueKernel.cu, div_true_kernel_cuda: a number of the host is a factor of 1 / y."""
    host = not isinstance(y, Tensor)
    return x * (1 / torch.tensor(y, dtype=x.dtype)) if host and x.is_floating_point() else aten.div.Tensor(x, y)


def power(base: float, exponent: Tensor) -> Tensor:
    """cuda/PowKernel.cu calls powf, which is exact to 4 units in the last place (CUDA Programming Guide)."""
    found = aten.pow.Scalar(base, exponent)
    return found.nextafter(torch.zeros_like(found)) if found.is_floating_point() else found


ANSWERS: dict[Any, Callable[..., Any]] = {
    aten.convolution.default: convolution,
    aten.convolution_backward.default: convolution_backward,
    aten.mm.default: product(aten.mm.default, 0),
    aten.bmm.default: product(aten.bmm.default, 0),
    aten.addmm.default: product(aten.addmm.default, 1),
    aten.native_batch_norm.default: batch_norm,
    aten.native_batch_norm_backward.default: batch_norm_backward,
    **{func: fused(func) for func in (aten._fused_sgd_.default, aten._fused_sgd_.tensor_lr,
                                      aten._fused_adam_.default, aten._fused_adam_.tensor_lr)},
    aten.avg_pool2d_backward.default: avg_pool_backward,
    aten.div.Tensor: divide,
    aten.pow.Scalar: power,
}
