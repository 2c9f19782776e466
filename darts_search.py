"""Stage 3, first half: search the cells of DartsStackedCells by bilevel optimisation.

    python darts_search.py --data cifar10                     first order, 50 epochs, as published
    python darts_search.py --data cifar10 --partial-channels 4 --batch-size 256 --lr 0.1     PC-DARTS, faster
    python darts_search.py --data cifar10 --seeds 4           four searches, and a complete training to choose the best
    torchrun --nproc-per-node 4 darts_search.py --data cifar10 --batch-size 256 --lr 0.1     on 4 GPUs
    python darts_search.py --data digits --channels 4 --layers 3 --epochs 2                  a first look, in a minute

The training images, but for those of validation, are halved: weights learn on one half, alphas on the other. What the
alphas say after the last epoch is the genotype. With several seeds, and for each trial of an NNI experiment, the
discrete network of each genotype is trained from scratch on both halves; its validation accuracy decides. The test
set is never read. Writes genotype.json, cells.png and alphas.png into the run's folder; retrain.py goes on from there.

With several processes each takes its share of every batch, and norms it by itself; gradients are averaged.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from config import DartsSearchConfig, command_line, identity, merge, run_script
from files import read_json, write_json
from training import trial

if TYPE_CHECKING:
    from models.darts.genotype import Genotype
    from models.darts.supernet import Supernet
    from pictures.dataset import Batches, Pictures
    from training.bilevel import Batch, Hits


def main(argv: list[str] | None = None) -> int:
    tuner = trial.ask()
    return run_script(lambda: run(argv, tuner))


def run(argv: list[str] | None, tuner: dict) -> None:
    from pictures.dataset import load
    from training import distributed  # slow to import, as is what stands on torch
    from training.hardware import enough_memory, pick_device

    config = merge(DartsSearchConfig, command_line(DartsSearchConfig, argv, __doc__.splitlines()[0]), tuner)
    pictures = load(config.data, config.data_dir)
    advice = "" if config.recompute else ", and so does --recompute"
    with distributed.joined(pick_device(config.device)) as device, enough_memory(config.batch_size, advice):
        search_and_choose(config, pictures, device, tuner)


def search_and_choose(config: DartsSearchConfig, pictures: "Pictures", device: Any, tuner: dict) -> None:
    from artifacts.run_folder import RunFolder
    from training import distributed

    path = trial.run_path(config, "darts_search", default_name(config))
    seeds = range(config.seed, config.seed + config.seeds)
    choosing = config.choice_epochs > 0 and (config.seeds > 1 or trial.under_nni())
    found = []
    for seed in seeds:
        place = path / f"seed{seed}" if config.seeds > 1 else path
        begun = config.seeds == 1 or (place / "checkpoint.pt").exists()  # of several seeds, the later ones are not
        one = dataclasses.replace(config, seed=seed, seeds=1, resume=config.resume and begun)
        searched = search(one, pictures, device, place)
        if choosing:
            value = complete_training(searched.genotype, one, pictures, device, searched.path)
            searched = searched._replace(value=value)
            if distributed.rank() == 0:
                file = searched.path / "result.json"
                write_json(file, {**read_json(file), **score(searched, chosen=True)})
        found.append(searched)
    if distributed.rank() > 0:
        return
    best = max(found, key=lambda searched: searched.value)
    if config.seeds > 1:
        folder = RunFolder(path, config)
        draw(best.genotype, best.history, path)
        folder.finish(result(best, pictures, choosing) | {"seeds": [
            {"seed": seed, "value": searched.value, "genotype": searched.genotype.to_json()}
            for seed, searched in zip(seeds, found, strict=True)]}, device)
    trial.report(best.value, {}, {key: dataclasses.asdict(config)[key] for key in tuner})
    print(f"done: {path / 'genotype.json'}; next: python retrain.py --genotype {path / 'genotype.json'}")


def default_name(config: DartsSearchConfig) -> str:
    kind = f"partial{config.partial_channels}" if config.partial_channels > 1 else f"order{config.order}"
    return f"{kind}-c{config.channels}-l{config.layers}-seed{config.seed}"


# ---- one search


class Searched(NamedTuple):
    """What a search came to."""

    genotype: "Genotype"
    history: list[dict[str, Any]]
    value: float  # validation accuracy, of the supernet or of the complete training
    path: Path


class Halves(NamedTuple):
    """Training images of the weights, of the alphas, and validation images."""

    weights: "Batches"
    alphas: "Batches"
    val: "Batches"


def search(config: DartsSearchConfig, pictures: "Pictures", device: Any, path: Path) -> Searched:
    """The whole search of one seed in the run folder `path`; goes on from its checkpoint if told so."""
    import torch

    from artifacts.run_folder import RunFolder
    from models.darts.supernet import Supernet
    from training import distributed
    from training.checkpoints import load_checkpoint, save_checkpoint
    from training.hardware import keep_freed_memory
    from training.loop import set_seed

    keep_freed_memory(device)
    halves = search_batches(config, pictures, device)
    set_seed(config.seed)
    model = Supernet(3, config.channels, len(pictures.classes), config.layers, partial_channels=config.partial_channels,
                     fused=config.fused, recompute=config.recompute)
    model.to(device, memory_format=torch.channels_last)
    parts = {"model": model,
             "weights": torch.optim.SGD(model.weights(), config.lr, config.momentum, weight_decay=config.weight_decay),
             "alphas": torch.optim.Adam(model.alphas(), config.alpha_lr, (0.5, 0.999),
                                        weight_decay=config.alpha_weight_decay)}
    computes = {**identity(config), "data_checksum": pictures.checksum}
    checkpoint, history = path / "checkpoint.pt", []
    if config.resume or (trial.under_nni() and checkpoint.exists()):
        saved = load_checkpoint(checkpoint, computes, device)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        history = list(saved["history"])

    writes = distributed.rank() == 0
    folder = RunFolder(path, config) if writes else None
    for record in history if writes else ():
        keep(record, folder)
    for epoch in range(len(history), config.epochs):
        history.append(search_epoch(parts, halves, config, epoch))
        if writes:
            save_checkpoint(checkpoint, parts, computes, history)
            keep(history[-1], folder)
    genotype = model.genotype(config.max_skips)
    found = Searched(genotype, history, history[-1]["val_accuracy"], path)
    if writes:
        draw(genotype, history, path)
        folder.finish(result(found, pictures, chosen=False), device)
    return found


def search_batches(config: DartsSearchConfig, pictures: "Pictures", device: Any) -> Halves:
    """The training images, which lie in stratified order, halved."""
    from pictures.dataset import Batches, training_batches

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


def search_epoch(parts: dict[str, Any], halves: Halves, config: DartsSearchConfig, epoch: int) -> dict[str, Any]:
    """One epoch of both levels; its record. ValueError if the loss is not finite."""
    import torch

    from training import distributed
    from training.loop import LOG_INTERVAL, evaluate, schedule

    model, steps, started = parts["model"], len(halves.weights), time.perf_counter()
    frozen = epoch < round(config.frozen * config.epochs)
    decay = config.beta_decay * epoch / max(config.epochs - 1, 1)
    model.train()
    totals = {"train": [0.0, 0], "alpha": [0.0, 0]}
    for step, (train, val) in enumerate(batches(halves, epoch, config, steps)):
        lr = config.lr * schedule(epoch * steps + step, config.epochs * steps, config.warmup)
        hits = both_steps(parts, train, val, config, lr, None if frozen else decay)
        for name, hit in hits.items():
            totals[name][0], totals[name][1] = totals[name][0] + hit.loss, totals[name][1] + hit.correct
        if ((step + 1) % LOG_INTERVAL == 0 or step + 1 == steps) and not math.isfinite(float(totals["train"][0])):
            raise ValueError(f"epoch {epoch + 1}: the loss is not finite; lr = {config.lr}: must be lower")
    seconds = time.perf_counter() - started
    record = {"epoch": epoch + 1, "lr": lr, "seconds": seconds, "steps_per_second": steps / seconds}
    for name, (loss, correct) in totals.items():
        if name == "train" or not frozen:
            loss, correct = (float(distributed.summed(total)) for total in (loss, correct))
            record |= {f"{name}_loss": loss / steps / distributed.size(),
                       f"{name}_accuracy": correct / halves.weights.images}
    scores = evaluate(model, halves.val.epoch(epoch), torch.float32)
    return record | {f"val_{key}": value for key, value in scores.items()} | derived(model, config.max_skips)


def batches(halves: Halves, epoch: int, config: DartsSearchConfig, steps: int) -> Iterator[tuple["Batch", "Batch"]]:
    from tqdm import tqdm

    from training import distributed
    from training.bilevel import Batch

    part = distributed.share(config.batch_size)
    pairs = zip(halves.weights.epoch(epoch), halves.alphas.epoch(epoch), strict=True)
    for train, val in tqdm(pairs, f"epoch {epoch + 1}/{config.epochs}", steps, leave=False, disable=None, delay=2):
        yield Batch(train[0][part], train[1][part]), Batch(val[0][part], val[1][part])


def both_steps(parts: dict[str, Any], train: "Batch", val: "Batch", config: DartsSearchConfig, lr: float,
               decay: float | None) -> dict[str, "Hits"]:
    """One step of the alphas on `val`, unless decay is none, then one of the weights on `train`."""
    from training.bilevel import architecture_step, first_order, second_order, weight_step

    model, weights = parts["model"], parts["weights"]
    for group in weights.param_groups:
        group["lr"] = lr
    hits = {}
    if decay is not None:
        gradient = (partial(first_order, model, val) if config.order == 1 else
                    partial(second_order, model, train, val, weights, config.label_smoothing))
        hits["alpha"] = architecture_step(model, parts["alphas"], gradient, decay)
    hits["train"] = weight_step(model, weights, train, config.clip, config.label_smoothing)
    return hits


def derived(model: "Supernet", max_skips: int) -> dict[str, Any]:
    """What the alphas say by now."""
    from models.darts.genotype import count_skips

    genotype = model.genotype(max_skips)
    return {"entropy": model.entropy(), "skips": count_skips(genotype), "genotype": genotype.to_json(),
            "strengths": model.strengths()}


def keep(record: dict[str, Any], folder: Any) -> None:
    """To the folder, to NNI and to the terminal."""
    folder.epoch(record)
    trial.report_epoch(record["val_accuracy"])
    cell = " ".join(f"{operation}:{source}" for pair in record["genotype"]["normal"] for operation, source in pair)
    print("epoch {epoch:3d}  loss {train_loss:.3f}  validation {val_accuracy:.2%}  entropy {entropy:.3f}  "
          "{steps_per_second:.2f} steps/s  skips {skips}  ".format(**record) + cell, flush=True)


# ---- the complete training that chooses


def complete_training(genotype: "Genotype", config: DartsSearchConfig, pictures: "Pictures", device: Any,
                      path: Path) -> float:
    """Validation accuracy after the last epoch of the genotype's own network, trained on both halves."""
    from models.darts.network import DartsNetwork
    from pictures.dataset import training_batches
    from training import distributed
    from training.checkpoints import load_checkpoint
    from training.loop import fit, set_seed

    loaders = training_batches(
        pictures, device, train_size=config.train_size, val_size=config.val_size, batch_size=config.batch_size,
        crop_padding=config.crop_padding, flip=config.flip, cutout=16, seed=config.seed,
        share=distributed.share(config.batch_size))
    set_seed(config.seed)
    model = DartsNetwork(genotype, 3, config.choice_channels, len(pictures.classes), config.choice_layers)
    model = distributed.synchronized(model.to(device))
    computes = {**identity(config), "data_checksum": pictures.checksum, "genotype": genotype.to_json()}
    checkpoint = path / "choice.pt"
    resume_from = load_checkpoint(checkpoint, computes, device) if checkpoint.exists() and config.resume else None
    settings = dataclasses.replace(config, epochs=config.choice_epochs)
    result = fit(model, *loaders, settings, identity=computes, checkpoint=checkpoint, resume_from=resume_from)
    if distributed.rank() == 0:
        print(f"complete training of seed {config.seed}: validation accuracy {result.metric:.2%}", flush=True)
    return result.metric


# ---- results


def draw(genotype: "Genotype", history: list[dict[str, Any]], path: Path) -> None:
    from models.darts.genotype import save_genotype
    from reporting.darts_drawing import draw_cells, plot_alphas

    save_genotype(path / "genotype.json", genotype)
    draw_cells(genotype, path / "cells.png")
    plot_alphas([record["strengths"] for record in history], path / "alphas.png", genotype)


def score(found: Searched, chosen: bool) -> dict[str, Any]:
    of = "a complete training" if chosen else "the supernet"
    return {"metric": f"validation accuracy of {of} after the last epoch", "value": found.value}


def result(found: Searched, pictures: "Pictures", chosen: bool) -> dict[str, Any]:
    return {
        "stage": "darts_search", **score(found, chosen),
        "genotype": found.genotype.to_json(), "search_seconds": sum(record["seconds"] for record in found.history),
        "last": {key: value for key, value in found.history[-1].items() if key not in ("genotype", "strengths")},
        "data": {"name": pictures.name, "checksum": pictures.checksum, "classes": len(pictures.classes)}}


if __name__ == "__main__":
    sys.exit(main())
