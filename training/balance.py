"""Classes of unequal size: weights that let each count alike in the loss, and accuracies that count each alike."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """(classes,) float32: inversely proportional to how many of `labels` (N,) a class has, 1 in their mean."""
    counts = torch.bincount(labels, minlength=classes)
    weights = len(labels) / (counts.count_nonzero() * counts.clamp(min=1))
    return torch.where(counts > 0, weights, 0.0).float()


def cross_entropy(logits: Tensor, y: Tensor, label_smoothing: float, weights: Tensor | None) -> Tensor:
    """Mean over the batch; with `weights` (classes,) each image counts as its class does."""
    if weights is None:
        return F.cross_entropy(logits, y, label_smoothing=label_smoothing)
    return F.cross_entropy(logits, y, weights, label_smoothing=label_smoothing, reduction="sum") / len(y)


def recalls(confusion: Tensor) -> list[float | None]:
    """Of each class the share that is recognised; None where there is no image of it. confusion: (true, predicted)."""
    return [row[label] / sum(row) if sum(row) else None for label, row in enumerate(confusion.tolist())]


def balanced_accuracy(found: Sequence[float | None]) -> float:
    """The mean of `recalls`."""
    there = [recall for recall in found if recall is not None]
    return sum(there) / len(there)
