"""What the watchdog sees and says, without an experiment."""

import subprocess
import sys

import psutil
import pytest

from guard import watchdog
from guard.results import Results
from guard.trials import Trial


def test_storm_of_collectors_is_seen() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(30)", "collect_gpu_info"]
    children = [subprocess.Popen(command) for _ in range(watchdog.COLLECTORS + 1)]
    try:
        with pytest.raises(watchdog.ProcessStorm, match="9 GPU collectors at once"):
            watchdog.check_storm(watchdog._commands(psutil.Process()))
        watchdog.check_storm(["python -m nni --exp_params x", "python -m collect_gpu_info"])
    finally:
        for child in children:
            child.kill()
            child.wait()


def test_hint() -> None:
    state = Results("a", "a", {}, [Trial("T", finals=1)])
    assert "trialConcurrency: 1" in watchdog.hint("KeyError: 3", state)
    assert watchdog.hint("ValueError: x", state) == watchdog.hint(None, state) == ""
    state.trials[0].finals = 2
    assert "trial T called report_final_result twice" in watchdog.hint("KeyError: 3", state)
