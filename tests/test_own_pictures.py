"""The commands on pictures of one's own: what they print first, what they keep of it, what they refuse."""

import dataclasses
import itertools
import json
import shlex

import pytest

import classic_nas_trial
import darts_search
import hpo_trial
import pipeline
import predict
import report
import retrain
from config import DataConfig
from journey import budgets
from journey.budgets import PipelineConfig
from own_pictures import make, make_classes
from pictures import dataset
from pictures.listing import TEST_SHARE
from reporting import final_test, findings

SMALL = ["--epochs", "1", "--batch-size", "8"]
SCRIPTS = {
    hpo_trial: ["--model", "shufflenetg2"], classic_nas_trial: ["--baseline", "--hpo-best", ""],
    darts_search: ["--channels", "4", "--layers", "3"], retrain: ["--model", "shufflenetg2"]}

EACH = [pytest.param(script, id=script.__name__, marks=pytest.mark.slow if script is darts_search else ())
        for script in SCRIPTS]


@pytest.fixture
def photos(tmp_path):
    """Two classes, a broken picture, a duplicate, a file that is none."""
    root = make_classes(tmp_path / "photos", cat=15, dog=14)
    make(root / "dog/a.png", like=1)
    make(root / "dog/b.png", like=1)
    (root / "cat/broken.jpg").write_bytes(b"nothing")
    (root / "Thumbs.db").touch()
    return root


@pytest.fixture
def call(call_trial, tmp_path, monkeypatch):
    """Run a script on a data set, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda script, data, *argv: call_trial(script.main, [
        "--data", str(data), "--name", "x", *SMALL, *SCRIPTS[script], *argv])[0]


def told(capsys) -> str:
    """The lines about the data set, which come once the libraries are loaded, and before any training."""
    lines = [line.removeprefix("# ") for line in capsys.readouterr().out.splitlines()]
    [number] = [number for number, line in enumerate(lines) if " classes, " in line]
    assert not any("epoch" in line or " on cpu" in line for line in lines[:number])
    more = itertools.takewhile(lambda line: line.startswith("  "), lines[number + 1 :])
    return "\n".join([lines[number], *more])


def result_of(path):
    return json.loads(next(path.glob("runs/*/x/result.json")).read_text())


@pytest.mark.parametrize("script", EACH)
def test_the_line_about_the_data_and_the_counts_in_the_result(photos, call, tmp_path, capsys, script):
    assert call(script, photos) == 2
    error = capsys.readouterr().err
    assert "1 of 32 pictures cannot be used: " in error and "cat/broken.jpg: not" in error
    assert call(script, photos, "--skip-broken", "--drop-duplicates", "--test-share", "0.25") == 0
    data = result_of(tmp_path)["data"]
    assert data["broken"] == data["not_pictures"] == data["duplicates_dropped"] == 1 and data["test_share"] == 0.25
    validation, table = "" if script is retrain else "; validation 2", next(tmp_path.glob(".data/*-duplicates.csv"))
    assert told(capsys) == (
        f"2 classes, 22 + 8 pictures, smallest class 11{validation}; brought to 32x32 pixels (pad)\n  left out: 1 "
        f"picture that cannot be used\n  .data/{table.name} lists all that are there twice\n  no test set was given: "
        "25% of each class set aside as one\n  1 file is no picture\n  1 duplicate dropped")


@pytest.mark.parametrize("script", EACH)
def test_a_given_validation_set_is_used_by_every_script(tmp_path, call, capsys, script):
    for split, size in (("train", 10), ("valid", 3), ("test", 2)):
        make_classes(tmp_path / "set" / split, cat=size, dog=size)
    assert call(script, tmp_path / "set") == 0
    line = "2 classes, 20 + 4 pictures, smallest class 10; validation 6; brought to 32x32 pixels (pad)\n"
    assert line in capsys.readouterr().out
    result = result_of(tmp_path)
    if script is not darts_search:
        assert (result["data"]["train_images"], result["data"]["val_images"]) == (20, 6)
    assert result["metric"].startswith("validation accuracy")


def test_its_size_can_be_less_but_not_more(tmp_path, call, capsys):
    for split, size in (("train", 10), ("valid", 3), ("test", 2)):
        make_classes(tmp_path / "set" / split, cat=size, dog=size)
    assert call(hpo_trial, tmp_path / "set", "--val-size", "4") == 0
    assert result_of(tmp_path)["data"]["val_images"] == 4
    assert "; validation 4; " in told(capsys)
    assert call(hpo_trial, tmp_path / "set", "--val-size", "7", "--overwrite") == 2
    assert "val_size = 7: at most 6, as many as there are" in capsys.readouterr().err


def test_a_class_that_is_too_small_for_validation(tmp_path, call, capsys):
    make_classes(tmp_path / "set", cat=200, dog=2)
    assert call(hpo_trial, tmp_path / "set") == 2
    error = capsys.readouterr().err
    assert "classes too small, by 1 picture each: 'dog'; besides its test pictures a class needs 1 to train on" in error
    assert "val_size" not in error and call(retrain, tmp_path / "set") == 0, "which needs no validation"


def test_twelve_classes_of_eight(tmp_path, call, capsys):
    make_classes(tmp_path / "set", **{f"c{number:02}": 8 for number in range(12)})
    assert call(hpo_trial, tmp_path / "set") == 0
    assert told(capsys).startswith("12 classes, 72 + 24 pictures, smallest class 6; validation 12;")
    assert result_of(tmp_path)["data"]["val_images"] == 12


@pytest.mark.parametrize("script", EACH)
def test_a_batch_that_is_larger_than_the_data(tmp_path, call_trial, capsys, monkeypatch, script):
    """A default is made to fit, and said; what was given is refused before anything is written."""
    monkeypatch.chdir(tmp_path)
    make_classes(tmp_path / "set", cat=20, dog=20)
    argv = ["--data", "set", "--name", "x", "--epochs", "1", *SCRIPTS[script]]
    assert call_trial(script.main, [*argv, "--batch-size", "33"])[0] == 2
    error = capsys.readouterr().err
    assert "batch_size = 33: must be at most " in error and error.count("\n") == 1 and not (tmp_path / "runs").exists()
    assert call_trial(script.main, argv)[0] == 0
    images = {darts_search: 14, retrain: 32}.get(script, 29)
    there = f"{images}, half of the training images" if script is darts_search else f"the {images} training images"
    usual = {retrain: 96, darts_search: 64}.get(script, 128)
    out = capsys.readouterr().out
    assert f"batch_size {images // 4} and not {usual}, to fit {there}" in out
    assert result_of(tmp_path)["config"]["batch_size"] == images // 4
    if script is darts_search:
        _, _, *words = shlex.split(out.partition("next: ")[2])
        assert call_trial(retrain.main, [*words, "--epochs", "1", "--channels", "4", "--layers", "3"])[0] == 0


def test_the_line_of_known_data(digits_dir, call, capsys):
    assert call(hpo_trial, "digits", "--data-dir", str(digits_dir), "--train-size", "20", "--val-size", "10") == 0
    assert told(capsys) == "10 classes, 1437 + 360 pictures, smallest class 139; validation 10"


def test_a_test_share_that_is_not_used_is_told(tmp_path, call, capsys):
    for split, size in (("train", 10), ("test", 2)):
        make_classes(tmp_path / "set" / split, cat=size, dog=size)
    words = "\n  --test-share 0.3 not used: the data has a test set"
    assert call(hpo_trial, "set", "--test-share", "0.3") == 0 and words in told(capsys)
    assert call(hpo_trial, "set", "--overwrite") == 0 and "--test-share" not in told(capsys)
    for data in ("set", "digits"):
        for given in (["--test-share", "0.3"], []):
            assert pipeline.main(["--data", data, "--dry-run", *given]) == 0
            assert (words in told(capsys)) == bool(given)


def test_the_share_that_needs_no_word_is_the_default():
    assert DataConfig().test_share == TEST_SHARE


def test_the_search_hands_on_what_the_data_set_is(tmp_path):
    config = darts_search.settings({"data": "a b", "test_share": 0.3, "skip_broken": True}, {})
    assert darts_search.next_command(tmp_path, config).endswith("'--data=a b' --test-share=0.3 --skip-broken")


def test_the_report_opens_the_data_set_of_the_run(photos, call, tmp_path):
    argv = ("--skip-broken", "--drop-duplicates", "--test-share", "0.4")
    assert call(retrain, photos, *argv) == 0
    [group] = findings.find(tmp_path / "runs").groups.values()
    found = final_test.final_test(group.runs[0], "cpu")
    assert found.images == result_of(tmp_path)["test"]["images"] and found.classes == ["cat", "dog"]


def test_a_class_whose_name_is_not_unicode(tmp_path, call, capsys):
    """Its bytes are shown with backslashes, in whatever holds the names of classes."""
    data, name = make_classes(tmp_path / "set", **{"caf\udce9": 15, "dog": 15}), r"caf\xe9"
    assert call(retrain, data) == 0
    [model] = tmp_path.glob("runs/*/x/model.pt")
    assert result_of(tmp_path)["test"]["class_accuracy"].keys() == {name, "dog"}
    capsys.readouterr()
    assert predict.main(["--model", str(model), "--images", str(data), "--workers", "1"]) == 0
    out, error = capsys.readouterr()
    assert f"{data}/{name}/0.png\t" in out and f"\n{name} " in error and "accuracy " in error
    assert report.main(["--runs", str(tmp_path / "runs")]) == 0
    page, text = ((tmp_path / "runs" / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    assert name in page and name in text.replace(r"\\", "\\") and "udce9" not in page + text


def test_what_changes_a_data_set_is_known_everywhere():
    reading = {field.name for field in dataclasses.fields(DataConfig)}
    assert {"data", "data_dir", *final_test.CHANGES, *final_test.BEFORE} == reading
    assert set(PipelineConfig().data_set) == reading and issubclass(PipelineConfig, DataConfig)


def test_a_run_goes_on_only_with_the_same_pictures(photos, call, capsys):
    assert call(hpo_trial, photos, "--skip-broken") == 0
    (photos / "cat/broken.jpg").unlink()
    assert call(hpo_trial, photos, "--resume") == 0, "the same pictures"
    assert call(hpo_trial, photos, "--resume", "--drop-duplicates") == 2
    assert "data_checksum" in capsys.readouterr().err


# ---- the pipeline


def test_the_pipeline_tells_before_it_starts(tmp_path, call, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_classes(tmp_path / "set", cat=20, dog=2)
    for dry in ([], ["--dry-run"]):
        assert pipeline.main(["--data", "set", *dry]) == 2
        out, error = capsys.readouterr()
        assert "'dog'" in error and "too small, by 1 picture each" in error
        assert "17 + 5 pictures, smallest class 1; " in out
        assert "  unequal classes: 'cat' has 16 pictures, 'dog' 1" in out
    assert not (tmp_path / "runs").exists()
    make(tmp_path / "set/dog/more.png")
    assert pipeline.main(["--data", "set", "--dry-run"]) == 0


@pytest.mark.parametrize("form", ["flat", "splits", "table"])
def test_the_pipeline_counts_by_the_same_walk(tmp_path, capsys, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    root = make_classes(tmp_path / "set" / ("Train" if form == "splits" else "."), cat=10, dog=10)
    make(root / "dog/deep/x.png")
    (root / "dog/notes.txt").touch()
    if form == "splits":
        make_classes(tmp_path / "set/validation", cat=2, dog=2)
    data = "set"
    if form == "table":
        rows = [f"{path.relative_to(tmp_path)},{path.parent.name}\n" for path in sorted(root.glob("*/*.png"))]
        (tmp_path / "labels.csv").write_text("".join(rows))
        data = "labels.csv"
    assert pipeline.main(["--data", data, "--dry-run", "--skip-broken", "--test-share", "0.3"]) == 0
    out = capsys.readouterr().out.replace(" \\\n   ", "")
    held_out = 4 if form == "splits" else 2  # given, or one of each class
    lines = dataset.load(data, "cache", test_share=0.3, skip_broken=True).summary(held_out).splitlines()
    assert "".join(f"# {line}\n" for line in lines) in out
    assert out.count("--test-share 0.3 --skip-broken") == 7 and f"--data {tmp_path / data} " in out


def test_a_dry_run_opens_the_pictures(photos, tmp_path, capsys, monkeypatch):
    """Broken ones are found there, and packing has not to be done again; nothing is run."""
    monkeypatch.chdir(tmp_path)
    assert pipeline.main(["--data", "photos", "--dry-run"]) == 2
    assert "1 of 32 pictures cannot be used: " in capsys.readouterr().err and not (tmp_path / "runs").exists()
    assert pipeline.main(["--data", "photos", "--dry-run", "--skip-broken"]) == 0
    assert "\n#   1 picture is in two of" in capsys.readouterr().out and not (tmp_path / "runs").exists()
    monkeypatch.setattr(dataset, "pack", None)
    assert pipeline.main(["--data", "photos", "--dry-run", "--skip-broken"]) == 0


def test_a_given_validation_set_in_the_budgets():
    for budget, stages in budgets.BUDGETS.items():
        for stage in stages.keys() & budgets.SETTINGS:
            found = budgets.fitted(budget, stage, 5000, classes=10, given_val=200)
            assert "val_size" not in found and found.get("train_size", 0) <= 5000
    assert budgets.fitted("small", "darts", 50_000, classes=10)["val_size"] == 1000
    assert budgets.fitted("demo", "hpo", 600, classes=120)["train_size"] == 0  # validation takes one a class
    assert budgets.fitted("demo", "darts", 5000, classes=500)["train_size"] == 0


def test_the_settings_of_the_data_are_the_pipelines_own(tmp_path, capsys):
    assert pipeline.main(["--data", "digits", "--dry-run", "--runs-dir", str(tmp_path), "--set",
                          "hpo.test_share=0.5"]) == 2
    assert "set = hpo.test_share: the pipeline sets that itself" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a #b", "it's", 'two\nlines "x"', "a: b"])
def test_a_folder_of_any_name_reaches_the_trials(tmp_path, capsys, name):
    make_classes(tmp_path / name, cat=20, dog=20)
    argv = ["--data", str(tmp_path / name), "--dry-run", "--runs-dir", str(tmp_path / name / "runs")]
    config = pipeline.merge(PipelineConfig, pipeline.command_line(PipelineConfig, argv, ""))
    stages, _ = pipeline.plan(config, tmp_path / name / "runs")
    [hpo] = [stage for stage in stages if stage.name == "hpo"]
    words = pipeline.shlex.split(hpo.config()["trialCommand"])
    assert words[words.index("--data") + 1] == str(tmp_path / name)
    assert hpo.config()["experimentWorkingDirectory"] == str(hpo.home)
