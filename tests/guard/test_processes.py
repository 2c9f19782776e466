"""Processes are known by what they carry; no experiment is started."""

import os
import signal
import subprocess
from pathlib import Path

from guard import processes
from guard.registry import Experiment


def test_survivor_is_recognised_by_its_environment_and_ended(tmp_path: Path) -> None:
    found = Experiment("old12345", "old", tmp_path / "old12345", 1, 8080, "RUNNING")
    marks = {"NNI_EXP_ID": found.id, "NNI_OUTPUT_DIR": str(found.folder / "environments" / "x")}
    trial = subprocess.Popen(["sleep", "100"], env={**os.environ, **marks})
    other = subprocess.Popen(["sleep", "100"], env={**os.environ, "NNI_EXP_ID": found.id})  # somewhere else
    try:
        assert [member.pid for member in processes.all_of(found)] == [trial.pid]
        processes.end(processes.all_of(found))
        assert (trial.wait(timeout=5), other.poll()) == (-signal.SIGTERM, None)
    finally:
        for process in (trial, other):
            process.kill()
            process.wait()
