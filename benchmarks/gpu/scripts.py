"""The commands as processes of their own, killed in the middle by SIGKILL, and called again with --resume."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.gpu.lines import Figure
from benchmarks.gpu.processes import ROOT
from benchmarks.gpu.section import Bench

EPOCHS = 30  # enough not to be over when the kill comes
COMMANDS = {
    "hpo_trial": "--model shufflenetg2 --val-size 32", "retrain": "--genotype DARTS_V2 --channels 4 --layers 3",
    "darts_search": "--channels 4 --layers 3 --val-size 32"}


def killed(command: str, words: str, bench: Bench) -> Iterator[Figure]:
    """ok: the second call went on from the first one's checkpoint, and ended well."""
    runs, epochs = bench.folder / command, bench.of(EPOCHS, 3)
    argv = [sys.executable, str(ROOT / f"{command}.py"), *words.split(), "--train-size", "64", "--batch-size", "16",
            "--epochs", str(epochs), "--data", bench.data, "--data-dir", bench.data_dir, "--device", bench.device.type,
            "--checkpoint-minutes", "1e-9", "--runs-dir", str(runs), "--name", "killed"]
    began = time.monotonic()
    kill_after_checkpoint(argv, runs, bench)
    done = subprocess.run([*argv, "--resume"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    [result] = [*runs.glob("*/killed/result.json")] or [None]
    told = "" if result else (done.stdout.strip().splitlines() or ["no output"])[-1]
    yield Figure("killed and resumed", time.monotonic() - began, "s", {"command": command, "epochs": epochs},
                 ok=done.returncode == 0 and result is not None, note=told)


def kill_after_checkpoint(argv: Sequence[str], runs: Path, bench: Bench) -> None:
    """The first one is of the first step or epoch."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    try:
        while not list(runs.glob("*/killed/checkpoint.pt")):
            if process.poll() is not None:
                last = (process.stdout.read().strip().splitlines() or ["no output"])[-1]
                raise RuntimeError(f"exit code {process.returncode} before a checkpoint: {last}")
            if bench.left() <= 0:
                raise RuntimeError("no checkpoint in time")
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()


CASES = {command: partial(killed, command, words) for command, words in COMMANDS.items()}
