"""Batch norm that is right after few steps: statistics of the weights at hand, not a running average of earlier ones.

The running average forgets a tenth a step. After some dozen steps of a high learning rate it is one of weights that
are no longer there, and a network that has learnt its pictures may judge others no better than by chance. Estimated
anew, on training pictures as they are, the statistics are those that evaluation and every later use need (Wu and
Johnson 2021, arXiv:2105.07576, section 3). After thousands of steps nothing is left to mend (docs/history.md).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SETTLED = 2000  # steps of a training, from which on its running averages stay as they are
IMAGES = 2048  # that the statistics are of, at most


@torch.no_grad()
def reestimate(model: nn.Module, batches: Iterable[Tensor], dtype: torch.dtype) -> int:
    """Make the statistics of every batch norm the mean of those of `batches`, x (B, 3, H, W) each, of equal weight.

    All else is in eval mode, as it is left: no dropout, no dropped paths. Weights are not touched. Returns the number
    of images, 0 for a network without batch norm.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]
    images = 0
    if not norms:
        return images
    usual = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.running_mean.zero_()  # what is infinite would stay so, even times 0
        norm.running_var.zero_()
    for number, x in enumerate(batches):
        for norm in norms:
            norm.momentum = 1 / (number + 1)  # of the mean so far and the new batch
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            model(x)
        images += len(x)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    model.eval()
    return images
