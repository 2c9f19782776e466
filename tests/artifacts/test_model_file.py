"""model.pt: round trips of all families, no NNI to read it, and one line for whatever is no model file."""

import json
import pathlib
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch

import classic_nas_trial
import hpo_trial
import small_models
from artifacts.model_file import build_network, load_model, save_model
from conftest import ROOT
from models.darts.genotype_files import load_genotype
from models.darts.network import DartsNetwork
from models.mobilenet_space.space import BASELINE
from pictures import dataset
from pictures.augmentation import Normalization
from training.loop import evaluate

CPU = torch.device("cpu")
FACTS = {"stage": "retrain", "parameters": 7, "data": {"name": "digits", "checksum": "ab"}, "best": None,
         "last": {"epoch": 2, "val_accuracy": 0.5}, "commit": "unknown"}


@pytest.fixture
def pictures():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", ["darts", "classic_nas", "mobilenet"])
def test_what_is_loaded_is_what_was_saved(tmp_path, pictures, family):
    trained = small_models.write(tmp_path / "a.pt", family, FACTS)
    again = tmp_path / "sub" / "b.pt"
    save_model(again, trained.model, trained.network, trained.normalization, trained.classes, trained.facts)
    loaded = load_model(again, CPU)
    assert loaded.facts == FACTS and loaded.classes == small_models.CLASSES and loaded.network == trained.network
    assert not loaded.model.training
    assert torch.equal(loaded.model(pictures), trained.model(pictures))
    for part in ("mean", "std", "fill"):
        assert torch.equal(getattr(loaded.normalization, part), getattr(trained.normalization, part))
    kernels = [p for p in loaded.model.parameters() if p.ndim == 4 and min(p.shape) > 1]
    assert kernels and all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


def test_an_auxiliary_head_is_left_out(tmp_path, pictures):
    genotype = load_genotype("DARTS_V2")
    model = DartsNetwork(genotype, 3, 4, 10, 3, auxiliary=True).eval().to(memory_format=torch.channels_last)
    network = {"family": "darts", "genotype": genotype.to_json(), "channels": 4, "layers": 3, "stem_multiplier": 3}
    save_model(tmp_path / "m.pt", model, network, Normalization(torch.zeros(3), torch.ones(3)), list("0123456789"), {})
    loaded = load_model(tmp_path / "m.pt", CPU)
    assert torch.equal(loaded.model(pictures), model(pictures)) and loaded.model.auxiliary is None


def test_a_published_network_has_the_published_size():
    network = {"family": "darts", "genotype": load_genotype("DARTS_V2").to_json(), "channels": 36, "layers": 20,
               "stem_multiplier": 3}
    assert sum(p.numel() for p in build_network(network, 10).parameters()) == 3_349_342


def test_reading_takes_no_nni(tmp_path):
    """Of any family, in a fresh process."""
    code = "import sys, torch; from pathlib import Path; from artifacts.model_file import load_model\n" \
           "for path in sys.argv[1:]: load_model(Path(path), torch.device('cpu'))\n" \
           "print([name for name in sys.modules if name.split('.')[0] in ('nni', 'torchvision')])"
    files = [tmp_path / f"{family}.pt" for family in ("darts", "classic_nas", "mobilenet")]
    for file in files:
        small_models.write(file, file.stem)
    done = subprocess.run([sys.executable, "-c", code, *files], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("script", "argv", "network"), [
    (hpo_trial, ["--model", "shufflenetg2"], {"family": "zoo", "name": "shufflenetg2"}),
    (classic_nas_trial, ["--baseline", "--hpo-best", ""], {"family": "classic_nas", "architecture": BASELINE}),
])
def test_a_trial_leaves_its_model(call_trial, digits_dir, tmp_path, script, argv, network):
    """The validation accuracy that it reports is that of model.pt."""
    small = ["--data", "digits", "--train-size", "64", "--val-size", "40", "--batch-size", "32", "--epochs", "1",
             "--precision", "fp32", "--data-dir", str(digits_dir), "--runs-dir", str(tmp_path), "--name", "m"]
    assert call_trial(script.main, [*small, *argv])[0] == 0
    folder, pictures = next(tmp_path.glob("*/m")), dataset.load("digits", digits_dir)
    trained, result = load_model(folder / "model.pt", CPU), json.loads((folder / "result.json").read_text())
    loaders = dataset.training_batches(pictures, CPU, train_size=64, val_size=40, batch_size=32, crop_padding=4,
                                    flip="auto", cutout=8, seed=0)
    val = dataset.Batches(loaders.val.pixels, loaders.val.labels, loaders.val.index.numpy(), trained.normalization, 256)
    assert evaluate(trained.model, val.epoch(0), torch.float32)["accuracy"] == result["value"]
    assert trained.network == network and trained.classes == pictures.classes
    same = ("stage", "value", "parameters", "data", "commit", "last", "config")
    assert {key: trained.facts[key] for key in same} == {key: result[key] for key in same}


def changed(**changes):
    def change(path):
        content = torch.load(path, weights_only=True)
        torch.save(content | changes, path)
    return change


def without(key):
    def change(path):
        content = torch.load(path, weights_only=True)
        del content[key]
        torch.save(content, path)
    return change


def wider(path):
    content = torch.load(path, weights_only=True)
    torch.save(content | {"network": content["network"] | {"channels": 5}}, path)


@pytest.mark.parametrize(("damage", "words"), [
    (lambda path: path.unlink(), "no such file"),
    (lambda path: (path.unlink(), path.mkdir()), "a folder; a trained model is wanted"),
    (lambda path: path.write_bytes(b""), "not a whole model file"),
    (lambda path: path.write_text("hello\nworld"), r"not a model file \(it is a text file\)"),
    (lambda path: path.write_text("\n<!DOCTYPE html><html><title>Sign in"), r"not a model file \(it is a web page"),
    (lambda path: path.write_text("<html><title>404"), r"not a model file \(it is a web page"),
    (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid 0"), r"\(it is a Git LFS pointer"),
    (lambda path: zipfile.ZipFile(path, "w").writestr("a.txt", "words"), r"not a model file \(it is a zip archive\)"),
    (lambda path: path.write_bytes(b"\x08\x0a\x12\x07pytorch\0\1"), r"not a model file \(it is an ONNX file; predict"),
    (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), r"not a model file \(it is a picture\)"),
    (lambda path: path.write_bytes(pickle.dumps(pathlib.Path("x"))), "no zip archive, as torch.save writes them"),
    (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "not a whole model file"),
    (lambda path: torch.save(torch.nn.Linear(2, 2), path), "cannot be read as tensors and plain types"),  # but as code
    (lambda path: torch.save({"format": 1, "identity": {}, "history": []}, path), "a checkpoint"),
    (lambda path: torch.save({"weights": {}}, path), "something else"),
    (lambda path: torch.save([1, 2], path), "something else"),
    (changed(format=99), "format 99, this version reads 1"),
    (without("mean"), "mean is missing"),
    (changed(weights={}), "do not fit"),
    (changed(classes=["a", "b"]), "do not fit"),
    (changed(network={"family": "other"}), "must be one of zoo"),
    (changed(network={"family": "zoo", "name": "resnet19"}), "resnet19"),
    (changed(network={"family": "classic_nas", "architecture": {"layer1": "x"}}), "do not fit"),
    (wider, "do not fit"),
])
def test_what_is_no_model_file_is_refused_with_the_reason(tmp_path, damage, words):
    path = tmp_path / "model.pt"
    small_models.write(path)
    damage(path)
    with pytest.raises(ValueError, match=words) as error:
        load_model(path, CPU)
    assert "\n" not in str(error.value) and str(path) in str(error.value) and len(str(error.value)) < 500
    assert not any(word in str(error.value) for word in ("weights_only", "trust", "unsafe"))  # torch's advice


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    trained = small_models.write(path)
    before = path.read_bytes()

    def fail(content, file):
        file.write(b"half")
        raise RuntimeError("unexpected pos") from OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="cannot be written"):
        save_model(path, trained.model, trained.network, trained.normalization, trained.classes, {})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_how_pictures_are_read_is_in_the_facts(tmp_path):
    plain = small_models.write(tmp_path / "a.pt")
    assert plain.preprocess == {"side": 32, "fit": "stretch", "grey_range": None}
    assert plain.side == 32 and plain.mirrored
    facts = {"data": {"name": "x", "fit": "pad", "grey_range": {"integer": [0, 4095]}}, "config": {"flip": "off"}}
    known = small_models.write(tmp_path / "b.pt", facts=facts)
    assert known.preprocess == {"side": 32, "fit": "pad", "grey_range": {"integer": [0, 4095]}} and not known.mirrored
