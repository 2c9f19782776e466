"""The bilevel steps of DARTS (Liu et al., 2019, arXiv:1806.09055): alphas on one half of the data, weights on another.

    min over alpha of L_val(w*(alpha), alpha)   where w*(alpha) = argmin over w of L_train(w, alpha)

A network here has `alphas()` and `weights()`, lists of its parameters, and gives logits. With several processes each
has its share of every batch, and gradients are averaged over all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from training.hardware import true_fp32

EPSILON = 0.01  # of the central difference, over the length of the vector


class Batch(NamedTuple):
    images: Tensor  # (N, C, H, W)
    labels: Tensor  # (N,)


class Gradients(NamedTuple):
    """Of the loss of one batch."""

    loss: Tensor
    correct: Tensor  # predictions
    grads: list[Tensor]


def gradients(model: nn.Module, batch: Batch, wanted: Sequence[nn.Parameter],
              label_smoothing: float = 0.0) -> Gradients:
    """With respect to `wanted`: no work is done for the gradients of other parameters."""
    with _only(wanted, [*model.alphas(), *model.weights()]):
        logits = model(batch.images)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
        grads = averaged(torch.autograd.grad(loss, wanted, materialize_grads=True))
    return Gradients(loss.detach(), (logits.detach().argmax(1) == batch.labels).sum(), grads)


@contextmanager
def _only(wanted: Sequence[nn.Parameter], others: Sequence[nn.Parameter]) -> Iterator[None]:
    """Only `wanted` require gradients: custom functions cannot see otherwise which are asked for."""
    for parameter in others:
        parameter.requires_grad_(False)
    for parameter in wanted:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def averaged(grads: Sequence[Tensor]) -> list[Tensor]:
    """Over all processes; as they are if there is one."""
    grads = list(grads)
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        flat = torch.cat([grad.flatten() for grad in grads])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        grads = [part.view_as(grad) for part, grad in zip(flat.split([g.numel() for g in grads]), grads, strict=True)]
    return grads


# ---- gradients of the alphas


def first_order(model: nn.Module, val: Batch) -> Gradients:
    """As if the weights at hand were w*(alpha)."""
    return gradients(model, val, model.alphas())


@true_fp32()  # the difference moves weights by less than TF32 tells apart
def second_order(model: nn.Module, train: Batch, val: Batch, optimizer: torch.optim.SGD,
                 label_smoothing: float = 0.0) -> Gradients:
    """As if w*(alpha) were one step of `optimizer` away, w' = w - lr (momentum b + dL_train/dw + weight_decay w).

    dL_val(w', alpha)/dalpha - lr d2L_train(w, alpha)/dalpha dw v, with v = dL_val(w', alpha)/dw', of which the product
    with v is the central difference of dL_train/dalpha at w + eps v and w - eps v, divided by 2 eps.
    """
    alphas, weights = model.alphas(), model.weights()
    group = optimizer.param_groups[0]
    kept = [weight.detach().clone() for weight in weights]

    step = gradients(model, train, weights, label_smoothing).grads
    if group["weight_decay"]:
        torch._foreach_add_(step, kept, alpha=group["weight_decay"])
    momentum = [optimizer.state[weight].get("momentum_buffer") for weight in weights]
    if group["momentum"] and momentum[0] is not None:
        torch._foreach_add_(step, momentum, alpha=group["momentum"])
    _move(weights, kept, step, -group["lr"])
    found = gradients(model, val, [*alphas, *weights])
    direct, vector = found.grads[: len(alphas)], found.grads[len(alphas) :]

    length = torch.stack(torch._foreach_norm(vector)).norm()
    epsilon = EPSILON / length.clamp_min(1e-12)
    _move(weights, kept, vector, epsilon)
    plus = gradients(model, train, alphas, label_smoothing).grads
    _move(weights, kept, vector, -epsilon)
    minus = gradients(model, train, alphas, label_smoothing).grads
    _move(weights, kept, vector, 0.0)
    indirect = [(p - m) / (2 * epsilon) for p, m in zip(plus, minus, strict=True)]
    return found._replace(grads=[d - group["lr"] * i for d, i in zip(direct, indirect, strict=True)])


@torch.no_grad()
def _move(weights: Sequence[Tensor], start: Sequence[Tensor], direction: Sequence[Tensor],
          length: Tensor | float) -> None:
    """weights = start + length * direction"""
    torch._foreach_copy_(weights, start)
    torch._foreach_add_(weights, torch._foreach_mul(direction, length))


def beta_decay(alphas: Sequence[Tensor], weight: Tensor | float) -> list[Tensor]:
    """Gradient of weight * the mean over edges of logsumexp(alpha): the softmax of each edge, over their number.

    Ye et al., 2022, arXiv:2203.01665. It holds back the alphas that lead, such as those of skip connections.
    """
    edges = sum(len(alpha) for alpha in alphas if alpha.ndim == 2)
    return [weight / edges * alpha.detach().softmax(-1) if alpha.ndim == 2 else torch.zeros_like(alpha)
            for alpha in alphas]


# ---- one step of each


class Hits(NamedTuple):
    loss: Tensor
    correct: Tensor


def architecture_step(model: nn.Module, optimizer: torch.optim.Optimizer, gradient: Callable[[], Gradients],
                      decay: Tensor | float) -> Hits:
    """One step of the alphas along first_order or second_order and, weighed by `decay`, beta_decay."""
    found = gradient()
    for alpha, grad, extra in zip(model.alphas(), found.grads, beta_decay(model.alphas(), decay), strict=True):
        alpha.grad = grad + extra
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return Hits(found.loss, found.correct)


def weight_step(model: nn.Module, optimizer: torch.optim.Optimizer, train: Batch, clip: float,
                label_smoothing: float = 0.0) -> Hits:
    """One step of the weights on `train`; clip: largest norm of the gradient, 0: none."""
    found = gradients(model, train, model.weights(), label_smoothing)
    for weight, grad in zip(model.weights(), found.grads, strict=True):
        # As the weight lies in memory, which fused optimizers ask for.
        weight.grad = grad if grad.stride() == weight.stride() else torch.empty_like(weight).copy_(grad)
    if clip:
        nn.utils.clip_grad_norm_(model.weights(), clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return Hits(found.loss, found.correct)
