"""A table of real trainings for tuner_replay: every network of a small part of stage 2's space, trained briefly.

    python -m benchmarks.nas_table --part wide --workers 2 --data .data/cifar10-jpeg --out TABLE.json

A part: some choices in a MobileNet that lacks four of its blocks and has a thin last one. Pictures are halved to 16x16.
Both lets each of hundreds of trainings take seconds; the accuracy is that on validation images after the last epoch, in
percent. The file is written after each network, and the command goes on with it.
"""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.measure import at_least, environment
from benchmarks.tuner_replay import text
from config import ClassicNasConfig, run_script
from files import read_json, write_json
from models.mobilenet_space.space import BASELINE, build
from nas import scores as nas_scores
from pictures.dataset import Batches, Pictures, load, training_batches
from training.loop import evaluate, fit, set_seed


class Part(NamedTuple):
    """What is varied, in which order, and how each network is trained."""

    varied: dict[str, list[str]]
    recipe: dict[str, Any]


PARTS = {
    "narrow": Part(  # near to MobileNet itself
        {"block02_op": ["dw3", "ir2_dw3"],
         "block03_op": ["dw3", "dw5", "res_dw3"],
         "block05_skip": ["none", "block01"],
         "block08_op": ["dw3", "res_dw3", "identity"],
         "block10_op": ["dw3", "res_dw3"]},
        {"train_size": 3_000, "val_size": 2_000, "epochs": 5, "batch_size": 32, "optimizer": "Adam", "lr": 0.002}),
    "wide": Part(  # from the cheapest choice of a block to its costliest, as the whole space is
        {"block01_op": ["dw3", "ir2_dw3"],
         "block02_op": ["thin_dw3", "dw3", "ir2_dw3"],
         "block03_op": ["identity", "dw3", "res_dw3", "ir2_dw3"],
         "block05_op": ["identity", "res_dw3", "ir2_dw3"],
         "block05_skip": ["none", "block01"]},
        {"train_size": 1_500, "val_size": 2_000, "epochs": 3, "batch_size": 32, "optimizer": "Adam", "lr": 0.002}),
}
LEFT_OUT = ("block07_op", "block09_op", "block11_op", "block13_op")
FIXED = {**BASELINE, **dict.fromkeys(LEFT_OUT, "identity"), "block12_op": "thin_dw3"}
SCORES = ("macs", "naswot", "synflow", "average")
SEEDS = (0, 1)


class Halved:
    """The batches of a loader, at half the resolution."""

    def __init__(self, batches: Batches) -> None:
        self.batches, self.images = batches, batches.images

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        return ((F.avg_pool2d(x, 2), y) for x, y in self.batches.epoch(epoch))


def main(argv: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False,
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--part", choices=PARTS, default="wide", help="of the search space")
    options.add_argument("--data", default="digits", help="digits, cifar10 or a folder, as for the trials")
    options.add_argument("--data-dir", default=".data", help="folder of the packed cache")
    options.add_argument("--first", type=at_least(1), help="train this many networks of the table, no more")
    options.add_argument("--workers", type=at_least(1), default=1, help="processes, each of one thread")
    options.add_argument("--out", type=Path, required=True, help="JSON file of the table")
    args = options.parse_args(argv)
    return run_script(lambda: run(args))


def run(args: Any) -> None:
    pictures = load(args.data, args.data_dir)
    varied, recipe = PARTS[args.part]
    space = {label: {"_type": "choice", "_value": values} for label, values in varied.items()}
    described = {**recipe, "seeds": list(SEEDS), "side": 16, "data": Path(args.data).name,
                 "checksum": pictures.checksum, "fixed": FIXED}
    entries = read_table(args.out, space, described) if args.out.exists() else []
    samples = [dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())][: args.first]
    done = {text(entry["sample"]) for entry in entries}
    missing = [sample for sample in samples if text(sample) not in done]
    with ProcessPoolExecutor(args.workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        jobs = pool.map(entry_of, missing, itertools.repeat(recipe), itertools.repeat((args.data, args.data_dir)))
        for entry in tqdm(jobs, total=len(missing), disable=None):
            entries.append(entry)
            write_json(args.out, {"space": space, "recipe": described, "where": environment(torch.device("cpu")),
                                  "entries": entries})


def entry_of(sample: dict[str, str], recipe: dict[str, Any], source: tuple[str, str]) -> dict[str, Any]:
    """The table's entry of one network."""
    network, pictures = {**FIXED, **sample}, load(*source)
    return {"sample": sample, "accuracy": [100 * train(network, pictures, recipe, seed) for seed in SEEDS],
            "score": {name: getattr(nas_scores, name)(network) for name in SCORES}}


def read_table(path: Path, space: dict, recipe: dict) -> list[dict]:
    table = read_json(path)
    if table.get("space") != space or table.get("recipe") != recipe:
        raise ValueError(f"{path}: a table of other networks or of another recipe; name another file")
    return table["entries"]


def train(network: dict[str, str], pictures: Pictures, recipe: dict[str, Any], seed: int) -> float:
    """Validation accuracy in 0..1 after the last epoch. The seed is that of the split too."""
    config = dataclasses.replace(ClassicNasConfig(baseline=True, **recipe), seed=seed)
    loaders = training_batches(
        pictures, torch.device("cpu"), train_size=config.train_size, val_size=config.val_size,
        batch_size=config.batch_size, crop_padding=config.crop_padding, flip=config.flip, cutout=config.cutout,
        seed=config.seed)
    set_seed(seed)
    model = build(network, len(pictures.classes))
    train, val = map(Halved, loaders)
    fit(model, train, None, config, identity={})
    return evaluate(model, val.epoch(0), torch.float32)["accuracy"]


if __name__ == "__main__":
    sys.exit(main())
