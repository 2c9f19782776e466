"""The stages of a pipeline that train: what they run, when they are finished, and what is trained again at the end."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

import pipeline
import retrain
from config import command_line, merge
from fake_experiment import Fake
from files import write_json
from journey import budgets
from journey.finalists import finalists
from journey.plan import BEGUN, FINISHED, Plan
from journey.processes import execute
from journey.stages import ExperimentStage, LeaderboardStage, ReportStage
from journey.trainings import RefitStage, RunStage
from training import progress
from training.stopping import Signals

BEST = {"lr": 0.01, "optimizer": "Adam", "model": "vgg"}


def plan(runs: Path, **changes: object) -> Plan:
    return Plan(**{"runs": runs, "data": "digits", "data_dir": ".data", "budget": "small", "seed": 0, "checksum": "abc",
                   "classes": 10, "images": 1437, "after_hpo": True, "held_out": 143, **changes})


def stage(runs: Path, name: str, **given: object) -> RunStage:
    return RunStage(name, plan(runs), {**budgets.fitted("small", name, 1437, 10), **given})


def result(one: RunStage, **more: object) -> None:
    """What a run of its command leaves."""
    given = command_line(budgets.SETTINGS[one.name], one.command()[2:], "")
    settings = retrain.settings(given, {}) if one.script == "retrain.py" else merge(
        budgets.SETTINGS[one.name], {**given, **{key: BEST[key] for key in one._handed()}})
    write_json(one.path / "result.json", {
        "config": asdict(settings), "data": {"checksum": "abc"}, "value": 0.5, "metric": "validation accuracy after "
        "the last epoch", "finished": "today", **more})


def hand_over(runs: Path) -> None:
    write_json(runs / "hpo/best.json", {"schema": 1, "parameters": BEST})


def test_what_stage_2_found_is_said_in_words(tmp_path: Path) -> None:
    found = {"value": 0.5, "parameters": {"block01_op": "dw3"}, "result": {"parameters": 2969636},
             "trials": {"total": 3}}
    write_json(tmp_path / "classic_nas/best.json", found)
    assert ExperimentStage("classic_nas", plan(tmp_path), {}).outcome() == (
        "best validation accuracy 50.0% (a MobileNet with blocks of its own, 2,969,636 parameters)")


def test_what_a_pipeline_has_told_of_the_data_is_not_told_again(tmp_path: Path) -> None:
    """Its stages have a line about it; alone they tell all."""
    assert progress.of_data("2 classes\n  a note") == "2 classes\n  a note"
    code = "import sys; from training.progress import of_data; sys.exit(of_data('2 classes\\n  a note') != '2 classes')"
    with Signals() as signals, open(tmp_path / "lock", "wb") as lock:
        assert execute([sys.executable, "-c", code], pipeline.ROOT, lock.fileno(), signals) == 0


@pytest.mark.parametrize("name", ["baseline", "hpo_final", "nas_final", "plain_mobilenet", "retrain", "random_cell"])
def test_a_finalist_reads_no_test_pictures_and_keeps_off_those_that_are_held_out(name: str, tmp_path: Path) -> None:
    hand_over(tmp_path)
    one = RunStage(name, plan(tmp_path, budget="full"), budgets.fitted("full", name, 1437, 10))
    training = one.training()
    assert training.held_out == 143 and training.val_size >= 0
    assert not getattr(training, "test", False) and not getattr(training, "all_data", False)
    result(one)
    assert one.progress() == BEGUN, "its model.pt is missing"
    (one.path / "model.pt").touch()
    assert one.progress() == FINISHED and one.model() == one.path / "model.pt"
    assert one.outcome() == "validation accuracy 50.0%"


def test_one_that_diverged_is_finished_and_the_pipeline_goes_on(tmp_path: Path) -> None:
    one = stage(tmp_path, "baseline")
    result(one, diverged=True)
    assert one.progress() == FINISHED and one.model() is None and "diverged" in one.outcome()
    assert [found.problem for found in finalists(tmp_path)] == ["its training diverged, the loss is not finite"]


def test_a_search_that_diverged_leaves_nothing_to_train(tmp_path: Path) -> None:
    search, training = stage(tmp_path, "darts"), stage(tmp_path, "retrain")
    result(search, diverged=True)
    assert search.progress() == FINISHED and search.diverged() and search.outcome().startswith("diverged")
    assert training.progress() == FINISHED and training.outcome().startswith("not trained, its search diverged")
    assert [found.problem for found in finalists(tmp_path)] == ["its search diverged, the loss is not finite"]


def test_other_settings_are_never_taken_for_those_wanted(tmp_path: Path) -> None:
    hand_over(tmp_path)
    for one, words in ((stage(tmp_path, "baseline"), "made with epochs = 120, wanted is 3"),
                       (stage(tmp_path, "hpo_final"), "made with epochs = 30, wanted is 3")):
        result(one)
        (one.path / "model.pt").touch()
        with pytest.raises(ValueError, match=words):
            stage(tmp_path, one.name, epochs=3).progress()
        with pytest.raises(ValueError, match="made with held_out = 143, wanted is"):
            RunStage(one.name, plan(tmp_path, held_out=99), one.given).progress()
    write_json(tmp_path / "hpo/best.json", {"schema": 1, "parameters": {**BEST, "model": "dpn92"}})
    with pytest.raises(ValueError, match="made with model = 'vgg', wanted is 'dpn92'"):
        one.progress()


def test_trials_with_pictures_held_out_are_gone_on_with(tmp_path: Path) -> None:
    one = ExperimentStage("hpo", plan(tmp_path, budget="demo"), budgets.fitted("demo", "hpo", 1437, 10))
    fake = Fake(one.home / "abcdefgh")
    fake.trial("A", 0, 0.5)
    fake.load()
    write_json(fake.trial_folder("A") / "result.json", {"config": {"held_out": 143}, "data": {"checksum": "abc"}})
    (one.folder / "config.yml").write_text(yaml.safe_dump(one.config()))
    assert one.progress() == BEGUN


def test_the_best_trial_is_the_finalist_of_a_budget_that_trains_none(tmp_path: Path) -> None:
    (tmp_path / "hpo").mkdir()
    (tmp_path / "hpo/config.yml").touch()
    (tmp_path / "hpo/results.csv").write_text("trial,state,metric,seconds\nA,SUCCEEDED,0.5,20.5\nB,FAILED,,9.5\n")
    trial = tmp_path / "hpo/nni/abcdefgh/environments/local-env/trials/A"
    write_json(tmp_path / "hpo/best.json", {"experiment": "abcdefgh", "trial": "A"})
    assert [one.problem[:16] for one in finalists(tmp_path)] == ["it has no result"]
    write_json(trial / "result.json", {"value": 0.5})
    (trial / "model.pt").touch()
    [found] = finalists(tmp_path)
    assert (found.stage, found.folder, found.search_seconds, found.problem) == ("hpo", trial, 30.0, "")
    write_json(tmp_path / "hpo/final/result.json", {"value": 0.6})
    assert finalists(tmp_path)[0].folder == tmp_path / "hpo/final"


@pytest.mark.parametrize(("winner", "script", "words"), [
    ("baseline", "retrain.py", "--model quicknet --recipe quick"), ("darts", "retrain.py", "search/genotype.json"),
    ("hpo", "hpo_trial.py", "--best"), ("classic_nas", "classic_nas_trial.py", "--arch")])
@pytest.mark.parametrize("budget", ["demo", "small"])
def test_the_winner_is_trained_again_as_it_was_on_all_pictures(winner: str, script: str, words: str, budget: str,
                                                               tmp_path: Path) -> None:
    tables = {name: {**budgets.fitted(budget, name, 1437, 10), "train_size": 200} for name in budgets.BUDGETS[budget]}
    again = RefitStage(plan(tmp_path, budget=budget), tables)
    write_json(tmp_path / "leaderboard.json", {"winner": winner})
    command = " ".join(again.command())
    assert script in command and words in command and "--held-out" not in command and "--train-size" not in command
    flags = ["--all-data", "--no-test"] if script == "retrain.py" else ["--val-size=-1"]
    assert all(flag in command for flag in flags)
    name = {"hpo": "hpo_final", "classic_nas": "nas_final", "darts": "retrain"}.get(winner, winner)
    assert again.stage().path.name == f"refit_{name}"
    trained = tables.get(name) or tables[winner]
    assert f"--epochs {trained['epochs']} " in command


def test_the_first_network_is_there_before_the_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """model.pt and the page, right after the baseline; a stage that diverged leaves none."""
    monkeypatch.setattr(pipeline, "export", lambda model, runs: done.append(f"export {model.parent.name}"))
    monkeypatch.setattr(pipeline, "finish", lambda stages, seconds: None)
    stages = [stage(tmp_path, "baseline"), stage(tmp_path, "darts"), LeaderboardStage(plan(tmp_path)),
              ReportStage(plan(tmp_path))]
    done: list[str] = []

    def do(command: list[str]) -> int:
        done.append(command[1])
        if command[1] == "retrain.py":
            result(stages[0])
            (stages[0].path / "model.pt").touch()
        return 1 if command[1] == "darts_search.py" else 0

    with Signals() as signals:
        assert pipeline.work(stages, do, signals, "again") == 1
    assert done == ["retrain.py", "export baseline", "report.py", "darts_search.py"]


def test_the_leaderboard_is_made_again_when_there_are_other_finalists(tmp_path: Path) -> None:
    board, choice = LeaderboardStage(plan(tmp_path)), LeaderboardStage(plan(tmp_path), tested=False)
    one = stage(tmp_path, "baseline")
    result(one)
    (one.path / "model.pt").touch()
    made = {"made_of": {"baseline": "today"}, "tested": False, "rows": []}
    write_json(tmp_path / "leaderboard.json", made)
    assert choice.progress() == FINISHED != board.progress()
    write_json(tmp_path / "leaderboard.json", {**made, "tested": True})
    assert board.progress() == FINISHED
    result(RunStage("baseline", plan(tmp_path, held_out=0), one.given, refit=True))
    (tmp_path / "retrain/refit_baseline/model.pt").touch()
    assert board.progress() != FINISHED
    (tmp_path / "retrain/final").mkdir()
    assert json.loads((tmp_path / "leaderboard.json").read_text())["made_of"] != {} and choice.progress() != FINISHED
