"""Training of one network: one step, fit, evaluate, seed.

Nothing here knows where settings, networks or pictures come from: `fit` gets an nn.Module, two loaders and an
object with the settings as attributes, and hands a float and a record back after each epoch through a callback.

A loader has `epoch(e, start=0)`, which yields ready batches (x (B, 3, H, W), y (B,)) on the device, from the one
numbered `start`, as a function of e alone, `len()` in batches and `images`, the number of images an epoch. It may have
`drawn(e, start=0)`, which yields what `ready(*drawn)` makes these batches of: then that is a part of the step; and
`plain(images)`, which yields x of so many images, not augmented: batch norm is settled on them before an evaluation.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from models.kernels import branches
from training import batch_norm
from training.average import Average
from training.balance import balanced_accuracy, class_weights, cross_entropy, recalls
from training.checkpoints import save_checkpoint
from training.compiling import compiled
from training.distributed import first, parallel, rank, size, summed
from training.execution import Execution, of_training
from training.graphs import Captured, CudaGraph, ready_to_step, set_rate
from training.hardware import pick_dtype, prepare
from training.optimizers import SCHEDULES, build_optimizer
from training.stopping import DeferredSignals

LOG_INTERVAL = 50  # steps between two looks at the loss; each look makes the host wait for the device


# ---- seed


def set_seed(seed: int) -> None:
    """Seed torch's generators, which draw the initial weights and dropout, on all devices."""
    torch.manual_seed(seed)


def _seed_step(seed: int, epoch: int, step: int) -> None:
    """Dropout and drop path depend on these, and the process, alone: a run may stop and go on at any step."""
    set_seed((((seed * 100_003 + epoch) * 1_000_003 + step) * 1009 + rank()) % 2**63)


# ---- one step


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, *, lr: float | None = None,
               dtype: torch.dtype, label_smoothing: float, clip: float, auxiliary: float = 0.0,
               weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One update; returns loss and number of correct predictions as tensors, so that nobody waits for the device.

    A network with an auxiliary head gives a pair of logits, of which the second count for `auxiliary` in the loss.
    weights: of the classes in it, if they shall not count as often as they come.
    """
    if lr is not None:
        set_rate(optimizer, lr)
    with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        logits = model(x)
    logits, *others = logits if isinstance(logits, tuple) else (logits,)
    loss = cross_entropy(logits.float(), y, label_smoothing, weights)
    for other in others:
        loss = loss + auxiliary * cross_entropy(other.float(), y, label_smoothing, weights)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if clip:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.detach(), (logits.detach().argmax(1) == y).sum()


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], dtype: torch.dtype,
             confusion: Tensor | None = None) -> dict[str, float]:
    """Mean cross-entropy (no smoothing) and accuracy in 0..1 over `batches`, with `model` in eval mode.

    `confusion` (classes, classes) int64 counts on: rows are the true classes, columns the predicted ones.
    """
    model.eval()
    images, loss, correct = 0, 0.0, 0
    for x, y in batches:
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            logits = model(x)
        loss = loss + F.cross_entropy(logits.float(), y, reduction="sum")
        predicted = logits.argmax(1)
        correct = correct + (predicted == y).sum()
        images += len(y)
        if confusion is not None:
            confusion.view(-1).scatter_add_(0, y * len(confusion) + predicted, torch.ones_like(y))
    # Every process sees all images. On CPUs their batch norms differ: that of process 0, whose model is kept, counts.
    loss, correct = first(torch.stack((loss, correct)).double()).tolist()
    return {"loss": loss / images, "accuracy": correct / images}


# ---- fit


@dataclass
class FitResult:
    """What a training came to. `history` has a record for each epoch; accuracies are in 0..1."""

    history: list[dict[str, float]] = field(default_factory=list)
    diverged: bool = False

    @property
    def last(self) -> dict[str, float] | None:
        """The last whole epoch; None if the first one diverged."""
        return self.history[-1] if self.history else None

    @property
    def best(self) -> dict[str, float] | None:
        """The epoch of best validation accuracy, the first of equals; None without validation."""
        judged = [record for record in self.history if "val_accuracy" in record]
        return max(judged, key=lambda record: record["val_accuracy"], default=None)

    @property
    def metric(self) -> float:
        """The figure to compare trainings by, after the last epoch: validation accuracy, without validation training
        accuracy; 0 if it diverged.
        """
        return 0.0 if self.diverged else self.last.get("val_accuracy", self.last["train_accuracy"])


def fit(model: nn.Module, train: Any, val: Any, settings: Any, *, identity: dict[str, Any],
        checkpoint: Path | None = None, resume_from: dict[str, Any] | None = None,
        on_epoch: Callable[[dict[str, float]], None] = lambda record: None, auxiliary: float = 0.0,
        drop_path: float = 0.0, checkpoint_minutes: float = 5.0, stop_signals: bool = False,
        execution: Execution | None = None) -> FitResult:
    """Train `model`, on its device, for `settings.epochs`; the trained (or averaged) weights end up in `model`.

    settings: optimizer, lr, weight_decay, momentum, epochs, warmup, label_smoothing, clip, ema, precision, compile,
    graph, seed and, if they are not the usual ones, balance, schedule and bias_factor. `val` may be None. `auxiliary`
    is the weight of an auxiliary head's loss; `drop_path` the probability that is approached linearly from 0, epoch by
    epoch (arXiv:1707.07012). A network may have `prepare(images)`, which is called with training pictures before
    everything else, x (B, 3, H, W) each.
    `identity`, what the run computes, is kept in the checkpoint, which is written every `checkpoint_minutes`, within
    an epoch or after one, at the end and, with `stop_signals`, before SIGTERM or SIGINT acts. `resume_from`, a loaded
    checkpoint, gives the weights of a run without a stop (training/checkpoints.py); `on_epoch` sees the records of its
    epochs too. A loss that is not finite ends the training: the result says `diverged`.
    """
    device = next(model.parameters()).device
    prepare(device)
    execution = execution or of_training(settings, model, size())
    dtype = pick_dtype(settings.precision, device, model)
    model.to(memory_format=torch.channels_last)
    if hasattr(model, "prepare") and not resume_from:
        model.prepare(train.plain(batch_norm.IMAGES))
    optimizer = build_optimizer(model, settings.optimizer, settings.lr, settings.weight_decay, settings.momentum,
                                getattr(settings, "bias_factor", 1.0))
    average = Average(model, settings.ema) if settings.ema else None
    result = FitResult()
    run = _Run(model, optimizer, average, result.history, identity, checkpoint, checkpoint_minutes * 60)
    if resume_from:
        run.load(resume_from)
        for record in result.history:
            on_epoch(record)
    ready_to_step(optimizer, device, execution.captured)
    branches.allowed = execution.branches
    stepped = parallel(compiled(model) if execution.compiled else model)

    balance = getattr(settings, "balance", False)
    weights = class_weights(train.labels[train.index], classes_of(train)) if balance else None

    def step(*drawn: Any) -> Tensor:
        """Loss and correct predictions, (2,)."""
        x, y = train.ready(*drawn) if hasattr(train, "ready") else drawn
        return torch.stack(train_step(stepped, optimizer, x, y, dtype=dtype, label_smoothing=settings.label_smoothing,
                                      clip=settings.clip, auxiliary=auxiliary, weights=weights))

    captured = Captured(step, CudaGraph if execution.captured else None)

    with DeferredSignals(stop_signals) as stop:
        for epoch in range(len(result.history), settings.epochs):
            if drop_path:  # in eager mode epoch 1 goes without masks: even ones of 1 change the layout of gradients
                model.drop_path_probability(drop_path * epoch / settings.epochs,
                                            rising=execution.compiled or execution.captured)
            record, last = _train_epoch(run, captured, train, epoch, settings, stop), epoch + 1 == settings.epochs
            if record and (val is not None or last):
                record |= _judge(average.module if average else model, train, val, epoch, dtype, last)
            if not record or not math.isfinite(record.get("val_loss", 0.0)):
                result.diverged = True
                return result
            result.history.append(record)
            run.finish_epoch(last)
            on_epoch(record)
    return result


def _judge(model: nn.Module, train: Any, val: Any, epoch: int, dtype: torch.dtype, last: bool) -> dict[str, Any]:
    """Settle the batch norms of `model`, as long as that is needed, and validate it, if there are images for that."""
    settling = hasattr(train, "plain") and (epoch + 1) * len(train) < batch_norm.SETTLED
    images = batch_norm.reestimate(model, train.plain(batch_norm.IMAGES), dtype) if settling else 0
    scores = {} if val is None else _validate(model, val, epoch, dtype, last)
    return {f"val_{key}": value for key, value in scores.items()} | {"batch_norm_images": images}


def _validate(model: nn.Module, val: Any, epoch: int, dtype: torch.dtype, last: bool) -> dict[str, Any]:
    """Scores of `evaluate` and balanced accuracy; after the last epoch that of each class too."""
    if not hasattr(val, "labels"):
        return evaluate(model, val.epoch(epoch), dtype)
    confusion = torch.zeros(2 * (classes_of(val),), dtype=torch.int64, device=val.labels.device)
    scores = evaluate(model, val.epoch(epoch), dtype, confusion)
    found = recalls(confusion)
    return {**scores, "balanced_accuracy": balanced_accuracy(found), **({"class_accuracy": found} if last else {})}


def classes_of(batches: Any) -> int:
    """How many the data set has."""
    return int(batches.labels.max()) + 1


@dataclass
class _Run:
    """A training under way: what a checkpoint keeps of it, and when."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: Average | None
    history: list[dict[str, float]]
    identity: dict[str, Any]
    checkpoint: Path | None
    interval: float  # seconds between checkpoints

    def __post_init__(self) -> None:
        self.saved_at = time.monotonic()
        self.start_epoch()

    def start_epoch(self) -> None:
        self.steps, self.seconds = 0, 0.0  # of the epoch under way
        # Over these steps: loss and correct predictions.
        self.sums = torch.zeros(2, dtype=torch.float64, device=next(self.model.parameters()).device)

    def load(self, saved: dict[str, Any]) -> None:
        for name in self.parts().keys() & saved.keys():  # after the last epoch nothing but the weights is kept
            self.parts()[name].load_state_dict(saved[name])
        self.history[:] = saved["history"]
        for name, value in saved.get("within_epoch", {}).items():
            setattr(self, name, value)

    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, **({"average": self.average} if self.average else {})}

    def due(self) -> bool:
        return time.monotonic() - self.saved_at > self.interval

    def save(self, last: bool = False) -> None:
        """Process 0 writes for all."""
        self.saved_at = time.monotonic()
        if self.checkpoint and rank() == 0:
            within = {"steps": self.steps, "seconds": self.seconds, "sums": self.sums} if self.steps else None
            parts = {"model": self.model} if last else self.parts()
            save_checkpoint(self.checkpoint, parts, self.identity, self.history, within)

    def finish_epoch(self, last: bool) -> None:
        if last and self.average:
            self.model.load_state_dict(self.average.module.state_dict())
        self.start_epoch()
        if last or self.due():
            self.save(last)


def _train_epoch(run: _Run, step: Captured, train: Any, epoch: int, settings: Any,
                 stop: DeferredSignals) -> dict[str, float] | None:
    """What is left of an epoch; its record, or None as soon as the loss is seen not to be finite."""
    run.model.train()
    start, steps = time.perf_counter() - run.seconds, len(train)
    # A loader must know how to begin within an epoch only where a run does.
    batches = (train.drawn if hasattr(train, "drawn") else train.epoch)(epoch, *([run.steps] if run.steps else []))
    bar = tqdm(batches, f"epoch {epoch + 1}/{settings.epochs}", steps, initial=run.steps, leave=False, delay=2,
               disable=None if rank() == 0 else True)

    share = SCHEDULES[getattr(settings, "schedule", "cosine")]

    def rate(step: int) -> float:
        return settings.lr * share(epoch * steps + step, settings.epochs * steps, settings.warmup)

    for drawn in bar:
        _seed_step(settings.seed, epoch, run.steps)
        set_rate(run.optimizer, rate(run.steps))
        run.sums += step(*drawn)
        if run.average:
            run.average.update()
        run.steps, run.seconds = run.steps + 1, time.perf_counter() - start
        if run.steps % LOG_INTERVAL == 0 or run.steps == steps:
            mean_loss = float(summed(run.sums)[0]) / (run.steps * size())
            bar.set_postfix(loss=f"{mean_loss:.3f}")
            if not math.isfinite(mean_loss):
                return None
        if run.due() or (stop and rank() == 0):
            run.save()
            if stop:
                stop.act()
    loss, correct = summed(run.sums).tolist()
    seconds = time.perf_counter() - start
    return {"epoch": epoch + 1, "lr": rate(steps - 1), "train_loss": loss / (steps * size()),
            "train_accuracy": correct / train.images, "seconds": seconds, "images_per_second": train.images / seconds}
