"""What the watchdog sees and says, without an experiment."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from guard import watchdog
from guard.registry import Experiment
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


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> watchdog.Watch:
    """Of an experiment whose web server does not answer."""
    def refuse(*args: object) -> None:
        raise OSError("timed out")

    monkeypatch.setattr(watchdog.web_server, "get", refuse)
    monkeypatch.setattr(watchdog.processes, "manager_of", lambda experiment: None)
    return watchdog.Watch(Experiment("a", "a", tmp_path), lambda: False)


def test_time_in_which_everything_stood_still_does_not_count(silent: watchdog.Watch,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    now = [silent.looked]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    for gap in (1, 3600, 1, 7200, 10):  # a laptop that slept twice
        now[0] += gap
        assert silent.status() is None
    now[0] += watchdog.LOOK_SECONDS
    with pytest.raises(watchdog.ExperimentFailed, match="has not answered for 60 s"):
        silent.status()


def test_a_stopped_manager_is_waited_for(silent: watchdog.Watch, monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    now = [silent.looked]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        manager = psutil.Process(child.pid)
        monkeypatch.setattr(watchdog.processes, "manager_of", lambda experiment: manager)
        child.send_signal(signal.SIGSTOP)
        while manager.status() != psutil.STATUS_STOPPED:
            pass
        for _ in range(20):
            now[0] += 10
            assert silent.status() is None
        assert capsys.readouterr().out == f"NNI's manager is stopped: waiting; kill -CONT {child.pid} goes on\n"
        child.send_signal(signal.SIGCONT)
        while manager.status() == psutil.STATUS_STOPPED:
            pass
        with pytest.raises(watchdog.ExperimentFailed, match="has not answered for 60 s"):
            for _ in range(20):
                now[0] += 10
                silent.status()
        child.kill()


def test_hint() -> None:
    state = Results("a", "a", {}, [Trial("T", finals=1)])
    assert "trialConcurrency: 1" in watchdog.hint("KeyError: 3", state)
    assert watchdog.hint("ValueError: x", state) == watchdog.hint(None, state) == ""
    state.trials[0].finals = 2
    assert "trial T called report_final_result twice" in watchdog.hint("KeyError: 3", state)
