"""Accuracy against minutes: trainings of retrain.py beside each other, on the same pictures.

    python -m benchmarks.accuracy --data cifar10 --device cuda --seeds 2 \\
        "quicknet=--model quicknet --recipe quick" "resnet18=--model resnet18 --lr 0.2 --epochs 54 --batch-size 512"

A training is NAME=OPTIONS of retrain.py. Every one is done by `fit` on training pictures alone, and judged by the test
pictures after its last epoch, as it is and by test-time augmentation (training/views.py). A line of JSON a run goes to
--out as soon as it is there; a Markdown table follows. The runs go seed by seed, so that what --minutes cuts off is the
last seeds.
"""

import argparse
import dataclasses
import gc
import json
import math
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

import retrain
from benchmarks.measure import at_least, environment, parser, publish
from config import RetrainConfig, command_line, run_script
from pictures.cache import Pictures
from pictures.dataset import final_batches, load, training_batches
from training.hardware import pick_device, pick_dtype
from training.loop import evaluate, fit, set_seed
from training.views import Views

Line = dict[str, Any]
Change = Callable[[Any], None]  # of a network, before it is trained


def options(description: str) -> argparse.ArgumentParser:
    found = parser(description)
    found.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    found.add_argument("--seeds", type=at_least(1), default=3, help="of each row, from 0 on")
    found.add_argument("--train-size", type=at_least(0), default=0, help="training pictures; 0: all")
    found.add_argument("--minutes", type=float, default=math.inf, help="begin no run after so many")
    return found


def main(argv: list[str] | None = None) -> int:
    choices = options(__doc__)
    choices.add_argument("trainings", nargs="+", metavar="NAME=OPTIONS", help="of retrain.py")
    args = choices.parse_args(argv)
    return run_script(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    trainings = {}
    for text in args.trainings:
        name, found, words = text.partition("=")
        if not found:
            raise ValueError(f"{text!r}: must be NAME=OPTIONS, such as \"quicknet=--model quicknet --recipe quick\"")
        trainings[name] = command_line(RetrainConfig, shlex.split(words), "")
        retrain.settings(trainings[name], {})  # mistakes are told before anything is trained
    device = pick_device(args.device)
    measure = Measure(load(args.data, args.data_dir), device, args.train_size)
    runs = (({"name": name}, {**chosen, "seed": seed}, unchanged) for seed in range(args.seeds)
            for name, chosen in trainings.items())
    lines = measured(measure, runs, args)
    publish("Accuracy against minutes", [row("network", name, [line for line in lines if line["name"] == name])
                                         for name in trainings], environment(device), note(lines))


def unchanged(network: nn.Module) -> None:
    """As it is built."""


def measured(measure: "Measure", runs: Iterable[tuple[Line, dict[str, Any], Change]],
             args: argparse.Namespace) -> list[Line]:
    """The lines of runs, each with its first part, as far as --minutes goes; printed and kept one by one."""
    began, lines = time.monotonic(), []
    with open(args.out or os.devnull, "a", encoding="utf-8") as out:
        for named, chosen, change in runs:
            if time.monotonic() - began > 60 * args.minutes:
                missing = ", ".join(f"{key} {value}" for key, value in {**named, **chosen}.items())
                print(f"--minutes {args.minutes:g}: over before {missing}", file=sys.stderr)
                break
            lines.append({**named, **measure(chosen, change)})
            for file in (out, sys.stderr):
                print(json.dumps(lines[-1]), file=file, flush=True)
    return lines


@dataclasses.dataclass
class Measure:
    """Trains and judges."""

    pictures: Pictures
    device: torch.device
    train_size: int

    def __call__(self, chosen: dict[str, Any], change: Change = unchanged) -> Line:
        """One run, of settings of retrain.py: what it came to, and the seconds that it took.

        `seconds` is all of `fit`; `steady_seconds` what it would be if each epoch took as long as the median of those
        after the first, in which a GPU's step is warmed up and captured. `change` is done to the network before.
        """
        gc.collect()  # the graph of the run before, with its memory
        start = time.perf_counter()
        config = retrain.settings({"train_size": self.train_size, **chosen}, {})
        config = retrain.sized(config, self.train_size or len(self.pictures.train_labels) - self.pictures.given_val)
        loaders = training_batches(self.pictures, self.device, **retrain.of_batches(config))
        test = final_batches(self.pictures, loaders.train.normalization, config.batch_size)
        set_seed(config.seed)
        _, genotype = retrain.target(config)
        network, _ = retrain.build(config, genotype, len(self.pictures.classes), self.pictures.side)
        change(network)
        network.to(self.device)
        self.wait()
        ready = time.perf_counter()
        result = fit(network, loaders.train, None, config, identity={}, auxiliary=config.auxiliary,
                     drop_path=config.drop_path)
        self.wait()
        trained = time.perf_counter()
        dtype = pick_dtype(config.precision, self.device, network)
        judged = {} if result.diverged else {
            key: evaluate(model.eval(), test.epoch(0), dtype)["accuracy"] for key, model in
            (("test_accuracy", network), ("tta_accuracy", Views(network, loaders.train.augmentation.flip)))}
        each = [record["seconds"] for record in result.history]
        return {"epochs": config.epochs, "seed": config.seed, "diverged": result.diverged, **judged,
                **{key: (result.last or {}).get(key) for key in ("train_loss", "train_accuracy")},
                "parameters": sum(p.numel() for p in network.parameters()), "seconds": trained - ready,
                "steady_seconds": statistics.median(each[1:] or each or [0]) * config.epochs,
                "loading_seconds": ready - start, "judging_seconds": time.perf_counter() - trained,
                "batch_size": config.batch_size, "lr": config.lr, "images": len(loaders.train.index),
                "precision": str(dtype).removeprefix("torch.")}

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


# ---- what they came to


def note(lines: list[Line]) -> str:
    images = ", ".join(sorted({f"{line['images']} pictures, batch {line['batch_size']}" for line in lines}))
    return f"{images}; accuracies and loss: means over seeds, the error is that of the mean; minutes: median."


def row(head: str, name: str, runs: list[Line], whole: list[Line] | None = None) -> dict[str, str]:
    """Figures of one row; `whole`: the runs that it is compared with, seed by seed, if it is."""
    sound = [run for run in runs if not run["diverged"]]
    beside = {run["seed"]: run for run in whole or [] if not run["diverged"]}
    gains = [beside[run["seed"]]["test_accuracy"] - run["test_accuracy"] for run in sound if run["seed"] in beside]
    minutes = [[run[key] / 60 for run in runs] for key in ("seconds", "steady_seconds")]
    return {
        head: name, "runs": str(len(runs)) + (f", {len(runs) - len(sound)} diverged" if len(sound) < len(runs) else ""),
        "test": percent([run["test_accuracy"] for run in sound]),
        "parameters": f"{runs[0]['parameters']:,}".replace(",", " ") if runs else "",
        **({} if whole is None else {"it is worth": percent(gains, "+")}),
        "test, several views": percent([run["tta_accuracy"] for run in sound]),
        "training loss": f"{statistics.mean(run['train_loss'] for run in sound):.3f}" if sound else "",
        **{title: f"{statistics.median(values):.3g}" if values else ""
           for title, values in zip(("minutes", "without warm-up"), minutes, strict=True)}}


def percent(values: list[float], sign: str = "") -> str:
    """Mean and its standard error."""
    if not values:
        return ""
    error = f" ± {100 * statistics.stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):{sign}.2f}{error}"


if __name__ == "__main__":
    sys.exit(main())
