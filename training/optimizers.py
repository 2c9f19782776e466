"""Optimizers by name, and how their learning rate moves."""

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from training.muon import Muon

OPTIMIZERS = {
    "Adadelta": torch.optim.Adadelta,
    "Adagrad": torch.optim.Adagrad,
    "Adam": torch.optim.Adam,
    "Adamax": torch.optim.Adamax,
    "SGD": torch.optim.SGD,
}
MUON = {"Muon": Muon}  # for networks in which each kernel has a batch norm behind it, by retrain.py alone
KERNELS = 0.16  # times the rate of the others, and
KERNEL_MOMENTUM = 0.6  # theirs in Muon
START, END = 0.2, 0.07  # shares of the peak learning rate (Jordan 2024, arXiv:2404.00498)


def build_optimizer(model: nn.Module, name: str, lr: float, weight_decay: float, momentum: float,
                    bias_factor: float = 1.0) -> torch.optim.Optimizer:
    """Optimizer `name` over the parameters of `model`; weight decay reaches matrices and kernels alone.

    With a `bias_factor` other than 1 the biases of batch norms get so many times the learning rate, and shrink as the
    kernels do: lr * weight_decay is the same.
    """
    if name not in OPTIMIZERS | MUON:
        raise ValueError(f"optimizer = {name!r}: must be one of {', '.join(OPTIMIZERS | MUON)}")
    parameters = [p for p in model.parameters() if p.requires_grad]
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)] if bias_factor != 1 else []
    shifts = {norm.bias for norm in norms}
    groups = [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
              {"params": [p for p in parameters if p.ndim <= 1 and p not in shifts], "weight_decay": 0.0},
              {"params": [p for p in parameters if p in shifts], "weight_decay": weight_decay / bias_factor,
               "factor": bias_factor}]
    if name in MUON:
        groups[0]["params"] = [p for p in groups[0]["params"] if p.ndim == 2]
        groups.append({"params": [p for p in parameters if p.ndim > 2], "weight_decay": 0.0, "orthogonal": True,
                       "factor": KERNELS, "momentum": KERNEL_MOMENTUM})
    groups = [group for group in groups if group["params"]]
    extra = {"SGD": {"momentum": momentum, "nesterov": momentum > 0}, "Muon": {"momentum": momentum}}.get(name, {})
    return (OPTIMIZERS | MUON)[name](groups, lr=lr, **extra)


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at `step` of `steps`: linear warm-up, then half a cosine down to 0.

    Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts. The first step is above 0, the last too.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


def triangle(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at `step` of `steps`: linear from START up, then linear down to END."""
    rising = round(warmup * steps)
    if step < rising:
        return START + (1 - START) * step / rising
    return END + (1 - END) * (steps - step) / (steps - rising)


SCHEDULES = {"cosine": schedule, "triangle": triangle}
