"""experiment.py collect: results of trials without NNI, as stage 2 and the report take them."""

import csv
import json
import sys
from pathlib import Path

import pytest

import classic_nas_trial
import experiment
import hpo_trial
from reporting import findings
from reporting.experiments import experiment_blocks
from training.best import of_stage1

CONFIG = {"model": "vgg", "optimizer": "Adam", "lr": 0.01, "epochs": 30, "train_size": 0, "val_size": 0, "held_out": 0,
          "batch_size": 128, "seed": 0, "name": "", "device": "cpu"}
DATA = {"name": "cifar10", "checksum": "a" * 64, "classes": 10}


def write(runs: Path, name: str, value: float, data: dict | None = None, more: dict | None = None, **config) -> None:
    folder = runs / "hpo" / name
    folder.mkdir(parents=True, exist_ok=True)
    result = {"schema": 1, "stage": "hpo", "value": value, "metric": "validation accuracy after the last epoch",
              "config": {**CONFIG, "name": name, **config}, "data": {**DATA, **(data or {})}, "wall_seconds": 9.5}
    (folder / "result.json").write_text(json.dumps(result | (more or {})), encoding="utf-8")
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "val_accuracy": 0.1}\n', encoding="utf-8")


@pytest.fixture
def collect(tmp_path: Path, capsys: pytest.CaptureFixture):
    def collect(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return experiment.main(["collect", str(tmp_path / "hpo"), *words]), *capsys.readouterr()
    return collect


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_what_is_collected_is_handed_on(collect, tmp_path: Path) -> None:
    write(tmp_path, "a", 0.5, device="cuda")
    write(tmp_path, "b", 0.7, model="resnet18", lr=0.001, batch_size=64)
    write(tmp_path, "c", 0.0, more={"diverged": True})
    (tmp_path / "hpo/d").mkdir()
    (tmp_path / "hpo/d/config.json").write_text("{}", encoding="utf-8")
    code, out, _ = collect()
    best = json.loads((tmp_path / "hpo/best.json").read_text())
    rows = list(csv.DictReader((tmp_path / "hpo/results.csv").read_text().splitlines()))
    assert code == 0 and "note: not finished, left out: d\n" in out and "trials differ in batch_size too" in out
    assert best["parameters"] == {"model": "resnet18", "optimizer": "Adam", "lr": 0.001, "batch_size": 64}
    assert (best["stage"], best["experiment"], best["trial"], best["value"], best["finished"]) == (
        "hpo", "collected", "b", 0.7, False)
    assert best["result"]["data"]["checksum"] == DATA["checksum"] and best["trials"] == {
        "total": 3, "succeeded": 2, "diverged": 1}
    assert [(row["trial"], row["state"], row["metric"], row["points"]) for row in rows] == [
        ("b", "SUCCEEDED", "0.7", "1"), ("a", "SUCCEEDED", "0.5", "1"), ("c", "DIVERGED", "0.0", "1")]
    assert collect()[0] == 0  # again, over its own


def test_from_trials_by_hand_to_stage_2_and_the_report(tmp_path: Path, digits_dir: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = ["--data", "digits", "--data-dir", str(digits_dir), "--train-size", "40", "--val-size", "20", "--batch-size",
            "20", "--epochs", "1", "--model", "shufflenetg2"]
    for lr in ("0.01", "0.001"):
        assert hpo_trial.main([*tiny, "--lr", lr, "--optimizer", "Adamax"]) == 0
    monkeypatch.setitem(sys.modules, "nni", None)  # it need not be there
    assert experiment.main(["collect", "runs/hpo"]) == 0
    best = of_stage1("runs/hpo/best.json", ("lr", "optimizer"))
    config = classic_nas_trial.settings({"baseline": True})
    assert (config.lr, config.optimizer) == (best["lr"], "Adamax") and best["lr"] in (0.01, 0.001)
    [group] = findings.find(tmp_path / "runs").groups.values()
    [found] = group.experiments
    assert found.name == "hpo" and len(found.done) == 2 and found.origin.data == "digits"
    assert experiment_blocks(found, group.runs)


def test_stage_2_is_collected_too(collect, tmp_path: Path) -> None:
    for name, value, choice in (("a", 0.5, "dw3"), ("b", 0.6, "identity")):
        write(tmp_path, name, value, more={"stage": "classic_nas", "architecture": {"block01_op": choice}})
    write(tmp_path, "c", 0.0, more={"stage": "classic_nas", "architecture": {"block01_op": "x"}, "refused": "large"})
    assert collect("--out", str(tmp_path / "out"))[0] == 0
    best = json.loads((tmp_path / "out/best.json").read_text())
    assert best["parameters"] == {"block01_op": "identity"} and best["trials"]["refused"] == 1


def test_damaged_results_are_named_and_the_others_used(collect, tmp_path: Path) -> None:
    write(tmp_path, "a", 0.5)
    for name, text in (("b", "{"), ("c", "[]"), ("d", '{"stage": "hpo", "config": {}}'), ("e", '{"stage": "retrain"}')):
        (tmp_path / "hpo" / name).mkdir()
        (tmp_path / "hpo" / name / "result.json").write_text(text, encoding="utf-8")
    code, _, error = collect()
    assert code == 1 and json.loads((tmp_path / "hpo/best.json").read_text())["trial"] == "a"
    assert [line.rpartition("/hpo/")[2] for line in error.splitlines()] == [
        "b/result.json: not valid JSON (line 1, column 2: it ends too early); not used",
        "c/result.json: stage None: must be a result of hpo or classic_nas; not used",
        "d/result.json: has no data; not used", "e/result.json: stage 'retrain': must be a result of hpo or "
        "classic_nas; not used"]


@pytest.mark.parametrize(("other", "words", "only"), [
    ({"epochs": 1}, "epochs differs: 30 in 4 (a, b, c and 1 more), 1 in 1 (z); choose by --only epochs=30",
     "epochs=30"),
    ({"val_size": 100}, "val_size differs: 0 in 4", "val_size=0"),
    ({"data": {"checksum": "b" * 64}}, f"checksum differs: {'a' * 12} in 4", f"checksum={'a' * 12}"),
    ({"more": {"stage": "classic_nas", "architecture": {}}}, "stage differs: hpo in 4", "stage=hpo"),
])
def test_what_cannot_be_compared_is_refused_and_can_be_chosen(collect, tmp_path: Path, other, words, only) -> None:
    for name in "abcd":
        write(tmp_path, name, 0.5)
    write(tmp_path, "z", 0.9, **other)
    code, _, error = collect()
    assert code == 2 and words in error and error.count("\n") == 1 and not files(tmp_path / "hpo")
    assert collect("--only", only)[0] == 0
    assert json.loads((tmp_path / "hpo/best.json").read_text())["value"] == 0.5


def test_bad_input_is_one_line_and_writes_nothing(collect, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        code, _, error = collect(*words)
        assert code == 2 and error.count("\n") == 1
        return error

    assert "hpo: no such folder" in refused()
    (tmp_path / "hpo").mkdir()
    assert "hpo: no result.json in a folder of it" in refused()
    write(tmp_path, "a", 0.5, more={"metric": "training accuracy after the last epoch"})
    assert "nothing can be chosen without validation" in refused()
    write(tmp_path, "a", 0.5)
    assert "--only epoch: no setting" in refused("--only", "epoch=3")
    assert "--only epochs: must be KEY=VALUE" in refused("--only", "epochs")
    assert "no result.json in a folder of it with epochs=3" in refused("--only", "epochs=3")
    assert not files(tmp_path / "hpo")
    (tmp_path / "hpo/best.json").write_text('{"experiment": "abc"}')
    assert "holds the results of an NNI experiment; --out FOLDER" in refused()
    assert (tmp_path / "hpo/best.json").read_text() == '{"experiment": "abc"}'
    assert files(tmp_path / "hpo") == {"best.json"}
