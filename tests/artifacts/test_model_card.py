"""MODEL_CARD.md: every fact from where it is known, what is not known said so. Its loading code runs in test_export."""

import errno
import json
import os
import re

import pytest
import torch

import small_models
from artifacts.model_card import write_model_card
from pictures.known import DATASETS

RESULT = {
    "stage": "retrain", "value": 0.9, "diverged": False, "last": {"epoch": 7, "val_accuracy": 0.9125, "val_loss": 0.25},
    "best": {"epoch": 5, "val_accuracy": 0.925}, "test": {"accuracy": 0.8875}, "commit": "abc123", "hardware": "A | B",
    "data": {"name": "cifar10", "checksum": "c0ffee", "classes": 5, "train_images": 45000, "val_images": 5000},
    "config": {"optimizer": "SGD", "lr": 0.025, "epochs": 7, "seed": 3, "runs_dir": "runs"}, "wall_seconds": 12.5,
    "versions": {"python": "3.12.1", "torch": "2.11.0"}, "finished": "2026-01-02T03:04:05+0000"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a run, with what looks like exports."""
    folder = tmp_path_factory.mktemp("run")
    trained = small_models.write(folder / "model.pt")
    (folder / "result.json").write_text(json.dumps(RESULT))
    for name in ("checkpoint.pt", "net.onnx", "net.pt2"):
        (folder / name).touch()
    write_model_card(folder, trained)
    return folder


def loaded(folder):
    return small_models.load_model(folder / "model.pt", torch.device("cpu"))


def rows(folder):
    return dict(re.findall(r"^\| (.+?) \| (.+) \|$", (folder / "MODEL_CARD.md").read_text(), re.MULTILINE))


def test_facts_come_from_the_result(folder):
    found = rows(folder)
    assert found["data set"] == "cifar10" and found["checksum (sha256 of all pixels and labels)"] == "c0ffee"
    assert found["classes"] == "ant, bee, cat, dog, eel" and found["training pictures"] == "45,000"
    assert found["parameters"] == f"{sum(p.numel() for p in loaded(folder).model.parameters()):,}"
    assert [found[key] for key in ("optimizer", "lr", "epochs", "seed")] == ["SGD", "0.025", "7", "3"]
    assert found["last epoch"] == "7" and found["validation loss, last epoch"] == "0.25"
    assert found["validation accuracy, last epoch"] == "91.25% (4,562 of 5,000 pictures, 95% interval 90.4 to 92.0)"
    assert found["validation accuracy, best epoch"].startswith("92.50% (4,625 of 5,000")
    assert (found["best epoch"], found["test accuracy"], found["training time"]) == ("5", "88.8%", "12 s")
    assert found["commit"] == "abc123" and found["hardware"] == r"A \| B" and "runs_dir" not in found
    assert DATASETS["cifar10"].licence in (folder / "MODEL_CARD.md").read_text()


def test_every_model_file_has_its_code_and_a_checkpoint_none(folder):
    blocks = re.findall(r"```python\n(.*?)```", (folder / "MODEL_CARD.md").read_text(), re.DOTALL)
    assert [re.search(r'"(\w+\.(pt|onnx|pt2))"', block)[1] for block in blocks] == ["model.pt", "net.onnx", "net.pt2"]


def test_what_an_earlier_card_knows_is_kept(tmp_path):
    """Of a model file of before, which does not hold all, and which was taken from its result.json."""
    later = ("finished", "versions", "hardware", "wall_seconds")
    facts = {key: value for key, value in RESULT.items() if key not in later}
    trained = small_models.write(tmp_path / "model.pt", facts=facts)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/result.json").write_text(json.dumps(RESULT))
    write_model_card(tmp_path, trained, tmp_path / "run")
    before = rows(tmp_path)
    assert before["trained"] == RESULT["finished"]
    write_model_card(tmp_path, trained)
    assert rows(tmp_path) == before
    write_model_card(tmp_path, small_models.write(tmp_path / "model.pt", facts=facts | {"commit": "other"}))
    assert rows(tmp_path)["trained"] == "not known", "a card of another training"


def test_what_is_not_known_is_said_so(folder, tmp_path):
    write_model_card(tmp_path, loaded(folder))
    found = rows(tmp_path)
    for key in ("data set", "checksum (sha256 of all pixels and labels)", "settings", "test accuracy", "commit"):
        assert found[key] == "not known", key
    text = (tmp_path / "MODEL_CARD.md").read_text()
    assert "Licence of the data set: not known" in text and "None" not in text and "no model file" in text


@pytest.mark.parametrize(("name", "words"), [("digits", "CC BY 4.0"), ("my/pictures", "the user's to know"),
                                             ("cifar10", "state no licence")])
def test_licence_note(folder, tmp_path, name, words):
    (tmp_path / "result.json").write_text(json.dumps({"data": {"name": name}}))
    write_model_card(tmp_path, loaded(folder))
    text = (tmp_path / "MODEL_CARD.md").read_text()
    assert words in text and "my/" not in text  # where the data set lay is nobody's business


def test_facts_in_the_model_file_do_without_a_result(tmp_path):
    trained = small_models.write(tmp_path / "model.pt", facts=RESULT)
    write_model_card(tmp_path, trained)
    assert rows(tmp_path)["test accuracy"] == "88.8%" and rows(tmp_path)["seed"] == "3"


def test_an_accuracy_is_told_with_what_it_is_worth(tmp_path):
    """The number of pictures, the interval, and why it may say too much; an epoch that is last and best comes once."""
    test = {"accuracy": 0.8125, "images": 32, "loss": 1.16054, "several_views_accuracy": 0.71875,
            "balanced_accuracy": 0.8125, "class_accuracy": {"ant": 4 / 9, "bee": 1.0}}
    data = {"name": "camera", "train_images": 116, "val_images": 12, "side": 128, "fit": "pad", "subfolders": 12}
    facts = {**RESULT, "test": test, "best": RESULT["last"], "data": data}
    write_model_card(tmp_path, small_models.write(tmp_path / "model.pt", facts=facts))
    found, text = rows(tmp_path), (tmp_path / "MODEL_CARD.md").read_text()
    assert found["test accuracy"] == "81.2% (26 of 32 pictures, 95% interval 65 to 91)"
    assert found["test accuracy by several views"] == "71.9%" and found["test loss"] == "1.161"
    assert found["test accuracy of each class"] == "ant 44.4%, bee 100.0%" and found["test pictures"] == "32"
    assert found["brought to"] == "128x128 pixels, keeping its proportions, with grey beside it"
    assert "best epoch |" not in text and "{'" not in text and "diverged" not in found
    caution = "12 folders within classes: their pictures are split at random"
    before, _, after = text.partition("## Figures")
    assert f"\n- {caution}" in before and f"**Caution:** {caution}" in after


def test_a_full_disk_leaves_the_old_card(folder, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "MODEL_CARD.md").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_model_card(tmp_path, loaded(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["MODEL_CARD.md"]
    assert (tmp_path / "MODEL_CARD.md").read_text() == "old"


def test_how_pictures_are_read(folder, tmp_path):
    trained = loaded(folder)
    write_model_card(tmp_path, trained)
    assert "brought to 32x32 pixels, not keeping its proportions;" in (tmp_path / "MODEL_CARD.md").read_text()
    facts = {"data": {"fit": "pad", "grey_range": {"float": [0, 1], "integer": [0, 4095]}}}
    write_model_card(tmp_path, trained._replace(facts=facts))
    text = (tmp_path / "MODEL_CARD.md").read_text()
    assert "brought to 32x32 pixels, keeping its proportions, with grey beside it;" in text
    assert "- 16-bit grey: values 0 to 4095 in this data set, shown as 0 to 255; values beyond are cut off.\n" in text
    assert "- floating grey: values 0 to 1 in this data set" in text


def test_a_table_of_pictures_and_what_is_told_of_it(folder, tmp_path):
    """Without the folders above it; names of single files are no part of a card."""
    data = {"name": "/home/me/birds/labels.csv", "notes": ["read as Windows-1252", "not used: 'a', 'b'"],
            "duplicates": 1, "duplicates_files": [["a.jpg", "b.jpg"]]}
    facts = {"data": data, "config": {"crop_padding": 4, "cutout": 8}}
    write_model_card(tmp_path, loaded(folder)._replace(facts=facts))
    found = rows(tmp_path)
    assert found["data set"] == "birds/labels.csv" and "a.jpg" not in (tmp_path / "MODEL_CARD.md").read_text()
    assert "\n- read as Windows-1252\n- not used: 'a', 'b'\n" in (tmp_path / "MODEL_CARD.md").read_text()
    assert found["crop_padding, in 32nds of the picture's side"] == "4"
    assert found["cutout, in 32nds of the picture's side"] == "8" and "/home" not in str(found)
