"""The folder of one run: config.json, metrics.jsonl, TensorBoard events, result.json, each whole or absent.

A tuner's run gets its folder from the tuner, any other one lives in runs/<stage>/<name>.
"""

import os
import platform
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from artifacts.figures import counted
from files import remove_torn, write_json, write_jsonl

SCHEMA = 1  # of result.json


class RunFolder:
    """Keeps the records of one run.

    folder = RunFolder(path, config)    writes config.json, when what a killed run has half written is removed
    folder.epoch(record)                after each epoch: metrics.jsonl and TensorBoard
    folder.finish(result)               result.json, with where it comes from
    """

    def __init__(self, path: str | os.PathLike, config: Any) -> None:
        self.path, self.config = Path(path), config
        self._started, self.commit, self.records = time.time(), commit(), []  # a record an epoch
        self.path.mkdir(parents=True, exist_ok=True)
        remove_torn(self.path)
        for stale in ("metrics.jsonl", "result.json"):  # of an earlier run of this name, or of this one before its stop
            (self.path / stale).unlink(missing_ok=True)
        write_json(self.path / "config.json", asdict(config))
        self._events = SummaryWriter(self.path / "tensorboard")  # NNI's TensorBoard button looks in this folder

    def epoch(self, record: dict[str, Any]) -> None:
        """Keep one epoch's record; it has `epoch`, counted from 1. TensorBoard gets the numbers in it."""
        self.records.append(record)
        write_jsonl(self.path / "metrics.jsonl", self.records)
        for key, value in record.items():
            if key != "epoch" and isinstance(value, int | float):
                self._events.add_scalar(key, value, record["epoch"])
        self._events.flush()

    def provenance(self, device: torch.device) -> dict[str, Any]:
        """The settings, and what it takes to judge and repeat what has been computed by now."""
        return {"config": asdict(self.config), "commit": self.commit,
                "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
                "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
                "wall_seconds": time.time() - self._started, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}

    def finish(self, result: dict[str, Any], device: torch.device) -> None:
        """Write result.json: `result`, and its provenance, unless it holds one."""
        self._events.close()
        write_json(self.path / "result.json", {"schema": SCHEMA, **self.provenance(device), **result})
        (self.path / "checkpoint.pt.before").unlink(missing_ok=True)  # nothing is left to go on with


def commit() -> str:
    """The commit of the code that runs, with + if it was changed since; unknown outside of a git checkout."""
    here = Path(__file__).parent
    try:
        command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
        told = subprocess.run(command, cwd=here, capture_output=True, encoding="utf-8", timeout=10, check=True).stdout
        return told.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def cpu_name() -> str:
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:  # not Linux
        pass
    return f"{name}, {counted(torch.get_num_threads(), 'thread')}"
