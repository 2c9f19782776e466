"""torch.compile for the training step: a DARTS network cell by cell, any other network as a whole.

A network of 20 cells as a whole takes many minutes to compile, cells of one shape are compiled once.
"""

import copy
import os
from typing import Any

import torch
from torch import nn

SHAPES = 64  # of cells, at most; a network of 20 has 9, torch gives up at 8
FORCE_LAYOUT = "TORCHINDUCTOR_FORCE_LAYOUT_OPT"


def compiled(model: nn.Module, **options: Any) -> nn.Module:
    """What a training step may call in place of `model`: with the same tensors, for batches of one shape.

    `model` itself stays as it is, for evaluation: other batches would be compiled anew. `options` are torch.compile's.
    """
    from torch._dynamo import config  # slow to import

    if next(model.parameters()).is_cuda:
        keep_channels_last()
    if not hasattr(model, "cells"):
        return torch.compile(model, dynamic=False, **options)
    config.recompile_limit = max(config.recompile_limit, SHAPES)
    cells = (torch.compile(cell, dynamic=False, fullgraph=True, **options) for cell in model.cells)
    twin = copy.copy(model)
    twin._modules = {**model._modules, "cells": nn.ModuleList(cells)}
    return twin.train()


def keep_channels_last() -> None:
    """Inductor computes the gradients of convolutions in NCHW unless it is forced not to, which costs more than a fifth
    of MobileNetV3's speed (github.com/pytorch/pytorch/issues/189239; pull request 188236 would mend it). A user's own
    choice, by the environment, stays.
    """
    from torch._inductor import config

    if FORCE_LAYOUT not in os.environ:
        config.force_layout_optimization = True
