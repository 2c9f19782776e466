"""What a computation runs on: the device, its memory, and the precision that is fast there."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def pick_device(name: str) -> torch.device:
    """Settings `device` to a device: auto is cuda where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device = 'cuda': no CUDA device that torch can use here; allowed: auto, cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def total_memory(device: torch.device) -> int:
    """Bytes of a GPU; 0 if none is there."""
    return torch.cuda.get_device_properties(device).total_memory if torch.cuda.is_available() else 0


def prepare(device: torch.device) -> None:
    """Before a training, whose steps all have one shape: on a GPU cuDNN tries its algorithms once, which pays."""
    keep_freed_memory(device)
    torch.backends.cudnn.benchmark = True


def keep_freed_memory(device: torch.device) -> None:
    """On a CPU: what a step frees stays with the process for the next one. Given back, as glibc does with large maps,
    each of its pages is cleared anew by the system: up to a quarter of a step. Does nothing without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if device.type == "cpu" else None
    if mallopt:
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 64 * 2**20)):
            mallopt(option, value)


@contextmanager
def true_fp32() -> Iterator[None]:
    """On a GPU: float32 with all of its 23 bits of mantissa. Of what convolutions read there, PyTorch lets cuDNN keep
    the 10 of TF32, which is faster and in training does no harm. As a decorator: for the whole of a function.
    """
    switches = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        yield
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision


@contextmanager
def enough_memory(batch_size: int, advice: str = "") -> Iterator[None]:
    """Out of GPU memory becomes a MemoryError that names a batch which would fit."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise MemoryError(f"out of GPU memory with batch_size = {batch_size}; --batch-size {max(batch_size // 2, 2)} "
                          f"takes about half of it{advice}") from None


def pick_dtype(precision: str, device: torch.device, model: nn.Module) -> torch.dtype:
    """Settings `precision` to the type that autocast computes in; a function of hardware and network alone.

    auto is bf16 on a GPU that has it. On a CPU with bf16 instructions it is bf16 too, but for networks with PyTorch's
    own depthwise convolutions, whose gradients are slower in bf16 than in fp32 there (docs/history.md).
    """
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        depthwise = any(type(m) is nn.Conv2d and m.groups == m.in_channels > 1 for m in model.modules())
        fast = _cpu_has_bf16() and not depthwise
    return torch.bfloat16 if fast else torch.float32


def _cpu_has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:  # not Linux
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
