"""From the start of a trial's process to its first batch and first step, and what the time goes into.

Each measurement is a fresh process that runs the real hpo_trial.py, without NNI's servers, up to its first step on
a data set whose cache exists (benchmarks/traced_trial.py). Page caches are warm, as for every trial but the first.
--imports adds what the slowest imports cost, by python -X importtime, which itself slows them somewhat.
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.measure import environment, parser, publish, save, spread
from config import run_script
from models import MODELS
from pictures.dataset import load
from training.hardware import pick_device

IMPORTS = ("import hpo_trial; import artifacts.run_folder, models, pictures.dataset, "
           "training.loop")  # all that a trial imports before it works


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, rounds=5)
    options.add_argument("--model", default="resnet18", choices=MODELS)
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options.add_argument("--imports", type=int, default=0, metavar="N", help="also list the N slowest packages")
    args = options.parse_args(argv)
    return run_script(lambda: run(args))


def run(args) -> None:
    device = pick_device(args.device)
    where = environment(device)
    load(args.data, args.data_dir)  # makes the cache, if there is none
    runs = [trial(args) for _ in range(args.rounds + 1)][1:]  # the first one warms the page cache
    publish(f"Start-up of a trial, {args.model} on {args.data}, seconds", rows(runs), where,
            f"Median (smallest to largest) of {args.rounds} fresh processes.")
    results = {"seconds": runs}
    if args.imports:
        results["import_seconds"] = imports(args.imports)
        publish("Slowest imports of a trial, seconds", [
            {"module": name, "with all that it imports first": f"{seconds:.2f}"}
            for name, seconds in results["import_seconds"].items()], where)
    save(args.out, args, where, **results)


def trial(args) -> dict[str, float]:
    """Seconds of each part of one trial's start."""
    with tempfile.TemporaryDirectory() as runs_dir:
        options = ["--data", args.data, "--data-dir", args.data_dir, "--model", args.model, "--device", args.device]
        command = [sys.executable, "-m", "benchmarks.traced_trial", str(time.monotonic()), *options]
        done = subprocess.run([*command, "--runs-dir", runs_dir], capture_output=True, encoding="utf-8")
    if done.returncode:
        raise ValueError(f"the trial failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def rows(runs: list[dict[str, float]]) -> list[dict[str, str]]:
    """One row a part, in order, with the sums up to the first batch and the first step."""
    table, sums = [], [0.0] * len(runs)
    for part in runs[0]:
        seconds = [run[part] for run in runs]
        sums = [a + b for a, b in zip(sums, seconds, strict=True)]
        table.append({"part": part, "seconds": spread(seconds), "since the start": f"{statistics.median(sums):.2f}"})
    return table


def imports(count: int) -> dict[str, float]:
    """Seconds of the `count` slowest top-level modules and packages, each with all that it was first to import."""
    command = [sys.executable, "-X", "importtime", "-c", IMPORTS]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    lines = re.findall(r"^import time:\s*\d+ \|\s*(\d+) \|\s*([\w.]+)$", done.stderr, re.MULTILINE)
    seconds = {name: int(cumulative) / 1e6 for cumulative, name in lines if name.count(".") <= 1 and "._" not in name}
    return dict(sorted(seconds.items(), key=lambda item: -item[1])[:count])


if __name__ == "__main__":
    sys.exit(main())
