"""The line about a running experiment."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fake_experiment import Fake
from guard.progress import Progress, describe, remaining
from guard.results import Results
from guard.trials import Trial


def test_what_the_tuner_says_is_shown_while_there_is_no_trial(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """In dispatcher.log as NNI writes it."""
    (tmp_path / "log").mkdir()
    toy = SimpleNamespace(folder=tmp_path, url="")
    state = Results("abc", "toy", {"maxTrialNumber": 2}, [])
    Progress(toy).show(state)
    (tmp_path / "log" / "dispatcher.log").write_text(
        "[2026-11-24 02:12:01] INFO (nas_tuner/Thread-1 (command_queue_worker)) scored 25 of 200 candidates\n"
        "[2026-11-24 02:12:02] INFO (nas_tuner/Thread-1 (command_queue_worker)) scored 50 of 200 candidates\n"
        "[2026-11-24 02:12:03] INFO (nni.runtime.msg_dispatcher_base/MainThread) Dispatcher started\n")
    Progress(toy).show(state)
    state.trials.append(Trial("A", state="RUNNING"))
    Progress(toy).show(state)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["no trial yet, the tuner is choosing",
                     "no trial yet, the tuner says: scored 50 of 200 candidates",
                     "0/2 done, 1 running, 0 failed, 0 stopped early"]


def test_time_left_is_the_smaller_of_trials_and_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    ended = Trial("a", state="SUCCEEDED", started=900.0, seconds=59.0)
    for settings, expected in (({"maxTrialNumber": 3}, "about 2 min left (estimate)"),
                               ({"maxTrialNumber": 2}, "about 60 s left (estimate)"),
                               ({"maxTrialNumber": 3, "maxExperimentDuration": "130s"}, "about 30 s left (estimate)"),
                               ({"maxTrialNumber": 3, "maxExperimentDuration": "1s"}, "about 0 s left (estimate)"),
                               ({}, "")):
        assert remaining(Results("e", "toy", settings, [ended])) == expected


def test_the_epoch_of_each_running_trial(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "abc")
    for number, trial in enumerate("ABC"):
        fake.event(trial, "RUNNING", 0)
        (fake.trial_folder(trial) / "config.json").write_text('{"epochs": 3}' if trial != "C" else "{}")
        for epoch in range(number * 2):
            fake.metric(trial, 0, 0.5, "PERIODICAL", epoch)
    assert describe(fake.load(alive=True)).startswith("0/9 done, 3 running (epochs 1 of 3, 3 of 3), 0 failed")
    fake.event("B", "SUCCEEDED")
    assert ", 2 running (epoch 1 of 3)" in describe(fake.load(alive=True))
