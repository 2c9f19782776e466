"""Our training step against the textbook loop: the same network, batch and optimizer, input pipeline included.

Textbook: fp32, NCHW, per-image transforms in a DataLoader, zero_grad / backward / step, loss.item() after each step.
Ours: train_step with channels_last and the precision that a trial would choose, fed by batched augmentation.
A measurement is an epoch of --steps batches; the first one of each side does not count.
"""

import itertools
import sys
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.measure import at_least, environment, parser, publish, ratio, save, spread, take_turns
from benchmarks.rivals import our_batches, textbook_loader
from config import run_script
from models import MODELS, build_model
from pictures.dataset import Batches, load
from training import compiling
from training.hardware import pick_device, pick_dtype
from training.loop import build_optimizer, set_seed, train_step

LR = 0.001
# A measurement is an epoch of CIFAR-10 on a GPU, some seconds on a CPU.
DEFAULTS = {"cpu": {"batch_size": 128, "steps": 8}, "cuda": {"batch_size": 512, "steps": 87}}


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, rounds=5)
    options.add_argument("--models", nargs="+", default=["resnet18", "mobilenet"], choices=[*MODELS, "all"])
    options.add_argument("--batch-size", type=at_least(2), help="(default: 128, on a GPU 512)")
    options.add_argument("--steps", type=at_least(1), help="batches a measurement (default: 8, on a GPU 87)")
    options.add_argument("--workers", type=at_least(0), default=2, help="worker processes of the DataLoader")
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options.add_argument("--compile", action="store_true", help="also measure ours with torch.compile")
    args = options.parse_args(argv)
    return run_script(lambda: run(args))


def run(args) -> None:
    device = pick_device(args.device)
    for key, value in DEFAULTS[device.type].items():
        setattr(args, key, getattr(args, key) or value)
    where, pictures, speeds = environment(device), load(args.data, args.data_dir), {}
    batches = our_batches(pictures, device, args.steps * args.batch_size, args.batch_size, cutout=0)
    loader = textbook_loader(pictures, batches, args.workers, cutout=0)
    for name in list(MODELS) if "all" in args.models else args.models:
        classes = len(pictures.classes)
        sides = {"textbook": train_textbook(name, classes, loader, device), "ours": train_ours(name, classes, batches)}
        if args.compile:
            sides["compiled"] = train_ours(name, classes, batches, compiled=True)
        speeds[name] = take_turns(sides, args.rounds, device)
        print(f"{name} done", file=sys.stderr, flush=True)

    publish("Training step: textbook loop against ours", [row(*item) for item in speeds.items()], where,
            f"Images per second: median (smallest to largest) of {args.rounds} rounds of {args.steps} steps, batch "
            f"{args.batch_size}; crop and flip; Adam; {args.workers} DataLoader workers.")
    save(args.out, args, where, images_per_second=speeds)


def row(name: str, speeds: dict[str, list[float]]) -> dict[str, str]:
    cells = {"network": name, **{f"{side} images/s": spread(values) for side, values in speeds.items()}}
    return cells | {f"{side} is faster by": ratio(speeds, side, "textbook") for side in speeds if side != "textbook"}


def train_ours(name: str, classes: int, batches: Batches, compiled: bool = False) -> Callable[[], int]:
    """A side of the comparison: one epoch, and how many images it had."""
    model, epochs = network(name, classes, batches.pixels.device), itertools.count()
    model.to(memory_format=torch.channels_last)
    dtype = pick_dtype("auto", batches.pixels.device, model)
    optimizer = build_optimizer(model, "Adam", LR, weight_decay=0.0, momentum=0.0)
    stepped = compiling.compiled(model) if compiled else model

    def epoch() -> int:
        total = 0.0
        for x, y in batches.epoch(next(epochs)):
            loss, _ = train_step(stepped, optimizer, x, y, lr=LR, dtype=dtype, label_smoothing=0.0, clip=0.0)
            total = total + loss
        float(total)  # as at the end of an epoch of `fit`
        return batches.images

    return epoch


def train_textbook(name: str, classes: int, loader: DataLoader, device: torch.device) -> Callable[[], int]:
    model, criterion = network(name, classes, device), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)

    def epoch() -> int:
        images, total = 0, 0.0
        for inputs, targets in loader:
            inputs, targets = inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            optimizer.step()
            total += loss.item()
            images += len(inputs)
        return images

    return epoch


def network(name: str, classes: int, device: torch.device) -> nn.Module:
    """With the same initial weights for all sides, in training mode."""
    set_seed(0)
    return build_model(name, classes).to(device).train()


if __name__ == "__main__":
    sys.exit(main())
