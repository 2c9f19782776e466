"""Pipelines in a given time: on a made-up machine with a clock of its own, which is not as fast as was measured."""

import random
from pathlib import Path

import pytest

from config import check
from journey import budgets, minutes
from journey.minutes import Amount, Pace, Timetable

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


@pytest.mark.parametrize("asked", [10, 30, 60, 180])
@pytest.mark.parametrize("amount", [CIFAR, DIGITS], ids=["cifar10", "digits"])
@pytest.mark.parametrize(("slower", "chance"), [(1, 0), (1.3, 0.2), (0.75, 0.2), (1, 0.4)])
def test_the_minutes_are_kept_within_15_percent(asked: float, amount: Amount, slower: float, chance: float,
                                                tmp_path: Path) -> None:
    for seed in range(5):
        machine = Machine(slower, chance, seed)
        table = timetable(asked, amount, machine, tmp_path / str(seed))
        assert taken(table, machine, amount) == pytest.approx(asked, rel=0.15), table.stages
