"""The search of DARTS: epochs of bilevel steps over a supernet, and the complete training that judges what it found.

The training images, but for those of validation, are halved: weights learn on one half, alphas on the other. Without
validation images, as published, the alphas' half judges the search too. With several processes each takes its share of
every batch, and norms it by itself; gradients are averaged.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from config import DartsSearchConfig, identity
from models.darts.genotype import OPERATIONS, Genotype, count_skips
from models.darts.network import DartsNetwork
from models.darts.supernet import Supernet, stacked
from models.kernels import branches
from pictures.augmentation import Draws
from pictures.dataset import Batches, Pictures, training_batches
from training import distributed
from training.bilevel import Batch, architecture_step, first_order, second_order, weight_step
from training.checkpoints import before, load_checkpoint, save_checkpoint
from training.execution import of_search
from training.graphs import Captured, CudaGraph, Recorder, ready_to_step, set_rate
from training.hardware import prepare
from training.loop import LOG_INTERVAL, evaluate, fit, set_seed
from training.optimizers import schedule
from training.stopping import DeferredSignals
from training.trial import line


class Diverged(ValueError):
    """The loss of a search is not finite."""


class Searched(NamedTuple):
    """What a search came to. `history` has a record for each epoch; accuracies are in 0..1."""

    genotype: Genotype
    history: list[dict[str, Any]]
    value: float  # accuracy of the supernet on what `judged` names, or validation accuracy of the complete training


# The first that there is: the second in a search without validation images, the third while its alphas wait.
JUDGES = {"val_accuracy": "validation", "alpha_accuracy": "alphas' half", "train_accuracy": "weights' half"}


def judged(record: Mapping[str, Any]) -> tuple[str, float]:
    """The images that judge an epoch, and the accuracy in 0..1 on them."""
    key = next(key for key in JUDGES if key in record)
    return JUDGES[key], record[key]


Drawn = tuple[Tensor, Draws | None]  # what Batches.drawn gives


class WeightHits(NamedTuple):
    """Of a step: loss and correct predictions, (2,)."""

    train: Tensor


class BothHits(NamedTuple):
    train: Tensor
    alpha: Tensor


class Search:
    """One seed's search: the supernet, the optimizers of both levels, the images, and what its epochs came to."""

    def __init__(self, config: DartsSearchConfig, pictures: Pictures, device: torch.device) -> None:
        """ValueError names a setting that does not go with the pictures or with another setting."""
        prepare(device)
        self.config, self.device = config, device
        self.halves = search_batches(config, pictures, device)
        set_seed(config.seed)
        self.execution = of_search(config, device, distributed.size())
        self.model = Supernet(3, config.channels, len(pictures.classes), config.layers, form=self.execution.form,
                              partial_channels=config.partial_channels, recompute=config.recompute,
                              side=pictures.side)
        self.model.to(device, memory_format=torch.channels_last)
        self.weights = torch.optim.SGD(self.model.weights(), config.lr, config.momentum,
                                       weight_decay=config.weight_decay)
        self.alphas = torch.optim.Adam(self.model.alphas(), config.alpha_lr, (0.5, 0.999),
                                       weight_decay=config.alpha_weight_decay)
        self.decay = torch.zeros((), dtype=torch.float64, device=device)  # beta-decay's weight
        self.computes = {**identity(config), "data_checksum": pictures.checksum}
        self.history: list[dict[str, Any]] = []
        self.saved = 0  # epochs that the checkpoint holds

    def parts(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"model": self.model, "weights": self.weights, "alphas": self.alphas}

    def load(self, checkpoint: Path) -> dict[str, Any]:
        """Go on from a checkpoint, which is given back; ValueError if it is none, or of another search."""
        saved = of_today(load_checkpoint(checkpoint, self.computes, self.device), list(self.model.state_dict()))
        theirs, ours = ({name: tensor.shape for name, tensor in state.items()}
                        for state in (saved["model"], self.model.state_dict()))
        if theirs != ours:  # channels and cells are compared already
            raise ValueError(f"{checkpoint}: its search was over other operations than {', '.join(OPERATIONS)}; delete "
                             "it to start anew")
        for name, part in self.parts().items():
            part.load_state_dict(saved[name])
        self.history = list(saved["history"])
        self.saved = len(self.history)
        return saved

    def run(self, checkpoint: Path, on_epoch: Callable[[dict[str, Any]], None]) -> Searched:
        """All epochs that are left. `on_epoch` sees the record of each, those before a stop too.

        The checkpoint is written every `checkpoint_minutes`, before SIGTERM or SIGINT acts, and at the end.
        """
        for record in self.history:
            on_epoch(record)
        both, one = self.steps(CudaGraph if self.execution.captured else None)
        saved_at = time.monotonic()
        with DeferredSignals() as stop:
            for epoch in range(len(self.history), self.config.epochs):
                frozen = epoch < round(self.config.frozen * self.config.epochs)
                self.history.append(self.epoch(epoch, one if frozen else both, stop))
                due = time.monotonic() - saved_at > 60 * self.config.checkpoint_minutes
                if distributed.rank() == 0 and (due or stop or epoch + 1 == self.config.epochs):
                    save_checkpoint(checkpoint, self.parts(), self.computes, self.history)
                    self.saved, saved_at = len(self.history), time.monotonic()
                on_epoch(self.history[-1])
        return Searched(self.model.genotype(self.config.max_skips), self.history, judged(self.history[-1])[1])

    def steps(self, recorder: Callable[[], Recorder] | None) -> tuple[Captured, Captured]:
        """The steps of both levels and of the weights alone; what they have loaded must not be loaded anew."""
        for optimizer in (self.weights, self.alphas):
            ready_to_step(optimizer, self.device, recorder is not None)
        branches.allowed = self.execution.branches
        return Captured(self.both_steps, recorder), Captured(self.weight_step, recorder)

    def epoch(self, epoch: int, step: Captured, stop: DeferredSignals) -> dict[str, Any]:
        """One epoch; its record. Diverged if the loss is not finite.

        A signal acts within the epoch only if nothing would be lost; otherwise the epoch is a short one.
        """
        config, steps, started = self.config, len(self.halves.weights), time.perf_counter()
        self.decay.fill_(config.beta_decay * epoch / max(config.epochs - 1, 1))
        self.model.train()
        totals: dict[str, Tensor] = {}
        for number, drawn in enumerate(self.batches(epoch)):
            lr = config.lr * schedule(epoch * steps + number, config.epochs * steps, config.warmup)
            set_rate(self.weights, lr)
            for name, hits in step(*drawn)._asdict().items():
                totals[name] = totals.get(name, 0.0) + hits
            if ((number + 1) % LOG_INTERVAL == 0 or number + 1 == steps) and not totals["train"].isfinite().all():
                raise Diverged(f"epoch {epoch + 1}: the loss is not finite; lr = {config.lr}: must be lower")
            if stop and self.saved == len(self.history):
                stop.act()
        seconds = time.perf_counter() - started
        record = {"epoch": epoch + 1, "lr": lr, "seconds": seconds, "steps_per_second": steps / seconds}
        for name, total in totals.items():
            loss, correct = distributed.summed(total).tolist()
            record |= {f"{name}_loss": loss / steps / distributed.size(),
                       f"{name}_accuracy": correct / self.halves.weights.images}
        if self.halves.val is not None:
            scores = evaluate(self.model, self.halves.val.epoch(epoch), torch.float32)
            record |= {f"val_{key}": value for key, value in scores.items()}
        return record | self.derived()

    def batches(self, epoch: int) -> Iterator[tuple[Drawn, Drawn]]:
        """Of the weights and of the alphas, this process's share of each."""
        halves, title = self.halves, f"epoch {epoch + 1}/{self.config.epochs}"
        pairs = zip(halves.weights.drawn(epoch), halves.alphas.drawn(epoch), strict=True)
        return tqdm(pairs, title, len(halves.weights), leave=False, disable=None, delay=2)

    def both_steps(self, train: Drawn, val: Drawn) -> BothHits:
        """One step of the alphas on `val`, then one of the weights on `train`."""
        config, batch, other = self.config, Batch(*self.halves.weights.ready(*train)), Batch(
            *self.halves.alphas.ready(*val))
        gradient = (partial(first_order, self.model, other) if config.order == 1 else
                    partial(second_order, self.model, batch, other, self.weights, config.label_smoothing))
        alpha = architecture_step(self.model, self.alphas, gradient, self.decay)
        return BothHits(self.hits(batch), torch.stack(alpha))

    def weight_step(self, train: Drawn, val: Drawn) -> WeightHits:
        """One step of the weights, as long as the alphas wait."""
        return WeightHits(self.hits(Batch(*self.halves.weights.ready(*train))))

    def hits(self, batch: Batch) -> Tensor:
        """A step of the weights; its loss and correct predictions, (2,)."""
        return torch.stack(weight_step(self.model, self.weights, batch, self.config.clip, self.config.label_smoothing))

    def derived(self) -> dict[str, Any]:
        """What the alphas say by now."""
        genotype = self.model.genotype(self.config.max_skips)
        return {"entropy": self.model.entropy(), "skips": count_skips(genotype), "genotype": genotype.to_json(),
                "strengths": self.model.strengths()}


def of_today(saved: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """A checkpoint of before the parameters of edges lay side by side (`stacked`) as one of today; `names` are those
    of the model's state."""
    before = [name for name in saved["model"] if not name.startswith(("alpha_", "beta_"))]
    state, [group] = saved["weights"]["state"], saved["weights"]["param_groups"]
    if not any(".nodes." in name for name in before):
        return saved
    momentum = stacked({name: state[number]["momentum_buffer"] for number, name in enumerate(before)})
    after = [name for name in names if name in momentum]
    weights = {"state": {number: {"momentum_buffer": momentum[name]} for number, name in enumerate(after)},
               "param_groups": [{**group, "params": list(range(len(after)))}]}
    return {**saved, "model": stacked(saved["model"]), "weights": weights}


class Halves(NamedTuple):
    """Training images of the weights, of the alphas, and validation images, if there are any."""

    weights: Batches
    alphas: Batches
    val: Batches | None


def search_batches(config: DartsSearchConfig, pictures: Pictures, device: torch.device) -> Halves:
    """The training images, which lie in stratified order, halved."""
    train, val = training_batches(
        pictures, device, train_size=config.train_size, val_size=config.val_size, batch_size=config.batch_size,
        crop_padding=config.crop_padding, flip=config.flip, cutout=config.cutout, seed=config.seed,
        held_out=config.held_out)
    index = train.index.cpu().numpy()
    half = len(index) // 2
    if config.batch_size > half:
        raise ValueError(f"batch_size = {config.batch_size}: must be at most {half}, half of the training images")
    share = distributed.share(config.batch_size)
    weights, alphas = (Batches(train.pixels, train.labels, part, train.normalization, config.batch_size,
                               train.augmentation, seed, share)
                       for part, seed in ((index[:half], config.seed), (index[half : 2 * half], config.seed + 2**31)))
    return Halves(weights, alphas, val)


# ---- the complete training that chooses


def complete_training(found: Searched, config: DartsSearchConfig, pictures: Pictures, device: torch.device,
                      path: Path) -> float:
    """Validation accuracy after the last epoch of the genotype's own network, trained on both halves.

    If the search had no validation images, those that are held out judge, or a tenth of its own, set aside now: it has
    seen these, this network not.
    """
    train_size, val_size = config.train_size, config.val_size
    if val_size < 0 and config.held_out:
        val_size = 0
    elif val_size < 0 and not pictures.given_val:
        images = train_size or len(pictures.train_labels)
        val_size = max(images // 10, len(pictures.classes))
        train_size = images - val_size
    loaders = training_batches(
        pictures, device, train_size=train_size, val_size=val_size, batch_size=config.batch_size,
        crop_padding=config.crop_padding, flip=config.flip, cutout=16, seed=config.seed,
        share=distributed.share(config.batch_size), held_out=config.held_out)
    set_seed(config.seed)
    model = DartsNetwork(found.genotype, 3, config.choice_channels, len(pictures.classes), config.choice_layers,
                         side=pictures.side)
    model = distributed.synchronized(model.to(device))
    computes = {**identity(config), "data_checksum": pictures.checksum, "genotype": found.genotype.to_json()}
    checkpoint = path / "choice.pt"
    resume_from = load_checkpoint(checkpoint, computes, device) if checkpoint.exists() and config.resume else None
    settings, records = dataclasses.replace(config, epochs=config.choice_epochs), []

    def on_epoch(record: dict[str, float]) -> None:
        records.append(record)
        if distributed.rank() == 0:
            print(f"complete training: {line(records, settings.epochs)}", flush=True)

    result = fit(model, *loaders, settings, identity=computes, checkpoint=checkpoint, resume_from=resume_from,
                 on_epoch=on_epoch, checkpoint_minutes=config.checkpoint_minutes)
    if distributed.rank() == 0:
        before(checkpoint).unlink(missing_ok=True)
        print(f"complete training of seed {config.seed}: validation accuracy {result.metric:.2%}", flush=True)
    return result.metric
