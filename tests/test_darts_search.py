"""darts_search.py from end to end on digits, its resume, and what it refuses."""

import json
import signal
import subprocess
import sys
import time

import nni
import pytest
import torch

import darts_search
from conftest import ROOT
from earlier_layout import of_before
from models.darts.genotype import Genotype
from models.darts.genotype_files import load_genotype
from reporting import darts_drawing
from training import search as engine
from training.search import Search

TINY = ["--data", "digits", "--channels", "4", "--layers", "3", "--train-size", "40", "--val-size", "20",
        "--batch-size", "10", "--epochs", "2", "--frozen", "0.5"]


@pytest.fixture
def search(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*argv, name="x"):
        code = darts_search.main([*TINY, "--data-dir", str(ROOT / ".data"), "--name", name, *argv])
        return code, tmp_path / "runs" / "darts_search" / name

    return run


def test_what_a_search_leaves_behind(search):
    code, path = search()
    assert code == 0
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    assert "alpha_loss" not in records[0] and "alpha_loss" in records[1], "frozen for half of the epochs"
    assert records[0]["strengths"] != records[1]["strengths"]
    assert {"entropy", "skips", "steps_per_second", "val_accuracy", "train_loss", "seconds"} <= records[1].keys()
    result = json.loads((path / "result.json").read_text())
    genotype = load_genotype(str(path / "genotype.json"))
    assert genotype == Genotype.from_json(result["genotype"]) == Genotype.from_json(records[1]["genotype"])
    assert result["value"] == records[1]["val_accuracy"] and result["stage"] == "darts_search"
    assert {file.name for file in path.iterdir()} >= {"cells.png", "alphas.png", "checkpoint.pt", "config.json"}


def test_several_seeds_and_the_choice_by_a_complete_training(search):
    code, path = search("--seeds", "2", "--epochs", "1", "--choice-epochs", "1", "--choice-channels", "4",
                        "--choice-layers", "3")
    result = json.loads((path / "result.json").read_text())
    assert code == 0 and [one["seed"] for one in result["seeds"]] == [0, 1]
    best = max(result["seeds"], key=lambda one: one["value"])
    assert result["value"] == best["value"] and "complete training" in result["metric"]
    assert load_genotype(str(path / "genotype.json")) == Genotype.from_json(best["genotype"])
    of_one = json.loads((path / "seed1" / "result.json").read_text())
    assert of_one["value"] == result["seeds"][1]["value"] and "complete training" in of_one["metric"]


def test_as_a_trial_of_nni(search, monkeypatch, tmp_path):
    reports = {"epochs": [], "final": []}
    monkeypatch.setattr(nni, "get_next_parameter", lambda: {"seed": 3})
    monkeypatch.setenv("NNI_PLATFORM", "local")
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path / "trial"))
    monkeypatch.setattr(nni, "report_intermediate_result", reports["epochs"].append)
    monkeypatch.setattr(nni, "report_final_result", reports["final"].append)
    code, _ = search("--choice-epochs", "1", "--choice-channels", "4", "--choice-layers", "3")
    result = json.loads((tmp_path / "trial" / "result.json").read_text())
    assert code == 0 and len(reports["epochs"]) == 2
    assert reports["final"] == [{"default": result["value"], "run.seed": 3}]
    assert "complete training" in result["metric"] and result["config"]["seed"] == 3


def test_searches_that_are_begun_anew_and_started_again(search, monkeypatch, capsys):
    """--overwrite is of all seeds at once: what lies there later is of this run, and goes on, its choice too."""
    for slow in ("draw_cells", "plot_alphas"):
        monkeypatch.setattr(darts_drawing, slow, lambda *_: None)
    choice = ["--seeds", "2", "--epochs", "1", "--choice-epochs", "1", "--choice-channels", "4", "--choice-layers", "3"]
    _, path = search(*choice)
    first, fit = (path / "seed0/checkpoint.pt").stat().st_mtime_ns, engine.fit

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(engine, "fit", stop)
        search(*choice, "--overwrite")
    assert (path / "seed0/checkpoint.pt").stat().st_mtime_ns > first
    assert not list(path.glob("seed*/choice.pt")) and not (path / "seed1/checkpoint.pt").exists()
    capsys.readouterr()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    resumed = []
    monkeypatch.setattr(engine, "fit", lambda *args, **kw: resumed.append(kw["resume_from"]) or fit(*args, **kw))
    assert search(*choice, "--overwrite")[0] == 0 and resumed == [None, None]
    assert capsys.readouterr().out.count("started again by torchrun") == 1
    assert search(*choice, "--overwrite")[0] == 0 and all(resumed[2:])
    assert capsys.readouterr().out.count("started again by torchrun") == 2


def weights(path):
    return torch.load(path / "checkpoint.pt", weights_only=True)["model"]


def assert_equal_weights(one, other):
    found = weights(other)
    for name, weight in weights(one).items():
        assert torch.equal(weight, found[name]), name


def test_stopped_and_resumed_is_bitwise_the_same(search, monkeypatch):
    _, whole = search(name="whole")
    kept = darts_search.keep

    def stop(*args):
        kept(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(darts_search, "keep", stop)
        search("--checkpoint-minutes", "1e-9", name="stopped")
    code, resumed = search("--resume", name="stopped")
    assert code == 0
    assert_equal_weights(whole, resumed)
    lines = (resumed / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


def test_a_checkpoint_of_the_earlier_layout_goes_on_bitwise(search, monkeypatch):
    _, whole = search(name="whole")
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(darts_search, "keep", lambda *_: signal.raise_signal(signal.SIGINT))
        search("--checkpoint-minutes", "1e-9", name="stopped")
    file = whole.parent / "stopped" / "checkpoint.pt"
    saved = torch.load(file, weights_only=True)
    weights, names = saved["weights"], [name for name in saved["model"] if not name.startswith("alpha_")]
    momentum = of_before({name: weights["state"][number]["momentum_buffer"] for number, name in enumerate(names)})
    names = sorted(momentum, key=lambda name: (".nodes." in name, name))  # in any order: that of its state counts
    saved["model"] = {**{name: of_before(saved["model"])[name] for name in names},
                      **{name: value for name, value in saved["model"].items() if name.startswith("alpha_")}}
    weights["state"] = {number: {"momentum_buffer": momentum[name]} for number, name in enumerate(names)}
    weights["param_groups"][0]["params"] = list(range(len(names)))
    torch.save(saved, file)
    code, resumed = search("--resume", name="stopped")
    assert code == 0
    assert_equal_weights(whole, resumed)


@pytest.mark.slow
def test_killed_at_any_moment(search, tmp_path):
    _, whole = search(name="whole")
    for sent in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        command = [sys.executable, str(ROOT / "darts_search.py"), *TINY, "--data-dir", str(ROOT / ".data"),
                   "--name", sent.name, "--checkpoint-minutes", "1e-9"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        checkpoint = tmp_path / "runs" / "darts_search" / sent.name / "checkpoint.pt"
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(sent)
        assert process.wait(60) != 0
        code, resumed = search("--resume", name=sent.name)
        assert code == 0
        assert_equal_weights(whole, resumed)


@pytest.mark.parametrize(("argv", "says"), [
    (["--batch-size", "21"], "batch_size = 21: must be at most 20, half of the training images"),
    (["--partial-channels", "3"], "partial_channels = 3: must divide the channels of a cell, 4"),
    (["--order", "3"], "order = 3: must be at most 2"),
    (["--optimizer", "Adam"], "optimizer = 'Adam': must be one of SGD"),
    (["--max-skips", "-1"], "max_skips = -1: must be at least 0"),
    (["--resume"], "resume: there is no checkpoint"),
    (["--channel", "4"], "unrecognized arguments: --channel 4"),
], ids=lambda value: value[0] if isinstance(value, list) else "")
def test_bad_input(search, capsys, argv, says):
    code, path = search(*argv)
    assert code == 2 and says in capsys.readouterr().err
    assert not path.exists()


def test_a_checkpoint_of_another_search(search, capsys):
    search("--epochs", "1")
    capsys.readouterr()
    code, _ = search("--epochs", "1", "--order", "2", "--resume")
    assert code == 2 and "its run had order = 1, this one has 2" in capsys.readouterr().err


def test_a_loss_that_is_not_finite(search, capsys):
    code, path = search("--lr", "1e30", "--clip", "0")
    assert code == 2 and "the loss is not finite; lr = 1e+30: must be lower" in capsys.readouterr().err
    told = json.loads((path / "result.json").read_text())
    assert told["diverged"] and "value" not in told and not (path / "genotype.json").exists()


@pytest.mark.parametrize(("argv", "advice"), [
    ([], ", and so does --recompute; --no-branches takes a quarter less"), (["--recompute"], "")], ids=str)
def test_out_of_gpu_memory_names_a_batch_that_would_fit(argv, advice, search, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(Search, "epoch", full)
    assert search(*argv)[0] == 1
    assert capsys.readouterr().err == ("error: out of GPU memory with batch_size = 10; --batch-size 5 takes about half "
                                       f"of it{advice}\n")
