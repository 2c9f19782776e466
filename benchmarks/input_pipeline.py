"""Batched augmentation against torchvision's per-image transforms in a DataLoader: ready batches, images per second.

Both give shuffled, augmented, normalised float32 batches of the same size on the device, from images that lie
decoded in memory. A measurement is a whole epoch of --images; the first one, in which the workers start, does not
count. The textbook has no cutout of its own, so there is a case without it, and one in which RandomErasing blanks
a square of the same size in every image.
"""

import itertools
import sys
from collections.abc import Callable

import torch
from torch.utils.data import DataLoader

from benchmarks.measure import at_least, environment, parser, publish, ratio, save, spread, take_turns
from benchmarks.rivals import our_batches, textbook_loader
from config import run_script
from pictures.dataset import Batches, load
from training.hardware import pick_device

CASES = {"crop, flip": 0, "crop, flip, cutout": 8}  # side of the cutout square in pixels


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, rounds=5)
    options.add_argument("--images", type=at_least(1), default=20_000, help="images a measurement")
    options.add_argument("--batch-size", type=at_least(2), default=128)
    options.add_argument("--workers", type=at_least(0), default=2, help="worker processes of the DataLoader")
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    args = options.parse_args(argv)
    return run_script(lambda: run(args))


def run(args) -> None:
    device = pick_device(args.device)
    where, pictures, speeds = environment(device), load(args.data, args.data_dir), {}
    for case, cutout in CASES.items():
        batches = our_batches(pictures, device, args.images, args.batch_size, cutout)
        loader = textbook_loader(pictures, batches, args.workers, cutout)
        sides = {"textbook": read_textbook(loader, device), "ours": read_ours(batches)}
        speeds[case] = take_turns(sides, args.rounds, device)

    rows = [{"augmentation": case, **{f"{side} images/s": spread(values) for side, values in speed.items()},
             "ours is faster by": ratio(speed, "ours", "textbook")} for case, speed in speeds.items()]
    publish(f"Input pipeline: {args.workers} DataLoader workers against batched augmentation", rows, where,
            f"Median (smallest to largest) of {args.rounds} rounds of {args.images} images, batch {args.batch_size}.")
    save(args.out, args, where, images_per_second=speeds)


def read_ours(batches: Batches) -> Callable[[], int]:
    """A side of the comparison: one epoch, and how many images it had."""
    epochs = itertools.count()
    return lambda: sum(len(x) for x, _ in batches.epoch(next(epochs)))


def read_textbook(loader: DataLoader, device: torch.device) -> Callable[[], int]:
    return lambda: sum(len(x.to(device, non_blocking=True)) for x, _ in loader)


if __name__ == "__main__":
    sys.exit(main())
