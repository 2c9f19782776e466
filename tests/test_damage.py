"""Damage of files (flipped bits, zeroed blocks, cut tails) is never loaded in silence: refused by name, or mended and
told. Some tens of mutations a kind of file; `make harden` runs hundreds."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import small_models
import tiny_pictures
from artifacts.model_file import load_model
from artifacts.onnx_file import SEALED, load_onnx, sealed
from config import HpoConfig, merge
from files import digest, read_json
from models.darts.genotype import Genotype
from models.darts.genotype_files import load_genotype
from mutations import outcomes
from pictures import dataset
from pictures.cache import DIGESTS
from reporting.findings import find
from training.best import of_stage1
from training.checkpoints import before, load_checkpoint, save_checkpoint

CPU = torch.device("cpu")
IDENTITY = {"lr": 0.1, "model": "toy"}
HISTORY = [{"epoch": 1, "train_loss": 0.5, "val_accuracy": 0.25}, {"epoch": 2, "train_loss": 0.25, "val_accuracy": 0.5}]
COUNTS = [30, pytest.param(250, marks=pytest.mark.harden)]
many = pytest.mark.parametrize("count", COUNTS)


# ---- models and checkpoints


@many
def test_a_damaged_model_is_refused(tmp_path, count):
    file = tmp_path / "model.pt"
    small_models.write(file, facts={"value": 0.5})

    def read():
        found = load_model(file, CPU)
        return found.model.state_dict(), found.network, found.normalization.mean, found.classes, found.facts

    found = outcomes(file, read, count)
    assert found["refused"] > count / 2 and found["mended"] == 0, found


def state(seed):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Linear(64, 64))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    model[2](torch.ones(64)).sum().backward()
    optimizer.step()
    return {"model": model, "optimizer": optimizer}


@many
def test_a_damaged_checkpoint_without_one_before_is_refused(tmp_path, count):
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, state(0), IDENTITY, HISTORY)
    found = outcomes(file, lambda: load_checkpoint(file, IDENTITY, CPU), count)
    assert found["refused"] > count / 2 and found["mended"] == 0, found


@many
def test_of_a_damaged_checkpoint_the_one_before_goes_on(tmp_path, capsys, count):
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, state(0), IDENTITY, HISTORY[:1])
    save_checkpoint(file, state(1), IDENTITY, HISTORY)
    older = load_checkpoint(before(file), IDENTITY, CPU)["model"]

    def read():
        saved = load_checkpoint(file, IDENTITY, CPU)
        if len(saved["history"]) == 1:  # the one before it: whole, and told
            assert all(torch.equal(saved["model"][name], older[name]) for name in older)
            saved = newest
        return saved

    newest = load_checkpoint(file, IDENTITY, CPU)
    found = outcomes(file, read, count)
    assert found["mended"] > count / 2 and found["refused"] == 0, found


def test_resume_says_which_checkpoint_it_goes_on_from(tmp_path, capsys):
    file = tmp_path / "checkpoint.pt"
    for epochs in (1, 2):
        save_checkpoint(file, state(epochs), IDENTITY, HISTORY[:epochs])
    whole = file.read_bytes()
    file.write_bytes(flipped(whole))
    assert len(load_checkpoint(file, IDENTITY, CPU)["history"]) == 1
    told = capsys.readouterr().out
    assert told.startswith(f"{file}: not a whole checkpoint (damaged: ") and told.endswith(
        "; going on from the one before it, of 1 whole epochs\n")
    before(file).write_bytes(flipped(before(file).read_bytes()))
    with pytest.raises(ValueError, match=r"nor is the one before it, checkpoint.pt.before \(damaged: .*delete both"):
        load_checkpoint(file, IDENTITY, CPU)


def flipped(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]


def test_a_damaged_checkpoint_does_not_take_the_place_of_the_one_before(tmp_path):
    file = tmp_path / "checkpoint.pt"
    for epochs in (1, 2):
        save_checkpoint(file, state(epochs), IDENTITY, HISTORY[:epochs])
    file.write_bytes(flipped(file.read_bytes()))
    save_checkpoint(file, state(3), IDENTITY, HISTORY)
    assert len(load_checkpoint(before(file), IDENTITY, CPU)["history"]) == 1


def test_the_one_before_is_kept_where_a_disk_has_no_second_names(tmp_path, monkeypatch):
    def refused(*names):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refused)
    for epochs in (1, 2):
        save_checkpoint(tmp_path / "c.pt", state(epochs), IDENTITY, HISTORY[:epochs])
    assert len(load_checkpoint(before(tmp_path / "c.pt"), IDENTITY, CPU)["history"]) == 1


# ---- the cache


@many
@pytest.mark.parametrize("name", ["train_images.npy", "train_labels.npy", "train_moments.npy", "test_images.npy",
                                  "test_labels.npy", "meta.json", "paths.json", DIGESTS])
def test_a_damaged_cache_is_packed_anew_and_told(tmp_path, name, count):
    folder = tiny_pictures.write(tmp_path / "set")

    def load():
        found = dataset.load(str(folder), tmp_path)
        arrays = {key: np.array(getattr(found, key)) for key in (
            "train_images", "train_labels", "train_moments", "test_images", "test_labels")}
        return arrays, found.checksum, found.classes, found.test_size, found.given_val, found.counts, [
            found.paths(split) for split in ("train", "test")]

    load()
    [cache] = (path.parent for path in tmp_path.glob("cache/*/meta.json"))
    count = max(count // 8, 6)
    found = outcomes(cache / name, load, count)
    assert found["refused"] == 0 and found["mended"] > count / 2, found


def test_a_cache_that_is_packed_anew_names_what_is_damaged(tmp_path, capsys):
    folder = tiny_pictures.write(tmp_path / "set")
    file = dataset.load(str(folder), tmp_path).folder / "test_labels.npy"
    before = file.stat()
    file.write_bytes(flipped(file.read_bytes()))
    dataset.load(str(folder), tmp_path)
    told = capsys.readouterr().out
    assert f"{file.parent}: damaged (test_labels.npy), packing the data set again" in told
    assert digest(file) == read_json(file.parent / DIGESTS)["test_labels.npy"] and file.stat().st_size == before.st_size


# ---- exports


def onnx_model() -> bytes:
    """As artifacts.export makes it, in small."""
    weights = np.random.default_rng(0).normal(size=(3 * 8 * 8, 5)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["pictures"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])],
        "network", [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5])], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, doc_string=SEALED)
    for key, value in {"classes": list("abcde"), "preprocess": {"side": 8}, "mirrored": False}.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    return model.SerializeToString()


def load_exported(file):
    found = load_onnx(file)
    return found.classes, found.preprocess, found.mirrored, found.logits(np.ones((2, 3, 8, 8), np.float32))


@many
def test_a_damaged_export_is_refused(tmp_path, count):
    file = tmp_path / "model.onnx"
    file.write_bytes(sealed(onnx_model()))
    found = outcomes(file, lambda: load_exported(file), count)
    assert found["refused"] == count, found


def test_the_digest_is_metadata_that_others_can_read(tmp_path):
    """JSON, as the other entries are: the code in the model card reads all of them so."""
    model = onnx.load_from_string(sealed(onnx_model()))
    assert len(json.loads(model.metadata_props[-1].value)) == 64 and model.metadata_props[-1].key == "sha256"


def test_an_export_of_before_is_read_with_a_note(tmp_path, capsys):
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx_model().replace(SEALED.encode(), SEALED.upper().encode()))
    load_exported(file)
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "without a digest" in told and str(file) in told


# ---- JSON, which people edit: no digest, but one line


@many
def test_a_damaged_genotype_is_one_line_or_another_genotype(tmp_path, count):
    file = tmp_path / "genotype.json"
    file.write_text(json.dumps(small_models.GENOTYPE, indent=2))
    found = outcomes(file, lambda: load_genotype(str(file)), count,
                     checked=lambda value: isinstance(Genotype(*value), Genotype))
    assert found["refused"] > count / 3, found


@many
def test_a_damaged_best_trial_is_one_line_or_another_value_that_is_allowed(tmp_path, count):
    file = tmp_path / "best.json"
    file.write_text(json.dumps({"schema": 1, "experiment": "abcd", "parameters": {
        "model": "resnet18", "optimizer": "Adam", "lr": 0.0125}, "value": 0.5}, indent=2))

    def read():
        try:
            return merge(HpoConfig, of_stage1(str(file), ("model", "optimizer", "lr")))
        except ValueError as error:
            raise ValueError(f"{file.name}: {error}") from None  # a setting is named by its key

    found = outcomes(file, lambda: vars(read()), count, checked=lambda value: isinstance(value["lr"], float))
    assert found["refused"] > count / 3, found


@many
@pytest.mark.parametrize("name", ["result.json", "metrics.jsonl", "config.json"])
def test_damaged_records_are_a_problem_or_of_the_same_types(tmp_path, name, count):
    folder = tmp_path / "retrain" / "a"
    folder.mkdir(parents=True)
    result = {"schema": 1, "stage": "retrain", "value": 0.5, "config": {"lr": 0.1}, "last": {"epoch": 2},
              "data": {"name": "toy", "checksum": "a" * 64}, "versions": {"torch": "2.11"}, "test": {"accuracy": 0.75}}
    (folder / "result.json").write_text(json.dumps(result, indent=2))
    (folder / "config.json").write_text(json.dumps({"data": "toy", "epochs": 2, "seed": 7}, indent=2))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in HISTORY))

    def read():
        found = find(tmp_path)
        if found.problems:
            raise ValueError(f"{name}: {' '.join(found.problems)}")
        return [vars(run) for group in found.groups.values() for run in group.runs]

    found = outcomes(folder / name, read, count, checked=lambda runs: all(
        isinstance(record["epoch"], int) and record["epoch"] == number
        for run in runs for number, record in enumerate(run["metrics"], 1)))
    assert found["refused"] > count / 3, found


def test_no_file_of_this_folder_is_read_in_another_way():
    """torch.load and np.load stand where the digests are compared, and nowhere else."""
    root = Path(__file__).resolve().parent.parent
    rooms = ("artifacts", "config", "guard", "journey", "models", "nas", "pictures", "reporting", "training")
    files = [*root.glob("*.py"), *(file for room in rooms for file in (root / room).glob("**/*.py"))]
    places = {file.relative_to(root).as_posix() for file in files
              if any(word in file.read_text() for word in ("torch.load(", "np.load("))}
    assert places == {"artifacts/tensor_file.py", "pictures/cache.py"}


# ---- which pictures are the test set, which is chosen once


@pytest.mark.parametrize("content", ['{"train": ["cat/0.png"], "tes', "[]", '{"train": 1, "test": []}', "{}"])
def test_a_damaged_list_of_the_test_set_is_not_forgotten_in_silence(tmp_path, content):
    """A new choice would test a network on pictures that it was trained on."""
    folder = tiny_pictures.write(tmp_path / "set") / "train"
    dataset.load(str(folder), tmp_path)
    [file] = tmp_path.glob("test_sets/*.json")
    file.write_text(content)
    with pytest.raises(ValueError, match="keeps which pictures are the test set: delete it") as error:
        dataset.load(str(folder), tmp_path)
    assert str(error.value).startswith(f"{file}: ") and str(error.value).count(str(file)) == 1
