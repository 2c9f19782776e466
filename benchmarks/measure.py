"""What the benchmarks share: taking turns, spread, tables, and where figures come from."""

import argparse
import multiprocessing
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import torch

from artifacts.run_folder import commit, cpu_name
from files import write_json


def parser(description: str, rounds: int = 0, data: bool = True) -> argparse.ArgumentParser:
    """With the options that all benchmarks have, those of the data set if it uses one, and the number of rounds if
    there are any."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0], allow_abbrev=False,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    if data:
        parser.add_argument("--data", default="digits", help="digits, cifar10 or a folder, as for the trials")
        parser.add_argument("--data-dir", default=".data", help="folder of the packed cache")
    if rounds:
        parser.add_argument("--rounds", type=at_least(1), default=rounds, help="measurements of each case")
    parser.add_argument("--out", type=Path, help="JSON file for all single measurements")
    return parser


def at_least(minimum: int) -> Callable[[str], int]:
    """A type for argparse."""
    def whole_number(text: str) -> int:
        if int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text}: must be at least {minimum}")
        return int(text)

    return whole_number


def take_turns(sides: Mapping[str, Callable[[], int]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Images per second of each side in each round: A B A B ... after one round that does not count.

    A side is a function that processes some images and returns how many.
    """
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            _wait(device)
            start = time.perf_counter()
            images = side()
            _wait(device)
            if number:
                speeds[name].append(images / (time.perf_counter() - start))
    return speeds


class InProcess:
    """A side in a process of its own, so that nothing which it sets is there for another: make(*args), picklable, gives
    the function that processes some images and returns how many. It is called `times` a turn: the first call finds
    cold caches."""

    def __init__(self, device: torch.device, times: int, make: Callable[..., Callable[[], int]], *args: Any) -> None:
        self.times = times
        self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _make, (device, make, args))

    def __call__(self) -> int:
        return sum(self.pool.submit(_process).result() for _ in range(self.times))


def _make(device: torch.device, make: Callable[..., Callable[[], int]], args: tuple) -> None:
    global _side
    side = make(*args)

    def _side() -> int:
        images = side()
        _wait(device)
        return images


def _process() -> int:
    return _side()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def spread(values: Sequence[float]) -> str:
    """Median (smallest to largest), to three figures or, above 1000, to whole numbers."""
    middle, low, high = map(_figures, (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"


def _figures(value: float) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}"


def ratio(speeds: Mapping[str, Sequence[float]], one: str, other: str) -> str:
    """How many times faster `one` is than `other`, round by round."""
    return spread([a / b for a, b in zip(speeds[one], speeds[other], strict=True)]) + " x"


def environment(device: torch.device) -> dict[str, Any]:
    """What the figures depend on. The load is that of the last minute, before the measurement."""
    packages = [name for name in ("torch", "torchvision", "numpy", "pillow", "nni") if any(distributions(name=name))]
    return {
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "commit": commit(),
        "date": time.strftime("%Y-%m-%d"), "python": sys.version.split()[0],
        **{name: version(name) for name in packages},
    }


def publish(title: str, rows: list[dict[str, str]], where: Mapping[str, Any], note: str = "") -> None:
    """Print a Markdown table under its title, with the command and the environment."""
    command = f"python -m benchmarks.{Path(sys.argv[0]).stem} {shlex.join(sys.argv[1:])}"
    facts = ", ".join(f"{key} {value}" for key, value in where.items() if key != "hardware")
    lines = [f"### {title}", "", *_markdown(rows), "", *([note, ""] if note else []),
             f"`{command}`", f"{where['hardware']}; {facts}", ""]
    print("\n".join(lines), flush=True)


def save(path: Path | None, args: argparse.Namespace, where: Mapping[str, Any], **results: Any) -> None:
    """Write settings, environment and single measurements as JSON, if there is a `path`."""
    if path:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
        write_json(path, {"settings": settings, "environment": where, **results})


def _markdown(rows: list[dict[str, str]]) -> list[str]:
    """Columns are as wide as their widest cell; the first is text, the others are figures."""
    keys = list(rows[0])
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in keys}

    def line(cells: Mapping[str, str]) -> str:
        padded = [cells[key].ljust(widths[key]) if key == keys[0] else cells[key].rjust(widths[key]) for key in keys]
        return "| " + " | ".join(padded) + " |"

    rule = {key: "-" * widths[key] if key == keys[0] else "-" * (widths[key] - 1) + ":" for key in keys}
    return [line({key: key for key in keys}), line(rule), *map(line, rows)]
