"""Averaged weights: an exponential moving average over the steps of a training, in one or two launches a step.

torch's AveragedModel, whose checkpoints are read and written, does the same with a launch for each integer buffer and
each first copy, and makes the host wait for a GPU.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """`average.module` is a network like `model` with averages of its weights and running statistics.

    The first update takes them over; each later one makes them decay * average + (1 - decay) * model. What counts, in
    whole numbers, is taken over each time.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model)
        self.updates = 0  # counted on the host
        self._blend = get_ema_multi_avg_fn(decay)
        (self._averages, self._counters), (self._weights, self._counts) = map(_by_kind, (self.module, model))

    @torch.no_grad()
    def update(self) -> None:
        """After each step."""
        if self.updates:
            self._blend(self._averages, self._weights, None)
        else:
            torch._foreach_copy_(self._averages, self._weights)
        if self._counters:
            torch._foreach_copy_(self._counters, self._counts)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """As AveragedModel's."""
        return {"n_averaged": torch.tensor(self.updates), **self.module.state_dict(prefix="module.")}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.updates = int(saved["n_averaged"])
        self.module.load_state_dict({key.removeprefix("module."): value for key, value in saved.items()
                                     if key != "n_averaged"})


def _by_kind(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """What is averaged, and the integers: the tensors of a checkpoint, which stay the same objects in a training."""
    tensors = list(model.state_dict().values())
    return [t for t in tensors if t.is_floating_point()], [t for t in tensors if not t.is_floating_point()]
