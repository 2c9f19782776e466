"""What predict.py tells of many predictions."""

import re

import torch

import hpo_trial
import predict
import small_models
from own_pictures import make_classes
from pictures import dataset
from pictures.decoding import decode
from pictures.duplicates import digests
from pictures.named import Named
from reporting.predictions import Tally


def test_many_classes_give_the_most_confused_pairs():
    classes = [f"kind{i:03}" for i in range(300)]
    tally = Tally(Named([]).names, classes)
    for number, name in enumerate(classes):
        tally.add([f"root/{name}/{i}.png" for i in range(5)], [name] * 5, [""] * 5)
        wrong = 40 if number == 7 else number % 3
        tally.add([f"root/{name}/x{i}.png" for i in range(wrong)], ["kind009"] * wrong, [""] * wrong)
    first, accuracy, *pairs = tally.lines(1.25)
    assert first.startswith("1839 pictures in 1.2 s, start and decoding included; kind009: ")
    assert first.endswith("288 other classes: 1440")
    assert accuracy == "accuracy 81.57%: 1500 of 1839 are what their folder or table says"
    assert len(pairs) == 12 and pairs[0] == "40 of 45 kind007 taken for kind009" and "2 of 7 kind002" in pairs[1]


def test_a_table_of_names_of_any_length():
    tally = Tally(Named([]).names, ["a", "a name that is much too long for a table", "b"])
    tally.add(["root/a/1", "root/a/2", "root/b/1"], ["a", "a name that is much too long for a table", "b"], [""] * 3)
    assert [*tally.lines(0)][2:] == [
        "true                     a  a name that~             b  (predicted)",
        "a                        1             1             .",
        "a name that~             .             .             .",
        "b                        .             .             1"]


def digest(path, trained):
    return digests(decode([str(path)], **trained.preprocess).images)[0]


def test_the_accuracy_of_pictures_that_were_trained_on_is_told(call_trial, tmp_path, capsys):
    """Whatever their paths are now; by what a training and a leaderboard write alike."""
    data = make_classes(tmp_path / "data", ant=10, dog=10)
    argv = ["--data", str(data), "--data-dir", str(tmp_path), "--runs-dir", str(tmp_path), "--name", "m",
            "--epochs", "1", "--batch-size", "4", "--model", "shufflenetg2"]
    assert call_trial(hpo_trial.main, argv)[0] == 0
    model, packed = next(tmp_path.glob("*/m/model.pt")), dataset.load(str(data), tmp_path)
    data.rename(tmp_path / "moved")
    capsys.readouterr()
    assert predict.main(["--model", str(model), "--images", str(tmp_path / "moved")]) == 0
    error = capsys.readouterr().err
    new = {path.removeprefix(f"{data}/") for path in packed.paths("test")}
    trained = small_models.load_model(model, torch.device("cpu"))
    assert len(new) == 4 and trained.learnt.shape == (14,), "2 of 20 are for validation"
    found = re.search(r"\nof these 20 pictures 14 from its training data and 2 from its validation data, copies "
                      r"counted: only the other 4 tell of new ones, "
                      r"(\d) of them right, (\S+)%\n", error)
    assert float(found[2]) == round(100 * int(found[1]) / 4, 1)
    (tmp_path / "few").mkdir()
    for path in new:
        (tmp_path / "moved" / path).rename(tmp_path / "few" / path.replace("/", "-"))
    (tmp_path / "few").rename(tmp_path / "ant")
    assert predict.main(["--model", str(model), "--images", str(tmp_path / "ant")]) == 0
    assert "training data" not in capsys.readouterr().err
    old = sorted(str(path) for path in (tmp_path / "moved").rglob("*.png")
                 if digest(path, trained) in trained.learnt.tolist())
    assert predict.main(["--model", str(model), "--images", *old]) == 0
    assert "\nof these 14 pictures 14 from its training data, copies counted: this accuracy tells nothing" in (
        capsys.readouterr().err)
