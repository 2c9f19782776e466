"""Peak memory of the loader and of packing, against the size of the packed data set.

Each measurement is a fresh process. Growth is its peak of resident memory (Linux's VmHWM, reset after the imports)
less what was resident after the imports. It includes the pages of the memory-mapped cache that were read: several
trials share those, and the system can drop them at any time. Packing is of a folder alone (others would download).
"""

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import at_least, environment, parser, publish, save, spread
from config import run_script
from pictures.dataset import Loaders, Pictures, load, training_batches

ARRAYS = ("train_images", "train_labels", "train_moments", "test_images", "test_labels")  # of Pictures


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, rounds=3)
    options.add_argument("--batch-size", type=at_least(2), default=128)
    options.add_argument("--no-packing", action="store_true", help="leave out packing, which writes the cache anew")
    args = options.parse_args(argv)
    return run_script(lambda: run(args))


def run(args) -> None:
    if not Path("/proc/self/clear_refs").exists():
        raise ValueError("benchmarks.memory: needs Linux, whose /proc tells peak memory")
    where = environment(torch.device("cpu"))
    packed = size(load(args.data, args.data_dir)) / 1e6
    tasks = {"one epoch of batches": (read_epoch, args.data, args.data_dir, args.batch_size)}
    if Path(args.data).is_dir() and not args.no_packing:
        tasks["packing"] = (pack, args.data)
    results = {name: [in_fresh_process(*task) for _ in range(args.rounds)] for name, task in tasks.items()}

    rows = [{"task": name, "packed MB": f"{packed:.0f}", "peak growth MB": spread([r["growth"] for r in runs]),
             "of the packed size": spread([r["growth"] / packed for r in runs]) + " x",
             "of it mapped MB": spread([r["mapped"] for r in runs]), "seconds": spread([r["seconds"] for r in runs])}
            for name, runs in results.items()]
    publish(f"Peak memory, {args.data}", rows, where,
            f"Median (smallest to largest) of {args.rounds} fresh processes; MB of 10^6 bytes; batch "
            f"{args.batch_size}; mapped: pages of files that are resident at the end, the cache above all.")
    save(args.out, args, where, packed_mb=packed, tasks=results)


def size(pictures: Pictures) -> int:
    """Bytes of the packed arrays."""
    return sum(getattr(pictures, name).nbytes for name in ARRAYS)


def read_epoch(data: str, data_dir: str, batch_size: int) -> Loaders:
    """What a trial does with the loader in one epoch."""
    loaders = training_batches(load(data, data_dir), torch.device("cpu"), train_size=0, val_size=0,
                               batch_size=batch_size, crop_padding=4, flip="on", cutout=8, seed=0)
    for batches in loaders:
        for _ in batches.epoch(0):
            pass
    return loaders


def pack(data: str) -> None:
    with tempfile.TemporaryDirectory() as data_dir:
        load(data, data_dir)


def in_fresh_process(task: Callable[..., Any], *args: Any) -> dict[str, float]:
    """Run `task` in a new process; growth and mapped files in MB, seconds."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_growth, task, *args).result()


def _growth(task: Callable[..., Any], *args: Any) -> dict[str, float]:
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew at what is resident now
    before, files, start = _resident("VmRSS"), _resident("RssFile"), time.perf_counter()
    result = task(*args)
    seconds = time.perf_counter() - start
    growth = {"growth": _resident("VmHWM") - before, "mapped": _resident("RssFile") - files, "seconds": seconds}
    del result  # not before now: its memory maps count
    return growth


def _resident(key: str) -> float:
    """A figure of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(key + ":"))


if __name__ == "__main__":
    sys.exit(main())
