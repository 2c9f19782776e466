"""The recipe quick: what each of its ingredients is worth, by leaving it out, and accuracy against minutes.

    python -m benchmarks.recipe --data cifar10 --device cuda --seeds 3         the table, then the curve
    python -m benchmarks.recipe --data cifar10 --only whole --lengths          a single row of it
    python -m benchmarks.recipe --data FOLDER --train-size 5000 --epochs 5     in small, on a CPU

Every run trains quicknet by `fit` on training pictures alone and is judged by the test pictures after its last epoch,
as it is and by test-time augmentation (training/views.py). A line of JSON a run goes to --out as soon as it is there; a
Markdown table follows. The runs go seed by seed, so that what --minutes cuts off is the last seeds, not the last rows.
"""

import argparse
import dataclasses
import gc
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

import retrain
from benchmarks.measure import at_least, environment, parser, publish
from config import RetrainConfig, command_line, run_script
from models import build_model
from models.zoo.quicknet import Norm, QuickNet
from pictures.cache import Pictures
from pictures.dataset import final_batches, load, training_batches
from training.hardware import pick_device, pick_dtype
from training.loop import evaluate, fit, set_seed
from training.views import Views

WHOLE = "whole"


@dataclasses.dataclass(frozen=True)
class Without:
    """An ingredient left out: other settings, or a change of the network before its training."""

    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    change: Callable[[QuickNet], None] = lambda network: None


# ---- ingredients of the network


def not_whitened(network: QuickNet) -> None:
    network.stem[0].weight.requires_grad_(True)
    network.prepare = lambda images: None


def no_bias(network: QuickNet) -> None:
    network.stem[0].bias.requires_grad_(False)


def not_identity(network: QuickNet) -> None:
    for module in network.blocks.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()


def scaled_norm(network: QuickNet) -> None:
    for module in network.modules():
        if isinstance(module, Norm):
            module.weight.requires_grad_(True)


def late_pooling(network: QuickNet) -> None:
    for number, (first, pool, norm, active, *others) in enumerate(network.blocks):
        network.blocks[number] = nn.Sequential(first, norm, active, pool, *others)


def relu(network: QuickNet) -> None:
    for part in (network.stem, *network.blocks):
        for number, module in enumerate(part):
            if isinstance(module, nn.GELU):
                part[number] = nn.ReLU()


def average_pooling(network: QuickNet) -> None:
    network.head[0] = nn.AdaptiveAvgPool2d(1)


def full_logits(network: QuickNet) -> None:
    network.head[-1].scale = 1.0


INGREDIENTS = {
    WHOLE: Without(),
    "whitening": Without(change=not_whitened),
    "bias of the whitening": Without(change=no_bias),
    "identity at the start": Without(change=not_identity),
    "norm without scale": Without(change=scaled_norm),
    "rate of the biases x 64": Without({"bias_factor": 1.0}),
    "pooling before the norm": Without(change=late_pooling),
    "GELU, not ReLU": Without(change=relu),
    "maximum at the end, not mean": Without(change=average_pooling),
    "logits / 9": Without(change=full_logits),
    "triangle, not cosine": Without({"schedule": "cosine"}),
    "label smoothing": Without({"label_smoothing": 0.0}),
    "averaged weights": Without({"ema": 0.0}),
    "alternating flip, not drawn": Without({"alternate": False}),
    "flip": Without({"flip": "off"}),
    "translation": Without({"crop_padding": 0}),
    "reflected border, not mean": Without({"crop_border": "mean"}),
    "bf16": Without({"precision": "fp32"}),
    "SGD, not Muon": Without({"optimizer": "Muon"}),
}


# ---- the runs


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, rounds=3)
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options.add_argument("--epochs", type=at_least(1), default=retrain.RECIPES["quick"]["epochs"], help="of the table")
    options.add_argument("--lengths", type=at_least(1), nargs="*", default=[5, 10, 20], help="epochs of the curve")
    options.add_argument("--seeds", type=at_least(1), default=3, help="of each row, from 0 on")
    options.add_argument("--train-size", type=at_least(0), default=0, help="training pictures; 0: all")
    options.add_argument("--only", nargs="+", choices=INGREDIENTS, default=list(INGREDIENTS), help="rows of the table")
    options.add_argument("--minutes", type=float, default=math.inf, help="begin no run after so many")
    options.epilog = "Other options are settings of retrain.py, for all runs: --ema 0.98 --lr 2"
    args, rest = options.parse_known_args(argv)
    return run_script(lambda: run(args, command_line(RetrainConfig, rest, "")))


def run(args: argparse.Namespace, given: dict[str, Any]) -> None:
    began, device = time.monotonic(), pick_device(args.device)
    measure, lines = Measure(load(args.data, args.data_dir), device, args.train_size, given), []
    if device.type == "cuda":
        measure(WHOLE, 1, seed=0)  # kernels are compiled, cuDNN looks around
    with open(args.out or os.devnull, "a", encoding="utf-8") as out:
        for name, epochs, seed in plan(args):
            if time.monotonic() - began > 60 * args.minutes:
                print(f"--minutes {args.minutes:g}: over before {name}, {epochs} epochs, seed {seed}", file=sys.stderr)
                break
            lines.append(measure(name, epochs, seed))
            for file in (out, sys.stderr):
                print(json.dumps(lines[-1]), file=file, flush=True)
    tell(lines, args, environment(device))


def plan(args: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """Name, epochs and seed of each run."""
    for seed in range(args.seeds):
        yield from ((name, args.epochs, seed) for name in args.only)
        others = set(args.lengths) - ({args.epochs} if WHOLE in args.only else set())
        yield from ((WHOLE, epochs, seed) for epochs in sorted(others))


@dataclasses.dataclass
class Measure:
    """Trains and judges; `given`: settings of retrain.py that all runs share."""

    pictures: Pictures
    device: torch.device
    train_size: int
    given: dict[str, Any]

    def __call__(self, name: str, epochs: int, seed: int) -> dict[str, Any]:
        """One run: what it came to, and the seconds that it took.

        `seconds` is all of `fit`; `steady_seconds` what it would be if each epoch took as long as the median of those
        after the first, in which a GPU's step is warmed up and captured.
        """
        gc.collect()  # the graph of the run before, with its memory
        without, start = INGREDIENTS[name], time.perf_counter()
        chosen = {"model": "quicknet", "recipe": "quick", "epochs": epochs, "seed": seed, "train_size": self.train_size,
                  **self.given, **without.settings}
        config = retrain.settings(chosen, {})
        config = retrain.sized(config, self.train_size or len(self.pictures.train_labels) - self.pictures.given_val)
        loaders = training_batches(self.pictures, self.device, **retrain.of_batches(config))
        test = final_batches(self.pictures, loaders.train.normalization, config.batch_size)
        set_seed(seed)
        network = build_model(config.model, len(self.pictures.classes), self.pictures.side)
        without.change(network)
        network.to(self.device)
        self.wait()
        ready = time.perf_counter()
        result = fit(network, loaders.train, None, config, identity={})
        self.wait()
        trained = time.perf_counter()
        dtype = pick_dtype(config.precision, self.device, network)
        judged = {} if result.diverged else {
            key: evaluate(model.eval(), test.epoch(0), dtype)["accuracy"] for key, model in
            (("test_accuracy", network), ("tta_accuracy", Views(network, loaders.train.augmentation.flip)))}
        each = [record["seconds"] for record in result.history]
        return {"without": name, "epochs": epochs, "seed": seed, "diverged": result.diverged, **judged,
                **{key: (result.last or {}).get(key) for key in ("train_loss", "train_accuracy")},
                "seconds": trained - ready, "steady_seconds": statistics.median(each[1:] or each or [0]) * epochs,
                "loading_seconds": ready - start, "judging_seconds": time.perf_counter() - trained,
                "batch_size": config.batch_size, "lr": config.lr, "images": len(loaders.train.index),
                "precision": str(dtype).removeprefix("torch.")}

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


# ---- what they came to


def tell(lines: list[dict[str, Any]], args: argparse.Namespace, where: dict[str, Any]) -> None:
    images = ", ".join(sorted({f"{line['images']} pictures, batch {line['batch_size']}" for line in lines}))
    note = f"{images}; accuracies and loss: means over seeds, the error is that of the mean; minutes: median."
    table = grouped(lines, lambda line: line["without"] if line["epochs"] == args.epochs else None)
    if table:
        whole = table.get(WHOLE, [])
        publish(f"Recipe quick, {args.epochs} epochs, each ingredient left out once",
                [row("without", name, runs, whole if name != WHOLE else []) for name, runs in table.items()],
                where, note)
    curve = grouped(lines, lambda line: line["epochs"] if line["without"] == WHOLE else None)
    if curve:
        publish("Recipe quick, accuracy against minutes",
                [row("epochs", str(epochs), runs) for epochs, runs in sorted(curve.items())], where, note)


def grouped(lines: list[dict[str, Any]], key: Callable[[dict[str, Any]], Any]) -> dict[Any, list[dict[str, Any]]]:
    """Runs by their key, without those of which it is None."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for line in lines:
        if key(line) is not None:
            found.setdefault(key(line), []).append(line)
    return found


def row(head: str, name: str, runs: list[dict[str, Any]],
        whole: list[dict[str, Any]] | None = None) -> dict[str, str]:
    """Figures of one row; `whole`: the runs that it is compared with, seed by seed, if it is."""
    sound = [run for run in runs if not run["diverged"]]
    beside = {run["seed"]: run for run in whole or [] if not run["diverged"]}
    gains = [beside[run["seed"]]["test_accuracy"] - run["test_accuracy"] for run in sound if run["seed"] in beside]
    minutes = [[run[key] / 60 for run in runs] for key in ("seconds", "steady_seconds")]
    return {
        head: name, "runs": str(len(runs)) + (f", {len(runs) - len(sound)} diverged" if len(sound) < len(runs) else ""),
        "test": percent([run["test_accuracy"] for run in sound]),
        **({} if whole is None else {"it is worth": percent(gains, "+")}),
        "test, several views": percent([run["tta_accuracy"] for run in sound]),
        "training loss": f"{statistics.mean(run['train_loss'] for run in sound):.3f}" if sound else "",
        "minutes": f"{statistics.median(minutes[0]):.3g}", "without warm-up": f"{statistics.median(minutes[1]):.3g}"}


def percent(values: list[float], sign: str = "") -> str:
    """Mean and its standard error."""
    if not values:
        return ""
    error = f" ± {100 * statistics.stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):{sign}.2f}{error}"


if __name__ == "__main__":
    sys.exit(main())
