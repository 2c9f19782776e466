"""The search of DARTS: epochs of bilevel steps over a supernet, and the complete training that judges what it found.

The training images, but for those of validation, are halved: weights learn on one half, alphas on the other. With
several processes each takes its share of every batch, and norms it by itself; gradients are averaged.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from config import DartsSearchConfig, identity
from models.darts.genotype import Genotype, count_skips
from models.darts.network import DartsNetwork
from models.darts.supernet import Supernet
from pictures.dataset import Batches, Pictures, training_batches
from training import distributed
from training.bilevel import Batch, Hits, architecture_step, first_order, second_order, weight_step
from training.checkpoints import load_checkpoint, save_checkpoint
from training.hardware import keep_freed_memory
from training.loop import LOG_INTERVAL, evaluate, fit, schedule, set_seed
from training.stopping import DeferredSignals


class Searched(NamedTuple):
    """What a search came to. `history` has a record for each epoch; accuracies are in 0..1."""

    genotype: Genotype
    history: list[dict[str, Any]]
    value: float  # validation accuracy, of the supernet or of the complete training


class Search:
    """One seed's search: the supernet, the optimizers of both levels, the images, and what its epochs came to."""

    def __init__(self, config: DartsSearchConfig, pictures: Pictures, device: torch.device) -> None:
        """ValueError names a setting that does not go with the pictures or with another setting."""
        keep_freed_memory(device)
        self.config, self.device = config, device
        self.halves = search_batches(config, pictures, device)
        set_seed(config.seed)
        self.model = Supernet(3, config.channels, len(pictures.classes), config.layers, fused=config.fused,
                              partial_channels=config.partial_channels, recompute=config.recompute)
        self.model.to(device, memory_format=torch.channels_last)
        self.weights = torch.optim.SGD(self.model.weights(), config.lr, config.momentum,
                                       weight_decay=config.weight_decay)
        self.alphas = torch.optim.Adam(self.model.alphas(), config.alpha_lr, (0.5, 0.999),
                                       weight_decay=config.alpha_weight_decay)
        self.computes = {**identity(config), "data_checksum": pictures.checksum}
        self.history: list[dict[str, Any]] = []
        self.saved = 0  # epochs that the checkpoint holds

    def parts(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"model": self.model, "weights": self.weights, "alphas": self.alphas}

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint; ValueError if it is none, or of another search."""
        saved = load_checkpoint(checkpoint, self.computes, self.device)
        for name, part in self.parts().items():
            part.load_state_dict(saved[name])
        self.history = list(saved["history"])
        self.saved = len(self.history)

    def run(self, checkpoint: Path, on_epoch: Callable[[dict[str, Any]], None]) -> Searched:
        """All epochs that are left. `on_epoch` sees the record of each, those before a stop too.

        The checkpoint is written every `checkpoint_minutes`, before SIGTERM or SIGINT acts, and at the end.
        """
        for record in self.history:
            on_epoch(record)
        saved_at = time.monotonic()
        with DeferredSignals() as stop:
            for epoch in range(len(self.history), self.config.epochs):
                self.history.append(self.epoch(epoch, stop))
                due = time.monotonic() - saved_at > 60 * self.config.checkpoint_minutes
                if distributed.rank() == 0 and (due or stop or epoch + 1 == self.config.epochs):
                    save_checkpoint(checkpoint, self.parts(), self.computes, self.history)
                    self.saved, saved_at = len(self.history), time.monotonic()
                on_epoch(self.history[-1])
        return Searched(self.model.genotype(self.config.max_skips), self.history, self.history[-1]["val_accuracy"])

    def epoch(self, epoch: int, stop: DeferredSignals) -> dict[str, Any]:
        """One epoch of both levels; its record. ValueError if the loss is not finite.

        A signal acts within the epoch only if nothing would be lost; otherwise the epoch is a short one.
        """
        config, steps, started = self.config, len(self.halves.weights), time.perf_counter()
        frozen = epoch < round(config.frozen * config.epochs)
        decay = config.beta_decay * epoch / max(config.epochs - 1, 1)
        self.model.train()
        totals = {"train": [0.0, 0], "alpha": [0.0, 0]}
        for step, (train, val) in enumerate(self.batches(epoch)):
            lr = config.lr * schedule(epoch * steps + step, config.epochs * steps, config.warmup)
            for name, hit in self.step(train, val, lr, None if frozen else decay).items():
                totals[name][0], totals[name][1] = totals[name][0] + hit.loss, totals[name][1] + hit.correct
            if ((step + 1) % LOG_INTERVAL == 0 or step + 1 == steps) and not math.isfinite(float(totals["train"][0])):
                raise ValueError(f"epoch {epoch + 1}: the loss is not finite; lr = {config.lr}: must be lower")
            if stop and self.saved == len(self.history):
                stop.act()
        seconds = time.perf_counter() - started
        record = {"epoch": epoch + 1, "lr": lr, "seconds": seconds, "steps_per_second": steps / seconds}
        for name, (loss, correct) in totals.items():
            if name == "train" or not frozen:
                loss, correct = (float(distributed.summed(total)) for total in (loss, correct))
                record |= {f"{name}_loss": loss / steps / distributed.size(),
                           f"{name}_accuracy": correct / self.halves.weights.images}
        scores = evaluate(self.model, self.halves.val.epoch(epoch), torch.float32)
        return record | {f"val_{key}": value for key, value in scores.items()} | self.derived()

    def batches(self, epoch: int) -> Iterator[tuple[Batch, Batch]]:
        """Batches of the weights and of the alphas, this process's share of each."""
        part, halves = distributed.share(self.config.batch_size), self.halves
        pairs = zip(halves.weights.epoch(epoch), halves.alphas.epoch(epoch), strict=True)
        title = f"epoch {epoch + 1}/{self.config.epochs}"
        for train, val in tqdm(pairs, title, len(halves.weights), leave=False, disable=None, delay=2):
            yield Batch(train[0][part], train[1][part]), Batch(val[0][part], val[1][part])

    def step(self, train: Batch, val: Batch, lr: float, decay: float | None) -> dict[str, Hits]:
        """One step of the alphas on `val`, unless decay is none, then one of the weights on `train`."""
        config, hits = self.config, {}
        for group in self.weights.param_groups:
            group["lr"] = lr
        if decay is not None:
            gradient = (partial(first_order, self.model, val) if config.order == 1 else
                        partial(second_order, self.model, train, val, self.weights, config.label_smoothing))
            hits["alpha"] = architecture_step(self.model, self.alphas, gradient, decay)
        hits["train"] = weight_step(self.model, self.weights, train, config.clip, config.label_smoothing)
        return hits

    def derived(self) -> dict[str, Any]:
        """What the alphas say by now."""
        genotype = self.model.genotype(self.config.max_skips)
        return {"entropy": self.model.entropy(), "skips": count_skips(genotype), "genotype": genotype.to_json(),
                "strengths": self.model.strengths()}


class Halves(NamedTuple):
    """Training images of the weights, of the alphas, and validation images."""

    weights: Batches
    alphas: Batches
    val: Batches


def search_batches(config: DartsSearchConfig, pictures: Pictures, device: torch.device) -> Halves:
    """The training images, which lie in stratified order, halved."""
    train, val = training_batches(
        pictures, device, train_size=config.train_size, val_size=config.val_size, batch_size=config.batch_size,
        crop_padding=config.crop_padding, flip=config.flip, cutout=config.cutout, seed=config.seed)
    index = train.index.cpu().numpy()
    half = len(index) // 2
    if config.batch_size > half:
        raise ValueError(f"batch_size = {config.batch_size}: must be at most {half}, half of the training images")
    weights, alphas = (Batches(train.pixels, train.labels, part, train.normalization, config.batch_size,
                               train.augmentation, seed)
                       for part, seed in ((index[:half], config.seed), (index[half : 2 * half], config.seed + 2**31)))
    return Halves(weights, alphas, val)


# ---- the complete training that chooses


def complete_training(found: Searched, config: DartsSearchConfig, pictures: Pictures, device: torch.device,
                      path: Path) -> float:
    """Validation accuracy after the last epoch of the genotype's own network, trained on both halves."""
    loaders = training_batches(
        pictures, device, train_size=config.train_size, val_size=config.val_size, batch_size=config.batch_size,
        crop_padding=config.crop_padding, flip=config.flip, cutout=16, seed=config.seed,
        share=distributed.share(config.batch_size))
    set_seed(config.seed)
    model = DartsNetwork(found.genotype, 3, config.choice_channels, len(pictures.classes), config.choice_layers)
    model = distributed.synchronized(model.to(device))
    computes = {**identity(config), "data_checksum": pictures.checksum, "genotype": found.genotype.to_json()}
    checkpoint = path / "choice.pt"
    resume_from = load_checkpoint(checkpoint, computes, device) if checkpoint.exists() and config.resume else None
    settings = dataclasses.replace(config, epochs=config.choice_epochs)
    result = fit(model, *loaders, settings, identity=computes, checkpoint=checkpoint, resume_from=resume_from)
    if distributed.rank() == 0:
        print(f"complete training of seed {config.seed}: validation accuracy {result.metric:.2%}", flush=True)
    return result.metric
