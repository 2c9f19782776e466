"""Stage 3, first half: search the cells of DartsStackedCells by bilevel optimisation.

    python darts_search.py --data cifar10                     first order, 50 epochs
    python darts_search.py --data cifar10 --preset published  the same as published
    python darts_search.py --data cifar10 --partial-channels 4 --batch-size 256 --lr 0.1     PC-DARTS, faster
    python darts_search.py --data cifar10 --seeds 4           four searches, and a complete training to choose the best
    torchrun --nproc-per-node 4 darts_search.py --data cifar10 --batch-size 256 --lr 0.1     on 4 GPUs
    python darts_search.py --data digits --channels 4 --layers 3 --epochs 2                  a first look, in a minute

The training images, but for those of validation, are halved: weights learn on one half, alphas on the other. What the
alphas say after the last epoch is the genotype. With several seeds, and for each trial of an NNI experiment, the
discrete network of each genotype is trained from scratch on both halves; its validation accuracy decides. The test
set is never read. Writes genotype.json, cells.png and alphas.png into the run's folder; retrain.py goes on from there.

Three things differ from the search that was published. Alphas wait for the weights in the first three tenths of the
epochs, and a normal cell has at most two skips, since searches collapse into skips otherwise; a tenth of the images is
set aside, so that figures are of images which no half has. `--preset published` undoes the three (Liu et al., 2019,
arXiv:1806.09055); then the alphas' half judges the search. Any setting given beside it wins. Two things stay: the
learning rate falls with each step and not each epoch, and a last, smaller batch of an epoch is left out.
"""

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import DartsSearchConfig, merge, to_copy
from files import read_json, write_json
from guard.logs import GO_ON
from training import place, trial
from training.progress import left, of_data
from training.reporter import Reporter

if TYPE_CHECKING:
    import torch

    from artifacts.run_folder import RunFolder
    from pictures.dataset import Pictures
    from training.search import Searched

HANDED = ("runs_dir", "flip", "device", "precision")  # to the training of what was found, with the data set
PRESETS: dict[str, dict[str, Any]] = {"published": {"frozen": 0.0, "max_skips": 8, "val_size": -1}}


def main(argv: list[str] | None = None) -> int:
    return trial.main(DartsSearchConfig, settings, run, argv)


def run(argv: list[str] | None, parameters: dict[str, Any], reporter: Reporter) -> float:
    """All searches; the value of the best one, as `score` names it."""
    config = trial.configured(DartsSearchConfig, __doc__, settings, argv, parameters, reporter)

    from pictures.dataset import load  # torch and what stands on it: slow to import
    from training.distributed import joined
    from training.hardware import enough_memory, pick_device

    advice = "" if config.recompute else ", and so does --recompute; --no-branches takes a quarter less"
    with joined(pick_device(config.device)) as device:
        path = place.run_path(config, reporter, "darts_search", default_name(config))
        pictures = load(**config.data_set)
        config = trial.fitted(config, pictures, halves=2)
        with enough_memory(config.batch_size, advice):
            found = [search(config, seed, pictures, device, path, reporter)
                     for seed in range(config.seed, config.seed + config.seeds)]
        report(found, config, pictures, device, path, reporter)
    return max(searched.value for searched in found)


def settings(given: dict[str, Any], tuner: dict[str, Any], tuned: bool = False) -> DartsSearchConfig:
    """Default < preset < `given`, the command line < `tuner`."""
    preset = str({**given, **tuner}.get("preset"))
    return merge(DartsSearchConfig, {**PRESETS.get(preset, {}), **given}, tuner)


def default_name(config: DartsSearchConfig) -> str:
    kind = f"partial{config.partial_channels}" if config.partial_channels > 1 else f"order{config.order}"
    kind = f"{config.preset}-{kind}" if config.preset else kind
    return f"{kind}-c{config.channels}-l{config.layers}-seed{config.seed}"


# ---- model and fit, of one seed


def search(config: DartsSearchConfig, seed: int, pictures: "Pictures", device: "torch.device",
           path: Path, reporter: Reporter) -> "Searched":
    """Search, of several seeds each in a folder of its own; and train what was found, if one is to be chosen."""
    from artifacts.run_folder import RunFolder
    from training.distributed import rank
    from training.search import Diverged, Search, complete_training

    whole, path = path, path / f"seed{seed}" if config.seeds > 1 else path
    checkpoint = path / "checkpoint.pt"
    begun = config.seeds == 1 or checkpoint.exists()  # of several seeds, the later ones are not
    one = dataclasses.replace(config, seed=seed, seeds=1, resume=config.resume and begun)
    searching = Search(one, pictures, device)
    one = dataclasses.replace(one, resume=place.earlier(one, checkpoint, reporter, searching.load) is not None)
    if seed == config.seed and not one.resume:  # what comes after is of this run, should it be started again
        place.begin_anew(config, whole, reporter)

    folder = RunFolder(path, one) if rank() == 0 else None
    if folder:
        print(of_data(pictures.summary(trial.val_images(searching.halves))))
        print(searching.execution, flush=True)
    try:
        found = searching.run(checkpoint, lambda record: keep(record, folder, reporter))
    except Diverged:
        if folder:  # for what comes after it: going on would end in the same
            folder.finish({"stage": "darts_search", "diverged": True}, device)
        raise
    if folder:
        write(found, path, config.format)
        told = result(found, pictures, chosen=False) | {"execution": searching.execution._asdict()}
        folder.finish(told, device)
    if chooses(config, reporter):
        found = found._replace(value=complete_training(found, one, pictures, device, path))
        if folder:
            write_json(path / "result.json", {**read_json(path / "result.json"), **score(found, chosen=True)})
    return found


def chooses(config: DartsSearchConfig, reporter: Reporter) -> bool:
    """Whether a complete training judges each search."""
    return config.choice_epochs > 0 and (config.seeds > 1 or reporter.tuned)


def keep(record: dict[str, Any], folder: "RunFolder | None", reporter: Reporter) -> None:
    """An epoch's record to the folder, to a tuner and to the terminal, by the one process that has a folder."""
    if folder is None:
        return
    from training.search import judged

    folder.epoch(record)
    judge, accuracy = judged(record)
    reporter.epoch(accuracy)
    cell = " ".join(f"{operation}:{source}" for pair in record["genotype"]["normal"] for operation, source in pair)
    figures = ("epoch {epoch:3d}/{epochs}  loss {train_loss:.3f}  {judge} {accuracy:.2%}  entropy {entropy:.3f}  "
               "{steps_per_second:.2f} steps/s  {left}  skips {skips}  ")
    epochs = folder.config.epochs
    print(figures.format(judge=judge, accuracy=accuracy, epochs=epochs, left=left(folder.records, epochs), **record)
          + cell, flush=True)


# ---- report


def report(found: list["Searched"], config: DartsSearchConfig, pictures: "Pictures", device: "torch.device",
           path: Path, reporter: Reporter) -> None:
    """The best of all seeds, by the one process that writes."""
    from artifacts.run_folder import RunFolder
    from training.distributed import rank

    if rank() > 0:
        return
    best = max(found, key=lambda searched: searched.value)
    if config.seeds > 1:
        folder = RunFolder(path, config)
        write(best, path, config.format)
        folder.finish(result(best, pictures, chooses(config, reporter)) | {"seeds": [
            {"seed": config.seed + number, "value": searched.value, "genotype": searched.genotype.to_json()}
            for number, searched in enumerate(found)]}, device)
    reporter.final(best.value, {}, dataclasses.asdict(config))
    after = "" if GO_ON in os.environ else f"; next: {next_command(path, config)}"  # a pipeline does that itself
    print(f"done: {path / 'genotype.json'}{after}")


def next_command(path: Path, config: DartsSearchConfig) -> str:
    """What trains the network that was found on the same pictures, ready to be copied."""
    same = {key: getattr(config, key) for key in (*config.data_set, *HANDED)
            if getattr(config, key) != getattr(DartsSearchConfig, key)}
    words = [f"--{key.replace('_', '-')}" + ("" if value is True else f"={value}") for key, value in same.items()]
    return to_copy("retrain.py", f"--genotype={path / 'genotype.json'}", *words)


def write(found: "Searched", path: Path, format: str) -> None:
    """The genotype first: whatever happens to a drawing, the search was not in vain."""
    from models.darts.genotype_files import save_genotype
    from reporting.darts_drawing import draw_cells, plot_alphas

    save_genotype(path / "genotype.json", found.genotype)
    if format == "quark0":
        save_genotype(path / "genotype.py", found.genotype)
    draw_cells(found.genotype, path / "cells.png")
    plot_alphas([record["strengths"] for record in found.history], path / "alphas.png", found.genotype)


def score(found: "Searched", chosen: bool) -> dict[str, Any]:
    from training.search import judged

    judge, _ = judged(found.history[-1])
    if judge == "validation":
        metric = f"validation accuracy of {'a complete training' if chosen else 'the supernet'} after the last epoch"
    elif chosen:
        metric = "validation accuracy of a complete training after the last epoch, on images that the search has seen"
    else:
        metric = f"accuracy of the supernet on the {judge} of the training images, over the last epoch"
    return {"metric": metric, "value": found.value}


def result(found: "Searched", pictures: "Pictures", chosen: bool) -> dict[str, Any]:
    return {
        "stage": "darts_search", **score(found, chosen),
        "genotype": found.genotype.to_json(), "search_seconds": sum(record["seconds"] for record in found.history),
        "last": {key: value for key, value in found.history[-1].items() if key not in ("genotype", "strengths")},
        "data": {"name": pictures.name, "checksum": pictures.checksum, "classes": len(pictures.classes),
                 **pictures.counts}}


if __name__ == "__main__":
    sys.exit(main())
