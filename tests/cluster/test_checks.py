"""What is refused before Ray is started, what a trial gets of the machines, and the record: without Ray."""

import importlib.util
from pathlib import Path

import pytest

import experiment
from cluster import checks, node
from cluster.record import LINES, Record
from conftest import ROOT

CONFIG = str(ROOT / "config_hpo.yml")


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """What is said of a command that is refused; it has written nothing."""
    monkeypatch.chdir(tmp_path)

    def refused(*words):
        assert experiment.main([*words]) == 2
        assert not list(tmp_path.iterdir())
        return capsys.readouterr().err
    return refused


def test_without_ray_one_line_says_how_to_get_it(refused, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else find(name, *more))
    for words in (("run", CONFIG, "--engine", "ray"), ("ray", "head")):
        said = refused(*words)
        assert "pip install -r requirements-ray.txt" in said and said.count("\n") == 1


@pytest.mark.parametrize(("words", "said"), [
    (["--address", "10.0.0.1"], "--address 10.0.0.1: must be HOST:PORT"),
    (["--address", "127.0.0.1:1"], "--address 127.0.0.1:1: no answer"),
    (["--set", "trialCommand=bash train.sh"], "must be `python SCRIPT.py ARGUMENTS`"),
    (["--set", "trialCommand=python report.py"], "report.py must have run(argv, parameters, reporter)"),
    (["--set", "trialConcurrency=0"], "trialConcurrency 0"),
    (["--set", "trialGpuNumber=-1"], "trialGpuNumber -1"),
    (["--set", "nniManagerIp=127.0.0.1"], "nniManagerIp: Ray cannot do that"),
    (["--set", "tuner={name: Hyperband}"], "tuner.name 'Hyperband' does not work today"),
    (["--set", "trialCommand=python hpo_trial.py --epochs 0"], "epochs = 0"),
])
def test_what_ray_cannot_run_is_named(refused, monkeypatch, words, said):
    monkeypatch.setattr(node, "assert_installed", lambda: None)
    assert said in " ".join(refused("run", CONFIG, "--engine", "ray", *words).split())


def test_an_address_is_for_ray(refused):
    assert "--address: for --engine ray alone" in refused("run", CONFIG, "--address", "10.0.0.1:6379")
    assert "ADDRESS" in refused("ray", "worker")


def test_a_token_that_others_may_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(ValueError, match="no such token"):
        node.use_token()
    node.use_token(make=True)
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600 and len((tmp_path / "token").read_text()) == 64
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        node.use_token()


@pytest.mark.parametrize(("settings", "cpus", "gpus", "share"), [
    ({"trialConcurrency": 8}, [2], [0], {"cpu": 0.25, "gpu": 0}),
    ({"trialConcurrency": 1}, [2], [0], {"cpu": 2, "gpu": 0}),
    ({"trialConcurrency": 1}, [16], [1], {"cpu": 16, "gpu": 1}),
    ({"trialConcurrency": 2}, [16], [1], {"cpu": 8, "gpu": 0.5}),
    ({"trialConcurrency": 8}, [16, 16], [4, 4], {"cpu": 4, "gpu": 1}),
    ({"trialConcurrency": 3}, [3, 3], [0, 0], {"cpu": 1, "gpu": 0}),
    ({"trialConcurrency": 2, "trialGpuNumber": 0}, [4], [1], {"cpu": 2, "gpu": 0}),
    ({"trialConcurrency": 4, "trialGpuNumber": 2}, [8, 8], [4, 4], {"cpu": 4, "gpu": 2}),
])
def test_a_trials_share_of_the_machines(settings, cpus, gpus, share):
    assert checks.share_of({"trainingService": {}, **settings}, cpus, gpus) == share


def test_more_gpus_than_a_machine_has_are_refused():
    with pytest.raises(ValueError, match="trialGpuNumber 2: no machine of this Ray has so many, the largest 1"):
        checks.share_of({"trainingService": {}, "trialConcurrency": 1, "trialGpuNumber": 2}, [8, 8], [1, 1])


def test_a_record_outlives_a_torn_line_and_has_one_writer(tmp_path: Path):
    record = Record(tmp_path)
    record.claim()
    first, second = record.propose({"x": 1}), record.propose({"x": 2})
    first.state, first.value, first.points = "SUCCEEDED", 0.5, [0.4, 0.5]
    record.end(first)
    with pytest.raises(ValueError, match="is running"):
        Record(tmp_path).claim()
    assert Record(tmp_path).is_written()
    record.release()
    assert not Record(tmp_path).is_written()
    whole = (tmp_path / LINES).read_bytes()
    (tmp_path / LINES).write_bytes(whole + b'{"trial": "trial-0003", "param')
    again = Record(tmp_path)
    assert again.ended == [first] and again.unfinished == [second] and again.clock >= record.before
    again.claim()
    assert again.propose({"x": 3}).name == "trial-0003"
    again.release()
    assert [entry.parameters for entry in Record(tmp_path).unfinished] == [{"x": 2}, {"x": 3}]
