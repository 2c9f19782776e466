"""leaderboard.py: who is judged, by which pictures, who wins, what is exported, and what is refused."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import classic_nas_trial
import leaderboard
import report
import retrain
import small_models
from artifacts.model_file import load_model
from files import write_json
from journey.finalists import finalists
from pictures import dataset
from reporting.leaderboard import COLUMNS
from training import judging

CPU = torch.device("cpu")
HELD = 40
TINY = ["--train-size", "100", "--epochs", "1", "--batch-size", "25", "--precision", "fp32", "--held-out", str(HELD)]
NO_TEST = ["--no-all-data", "--no-test"]


def train(runs: Path, digits_dir: Path, name: str) -> None:
    """A finalist in small."""
    where = ["--data", "digits", "--data-dir", str(digits_dir), "--runs-dir", str(runs)]
    if name == "plain":
        assert classic_nas_trial.main(["--baseline", "--hpo-best", "", *where, *TINY, "--name", name]) == 0
        return
    network = {"baseline": ["--model", "quicknet", "--recipe", "quick"]}.get(
        name.removeprefix("refit_"), ["--genotype", "random:1", "--channels", "4", "--layers", "3"])
    again = ["--train-size", "0", "--held-out", "0", "--no-test"] if name.startswith("refit_") else NO_TEST
    assert retrain.main([*network, *where, *TINY, *again, "--name", name]) == 0


@pytest.fixture(scope="module")
def trained(digits_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder with three finalists."""
    runs = tmp_path_factory.mktemp("runs")
    for name in ("baseline", "final", "plain"):
        train(runs, digits_dir, name)
    return runs


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "runs")


def board_of(runs: Path, *argv: str) -> dict:
    assert leaderboard.main(["--runs", str(runs), "--precision", "fp32", *argv]) == 0
    return json.loads((runs / "leaderboard.json").read_text())


# ---- who wins


def hits(*right: int, of: int = 100) -> torch.Tensor:
    found = torch.zeros(of, dtype=torch.bool)
    found[list(right)] = True
    return found


def test_a_difference_within_its_standard_error_goes_to_the_smaller_network() -> None:
    best, close, far = hits(*range(90)), hits(*range(86), 95), hits(*range(80))
    assert judging.behind(best, close) == (4, 1) and not judging.behind(best, close).tied  # 3 > sqrt(5)
    assert judging.behind(best, hits(*range(86), 95, 96)).tied  # 2 < sqrt(6)
    assert judging.behind(best, hits(*range(89))).tied and not judging.behind(best, hits(*range(88))).tied
    assert judging.choose([best, close, far], [10, 5, 1])[0] == 0
    assert judging.choose([best, hits(*range(89)), far], [10, 5, 1])[0] == 1
    assert judging.choose([best, hits(*range(89)), best], [10, 5, 5])[0] == 2, "of equal sizes the more accurate one"
    assert judging.choose([best], [10]) == (0, [(0, 0)])


def test_an_error_is_never_zero() -> None:
    answers = judging.Answers(torch.zeros(20, dtype=torch.int64), torch.zeros(20, dtype=torch.int64), 0.5)
    found = judging.figures(answers, np.zeros(20, int))
    assert found["accuracy"] == 1.0 and 0.02 < found["standard_error"] < 0.06
    found = judging.figures(answers, np.arange(20) % 2)
    assert found["accuracy"] == found["several_views_accuracy"] == 0.5
    assert found["standard_error"] == pytest.approx((0.25 / 20) ** 0.5)


# ---- the whole of it


def test_all_are_judged_by_the_pictures_that_none_has_seen(runs: Path, digits_dir: Path, capsys: pytest.CaptureFixture,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    test = judging.Judge.test
    monkeypatch.setattr(judging.Judge, "test", lambda judge: reads.append("test") or test(judge))
    monkeypatch.setattr(judging, "choose", lambda *a, choose=judging.choose: reads.append("choice") or choose(*a))
    board = board_of(runs)
    assert reads == ["choice", "test", "test", "test"]

    pictures = dataset.load("digits", digits_dir)
    index = judging.common_validation([one.result["config"] for one in finalists(runs)], pictures)
    assert len(index) == HELD and board["tested"] and not board["left_out"]
    for one in board["rows"]:
        result = json.loads((runs / one["folder"] / "result.json").read_text())
        assert "test" not in result and judging.seen(result["config"], pictures, index) == 0
        assert one["validation"]["images"] == HELD and one["test"]["images"] == len(pictures.test_labels)
        assert one["validation"]["accuracy"] == pytest.approx(result["last"]["val_accuracy"]), "as after its last epoch"
        assert one["parameters"] == result["parameters"] and one["train_seconds"] > 0 and one["images_per_second"] > 0
    macs = {one["stage"]: one["multiply_adds"] for one in board["rows"]}
    assert macs["plain_mobilenet"] == json.loads((runs / "classic_nas/plain/result.json").read_text())["macs"]

    won = board["rows"][0]
    assert board["winner"] == won["stage"] and won["behind"]["tied"]
    exported = load_model(runs / "model.pt", CPU)
    assert exported.facts["chosen"] == board["chosen"] and exported.facts["test"]["accuracy"] == won["test"]["accuracy"]
    assert exported.judged.tolist() == pictures.digests(index).tolist() and len(exported.learnt)
    card = (runs / "MODEL_CARD.md").read_text()
    assert f"In its pipeline {board['chosen']}." in card
    assert f"| test accuracy | {won['test']['accuracy']:.1%} ({won['test']['right']} of 360 pictures, 95% int" in card

    with open(runs / "leaderboard.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == [*COLUMNS, "folder"] and [row["stage"] for row in table] == [
        one["stage"] for one in board["rows"]]
    output = capsys.readouterr().out
    assert all(one["network"] in output for one in board["rows"]) and "by 40 validation pictures" in output
    assert f"seen; so few tell little: {won['validation']['right']} of 40 of them right" in output
    assert "images/s: of the network alone, its input ready in memory; predict.py" in output


def test_the_choice_reads_no_test_pictures(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging.Judge, "test", lambda judge: pytest.fail("read"))
    board = board_of(runs, "--no-test")
    assert not board["tested"] and all("test" not in one for one in board["rows"])
    assert "The test pictures were read" not in (runs / "MODEL_CARD.md").read_text()


def test_what_was_trained_again_on_all_pictures_is_exported(runs: Path, digits_dir: Path) -> None:
    for name in ("final", "baseline"):
        shutil.rmtree(runs / "retrain" / name)
    train(runs, digits_dir, "baseline")
    shutil.rmtree(runs / "classic_nas")
    before = board_of(runs, "--no-test")
    train(runs, digits_dir, "refit_baseline")
    board = board_of(runs)
    assert board["made_of"] != before["made_of"] and board["winner"] == "baseline"
    assert board["exported"]["folder"] == "retrain/refit_baseline" and "validation" not in board["refit"]
    assert board["refit"]["test"]["accuracy"] == board["exported"]["test"]["accuracy"]
    exported, again = (load_model(path / "model.pt", CPU) for path in (runs, runs / "retrain/refit_baseline"))
    assert exported.facts["data"]["train_images"] == 1437
    assert all(torch.equal(a, b) for a, b in zip(exported.model.state_dict().values(),
                                                 again.model.state_dict().values(), strict=True))
    assert "trained once more on all training pictures" in (runs / "MODEL_CARD.md").read_text()


def test_the_page_shows_it_first_and_the_winner_as_the_answer(runs: Path) -> None:
    board = board_of(runs)
    assert report.main(["--runs", str(runs), "--no-predict"]) == 0
    page = (runs / "report.html").read_text()
    assert page.index("leaderboard") < page.index("how-it-was-found") and "Not ranked" not in page
    assert board["chosen"] in page.replace("&#x27;", "'") and "plain MobileNet" in page
    assert page.count("Final test:") == 2, "in the contents and above the section, of the winner alone"


def test_a_trial_that_won_is_shown_as_the_run_that_it_was(runs: Path) -> None:
    """Of a budget in which the best trials themselves are the finalists."""
    trial = runs / "hpo/nni/abcdefgh/environments/local-env/trials/A1b2c"
    trial.parent.mkdir(parents=True)
    (runs / "retrain/baseline").rename(trial)
    shutil.rmtree(runs / "retrain")
    shutil.rmtree(runs / "classic_nas")
    (runs / "hpo/config.yml").write_text("experimentName: demo\n")
    (runs / "hpo/results.csv").write_text("trial,state,metric,seconds\nA1b2c,SUCCEEDED,0.5,20.5\n")
    write_json(runs / "hpo/best.json", {"experiment": "abcdefgh", "trial": "A1b2c"})
    board = board_of(runs)
    assert (board["winner"], board["rows"][0]["search_seconds"]) == ("hpo", 20.5)
    assert report.main(["--runs", str(runs)]) == 0
    page = (runs / "report.html").read_text()
    assert "Final test: hpo, trial A1b2c" in page and "Leaderboard" in page and (trial / "final_test.json").exists()


# ---- what is left out, and what is refused


def test_finalists_that_diverged_or_are_missing_are_named(runs: Path, capsys: pytest.CaptureFixture) -> None:
    result = json.loads((runs / "retrain/final/result.json").read_text())
    write_json(runs / "retrain/final/result.json", {**result, "diverged": True})
    (runs / "classic_nas/plain/model.pt").unlink()
    (runs / "retrain/random").mkdir()
    (runs / "hpo").mkdir()
    (runs / "hpo/config.yml").touch()
    board = board_of(runs)
    assert [one["stage"] for one in board["rows"]] == ["baseline"] and board["chosen"] == "the only finalist"
    assert {one["stage"]: one["reason"] for one in board["left_out"]} == {
        "darts": "its training diverged, the loss is not finite", "plain_mobilenet": "its model.pt is missing",
        **dict.fromkeys(("random_cell", "hpo"), "it has no result: its training has not come to an end")}
    output = capsys.readouterr().out
    assert "Not ranked: darts, its training diverged" in output and "then 1 network\n" in output
    assert "\nThe only finalist.\n" in output and "Chosen" not in output


def test_one_that_has_seen_validation_pictures_is_named(runs: Path, digits_dir: Path) -> None:
    shutil.rmtree(runs / "retrain/final")
    where = ["--data", "digits", "--data-dir", str(digits_dir), "--runs-dir", str(runs)]
    assert retrain.main(["--genotype", "random:1", "--channels", "4", "--layers", "3", *where, "--epochs", "1",
                         "--name", "final", "--no-test"]) == 0
    board = board_of(runs)
    assert board["left_out"] == [{"stage": "darts", "reason": "it was trained on 40 of the validation pictures"}]


def error(runs: Path, capsys: pytest.CaptureFixture) -> str:
    before = sorted(runs.rglob("*"))
    assert leaderboard.main(["--runs", str(runs)]) == 2 and sorted(runs.rglob("*")) == before
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


def test_models_of_other_classes_are_refused(runs: Path, capsys: pytest.CaptureFixture) -> None:
    small_models.write(runs / "retrain/final/model.pt")
    assert "final/model.pt: of 5 classes (ant, bee, cat, dog, eel), the pictures are of 10 (0, 1, 2, 3, 4, ...)" in (
        error(runs, capsys))
    result = json.loads((runs / "retrain/final/result.json").read_text())
    result["data"] |= {"classes": 5, "checksum": "abc"}
    write_json(runs / "retrain/final/result.json", result)
    assert "of different pictures (baseline: 10 classes" in error(runs, capsys)


def test_a_folder_without_finalists_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "no finalist here that can be judged; a folder of results of pipeline.py" in error(tmp_path, capsys)
    (tmp_path / "retrain/final").mkdir(parents=True)
    assert "(darts: it has no result" in error(tmp_path, capsys)


def test_pictures_that_have_changed_are_told(runs: Path, capsys: pytest.CaptureFixture) -> None:
    for file in runs.glob("*/*/result.json"):
        result = json.loads(file.read_text())
        write_json(file, {**result, "data": {**result["data"], "checksum": "f" * 64}})
    assert "data = 'digits': has changed since the networks were trained" in error(runs, capsys)
