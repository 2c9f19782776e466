"""Kernels of our own for GPUs, in Triton, where those of cuDNN and PyTorch leave much of the hardware idle.

    depthwise.py     ReLU and depthwise convolution, of all edges of a source at once
    copies.py        ReLU and a copy for each edge; the maps of nodes side by side
    pointwise.py     pointwise convolution, of all edges of a source at once
    batch_norm.py    batch norm by the batch's statistics, and weighed sums of such maps
    pooling.py       average and maximum
    passing.py       the channels that pass by, and those that do not, interleaved
    sums.py          over the parts that the others leave
    branches.py      what does not need each other, side by side in a CUDA graph

All maps are channels_last, and of any type but in pointwise.py: in float64 they are compared with PyTorch's own.
Triton comes with PyTorch's CUDA builds. docs/results.md has what they are worth.
"""

import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

# In the environment: 0 leaves all to PyTorch; cpu, with TRITON_INTERPRET=1, has a CPU interpret them.
CHOICE = "OWN_KERNELS"
PART = 128  # rows of a map, pixels of channels, whose statistics pointwise.py tells batch_norm.py
LEAST = (8, 0)  # compute capability: bf16 and TF32


def usable(x: Tensor) -> bool:
    """Whether these kernels are to take `x`."""
    if torch.compiler.is_compiling():
        return False
    return not lacking(x.device) if x.is_cuda else os.environ.get(CHOICE) == "cpu"


def lacking(device: torch.device) -> str:
    """Why a GPU has none of them; empty if it has."""
    return f"{CHOICE}=0" if os.environ.get(CHOICE) == "0" else _lacking(device)


@cache
def _lacking(device: torch.device) -> str:
    """Found out by trying: Triton needs a C compiler, Python's headers and a GPU that it knows."""
    if find_spec("triton") is None:
        return "no Triton"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "TRITON_INTERPRET=1"
    if (capability := torch.cuda.get_device_capability(device)) < LEAST:
        return f"compute capability {'.'.join(map(str, capability))}"
    from models.kernels.sums import total

    try:
        return "" if total(torch.ones(2, 3, device=device)).eq(2).all() else "Triton adds wrongly"
    except Exception as error:  # whatever a compiler, a driver or Triton itself may raise
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def unit_of(channels: int) -> int:
    """The largest power of two, 16 at most, that divides the number of channels: so many are read at once. Kernels get
    it as a constant, and the number itself as a multiple of it."""
    return min(channels & -channels, 16)


def precision_of(x: Tensor) -> torch.dtype:
    """In which a map is summed."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
