"""One trial of stage 2: what it trains by which recipe, what it tells NNI, how it refuses bad input."""

import json

import pytest
import torch

import classic_nas_trial
from config import ClassicNasConfig, command_line
from conftest import ROOT
from models.mobilenet_space.space import BASELINE, build, count_macs, count_parameters, smallest
from pictures import dataset
from pictures.split import split

SMALL = ["--data", "digits", "--train-size", "64", "--val-size", "32", "--batch-size", "32", "--epochs", "1"]
CHEAP = {**BASELINE, **{label: "thin_dw3" for label in BASELINE if label.endswith("op")}, "block03_skip": "stem"}


@pytest.fixture
def trial(call_trial, digits_dir, tmp_path, monkeypatch):
    """A small trial in an empty folder, where runs/hpo/best.json is looked for."""
    def trial(*argv, tuner=None):
        monkeypatch.chdir(tmp_path)
        return call_trial(classic_nas_trial.main, [*SMALL, "--data-dir", str(digits_dir), *argv], tuner)
    return trial


@pytest.fixture
def write(tmp_path):
    """Write a file, JSON unless it is text, below the trial's folder; returns its path there."""
    def write(value, name="arch.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return name
    return write


def best(**parameters):
    """What experiment.py writes, as far as it is read here."""
    return {"schema": 1, "stage": "hpo", "experiment": "x", "trial": "y", "metric": "default", "value": 0.9,
            "parameters": parameters, "result": None, "trials": {"total": 1}}


# ---- what it does


def test_a_trial_under_nni(trial, tmp_path):
    code, told = trial("--epochs", "2", tuner=CHEAP)
    result = json.loads((tmp_path / "nni" / "result.json").read_text())
    epochs = [json.loads(line) for line in (tmp_path / "nni" / "metrics.jsonl").read_text().splitlines()]
    assert code == 0
    assert told["intermediate"] == [epoch["val_accuracy"] for epoch in epochs] and len(epochs) == 2
    [final] = told["final"]
    assert final.pop("images_per_second") == result["images_per_second"] > 0
    facts = {"parameters": count_parameters(CHEAP), "macs": count_macs(CHEAP)}
    assert final == {"default": epochs[-1]["val_accuracy"], **facts, **{f"run.{key}": CHEAP[key] for key in CHEAP}}
    assert result.items() >= facts.items() and result["architecture"] == CHEAP and result["stage"] == "classic_nas"


def test_any_tuner_may_call_it(call_run, digits_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = [*SMALL, "--data-dir", digits_dir]
    metric, heard = call_run(classic_nas_trial.run, where, CHEAP)
    assert metric == json.loads((tmp_path / "tuned/result.json").read_text())["value"] == heard.finals[0][0]
    assert call_run(classic_nas_trial.run, [*where, "--max-params", smallest().parameters], CHEAP)[0] == 0.0


def test_a_trial_that_nni_repeats_goes_on_from_its_checkpoint(trial, tmp_path):
    _, whole = trial(tuner=CHEAP)
    (tmp_path / "nni" / "result.json").unlink()
    code, again = trial(tuner=CHEAP)
    assert code == 0 and again["intermediate"] == whole["intermediate"]
    assert again["final"] == whole["final"]  # the very same: nothing was trained again


def test_the_baseline_is_trained_by_the_same_recipe_as_an_architecture(trial, write, tmp_path):
    assert trial("--baseline", "--name", "plain")[0] == 0
    assert trial("--arch", write(BASELINE), "--name", "file")[0] == 0
    assert trial("--arch", write(best(**BASELINE)), "--name", "best")[0] == 0
    results = [json.loads((tmp_path / "runs" / "classic_nas" / name / "result.json").read_text())
               for name in ("plain", "file", "best")]
    assert len({result["last"]["val_loss"] for result in results}) == 1  # bit for bit
    assert all(result["parameters"] == 3217226 for result in results)


def test_a_run_is_not_resumed_with_another_architecture(trial, write, capsys):
    assert trial("--arch", write(CHEAP), "--name", "a")[0] == 0
    assert trial("--arch", write({**CHEAP, "block13_op": "identity"}), "--name", "a", "--resume")[0] == 2
    assert "block13_op = 'thin_dw3'" in capsys.readouterr().err


def test_the_search_space_is_written_by_command(trial, tmp_path):
    assert trial("--write-search-space")[0] == 0
    name = "search_space_classic_nas.json"
    assert (tmp_path / name).read_text() == (ROOT / name).read_text()
    assert all(len(line) <= 130 for line in (ROOT / name).read_text().splitlines())


# ---- the test set


def test_the_test_set_is_evaluated_once_by_the_trained_network(trial, write, tmp_path, digits_dir, monkeypatch, capsys):
    """Image by image, from the checkpoint of the last epoch, with the mean and deviation of the training images."""
    from training import loop

    calls, whole = [], loop.evaluate
    monkeypatch.setattr(loop, "evaluate", lambda *args: calls.append(1) or whole(*args))
    assert trial("--arch", write(CHEAP), "--name", "a", "--epochs", "2", "--test")[0] == 0
    assert len(calls) == 2 + 1  # validation each epoch, then the test set
    folder = tmp_path / "runs" / "classic_nas" / "a"
    result = json.loads((folder / "result.json").read_text())
    model = build(CHEAP, 10).eval()
    model.load_state_dict(torch.load(folder / "checkpoint.pt", weights_only=True)["model"])
    pictures = dataset.load("digits", digits_dir)
    train, _ = split(pictures.train_labels, 64, 32, 0)
    seen = torch.from_numpy(pictures.train_images[train][..., :3]).double() / 255
    mean, deviation = seen.mean((0, 1, 2)), seen.std((0, 1, 2), correction=0)
    images = (torch.from_numpy(pictures.test_images[..., :3]).double() / 255 - mean) / deviation
    with torch.no_grad():
        logits = model.double()(images.permute(0, 3, 1, 2))
    labels = torch.from_numpy(pictures.test_labels)
    confusion = [[int(((labels == true) & (logits.argmax(1) == said)).sum()) for said in range(10)]
                 for true in range(10)]
    recall = [row[true] / sum(row) for true, row in enumerate(confusion)]
    assert result["test"] == {
        "confusion": confusion, "class_accuracy": pytest.approx(dict(zip("0123456789", recall, strict=True))),
        "accuracy": pytest.approx((logits.argmax(1) == labels).double().mean().item(), abs=1 / len(labels)),
        "loss": pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-3),
        "balanced_accuracy": pytest.approx(sum(recall) / len(recall)), "images": len(labels)}
    assert result["value"] == result["last"]["val_accuracy"] and "test accuracy" in capsys.readouterr().out


def test_without_the_option_the_test_set_is_not_read(trial, tmp_path, monkeypatch):
    whole = dataset.load

    def without_test(**settings):
        pictures = whole(**settings)
        object.__setattr__(pictures, "test_images", None)
        object.__setattr__(pictures, "test_labels", None)
        return pictures

    monkeypatch.setattr(dataset, "load", without_test)
    assert trial("--baseline", "--name", "a")[0] == 0
    assert "test" not in json.loads((tmp_path / "runs" / "classic_nas" / "a" / "result.json").read_text())


def test_a_finished_run_is_tested_by_resuming_it(trial, tmp_path):
    file = tmp_path / "runs" / "classic_nas" / "a" / "result.json"
    assert trial("--baseline", "--name", "a")[0] == 0
    before = json.loads(file.read_text())
    assert trial("--baseline", "--name", "a", "--resume", "--test")[0] == 0
    after = json.loads(file.read_text())
    assert after["last"] == before["last"] and 0 <= after["test"]["accuracy"] <= 1


def test_a_diverged_network_is_not_tested(trial, tmp_path):
    assert trial("--baseline", "--name", "a", "--optimizer", "SGD", "--lr", "1e30", "--epochs", "2", "--test")[0] == 0
    result = json.loads((tmp_path / "runs" / "classic_nas" / "a" / "result.json").read_text())
    assert result["diverged"] and "test" not in result


# ---- lr and optimizer


@pytest.mark.parametrize(("argv", "there", "expected", "said"), [
    ([], False, (0.001, "Adam"), "lr 0.001 (default), optimizer Adam (default)"),
    ([], True, (0.02, "Adamax"), "lr 0.02 (runs/hpo/best.json), optimizer Adamax (runs/hpo/best.json)"),
    (["--lr", "0.5"], True, (0.5, "Adamax"), "lr 0.5 (command line), optimizer Adamax (runs/hpo/best.json)"),
    (["--hpo-best", ""], True, (0.001, "Adam"), "lr 0.001 (default)"),
    (["--hpo-best", "other.json"], True, (0.3, "SGD"), "optimizer SGD (other.json)")])
def test_the_recipe_of_stage_1(write, tmp_path, monkeypatch, capsys, argv, there, expected, said):
    monkeypatch.chdir(tmp_path)
    if there:
        write(best(lr=0.02, optimizer="Adamax", model="resnet18"), "runs/hpo/best.json")
        write(best(lr=0.3, optimizer="SGD"), "other.json")
    given = command_line(ClassicNasConfig, argv, "")
    config = classic_nas_trial.settings(given)
    assert (config.lr, config.optimizer) == expected and said in capsys.readouterr().out


# ---- limits


@pytest.mark.parametrize("limit", [["--max-params", "3217226"], ["--max-macs", "46354432"]])
def test_a_limit_lets_pass_what_meets_it(trial, limit):
    assert trial(*limit, "--baseline")[0] == 0


@pytest.mark.parametrize("limit", [["--max-params", "3217225"], ["--max-macs", "46354431"]])
def test_a_network_over_a_limit_is_refused_before_training(trial, tmp_path, capsys, monkeypatch, limit):
    assert trial(*limit, "--baseline")[0] == 2
    error = capsys.readouterr().err
    assert error.startswith("error: max_") and error.count("\n") == 1 and not list(tmp_path.rglob("runs"))
    code, told = trial(*limit, tuner=dict(BASELINE))
    assert code == 0 and told["intermediate"] == []
    echo = {f"run.{key}": value for key, value in BASELINE.items()}
    assert told["final"] == [{"default": 0.0, "parameters": 3217226, "macs": 46354432, **echo}]
    assert "max_" in json.loads((tmp_path / "nni" / "result.json").read_text())["refused"]
    assert "refused" in capsys.readouterr().out


@pytest.mark.parametrize("tuner", [None, CHEAP])
def test_limits_that_no_network_meets_are_said_at_once(trial, capsys, tuner):
    argv = [] if tuner else ["--baseline"]
    code, told = trial(*argv, "--max-params", "1000", tuner=tuner)
    assert code == 2 and told["final"] == []
    assert f"no network of the space meets it, the smallest has {smallest().parameters}" in capsys.readouterr().err


# ---- bad input


def assert_one_line(result, capsys, tmp_path, words):
    code, told = result
    error = capsys.readouterr().err
    assert code == 2 and told["final"] == []
    assert error.startswith("error: ") and error.count("\n") == 1 and all(word in error for word in words), error
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize(("content", "words"), [
    ({**BASELINE, "block14_op": "dw3"}, ["block14_op", "no such label"]),
    ({label: value for label, value in BASELINE.items() if label != "block02_op"}, ["block02_op is missing"]),
    ({**BASELINE, "block02_op": "dw9"}, ["block02_op = 'dw9'", "dw7"]),
    ({**BASELINE, "block02_op": 3}, ["block02_op = 3"]),
    ({**BASELINE, "block05_skip": [1]}, ["block05_skip = [1]"]),
    ([1, 2], ["labels and choices"]),
    ("null", ["labels and choices"]),
    ('"dw3"', ["labels and choices"]),
    ("{", ["not valid JSON"]),
    ("", ["not valid JSON"]),
    (best(lr=0.1), ["lr", "no such label"]),
    ({**best(**BASELINE), "schema": 2}, ["schema 2", "reads 1"]),
    ({**best(), "parameters": None}, ["parameters None"]),
    ({**best(), "parameters": [1]}, ["parameters [1]"]),
])
def test_a_bad_architecture_file(trial, write, tmp_path, capsys, content, words):
    assert_one_line(trial("--arch", write(content)), capsys, tmp_path, ["arch.json", *words])


@pytest.mark.parametrize(("content", "words"), [
    ("{", ["not valid JSON"]),
    ("[]", ["schema None", "reads 1"]),
    ({**best(lr=0.1, optimizer="Adam"), "schema": 2}, ["schema 2", "reads 1"]),
    ({"lr": 0.1, "optimizer": "Adam"}, ["schema None"]),
    ({"schema": 1}, ["parameters None"]),
    (best(lr=0.1), ["no optimizer"]),
    (best(**BASELINE), ["no lr"]),
    (best(lr="fast", optimizer="Adam"), ["lr = 'fast'", "number"]),
    (best(lr=-1, optimizer="Adam"), ["lr = -1.0", "above 0"]),
    (best(lr=0.1, optimizer="Lion"), ["optimizer = 'Lion'", "Adamax"]),
])
def test_a_bad_result_of_stage_1(trial, write, tmp_path, capsys, content, words):
    file = write(content, "runs/hpo/best.json")
    assert_one_line(trial("--baseline"), capsys, tmp_path, [file, *words])


@pytest.mark.parametrize(("argv", "tuner", "words"), [
    ([], None, ["--arch", "--baseline"]),
    (["--arch", "a.json", "--baseline"], None, ["either --arch"]),
    (["--arch", "missing.json"], None, ["missing.json", "no such file"]),
    (["--baseline", "--hpo-best", "missing.json"], None, ["missing.json", "no such file"]),
    (["--baseline"], CHEAP, ["under NNI neither"]),
    (["--test"], CHEAP, ["test: not for a trial of a tuner", "--arch"]),
    ([], {**CHEAP, "lr": 0.1}, ["lr", "no such label"]),
    ([], {**CHEAP, "block01_op": "dw9"}, ["block01_op = 'dw9'"]),
    ([], {"block01_op": "dw3"}, ["block02_op is missing"]),
    (["--baseline", "--max-params", "many"], None, ["max_params = 'many'", "whole number"]),
    (["--baseline", "--max-macs=-1"], None, ["max_macs = -1", "at least 0"]),
    (["--baseline", "--optimizer", "adam"], None, ["optimizer = 'adam'", "Adam"]),
    (["--baseline", "--model", "vgg"], None, ["--model"]),
    (["--baseline", "--data", "nowhere"], None, ["data = 'nowhere'"]),
])
def test_bad_input_is_one_line_with_exit_code_2(trial, tmp_path, capsys, argv, tuner, words):
    assert_one_line(trial(*argv, tuner=tuner), capsys, tmp_path, words)
