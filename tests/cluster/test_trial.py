"""The process in which trials run, without a Ray."""

import json
import threading

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-ray.txt")

from cluster import trial
from conftest import ROOT


class Attempt(trial.Process):
    def __init__(self, config):
        self.reset_config(config)


@pytest.fixture
def config(tmp_path, digits_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ["--data", "digits", "--data-dir", str(digits_dir), "--train-size", "40", "--val-size", "20", "--batch-size",
            "20", "--epochs", "4", "--checkpoint-minutes", "0.0001"]
    return {"folder": str(tmp_path), "script": str(ROOT / "hpo_trial.py"), "code": str(tmp_path), "argv": argv,
            "parameters": {"model": "shufflenetg2", "optimizer": "Adam", "lr": 0.01}}


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_trial_goes_on_from_its_checkpoint_and_is_not_run_again_when_it_has_ended(config, tmp_path):
    attempt = Attempt(config)
    told = [attempt.step(), attempt.step()]
    assert attempt._leave() and not (tmp_path / trial.ENDED).exists()  # stopped while it waits
    before = records(tmp_path)
    attempt = Attempt(config)
    steps = [attempt.step() for _ in range(4)]
    assert steps[:2] == told and records(tmp_path)[:2] == before and len(records(tmp_path)) == 4  # with their seconds
    outcome = json.loads(steps[3]["outcome"])
    assert steps[3]["done"] and outcome["value"] == outcome["last"] == records(tmp_path)[3]["val_accuracy"]
    written = (tmp_path / "model.pt").stat().st_mtime_ns
    assert Attempt(config).step()["outcome"] == steps[3]["outcome"]
    assert (tmp_path / "model.pt").stat().st_mtime_ns == written


def test_a_process_runs_one_trial_after_another(config, tmp_path, monkeypatch):
    (tmp_path / "fails.py").write_text("def run(argv, parameters, reporter):\n    raise SystemExit(parameters['x'])\n")
    config |= {"script": str(tmp_path / "fails.py"), "parameters": {"x": 3}}
    attempt = Attempt(config)
    assert json.loads(attempt.step()["outcome"])["error"] == "SystemExit: 3"
    (tmp_path / "second").mkdir()
    assert attempt.reset_config(config | {"folder": str(tmp_path / "second"), "parameters": {"x": 4}})
    assert json.loads(attempt.step()["outcome"])["error"] == "SystemExit: 4"
    assert "SystemExit: 4" in (tmp_path / "second" / trial.LOG).read_text() and threading.active_count() < 20
