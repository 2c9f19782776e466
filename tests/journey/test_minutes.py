"""Pipelines in a given time: on a made-up machine with a clock of its own, which is not as fast as was measured."""

import random
from pathlib import Path

import pytest

import pipeline
from config import DartsSearchConfig, check
from journey import budgets, minutes, planning
from journey.minutes import Amount, Pace, Timetable
from training.measuring import MEASURED, seconds_an_image

PACE = {"start": 5.0, "quicknet": 0.003, "resnet18": 0.011, "mobilenet": 0.0037, "cells": 0.015, "supernet": 0.03}
CIFAR, DIGITS, FEW = Amount(45_000, 5_000, 10_000, 10), Amount(1_294, 143, 360, 10), Amount(180, 20, 50, 4)


class Machine:
    """What a stage takes there: `slower` times what was measured, each stage by chance up to `chance` more or less."""

    def __init__(self, slower: float = 1.0, chance: float = 0.0, seed: int = 0, demo: bool = False) -> None:
        self.now, self.slower, self.chance, self.rng = 0.0, slower, chance, random.Random(seed)
        self.pace, self.demo = Pace(**PACE, demo=demo), demo

    def clock(self) -> float:
        return self.now

    def trial(self, stage: str, settings: dict, amount: Amount) -> tuple[float, float]:
        """Seconds, images a second."""
        image = self.pace.an_image(stage) * self.slower * (1 + self.rng.uniform(-self.chance, self.chance))
        size = settings["train_size"] or amount.train
        after = (settings.get("val_size") or amount.held_out) + min(size, minutes.SETTLED)
        return self.pace.start + settings["epochs"] * (size + minutes.PREDICTION * after) * image, 1 / image

    def run(self, stage: str, settings: dict, amount: Amount) -> float | None:
        """The clock goes on; the speed of what an experiment found."""
        if stage not in minutes.TRIALS:
            self.now += self.trial(stage, settings, amount)[0]
            return None
        limit, began, speed = int(settings["maxExperimentDuration"][:-1]), self.now, 1.0
        for _ in range(settings["maxTrialNumber"]):
            if self.now - began < limit:  # the trial that is under way then is awaited
                seconds, speed = self.trial(stage, settings, amount)
                self.now += seconds + minutes.TURN
        self.now += minutes.NNI
        return speed


def timetable(asked: float, amount: Amount, machine: Machine, runs: Path, budget: str = "small", refit: bool = False,
              given: dict | None = None) -> Timetable:
    images = amount.train + amount.held_out
    tables = {name: budgets.fitted(budget, name, images, amount.classes) for name in budgets.BUDGETS[budget]}
    return Timetable(runs, asked, machine.pace, amount, tables, given or {}, refit, machine.clock)


def taken(table: Timetable, machine: Machine, amount: Amount) -> float:
    """Minutes of the whole pipeline."""
    for stage in table.stages:
        settings, began = table.fit(stage), machine.now
        check(budgets.SETTINGS[stage](**{key: settings[key] for key in settings if budgets.is_training(stage, key)}))
        assert settings["train_size"] <= amount.train and settings.get("val_size", 0) <= amount.held_out
        speed = machine.run(stage, settings, amount)
        table.done(stage, machine.now - began, speed)
    machine.now += table._ends(table.stages) * machine.slower / table.scale
    return machine.now / 60


@pytest.mark.parametrize(("asked", "amount"), [(30, DIGITS), (60, DIGITS), (180, DIGITS), (600, CIFAR), (10, FEW)])
@pytest.mark.parametrize(("slower", "chance"), [(1, 0), (1.3, 0.2), (0.75, 0.2), (1, 0.4)])
def test_the_minutes_are_kept_by_a_machine_that_is_not_as_measured(asked: float, amount: Amount, slower: float,
                                                                   chance: float, tmp_path: Path) -> None:
    for seed in range(3):
        machine = Machine(slower, chance, seed)
        table = timetable(asked, amount, machine, tmp_path / str(seed))
        assert taken(table, machine, amount) == pytest.approx(asked, rel=0.15), table.stages
        assert {"baseline", "hpo", "hpo_final"} <= set(table.stages)


@pytest.mark.parametrize("asked", [3, 10, 30, 60, 180])
def test_short_minutes_are_for_the_baseline_alone(asked: float, tmp_path: Path) -> None:
    """Nothing comes after it to make up for a measurement that was wrong."""
    machine = Machine(1.1)
    table = timetable(asked, CIFAR, machine, tmp_path)
    assert table.stages == ["baseline"] and taken(table, machine, CIFAR) == pytest.approx(asked, rel=0.15)
    assert table.left_out.startswith("no time for hpo, hpo_final, classic_nas") and "would be for hpo_final" in (
        table.left_out)


def test_budgets_have_their_own_stages(tmp_path: Path) -> None:
    machine = Machine(demo=True)
    table = timetable(20, DIGITS, machine, tmp_path / "demo", "demo")
    assert table.stages == ["baseline", "hpo", "classic_nas", "darts", "retrain"] and not table.left_out
    assert taken(table, machine, DIGITS) == pytest.approx(20, rel=0.15)
    full = timetable(6000, CIFAR, Machine(), tmp_path / "full", "full", refit=True)
    assert full.stages == list(budgets.BUDGETS["full"])
    cells, random_cells = full.planned("retrain"), full.planned("random_cell")
    assert cells["epochs"] == random_cells["epochs"], "a control is trained as what it is compared with"


def test_what_a_person_sets_wins(tmp_path: Path) -> None:
    table = timetable(60, DIGITS, Machine(), tmp_path, given={"baseline": {"epochs": "3"}})
    assert table.planned("baseline")["epochs"] == "3"


def test_time_is_kept_for_the_refit(tmp_path: Path) -> None:
    machine = Machine()
    table = timetable(60, DIGITS, machine, tmp_path, refit=True)
    assert taken(table, machine, DIGITS) == pytest.approx(45, rel=0.1)


def test_too_few_minutes_say_the_least(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^minutes = 0.5: too short for anything, the least here is \d+\.\d: "
                                         "baseline alone, leaderboard and report$") as error:
        timetable(0.5, CIFAR, Machine(), tmp_path)
    assert not list(tmp_path.iterdir())
    least = float(str(error.value).split("least here is ")[1].split(":")[0])
    assert timetable(least, CIFAR, Machine(), tmp_path).stages == ["baseline"]


def test_a_resume_keeps_what_was_begun(tmp_path: Path) -> None:
    machine = Machine()
    table = timetable(60, DIGITS, machine, tmp_path)
    first = table.fit("baseline")
    machine.now += 600
    table.done("baseline", 600.0)
    second = table.fit("hpo")

    machine.slower, machine.now = 3.0, 0.0  # another day
    again = timetable(60, DIGITS, machine, tmp_path)
    assert (again.fit("baseline"), again.fit("hpo"), again.stages) == (first, second, table.stages)
    assert again.spent == pytest.approx(600, abs=1) and again.scale == table.scale != 1.0
    with pytest.raises(ValueError, match=r"^minutes = 30: .* was begun with 60; give these, or another --runs-dir$"):
        timetable(30, DIGITS, machine, tmp_path)


# ---- the command


def test_it_refuses_before_anything_is_written(tmp_path: Path, digits_dir: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(planning, "measured", lambda *known: Pace(**PACE))
    where = ["--data", "digits", "--data-dir", str(digits_dir), "--runs-dir", str(tmp_path / "runs")]
    assert pipeline.main([*where, "--minutes", "0.1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: minutes = 0.1: too short for anything") and error.count("\n") == 1
    assert pipeline.main([*where, "--minutes", "-1"]) == 2 and "minutes = -1.0: must be at least 0" in (
        capsys.readouterr().err)
    assert pipeline.main([*where, "--minutes", "60", "--stages", "report"]) == 2
    assert "none of the stages can be fitted; name some of baseline" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / minutes.FILE).write_text("{}")
    assert pipeline.main([*where, "--resume"]) == 2
    assert "was begun with some; give them again" in capsys.readouterr().err


def test_a_dry_run_shows_what_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(planning, "measured", lambda *known: Pace(**PACE))
    assert pipeline.main(["--data", "digits", "--dry-run", "--minutes", "5", "--runs-dir", str(tmp_path / "runs")]) == 0
    output = capsys.readouterr().out
    assert "# 5 minutes: baseline; no time for hpo, hpo_final" in output and not (tmp_path / "runs").exists()
    assert "--recipe quick" in output and "hpo_trial.py" not in output and "leaderboard.py" in output


def test_this_machine_is_measured() -> None:
    """With the networks that the stages train, small ones here."""
    found = seconds_an_image(4, 32, DartsSearchConfig(channels=4, layers=3), channels=4, layers=3)
    assert set(found) == set(MEASURED) and all(0 < seconds < 1 for seconds in found.values())
