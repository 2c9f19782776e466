"""Kernels of our own for GPUs, in Triton, where those of cuDNN and PyTorch leave much of the hardware idle.

    depthwise.py     ReLU and depthwise convolution, of all edges of a source at once
    pointwise.py     pointwise convolution, of all edges of a source at once
    batch_norm.py    batch norm by the batch's statistics, and weighed sums of such maps
    pooling.py       average and maximum
    sums.py          over the parts that the others leave
    branches.py      what does not need each other, side by side in a CUDA graph

All maps are channels_last, and of any type that PyTorch computes in: in float64 they are compared with PyTorch's own.
Triton comes with PyTorch's CUDA builds. docs/results.md has what they are worth.
"""

import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

CHOICE = "OWN_KERNELS"  # in the environment: 0 leaves all to PyTorch, cpu has Triton's interpreter take a CPU's too


def usable(x: Tensor) -> bool:
    """Whether these kernels are to take `x`."""
    choice = os.environ.get(CHOICE)
    at_hand = x.is_cuda or choice == "cpu"
    return at_hand and choice != "0" and not torch.compiler.is_compiling() and _installed()


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def unit_of(channels: int) -> int:
    """The largest power of two, 16 at most, that divides the number of channels: so many are read at once. Kernels get
    it as a constant, and the number itself as a multiple of it."""
    return min(channels & -channels, 16)


def precision_of(x: Tensor) -> torch.dtype:
    """In which a map is summed."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
