"""What the trial scripts would refuse is told before the start, all at once: options of space and command."""

import importlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from guard.experiment_file import load_config
from guard.settings_check import SAMPLES, WrongSettings, check_settings, samples
from training import settings_check

SPACE = {"lr": {"_type": "loguniform", "_value": [0.001, 1]}}
ARCHITECTURE = json.loads((ROOT / "search_space_classic_nas.json").read_text(encoding="utf-8"))


def found(command: str, space: dict, folder: Path, **changes: object) -> list[str]:
    """The lines about an experiment of this command and space; [] if all is well."""
    config = {"experimentName": "x", "searchSpace": space, "trialCommand": command, "trialCodeDirectory": str(ROOT),
              "trialConcurrency": 1, "maxTrialNumber": 1, "tuner": {"name": "Random"},
              "trainingService": {"platform": "local"}, **changes}
    (folder / "config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    try:
        said = check_settings(load_config(folder / "config.yml"), 0)
    except WrongSettings as error:
        return error.lines
    assert " takes all " in said, said
    return []


def choice(*values: object) -> dict:
    return {"_type": "choice", "_value": list(values)}


def test_of_a_network_of_the_zoo(tmp_path: Path) -> None:
    space = {**SPACE, "weight_decay": {"_type": "uniform", "_value": [-0.1, 0.1]}, "optimizer": choice("Adam", "sgd"),
             "model": choice("resnet18", "resnet19", 18), "epochs": {"_type": "quniform", "_value": [1, 9, 4]},
             "seed": {"_type": "randint", "_value": [-1, 5]}, "batchsize": choice(32), "clip": choice("big")}
    lines = found("exec python hpo_trial.py --data nowhere --epoch 3 --cutout -1 --flip 'some times' --val-size x",
                  space, tmp_path)
    said = "\n".join(sorted(lines))
    for words in ("unrecognized arguments: --epoch 3; did you mean --epochs?", "val_size = 'x': must be a whole number",
                  "data = 'nowhere': no such folder", "cutout = -1: must be at least 0",
                  "flip = 'some times': must be one of auto, on, off", "weight_decay = -0.1: must be at least 0",
                  "optimizer = 'sgd': must be one of Adadelta", "model = 'resnet19': must be one of vgg",
                  "model = 18: must be text", "epochs = 1.0: must be a whole number", "seed = -1: must be at least 0",
                  "batchsize: not a setting; did you mean batch_size?", "clip = 'big': must be a number"):
        assert sum(line.startswith(words) for line in lines) == 1, f"{words}\n\n{said}"
    assert sum(line.startswith("epochs = ") for line in lines) == 2 and len(lines) == 14, said


@pytest.mark.parametrize(("command", "space", "words"), [
    ("hpo_trial.py --data digits", SPACE, []),
    ("hpo_trial.py --data digits", {"lr": {"_type": "uniform", "_value": [0, 1]}}, ["lr = 0.0: must be above 0"]),
    ("hpo_trial.py --data digits", {"warmup": {"_type": "uniform", "_value": [0, 1]}}, ["warmup = 1.0: must be below"]),
    ("hpo_trial.py --data digits", {"lr": {"_type": "normal", "_value": [0.1, 0.1]}}, ["lr = -0.3"]),
    ("hpo_trial.py --data digits", {"model": choice({"_name": "vgg", "lr": choice(1)})}, ["model = {'_name': 'vgg'"]),
    ("classic_nas_trial.py --data digits --hpo-best ''", ARCHITECTURE, []),
    ("classic_nas_trial.py --data digits --hpo-best no.json --test --baseline", ARCHITECTURE, ["no.json: no such"]),
    ("classic_nas_trial.py --data digits --hpo-best '' --test", ARCHITECTURE, ["test: not for a trial of a tuner"]),
    ("classic_nas_trial.py --data digits --hpo-best '' --baseline", ARCHITECTURE, ["give either --arch"]),
    ("classic_nas_trial.py --data digits --hpo-best ''", {**ARCHITECTURE, "block01_op": choice("dw3", "dw9")},
     ["block01_op = 'dw9'"]),
    ("classic_nas_trial.py --data digits --hpo-best ''", SPACE, ["lr: no such label"]),
    ("darts_search.py --data digits", {"seed": choice(0, 1), "preset": choice("", "publisht")},
     ["preset = 'publisht': must be one of published"]),
    ("darts_search.py --data digits --ema 0.5 --optimizer Adam", {"seed": choice(0)},
     ["optimizer = 'Adam': must be one of SGD", "ema = 0.5: must be at most 0"]),
    ("retrain.py --data digits", {"genotype": choice("DARTS_V2", "random:1")}, []),
    ("retrain.py --data digits", {"genotype": choice("DARTS_V2", "DARTS_V3", "no.json")},
     ["genotype 'DARTS_V3' is neither", "genotype 'no.json' is neither"]),
    ("retrain.py --data digits --model vgg", {"genotype": choice("DARTS_V2")}, ["give either --genotype"]),
    ("retrain.py --data digits", {"recipe": choice("standard", "longer"), "genotype": choice("DARTS_V1")},
     ["recipe = 'longer': must be one of standard, long"])], ids=lambda value: str(value)[:40])
def test_each_script_by_its_own_settings(command: str, space: dict, words: list, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, as its command would."""
    file, (script, *argv) = tmp_path / "samples.json", shlex.split(command)
    file.write_text(json.dumps(list(samples(space))), encoding="utf-8")
    monkeypatch.setenv(SAMPLES, str(file))
    assert importlib.import_module(script.removesuffix(".py")).main(argv) == 0
    lines = json.loads(file.read_text(encoding="utf-8"))
    assert len(lines) == len(words) and all(map(str.startswith, sorted(lines), sorted(words))), lines


def test_the_command_is_the_shells_as_it_is_nnis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "digits")
    assert found('python hpo_trial.py --data "$DATA"', SPACE, tmp_path) == []


def test_a_command_that_does_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import nowhere\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"trialCommand ends with exit code 1: ModuleNotFoundError: .*nowhere"):
        found(f"PYTHONPATH={tmp_path} python hpo_trial.py", SPACE, tmp_path)


def test_scripts_of_others_are_never_run(tmp_path: Path) -> None:
    (tmp_path / "hpo_trial.py").write_text("open('ran', 'w')\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="not checked: the trial is no script of this project"):
        found("python hpo_trial.py", SPACE, tmp_path, trialCodeDirectory=str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_samples_hold_every_option_and_both_ends() -> None:
    space = {"a": choice(1, 2, 3), "b": {"_type": "randint", "_value": [2, 5]},
             "c": {"_type": "quniform", "_value": [0.5, 3.2, 1]}, "d": {"_type": "qloguniform", "_value": [1, 10, 5]},
             "e": {"_type": "lognormal", "_value": [0, 0.25]}, "f": {"_type": "randint", "_value": [2, 3]}}
    tried = list(samples(space))
    seen = {name: {sample[name] for sample in tried} for name in space}
    assert sorted(seen.pop("e")) == pytest.approx([0.36787944, 2.71828183])
    assert seen == {"a": {1, 2, 3}, "b": {2, 4}, "c": {0.5, 3.0}, "d": {1.0, 10.0}, "f": {2}}
    assert all(sample.keys() == space.keys() for sample in tried)


def test_the_name_of_the_variable_is_the_scripts() -> None:
    assert settings_check.SAMPLES == SAMPLES


def test_check_prints_a_line_each(tmp_path: Path) -> None:
    config = {"experimentName": "x", "searchSpace": {"lr": choice(0), "optimiser": choice("Adam")},
              "trialCommand": "python hpo_trial.py --epochs 0", "trialCodeDirectory": str(ROOT), "trialConcurrency": 1,
              "maxTrialNumber": 1, "tuner": {"name": "Random"}, "trainingService": {"platform": "local"}}
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done = subprocess.run([sys.executable, "experiment.py", "check", str(tmp_path / "config.yml")], cwd=ROOT,
                          env={**os.environ, "HOME": str(tmp_path), "COLUMNS": "120"}, capture_output=True,
                          encoding="utf-8", timeout=100)
    lines = [line.split(maxsplit=2)[2] for line in done.stdout.splitlines() if line.startswith("PROBLEM  settings")]
    assert done.returncode == 2 and sorted(lines) == [
        "epochs = 0: must be at least 1", "lr = 0.0: must be above 0",
        "optimiser: not a setting; did you mean optimizer?"], done.stdout
