"""One trial of stage 1: what it writes, what it tells NNI, how it refuses bad input."""

import json
import os
import signal
import subprocess
import sys

import nni
import pytest
import torch

import hpo_trial
from conftest import ROOT
from training import loop, progress

SMALL = ["--model", "shufflenetg2", "--data", "digits", "--train-size", "64", "--val-size", "32", "--batch-size", "32"]


@pytest.fixture
def trial(call_trial, digits_dir, tmp_path):
    """A small trial."""
    def trial(*argv, tuner=None):
        where = ["--data-dir", str(digits_dir), "--runs-dir", str(tmp_path / "runs")]
        return call_trial(hpo_trial.main, [*SMALL, *where, *argv], tuner)
    return trial


def test_a_trial_under_nni(trial, tmp_path):
    parameters = {"lr": 0.01, "optimizer": "Adamax", "model": "mobilenet"}
    code, told = trial("--epochs", "2", tuner=parameters)
    folder = tmp_path / "nni"
    result = json.loads((folder / "result.json").read_text())
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert code == 0
    assert told["intermediate"] == [epoch["val_accuracy"] for epoch in epochs] and len(epochs) == 2
    assert told["written"] == [False, True], "of the last epoch NNI hears when nothing more can be stopped"
    echo = {f"run.{key}": value for key, value in parameters.items()}
    assert told["final"] == [{"default": epochs[-1]["val_accuracy"], **echo}]
    assert json.loads((folder / "config.json").read_text()).items() >= parameters.items()
    assert result["value"] == result["last"]["val_accuracy"] and result["parameters"] == 3217226
    assert result["data"] | {"checksum": 0} == {
        "name": "digits", "checksum": 0, "classes": 10, "train_images": 64, "val_images": 32}
    assert result.keys() >= {"commit", "versions", "hardware", "wall_seconds", "best", "config", "diverged"}
    assert list(folder.glob("tensorboard/events.out.tfevents.*"))
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["identity"]["lr"] == 0.01


def test_a_stage_of_a_pipeline_has_one_line_about_the_data(trial, monkeypatch, capsys):
    monkeypatch.setenv(progress.TOLD, "1")
    assert trial("--epochs", "1", "--test-share", "0.3")[0] == 0
    assert "\n10 classes, 1437 + 360 pictures, smallest class 139; validation 32\non cpu" in capsys.readouterr().out


def test_any_tuner_may_call_it(call_run, digits_dir, tmp_path):
    where = [*SMALL, "--data-dir", digits_dir, "--runs-dir", tmp_path / "runs", "--epochs", "2"]
    metric, heard = call_run(hpo_trial.run, where, {"lr": 0.01})
    result = json.loads((tmp_path / "tuned/result.json").read_text())
    assert metric == result["value"] == heard.epochs[1] and len(heard.epochs) == 2
    [(final, _, ran)] = heard.finals
    assert final == metric and ran["lr"] == result["config"]["lr"] == 0.01 and not (tmp_path / "runs").exists()


def test_a_trial_that_nni_repeats_goes_on_from_its_checkpoint(trial, tmp_path, monkeypatch):
    """NNI runs a stopped trial again in the same folder."""
    def stop(value):
        raise KeyboardInterrupt

    parameters, often = {"lr": 0.01}, ["--checkpoint-minutes", "1e-9"]
    _, whole = trial("--epochs", "2", tuner=parameters)
    (tmp_path / "nni" / "checkpoint.pt").unlink()
    with monkeypatch.context() as context:
        context.setattr(nni, "get_next_parameter", lambda: parameters)
        context.setattr(nni, "report_intermediate_result", stop)
        with pytest.raises(KeyboardInterrupt):
            hpo_trial.main([*SMALL, "--epochs", "2", *often, "--data-dir", str(tmp_path / "d")])
    assert len(torch.load(tmp_path / "nni" / "checkpoint.pt", weights_only=True)["history"]) == 1
    assert not (tmp_path / "nni" / "result.json").exists()
    code, again = trial("--epochs", "2", "--data-dir", str(tmp_path / "d"), tuner=parameters)
    assert code == 0 and again["intermediate"] == whole["intermediate"] and again["final"] == whole["final"]


@pytest.mark.parametrize(("tuner", "folder"), [(None, "runs/hpo/a"), ({"lr": 0.001}, "nni")])
def test_alone_ctrl_c_writes_a_checkpoint_to_go_on_from(trial, tmp_path, monkeypatch, tuner, folder):
    """In the third of four steps; a trial of NNI leaves the signal alone, and has one from before, if any."""
    step, steps = loop.train_step, []

    def interrupted(*args, **kwargs):
        steps.append(1)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        return step(*args, **kwargs)

    with monkeypatch.context() as context:
        context.setattr(loop, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trial("--epochs", "2", "--name", "a", tuner=tuner)
    if tuner:
        assert not (tmp_path / folder / "checkpoint.pt").exists()
        return
    assert torch.load(tmp_path / folder / "checkpoint.pt", weights_only=True)["within_epoch"]["steps"] == 1
    assert trial("--epochs", "2", "--name", "whole")[0] == trial("--epochs", "2", "--name", "a", "--resume")[0] == 0
    whole, resumed = (torch.load(tmp_path / "runs" / "hpo" / name / "model.pt", weights_only=True)["weights"]
                      for name in ("whole", "a"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_diverged_trial_reports_the_worst_metric(trial, tmp_path):
    code, told = trial("--epochs", "2", "--optimizer", "SGD", tuner={"lr": 1e30})
    assert code == 0 and told["final"] == [{"default": 0.0, "run.lr": 1e30}]
    result = json.loads((tmp_path / "nni" / "result.json").read_text())
    assert result["diverged"] and result["value"] == 0


def test_the_test_set_is_never_read(trial, monkeypatch):
    from pictures import dataset

    whole = dataset.load

    def without_test(**settings):
        pictures = whole(**settings)
        object.__setattr__(pictures, "test_images", None)
        object.__setattr__(pictures, "test_labels", None)
        return pictures

    monkeypatch.setattr(dataset, "load", without_test)
    assert trial("--epochs", "1")[0] == 0


@pytest.mark.parametrize(("argv", "tuner", "words"), [
    (["--model", "resnet19"], None, ["model = 'resnet19'", "resnet18"]),
    (["--optimizer", "adam"], None, ["optimizer = 'adam'", "Adam"]),
    (["--lr=-1"], None, ["lr = -1.0", "above 0"]),
    (["--lr", "nan"], None, ["lr = nan", "finite"]),
    ([], {"lr": "0.01"}, ["lr = '0.01'", "number"]),
    ([], {"learning": 0.1}, ["learning", "not a setting"]),
    (["--data", "nowhere"], None, ["data = 'nowhere'", "no such folder"]),
    (["--train-size", "100000"], None, ["train_size = 100000", "at most 1437"]),
    (["--resume", "--name", "fresh"], None, ["no checkpoint", "fresh"]),
    (["--runs-dir", "/dev/null/runs"], None, ["/dev/null/runs"]),
    (["--data-dir", "/dev/null/data"], None, ["/dev/null/data"]),
])
def test_bad_input_is_one_line_with_exit_code_2(trial, tmp_path, capsys, argv, tuner, words):
    code, told = trial(*argv, tuner=tuner)
    error = capsys.readouterr().err
    assert code == 2 and told["final"] == []
    assert error.startswith("error: ") and error.count("\n") == 1 and all(word in error for word in words), error
    assert not list(tmp_path.rglob("result.json")) and not list(tmp_path.rglob("checkpoint.pt"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="checks what is said where there is no CUDA device")
def test_cuda_where_there_is_none(trial, capsys):
    assert trial("--device", "cuda")[0] == 2
    assert "device = 'cuda'" in capsys.readouterr().err


def test_a_refused_resume_leaves_the_earlier_run_as_it_was(trial, tmp_path):
    assert trial("--epochs", "1", "--name", "a")[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    assert trial("--epochs", "2", "--name", "a", "--resume")[0] == 2
    assert before == {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}


def test_a_full_disk_is_one_line_and_keeps_what_was_whole(digits_dir, tmp_path):
    """A real process under a real limit of file size, as a person would see it."""
    limited = ("import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, -1)); import hpo_trial;"
               "sys.exit(hpo_trial.main(sys.argv[1:]))")
    argv = [*SMALL, "--epochs", "1", "--data-dir", str(digits_dir), "--runs-dir", str(tmp_path), "--name", "a"]
    done = subprocess.run([sys.executable, "-c", limited, *argv], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert sorted(path.name for path in (tmp_path / "hpo" / "a").iterdir()) == ["config.json", "tensorboard"]


def test_out_of_gpu_memory_fails_the_trial_in_one_line(trial, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr("training.loop.train_step", full)
    code, told = trial(tuner={"lr": 0.01})
    error = capsys.readouterr().err
    assert code == 1 and told["final"] == [] and error.count("\n") == 1 and "--batch-size 16" in error
