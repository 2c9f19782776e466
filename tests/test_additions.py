"""What CONTRIBUTING.md promises: one of each is added here as it says there, by one entry or none.

An operation of the DARTS space: models/darts/test_other_space.py.
"""

import json

import numpy as np
import pytest
import torch
from torch import nn

import hpo_trial
import predict
import retrain
from conftest import ROOT
from guard.experiment_file import load_config
from guard.preflight import check
from models import MODELS, build_model
from nas.tuner import EvolutionTuner
from pictures.known import DATASETS, Known

SMALL = ["--train-size", "40", "--val-size", "20", "--batch-size", "20", "--epochs", "1"]


def test_a_ninth_network(monkeypatch, tmp_path, digits_dir, call_trial):
    """An entry in MODELS: trained, tuned, retrained, kept as a file, used."""
    monkeypatch.setitem(MODELS, "linear", lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, classes)))
    monkeypatch.chdir(tmp_path)
    where = ["--data", "digits", "--data-dir", str(digits_dir), "--name", "x"]
    code, told = call_trial(hpo_trial.main, [*where, *SMALL], {"model": "linear", "lr": 0.01, "optimizer": "Adam"})
    assert code == 0 and told["final"][0]["run.model"] == "linear"
    monkeypatch.delenv("NNI_PLATFORM")
    assert retrain.main([*where, "--model", "linear", "--epochs", "1", "--train-size", "40", "--batch-size", "20"]) == 0
    assert build_model("linear", 5)(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    picture = str(ROOT / "docs/classic_nas_best.png")
    assert predict.main(["--model", "runs/retrain/x/model.pt", "--images", picture, "--out", "found.tsv"]) == 0


def test_a_data_set(monkeypatch, tmp_path, call_trial):
    """An entry in DATASETS: read, packed, trained on."""
    def stripes(data_dir):
        labels = np.arange(80) % 2
        images = np.zeros((80, 32, 32, 4), np.uint8)
        images[labels == 1, ::2, :, :3] = 255
        return ["plain", "striped"], (images[:60], labels[:60]), (images[60:], labels[60:])

    monkeypatch.setitem(DATASETS, "stripes", Known(stripes, images=60, classes=2, licence="made here"))
    monkeypatch.chdir(tmp_path)
    code, _ = call_trial(hpo_trial.main, ["--data", "stripes", "--model", "shufflenetg2", "--name", "x", *SMALL])
    result = json.loads((tmp_path / "runs/hpo/x/result.json").read_text())
    assert code == 0 and result["data"]["name"] == "stripes" and result["data"]["classes"] == 2


def shortest(sample):
    """A score: the fewer letters, the better."""
    return -len("".join(sample.values()))


def test_a_score(monkeypatch):
    """No entry: a function is named in the experiment's file."""
    tuner = EvolutionTuner(score="test_additions.shortest", candidates=5, seed=0)
    tuner.update_search_space({"x": {"_type": "choice", "_value": ["a", "bb"]},
                               "y": {"_type": "choice", "_value": ["c", "dd"]}})
    assert tuner.generate_parameters(0) == {"x": "a", "y": "c"}


TUNER = """
from nni.tuner import Tuner

class First(Tuner):
    def update_search_space(self, space):
        self.space = space

    def generate_parameters(self, parameter_id, **kwargs):
        return {name: spec["_value"][0] for name, spec in self.space.items()}
"""


@pytest.mark.parametrize(("name", "problem"), [("First", False), ("Frist", True)])
def test_a_tuner(name, problem, tmp_path):
    """No entry: a class is named in the experiment's file, and looked at before the start."""
    (tmp_path / "own.py").write_text(TUNER)
    spec = {"codeDirectory": str(tmp_path), "className": f"own.{name}"}
    config = load_config(ROOT / "config_hpo.yml", {"tuner": json.dumps(spec)})
    [found] = [finding for finding in check(config, 18099) if finding.name == "tuner"]
    assert bool(found.problem) == problem
