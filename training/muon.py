"""Muon: steps of equal length in all directions (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

PyTorch's own (torch.optim.Muon) takes matrices alone, no kernels of convolutions, and no rate that is a tensor.
"""

from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.775, 2.0315)  # of a quintic that brings singular values in 0..1 near 1
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Nesterov's momentum; groups with `orthogonal` take the nearest orthogonal matrix to it as their step, of kernels
    (c_out, c_in, h, w) as matrices (c_out, c_in * h * w), and keep the norm of these at sqrt(c_out). For networks in
    which a batch norm follows each such kernel. The others do what torch.optim.SGD does.
    """

    def __init__(self, params: Any, lr: float, momentum: float, weight_decay: float = 0.0,
                 orthogonal: bool = False) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay,
                                  "orthogonal": orthogonal})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                _step(weights, [self._momentum(p) for p in weights], group)

    def _momentum(self, p: Tensor) -> Tensor:
        if "momentum_buffer" not in self.state[p]:
            self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return self.state[p]["momentum_buffer"]


def _step(weights: list[Tensor], momenta: list[Tensor], group: dict[str, Any]) -> None:
    gradients = [p.grad for p in weights]
    if group["weight_decay"]:
        gradients = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
    torch._foreach_mul_(momenta, group["momentum"])
    torch._foreach_add_(momenta, gradients)
    steps = torch._foreach_add(gradients, momenta, alpha=group["momentum"])
    if group["orthogonal"]:
        steps = [orthogonal(step.flatten(1)).view(step.shape) for step in steps]
    torch._foreach_mul_(steps, group["lr"])
    torch._foreach_sub_(weights, steps)
    if group["orthogonal"]:
        for p in weights:
            p.mul_(len(p) ** 0.5 / p.norm())


def orthogonal(x: Tensor) -> Tensor:
    """The matrix of orthonormal rows or columns that is nearest to x (n, m), roughly: singular values of 0.7 to 1.2."""
    a, b, c = COEFFICIENTS
    wide = x.T if x.shape[0] > x.shape[1] else x
    y = (wide / (wide.norm() + 1e-7)).to(torch.bfloat16 if x.is_cuda else x.dtype)
    for _ in range(ITERATIONS):
        square = y @ y.T
        y = a * y + (b * square + c * square @ square) @ y
    return (y.T if x.shape[0] > x.shape[1] else y).to(x.dtype)
