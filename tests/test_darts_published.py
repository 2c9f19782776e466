"""darts_search.py --preset published: the search of the paper, and what judges it without validation images."""

import json

import nni
import numpy as np
import pytest
import torch

import darts_search
from config import DartsSearchConfig, identity
from models.darts.genotype_files import load_genotype
from pictures.dataset import load
from reporting import darts_drawing
from training import search as engine
from training.search import JUDGES, judged, search_batches

TINY = ["--data", "digits", "--channels", "4", "--layers", "3", "--train-size", "40", "--batch-size", "10",
        "--epochs", "2"]
PUBLISHED = {  # Liu et al., 2019, arXiv:1806.09055, section A.1.1
    "order": 1, "epochs": 50, "batch_size": 64, "channels": 16, "layers": 8, "partial_channels": 1,
    "optimizer": "SGD", "lr": 0.025, "momentum": 0.9, "weight_decay": 3e-4, "warmup": 0.0, "clip": 5.0,
    "alpha_lr": 3e-4, "alpha_weight_decay": 1e-3, "beta_decay": 0.0, "label_smoothing": 0.0, "cutout": 0,
    "crop_padding": 4, "flip": "auto", "train_size": 0, "frozen": 0.0, "max_skips": 8, "val_size": -1}


@pytest.fixture
def search(tmp_path, monkeypatch, digits_dir):
    monkeypatch.chdir(tmp_path)
    for slow in ("draw_cells", "plot_alphas"):  # test_darts_search.py has them
        monkeypatch.setattr(darts_drawing, slow, lambda *_: None)

    def run(*argv, name="x"):
        code = darts_search.main([*TINY, "--data-dir", str(digits_dir), "--name", name, *argv])
        return code, tmp_path / "runs" / "darts_search" / name

    return run


def records_of(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def result_of(path):
    return json.loads((path / "result.json").read_text())


# ---- settings


def test_the_published_settings():
    config = darts_search.settings({"preset": "published"}, {})
    assert {key: getattr(config, key) for key in PUBLISHED} == PUBLISHED
    usual = darts_search.settings({}, {})
    assert usual == DartsSearchConfig()
    assert {key for key in vars(usual) if getattr(usual, key) != getattr(config, key)} == {
        "preset", "frozen", "max_skips", "val_size"}
    assert darts_search.default_name(config) == "published-order1-c16-l8-seed0"


def test_what_is_given_beside_a_preset_wins():
    given = {"preset": "published", "max_skips": 2, "epochs": 3, "val_size": 500}
    config = darts_search.settings(given, {})
    assert (config.max_skips, config.epochs, config.val_size, config.frozen) == (2, 3, 500, 0.0)
    assert darts_search.settings(given, {"max_skips": 5, "frozen": 0.1}).max_skips == 5
    assert darts_search.settings({"val_size": 0}, {"preset": "published"}).val_size == 0
    assert darts_search.settings({}, {"preset": "published"}).val_size == -1


def test_what_is_computed_counts_and_not_its_name():
    config = darts_search.settings({"preset": "published", "format": "quark0"}, {})
    spelled = darts_search.settings({"frozen": 0.0, "max_skips": 8, "val_size": -1}, {})
    assert identity(config) == identity(spelled) and not identity(config).keys() & {"preset", "format"}


@pytest.mark.parametrize(("argv", "says"), [
    (["--preset", "standard"], "preset = 'standard': must be one of published"),
    (["--format", "xml"], "format = 'xml': must be one of json, quark0"),
    (["--val-size", "-2"], "val_size = -2: must be at least -1"),
    (["--preset", "published", "--batch-size", "21"], "batch_size = 21: must be at most 20, half of the training"),
], ids=lambda value: value[-2] if isinstance(value, list) else "")
def test_bad_input(search, capsys, argv, says):
    code, path = search(*argv)
    assert code == 2 and says in capsys.readouterr().err
    assert not path.exists()


# ---- a search without validation images


def test_both_halves_of_all_training_images(digits_dir):
    pictures = load("digits", digits_dir)
    config = darts_search.settings({"preset": "published", "data": "digits"}, {})
    halves = search_batches(config, pictures, torch.device("cpu"))
    half, seen = len(pictures.train_labels) // 2, [each.index.tolist() for each in (halves.weights, halves.alphas)]
    assert halves.val is None and [len(each) for each in seen] == [half] * 2 and len({*seen[0], *seen[1]}) == 2 * half


def test_the_half_of_the_alphas_judges_it(search, capsys):
    code, path = search("--preset", "published")
    records, result = records_of(path), result_of(path)
    assert code == 0 and not any(key.startswith("val_") for record in records for key in record)
    assert all("alpha_loss" in record for record in records), "they never wait"
    assert result["value"] == result["last"]["alpha_accuracy"] == records[1]["alpha_accuracy"]
    assert result["metric"] == ("accuracy of the supernet on the alphas' half of the training images, over the last "
                                "epoch")
    assert (result["config"]["val_size"], result["config"]["preset"]) == (-1, "published")
    assert f"alphas' half {records[1]['alpha_accuracy']:.2%}" in capsys.readouterr().out
    assert load_genotype(str(path / "genotype.json")).to_json() == result["genotype"]


def test_validation_that_is_asked_for_judges_it(search):
    code, path = search("--preset", "published", "--val-size", "20")
    result = result_of(path)
    assert code == 0 and result["value"] == result["last"]["val_accuracy"]
    assert result["metric"] == "validation accuracy of the supernet after the last epoch"


def test_while_the_alphas_wait_the_other_half_judges(search, capsys):
    code, path = search("--val-size", "-1", "--frozen", "0.9")
    records, result = records_of(path), result_of(path)
    assert code == 0 and "alpha_accuracy" not in records[1] and result["value"] == records[1]["train_accuracy"]
    assert "on the weights' half of the training images" in result["metric"]
    assert "weights' half" in capsys.readouterr().out


def test_what_judges():
    record = {"train_accuracy": 0.1, "alpha_accuracy": 0.2, "val_accuracy": 0.3}
    found = []
    for key in JUDGES:
        found.append(judged(record))
        del record[key]
    assert found == [("validation", 0.3), ("alphas' half", 0.2), ("weights' half", 0.1)]


def test_stopped_and_resumed_is_the_same_whatever_names_the_settings(search, monkeypatch):
    _, whole = search("--preset", "published", name="whole")
    kept = darts_search.keep

    def stop(*args):
        kept(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(darts_search, "keep", stop)
        search("--preset", "published", "--checkpoint-minutes", "1e-9", name="stopped")
    code, resumed = search("--frozen", "0", "--max-skips", "8", "--val-size", "-1", "--resume", name="stopped")
    assert code == 0 and result_of(resumed)["value"] == result_of(whole)["value"]
    assert result_of(resumed)["genotype"] == result_of(whole)["genotype"]


def test_as_a_trial_of_nni(search, monkeypatch, tmp_path):
    reports, drawn = {"epochs": [], "final": []}, []
    monkeypatch.setattr(nni, "get_next_parameter", lambda: {"preset": "published"})
    monkeypatch.setenv("NNI_PLATFORM", "local")
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path / "trial"))
    monkeypatch.setattr(nni, "report_intermediate_result", reports["epochs"].append)
    monkeypatch.setattr(nni, "report_final_result", reports["final"].append)
    batches = engine.training_batches
    monkeypatch.setattr(engine, "training_batches", lambda *args, **kw: drawn.append(batches(*args, **kw)) or drawn[-1])
    code, _ = search("--choice-epochs", "1", "--choice-channels", "4", "--choice-layers", "3")
    result = result_of(tmp_path / "trial")
    assert code == 0 and reports["final"] == [{"default": result["value"], "run.preset": "published"}]
    assert reports["epochs"] == [record["alpha_accuracy"] for record in records_of(tmp_path / "trial")]
    assert result["metric"] == ("validation accuracy of a complete training after the last epoch, on images that the "
                                "search has seen")
    of_search, of_choice = drawn
    assert len(of_choice.train.index) == 30 and len(of_choice.val.index) == 10  # one of each class at least
    both = np.concatenate([of_choice.train.index, of_choice.val.index])
    assert sorted(both) == sorted(of_search.train.index.numpy()), "the very images of the search"


# ---- the genotype as other code has it


@pytest.mark.parametrize("seeds", ["1", "2"])
def test_the_genotype_in_the_format_of_others(search, seeds):
    code, path = search("--epochs", "1", "--format", "quark0", "--seeds", seeds, "--choice-epochs", "0")
    assert code == 0
    for folder in [path, *path.glob("seed*")]:
        text = (folder / "genotype.py").read_text()
        assert text.startswith("Genotype(normal=[(")
        assert load_genotype(str(folder / "genotype.py")) == load_genotype(text) == load_genotype(
            str(folder / "genotype.json"))


def test_without_being_asked_there_is_none(search):
    _, path = search("--epochs", "1")
    assert (path / "genotype.json").exists() and not (path / "genotype.py").exists()


# ---- another space


def test_a_checkpoint_of_other_operations_is_refused_in_one_line(search, capsys):
    _, path = search("--epochs", "1")
    saved = torch.load(path / "checkpoint.pt", weights_only=True)
    saved["model"]["alpha_normal"] = torch.zeros(14, 9)
    torch.save(saved, path / "checkpoint.pt")
    capsys.readouterr()
    code, _ = search("--epochs", "1", "--resume")
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1
    assert f"{path.name}/checkpoint.pt: its search was over other operations than none, max_pool_3x3" in error
