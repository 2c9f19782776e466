"""The file of an experiment: what is no such file, overrides, paths."""

import shutil
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from guard.experiment_file import load_config


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a shipped experiment's file; the folder is HOME, too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(ROOT / "config_hpo.yml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "missing.yml cannot be read No such file"),
        ("a: [1\nb: 2\n", "line 2 not valid YAML"),
        ("- 1\n", "the file keys and values"),
        ("", "the file None keys and values"),
        ("trainingService: {platform: locl}\n", "trainingService.platform 'locl' local, remote"),
        ("trainingService: {platform: kubeflow}\n", "'kubeflow' local, remote"),
        ("maxTrialNumber: 3\n", "trainingService.platform None local, remote"),
        ("maxtrialnum: 3\ntrainingService: {platform: local}\n", "'maxtrialnum' 'maxTrialNumber'"),
        ("tuner: {nam: TPE}\ntrainingService: {platform: local}\n", "'tuner.nam' 'name'"),
        ("tuner: TPE\ntrainingService: {platform: local}\n", "tuner 'TPE' keys and values"),
        (
            "trainingService: {platform: local, useActiveGpus: true}\n",
            "'trainingService.useActiveGpus' 'useActiveGpu'",
        ),
        (
            "trainingService: {platform: remote, machineList: [{hots: a}]}\n",
            "'trainingService.machineList.hots' 'host'",
        ),
        ("experimentType: nas\ntrainingService: {platform: local}\n", "experimentType hpo"),
    ],
)
def test_file_that_is_no_experiment(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "missing.yml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError) as error:
        load_config(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not [word for word in words.split() if word not in str(error.value)], str(error.value)


def test_overrides(folder: Path) -> None:
    changes = {
        "tuner.classArgs.seed": "7",
        "tuner.class_args.optimize_mode": "minimize",
        "assessor": "null",
        "max_trial_number": "5",
        "trainingService": "{platform: local, debug: true}",
    }
    config = load_config(folder / "config_hpo.yml", changes)
    assert config["tuner"] == {"name": "TPE", "classArgs": {"optimize_mode": "minimize", "seed": 7}}
    assert (
        config["assessor"] is None
        and config["maxTrialNumber"] == 5
        and config["trainingService"]["debug"] is True
    )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("maxTrialNumbr", "3", "--set maxTrialNumbr 'maxTrialNumber'"),
        ("tuner.nme", "TPE", "--set tuner.nme 'name'"),
        ("trialCommand.x", "1", "--set trialCommand.x=1 no keys"),
        ("maxTrialNumber", "[1", "--set maxTrialNumber=[1 not valid YAML"),
        ("trainingService.platform", "locl", "--set 'locl' local, remote"),
    ],
)
def test_bad_override(folder: Path, key: str, value: str, words: str) -> None:
    with pytest.raises(ValueError) as error:
        load_config(folder / "config_hpo.yml", {key: value})
    assert not [word for word in words.split() if word not in str(error.value)], str(error.value)


def test_paths_become_absolute_beside_the_file(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir("/")
    overrides = {
        "tuner": "{className: my_tuner.MyTuner, classArgs: {seed: 1}}",
        "experimentWorkingDirectory": "~/x",
    }
    config = load_config(folder / "config_hpo.yml", overrides)
    assert config["trialCodeDirectory"] == config["tuner"]["codeDirectory"] == str(folder)
    assert config["searchSpaceFile"] == str(folder / "search_space.json")
    assert config["experimentWorkingDirectory"] == str(folder / "x")
    del config["trialCodeDirectory"]
    (folder / "bare.yml").write_text(yaml.safe_dump(config))
    assert load_config(folder / "bare.yml")["trialCodeDirectory"] == str(
        folder
    )  # NNI's default, made explicit


@pytest.mark.parametrize("path", sorted(ROOT.glob("config_*.yml")), ids=lambda path: path.name)
def test_every_yaml_passes_nni(path: Path) -> None:
    from nni.experiment.config import ExperimentConfig

    ExperimentConfig.load(path).validate()
    ExperimentConfig(**load_config(path)).validate()
