"""Fitting a pipeline into the minutes that a person gives: which stages, and the epochs, trials and sizes of each.

What an image of a training takes is measured before the start; what is no training (the start of Python and of NNI,
loading, leaderboard and report) is reckoned with. Each stage gets its share of what is left when it begins, so that one
that took longer or shorter than thought changes those after it, and the speed of each training corrects the rest.
Settings once given are kept in minutes.json, for a resume. Nothing here needs a clock of its own: tests have theirs.
"""

import dataclasses
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from config import DartsSearchConfig
from files import read_object, write_json
from journey.budgets import CONTROLS, batches_fit
from journey.plan import ROOT
from training.progress import duration

FILE = "minutes.json"
# What goes into the pipeline together, in the order in which it is worth its time; a stage alone earns little.
GROUPS = (("baseline",), ("hpo", "hpo_final"), ("classic_nas", "nas_final"), ("darts", "retrain"),
          ("plain_mobilenet",), ("random_cell",))
SHARES = {"baseline": 0.30, "hpo": 0.14, "hpo_final": 0.16, "classic_nas": 0.10, "nas_final": 0.12, "darts": 0.06,
          "retrain": 0.12, "plain_mobilenet": 0.06, "random_cell": 0.12}
REFIT = 0.25  # of all: the training of the winner once more
LEAST = (2, 5000)  # epochs of the baseline, and images of each: with less there is nothing to look at
# Epochs, and images of each if there are so many, that a stage gets at least. Where there is no time for as much of all
# stages of a group, what they find would be worse than the baseline with the same time.
ENOUGH = {
    "baseline": (10, 50_000), "hpo": (4, 2000), "hpo_final": (5, 50_000), "classic_nas": (4, 2000),
    "nas_final": (5, 50_000), "plain_mobilenet": (5, 50_000), "darts": (6, 1000), "retrain": (5, 50_000),
    "random_cell": (5, 50_000)}
EPOCHS = {"hpo": 6, "classic_nas": 6, "darts": 12}  # of a search, as long as its pictures are a part of all
MOST_EPOCHS = 300
TRIALS = {"hpo": (4, 24), "classic_nas": (3, 20)}  # at least, at most
TURNS = 2  # a trial trains at least so many times as long as it takes to start
NNI, TURN = 15.0, 3.0  # seconds: to start and stop NNI, and from one trial to the next, over the start of Python
PREDICTION = 1 / 3  # of the time that an image takes in a training
SETTLED = 2048  # pictures at most by which batch norm is settled, after each epoch (training/batch_norm.py)
VIEWS = 6  # of a picture that the leaderboard looks at beside the plain one, if that takes no more than
FEW = 0.1  # of all minutes
CORRECTION = (0.4, 2.5)  # at most, by one training


@dataclasses.dataclass
class Pace:
    """What this machine was seen to take, in seconds: `start` for Python with PyTorch, the others for an image."""

    start: float
    quicknet: float
    resnet18: float
    mobilenet: float
    cells: float
    supernet: float
    demo: bool = False  # whether stage 1's space is that of journey/config_demo.yml

    def an_image(self, stage: str) -> float:
        """Of a stage's trainings; of a search over networks the mean of these, by the ratios in docs/results.md."""
        return {"baseline": self.quicknet, "hpo": 1.36 * self.mobilenet if self.demo else 2.7 * self.resnet18,
                "classic_nas": 3.3 * self.mobilenet, "plain_mobilenet": self.mobilenet, "darts": self.supernet,
                "retrain": self.cells, "random_cell": self.cells}[{"hpo_final": "hpo", "nas_final": "classic_nas"}.get(
                    stage, stage)]


@dataclasses.dataclass(frozen=True)
class Amount:
    """Of pictures: those to train on, those held out, those of the test, and classes."""

    train: int
    held_out: int
    test: int
    classes: int


class Timetable:
    """The settings of every stage, fitted to `minutes`.

    tables: of each stage that is wanted, its settings in the budget. given: those of a person, which win. `spent`:
    seconds before this, `clock` tells those since. ValueError if the minutes are too few for the least pipeline.
    """

    def __init__(self, runs: Path, minutes: float, pace: Pace, amount: Amount, tables: Mapping[str, dict[str, Any]],
                 given: Mapping[str, dict[str, Any]], refit: bool, clock: Callable[[], float] = time.monotonic,
                 spent: float = 0.0) -> None:
        self.runs, self.minutes, self.pace, self.amount = runs, minutes, pace, amount
        self.tables, self.given, self.refit = tables, given, refit
        kept = read_object(runs / FILE) or {}
        if kept and kept.get("minutes") != minutes:
            raise ValueError(f"minutes = {minutes:g}: {runs} was begun with {kept.get('minutes')}; give these, or "
                             "another --runs-dir")
        self.kept: dict[str, Any] = kept.get("stages", {})
        self.scale, self.speeds = kept.get("scale", 1.0), kept.get("speeds", {})
        self._clock, self._before, self._started = clock, kept.get("spent", 0.0) + spent, clock()
        self.next: list[str] = []  # the stages of a pipeline that there is no time for
        self.stages = kept.get("order") or self._chosen()

    # ---- which stages

    def _chosen(self) -> list[str]:
        """Those that there is time for; a group is left out with all after it."""
        groups = [[name for name in group if name in self.tables] for group in GROUPS]
        groups = [group for group in groups if group]
        if not groups:
            raise ValueError(f"minutes = {self.minutes:g}: none of the stages can be fitted; name some of "
                             f"{' '.join(SHARES)}")
        chosen = groups[0]
        if (least := self._needs(chosen)) > 60 * self.minutes:
            raise ValueError(f"minutes = {self.minutes:g}: too short for anything, the least here is "
                             f"{math.ceil(least / 6) / 10:g}: {' and '.join(chosen)} alone, leaderboard and report")
        for group in groups[1:]:
            if self._needs([*chosen, *group]) > 60 * self.minutes:
                self.next = [*chosen, *group]
                break
            chosen = [*chosen, *group]
        return [name for name in self.tables if name in chosen]

    @property
    def left_out(self) -> str:
        """For people: the stages that there is no time for, and with how much there is for the first of them."""
        names = [name for name in self.tables if name not in self.stages]
        needed = f" ({self._needs(self.next) / 60:.0f} minutes would be for {self.next[-1]})" if self.next else ""
        return f"no time for {', '.join(names)}{needed}" if names else ""

    def _needs(self, names: list[str]) -> float:
        """Seconds of a pipeline in which each of these stages gets enough."""
        found = self._before + sum(self._least(name, names) for name in names) + self._ends(names)
        return found / (1 - REFIT * self.refit)

    def _least(self, stage: str, among: list[str]) -> float:
        """Seconds of a stage that gets just enough, alone or not."""
        epochs, images = LEAST if len(among) == 1 else ENOUGH[stage]
        training = self._work(stage, epochs, self._images(images)) * self._cost(stage)
        if stage in TRIALS:
            return NNI + TRIALS[stage][0] * (self._turn + training)
        return self.pace.start + training

    def _images(self, images: int) -> int:
        return min(self.amount.train, max(images, 10 * self.amount.classes))

    def _ends(self, names: list[str]) -> float:
        """Seconds of the first report, leaderboard, and report."""
        costs = [PREDICTION * self._cost(name) for name in _judged(names)]
        views = 1 + VIEWS * self._views(names)
        pictures = self.amount.test + self.amount.held_out
        return 3 * self.pace.start + 10 + pictures * views * sum(costs) + self.amount.test * max(costs, default=0.0)

    def _views(self, names: list[str]) -> bool:
        costs = sum(PREDICTION * self._cost(name) for name in _judged(names))
        return VIEWS * (self.amount.test + self.amount.held_out) * costs < FEW * 60 * self.minutes

    @property
    def views(self) -> bool:
        """Whether there is time for a leaderboard by several views of each picture."""
        return self._views(self.stages)

    # ---- the settings of a stage, as it begins

    @property
    def spent(self) -> float:
        """Seconds, over all stops."""
        return self._before + self._clock() - self._started

    def planned(self, stage: str) -> dict[str, Any]:
        """Settings for what is left of the minutes; those given before, if it was begun then."""
        kept = self.kept.get(stage)
        return kept["settings"] if kept else self.settings(stage, self.seconds(stage))

    def fit(self, stage: str) -> dict[str, Any]:
        """The same, for good: the stage begins."""
        self.kept.setdefault(stage, {"settings": self.planned(stage), "done": False})
        self._keep()
        return self.kept[stage]["settings"]

    def seconds(self, stage: str) -> float:
        """Enough, and a share of what is left over; less of everything where things took longer than thought."""
        rest = {name: self._least(name, self.stages) for name in self.stages
                if not self.kept.get(name, {}).get("done")}
        there = max(60 * self.minutes * (1 - REFIT * self.refit) - self.spent - self._ends(self.stages), 0.0)
        over = there - sum(rest.values())
        return (rest[stage] + over * SHARES[stage] / sum(SHARES[name] for name in rest) if over > 0 else
                rest[stage] * there / sum(rest.values()))

    def settings(self, stage: str, seconds: float) -> dict[str, Any]:
        """Those with which a stage takes so long."""
        if stage in TRIALS:
            found = self._of_experiment(stage, seconds)
        else:
            found = self._of_work(stage, (seconds - self.pace.start) / self._cost(stage))
        table = {**self.tables[CONTROLS.get(stage, stage)], **self.tables[stage], **found}
        if table.get("val_size", 0) > (size := table["train_size"] or self.amount.train) // 3:
            table["val_size"] = min(max(size // 3, self.amount.classes), self.amount.held_out)
        given = {**self.given.get(CONTROLS.get(stage, ""), {}), **self.given.get(stage, {})}
        return {**batches_fit(stage, table, self.amount.train), **given}

    def _of_experiment(self, stage: str, seconds: float) -> dict[str, Any]:
        least, most = TRIALS[stage]
        training = seconds - NNI
        good = max(self._work(stage, ENOUGH[stage][0], self._images(ENOUGH[stage][1])) * self._cost(stage),
                   TURNS * self._turn)
        trials = min(max(int(training / (good + self._turn)), least), most)
        found = self._of_work(stage, (training / trials - self._turn) / self._cost(stage))
        return {"maxTrialNumber": trials, "maxExperimentDuration": f"{max(round(training), 1)}s", **found}

    def _of_work(self, stage: str, work: float) -> dict[str, Any]:
        """Epochs and size of a training that takes as long as so many images."""
        there, least = self.amount.train, self._images(400)
        if stage in EPOCHS:
            size = max(self._size(stage, work / EPOCHS[stage]), self._images(1000))
            if size < there:
                epochs = round(work / self._work(stage, 1, size))
                return {"train_size": size, "epochs": min(max(epochs, 1), EPOCHS[stage])}
        epochs = min(max(math.ceil(work / self._work(stage, 1, there)), LEAST[0]), MOST_EPOCHS)
        size = self._size(stage, work / epochs)
        return {"train_size": 0 if size > 0.97 * there else max(size, least), "epochs": epochs}

    def _work(self, stage: str, epochs: int, size: int) -> float:
        """Images of training that take as long as so many epochs, with what is predicted after each."""
        return epochs * (size + PREDICTION * (self._validation(stage) + min(size, SETTLED)))

    def _size(self, stage: str, work: float) -> int:
        """Of an epoch that takes as long as so many images."""
        rest = work - PREDICTION * self._validation(stage)
        return int(max(rest / (1 + PREDICTION), rest - PREDICTION * SETTLED))

    def _validation(self, stage: str) -> int:
        return min(self.tables[CONTROLS.get(stage, stage)].get("val_size") or self.amount.held_out,
                   self.amount.held_out)

    def set(self, stage: Any) -> None:
        """Give a stage of the pipeline its settings, as it begins."""
        if stage.name in self.stages:
            stage.given = self.fit(stage.name)
        elif hasattr(stage, "views"):
            stage.views = stage.tested and self.views
        elif hasattr(stage, "of"):  # the refit, of what was trained with them
            stage.of = {name: self.kept[name]["settings"] for name in self.stages}

    def left(self, stage: str) -> str:
        """For people."""
        share = f", about {duration(self.seconds(stage))} for it" if stage in self.stages else ""
        return f"{share}, {duration(max(60 * self.minutes - self.spent, 0.0))} left of {self.minutes:g} minutes"

    # ---- what has been learnt of the machine

    def ended(self, stage: Any, seconds: float) -> None:
        """A stage of the pipeline has."""
        if stage.name in self.stages:
            best = read_object(stage.folder / "best.json") if stage.name in TRIALS else None
            self.done(stage.name, seconds, (((best or {}).get("result") or {}).get("last") or {}).get(
                "images_per_second"))

    def done(self, stage: str, seconds: float, speed: float | None = None) -> None:
        """A stage has ended. `speed`: images a second of the training of what it found."""
        self.kept[stage]["done"] = True
        if speed:
            self.speeds[{"hpo": "hpo_final", "classic_nas": "nas_final"}[stage]] = 1 / speed / self.scale
        settings = self.kept[stage]["settings"]
        if stage in ("baseline", "hpo_final", "nas_final", "retrain"):
            work = self._work(stage, int(settings["epochs"]), int(settings["train_size"]) or self.amount.train)
            ratio = (seconds - self.pace.start) / (work * self._cost(stage))
            self.scale *= min(max(ratio, CORRECTION[0]), CORRECTION[1])
        self._keep()

    def _cost(self, stage: str) -> float:
        """Seconds of an image in training."""
        return (self.speeds.get(stage) or self.pace.an_image(stage)) * self.scale

    @property
    def _turn(self) -> float:
        return self.pace.start + TURN

    def _keep(self) -> None:
        write_json(self.runs / FILE, {"minutes": self.minutes, "pace": dataclasses.asdict(self.pace),
                                      "scale": self.scale, "speeds": self.speeds, "spent": self.spent,
                                      "order": self.stages, "stages": self.kept})


def _judged(names: list[str]) -> list[str]:
    """The stages whose networks go into the leaderboard: of an experiment that has no training after it, its best."""
    return [name for name in names if name != "darts" and not (
        name in TRIALS and {"hpo": "hpo_final", "classic_nas": "nas_final"}[name] in names)]


def measured(classes: int, side: int, tables: Mapping[str, dict[str, Any]], demo: bool) -> Pace:
    """What this machine does now, by some seconds of each kind of work."""
    from training.measuring import seconds_an_image  # and torch: slow

    search = {key: int(value) for key, value in tables.get("darts", {}).items() if key in ("channels", "layers")}
    cells = {key: int(tables.get("retrain", {}).get(key, least)) for key, least in (("channels", 8), ("layers", 3))}
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import training.search, training.trial, artifacts.run_folder"], cwd=ROOT,
                   check=True)
    start = 1.0 + time.monotonic() - started
    return Pace(start, **seconds_an_image(classes, side, DartsSearchConfig(**search), **cells), demo=demo)
