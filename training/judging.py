"""Judging trained networks by the same pictures: how often each is right, how sure that is, which one to take."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from artifacts.model_file import TrainedModel, load_model
from pictures.augmentation import words
from pictures.cache import Pictures
from pictures.dataset import PLAIN, Batches, final_batches
from pictures.split import parts
from training.balance import balanced_accuracy, recalls
from training.hardware import pick_dtype
from training.views import Views

TIMED = 0.5  # seconds of prediction by which its speed is told


class Answers(NamedTuple):
    """What a network says of N pictures: classes (N,) int64 by a single view and, if asked, several; its mean loss."""

    single: Tensor
    several: Tensor | None
    loss: float


# ---- which pictures


def common_validation(settings: Sequence[Mapping[str, Any]], pictures: Pictures) -> np.ndarray:
    """Indices into the training data: what trainings of these settings, those of a result.json, have held out.

    Where they held out different numbers, the fewest. ValueError if none has held out any.
    """
    found = [val for val in (_split(one, pictures, whole=True)[1] for one in settings) if val is not None]
    if not found:
        raise ValueError("no finalist has held out pictures for validation: all were trained on all")
    return np.sort(min(found, key=len))


def seen(settings: Mapping[str, Any], pictures: Pictures, index: np.ndarray) -> int:
    """How many pictures of `index` such a training has seen."""
    return int(np.isin(index, _split(settings, pictures)[0]).sum())


def _split(settings: Mapping[str, Any], pictures: Pictures,
           whole: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
    """Of a training; `whole`: with all that it has held out, were it validated on or not."""
    held_out = settings.get("held_out", 0)
    val_size = 0 if whole and settings["val_size"] > 0 and (held_out or pictures.given_val) else settings["val_size"]
    return parts(pictures.train_labels, pictures.given_val, train_size=settings["train_size"], val_size=val_size,
                 seed=settings["seed"], all_data=settings.get("all_data", False), held_out=held_out)


# ---- one network


class Judge:
    """A trained network of `path` on `device`; ValueError if it is of other classes than the pictures."""

    def __init__(self, path: Path, pictures: Pictures, device: torch.device, precision: str,
                 views: bool = True) -> None:
        self.trained: TrainedModel = load_model(path, device)
        if self.trained.classes != pictures.classes:
            theirs, ours = (", ".join(classes[:5]) + ", ..." * (len(classes) > 5)
                            for classes in (self.trained.classes, pictures.classes))
            raise ValueError(f"{path}: of {len(self.trained.classes)} classes ({theirs}), the pictures are of "
                             f"{len(pictures.classes)} ({ours}); a leaderboard is of the same ones")
        self.pictures, self.dtype = pictures, pick_dtype(precision, device, self.trained.model)
        self.views = Views(self.trained.model, self.trained.mirrored).eval() if views else None

    def validation(self, index: np.ndarray) -> Answers:
        """On pictures of the training data."""
        device = self.trained.normalization.mean.device
        pixels = words(torch.from_numpy(self.pictures.train_images[index])).to(device)
        labels = torch.from_numpy(self.pictures.train_labels[index]).to(device)
        return self._answers(Batches(pixels, labels, np.arange(len(index)), self.trained.normalization, PLAIN))

    def test(self) -> Answers:
        return self._answers(final_batches(self.pictures, self.trained.normalization, PLAIN))

    @torch.inference_mode()
    def _answers(self, batches: Batches) -> Answers:
        said, loss = ([], []), 0.0
        for x, y in batches.epoch(0):
            with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
                single = self.trained.model(x).float()
                several = self.views(x) if self.views else single
            loss += float(F.cross_entropy(single, y, reduction="sum"))
            said[0].append(single.argmax(1).cpu())
            said[1].append(several.argmax(1).cpu())
        return Answers(torch.cat(said[0]), torch.cat(said[1]) if self.views else None, loss / len(batches.index))

    @torch.inference_mode()
    def images_per_second(self) -> float:
        """Of prediction, by batches that lie on the device."""
        pixels = words(torch.from_numpy(self.pictures.train_images[:PLAIN])).to(self.trained.normalization.mean.device)
        x, runs, end = self.trained.normalization(pixels), 0, math.inf
        while time.perf_counter() < end:
            with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
                self.trained.model(x).float().sum().item()  # which waits for a GPU
            if runs == 0:  # the first one is to warm up
                start = time.perf_counter()
                end = start + TIMED
            runs += 1
        return (runs - 1) * len(x) / (time.perf_counter() - start) if runs > 1 else 0.0

    @torch.inference_mode()
    def multiply_adds(self) -> int:
        """Of one picture, in convolutions and products of matrices."""
        x = torch.zeros(1, 3, self.trained.side, self.trained.side, device=self.trained.normalization.mean.device)
        with FlopCounterMode(display=False) as counter:
            self.trained.model(x)
        return counter.get_total_flops() // 2


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# ---- figures


def figures(answers: Answers, labels: np.ndarray) -> dict[str, Any]:
    """Accuracy with its standard error, of p~ = (right + 1) / (N + 2), which is never 0 or 1; by several views too."""
    right = torch.from_numpy(np.asarray(labels))
    hits, of = int((answers.single == right).sum()), len(right)
    share = (hits + 1) / (of + 2)
    return {"accuracy": hits / of, "standard_error": math.sqrt(share * (1 - share) / of), "right": hits, "images": of,
            "several_views_accuracy": None if answers.several is None else int((answers.several == right).sum()) / of}


def tested(answers: Answers, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """What the result.json of a run has of its test."""
    confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64)  # (true, predicted)
    confusion.view(-1).scatter_add_(0, torch.from_numpy(np.asarray(labels)) * len(classes) + answers.single,
                                    torch.ones_like(answers.single))
    found = recalls(confusion)
    return {"loss": answers.loss, **figures(answers, labels), "balanced_accuracy": balanced_accuracy(found),
            "class_accuracy": dict(zip(classes, found, strict=True)), "confusion": confusion.tolist()}


class Behind(NamedTuple):
    """One network against a better one, on the same pictures: those that only one of them got right."""

    lost: int
    won: int

    @property
    def tied(self) -> bool:
        """Within one standard error of the difference, sqrt(lost + won) pictures if both are as good (McNemar 1947)."""
        return (self.lost - self.won) ** 2 <= self.lost + self.won


def behind(better: Tensor, other: Tensor) -> Behind:
    """(N,) bool each: which pictures are right."""
    return Behind(int((better & ~other).sum()), int((~better & other).sum()))


def choose(hits: Sequence[Tensor], sizes: Sequence[int]) -> tuple[int, list[Behind]]:
    """The number of the winner, and each network against the one that is right most often.

    hits: (N,) bool each, sizes: parameters. Of those that are tied with that one, the smallest wins.
    """
    best = max(range(len(hits)), key=lambda i: (int(hits[i].sum()), -sizes[i]))
    found = [behind(hits[best], one) for one in hits]
    close = [i for i in range(len(hits)) if found[i].tied]
    return min(close, key=lambda i: (sizes[i], -int(hits[i].sum()))), found
