"""How a run computes: one decision, made once from device, settings and network, told at the start and kept."""

from typing import Any, NamedTuple

import torch
from torch import nn

from models import kernels
from models.darts.supernet import cannot
from training.hardware import pick_dtype, total_memory

ROOMY = 20e9  # bytes of a GPU: the published search takes 13 GB with branches, 10 without


class Execution(NamedTuple):
    """Printed at the start, kept in result.json."""

    device: str
    precision: str
    captured: bool = False  # the step as one CUDA graph
    compiled: bool = False
    form: str | None = None  # of the supernet, in a search
    branches: bool = False  # what leaves the sources of a cell side by side in the graph
    lacking: tuple[str, ...] = ()  # operations for whose sake it is the plain one
    no_kernels: str = ""  # why a GPU has none of our own

    def __str__(self) -> str:
        why = f" (the fast one lacks {', '.join(self.lacking)})" if self.lacking else ""
        form = f"{self.form} form of the supernet{why}, " if self.form else ""
        graph = "captured as a CUDA graph" + " with branches" * self.branches
        how = " and ".join(["compiled"] * self.compiled + [graph] * self.captured) or "eager"
        kernels = f", by PyTorch's kernels alone ({self.no_kernels})" if self.no_kernels else ""
        return f"on {self.device}: {form}{self.precision}, {how}{kernels}"


def of_training(settings: Any, model: nn.Module, processes: int) -> Execution:
    """A graph is of one process, and of an optimizer that keeps what it counts on the device."""
    device = next(model.parameters()).device
    captured = settings.graph and device.type == "cuda" and processes == 1 and settings.optimizer != "Adagrad"
    precision = "bf16" if pick_dtype(settings.precision, device, model) == torch.bfloat16 else "fp32"
    branches = captured and getattr(settings, "branches", False) and hasattr(model, "cells")
    return Execution(device.type, precision, captured, settings.compile,
                     branches=branches and total_memory(device) >= ROOMY, no_kernels=_no_kernels(device))


def of_search(settings: Any, device: torch.device, processes: int) -> Execution:
    """auto: the fast form for the device, or the plain one if that lacks an operation of the space.

    A graph is of one process, and of the first order, whose step is the same sequence of launches each time.
    """
    form, lacking = settings.form if settings.fused else "plain", ()
    if form == "auto":
        form = "stored" if device.type == "cuda" else "fused"
        lacking = tuple(cannot(form))
    possible = device.type == "cuda" and processes == 1 and settings.order == 1 and not settings.recompute
    captured, form = settings.graph and possible, "plain" if lacking else form
    return Execution(device.type, "fp32", captured, form=form, lacking=lacking,
                     branches=settings.branches and captured and form == "stored" and total_memory(device) >= ROOMY,
                     no_kernels=_no_kernels(device))


def _no_kernels(device: torch.device) -> str:
    return kernels.lacking(device) if device.type == "cuda" and torch.cuda.is_available() else ""
