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
import sys
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

import retrain
from benchmarks.accuracy import Line, Measure, measured, note, options, row
from benchmarks.measure import at_least, environment, publish
from config import RetrainConfig, command_line, run_script
from models.zoo.quicknet import Norm, QuickNet
from pictures.dataset import load
from training.hardware import pick_device

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
    choices = options(__doc__)
    choices.add_argument("--epochs", type=at_least(1), default=retrain.RECIPES["quick"]["epochs"], help="of the table")
    choices.add_argument("--lengths", type=at_least(1), nargs="*", default=[5, 10, 20], help="epochs of the curve")
    choices.add_argument("--only", nargs="+", choices=INGREDIENTS, default=list(INGREDIENTS), help="rows of the table")
    choices.epilog = "Other options are settings of retrain.py, for all runs: --ema 0.98 --lr 2"
    args, rest = choices.parse_known_args(argv)
    return run_script(lambda: run(args, command_line(RetrainConfig, rest, "")))


def run(args: argparse.Namespace, given: dict[str, Any]) -> None:
    device = pick_device(args.device)
    measure = Measure(load(args.data, args.data_dir), device, args.train_size)

    def once(name: str, epochs: int, seed: int) -> tuple[dict[str, Any], dict[str, Any], Callable]:
        without = INGREDIENTS[name]
        return {"without": name}, {"model": "quicknet", "recipe": "quick", "epochs": epochs, "seed": seed, **given,
                                   **without.settings}, without.change

    if device.type == "cuda":
        measure(*once(WHOLE, 1, seed=0)[1:])  # kernels are compiled, cuDNN looks around
    tell(measured(measure, (once(*planned) for planned in plan(args)), args), args, environment(device))


def plan(args: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """Name, epochs and seed of each run."""
    for seed in range(args.seeds):
        yield from ((name, args.epochs, seed) for name in args.only)
        others = set(args.lengths) - ({args.epochs} if WHOLE in args.only else set())
        yield from ((WHOLE, epochs, seed) for epochs in sorted(others))


# ---- what they came to


def tell(lines: list[Line], args: argparse.Namespace, where: dict[str, Any]) -> None:
    table = grouped(lines, lambda line: line["without"] if line["epochs"] == args.epochs else None)
    if table:
        whole = table.get(WHOLE, [])
        publish(f"Recipe quick, {args.epochs} epochs, each ingredient left out once",
                [row("without", name, runs, whole if name != WHOLE else []) for name, runs in table.items()],
                where, note(lines))
    curve = grouped(lines, lambda line: line["epochs"] if line["without"] == WHOLE else None)
    if curve:
        publish("Recipe quick, accuracy against minutes",
                [row("epochs", str(epochs), runs) for epochs, runs in sorted(curve.items())], where, note(lines))


def grouped(lines: list[Line], key: Callable[[Line], Any]) -> dict[Any, list[Line]]:
    """Runs by their key, without those of which it is None."""
    found: dict[Any, list[Line]] = {}
    for line in lines:
        if key(line) is not None:
            found.setdefault(key(line), []).append(line)
    return found


if __name__ == "__main__":
    sys.exit(main())
