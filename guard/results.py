"""The results of an NNI experiment: its trials, the best of them, and whether it may count as a success."""

import math
from dataclasses import dataclass
from pathlib import Path

from guard import database, trials
from guard.trials import ACTIVE, BAD, Trial


@dataclass
class Results:
    """All trials of one experiment, in the order they were started."""

    experiment: str
    name: str
    settings: dict  # the experiment file as NNI stored it
    trials: list[Trial]

    @property
    def minimize(self) -> bool:
        for kind in ("tuner", "advisor"):
            arguments = (self.settings.get(kind) or {}).get("classArgs") or {}
            if "optimize_mode" in arguments:
                return arguments["optimize_mode"] == "minimize"
        return False

    @property
    def best(self) -> Trial | None:
        """The best completed trial; one that was stopped early, diverged or contradicts itself cannot be it."""
        done = [trial for trial in self.trials if trial.state == "SUCCEEDED" and not trial.mismatch]
        return (min if self.minimize else max)(done, key=lambda trial: trial.value, default=None)

    def best_intermediate(self, trial: Trial) -> float | None:
        """The best finite metric that the trial reported on its way."""
        finite = [value for value in trial.intermediates if math.isfinite(value)]
        return (min if self.minimize else max)(finite, default=None)

    @property
    def complete(self) -> bool:
        """Whether all trials that were asked for have ended; false too where only a time limit is set."""
        wanted = self.settings.get("maxTrialNumber") or math.inf
        return len(self.trials) >= wanted and not self.count(*ACTIVE, "INTERRUPTED")

    def count(self, *states: str) -> int:
        return sum(trial.state in states for trial in self.trials)

    def problems(self) -> list[str]:
        """One line for each reason why this experiment must not count as a success."""
        lines = []
        for state in BAD:
            if found := [trial for trial in self.trials if trial.state == state]:
                example = next((f"; {trial.id}: {trial.note}" for trial in found if trial.note), "")
                lines.append(f"{len(found)} of {len(self.trials)} trials {state}{example}")
        if found := [trial.id for trial in self.trials if trial.mismatch]:
            lines.append(f"{len(found)} of {len(self.trials)} trials ran other parameters than NNI gave them: "
                         + ", ".join(found[:5]))
        if found := [trial.id for trial in self.trials if trial.finals > 1]:
            lines.append(f"report_final_result was called more than once by {', '.join(found[:5])}")
        if self.best is None:
            lines.append("no trial completed with a finite metric")
        return lines


class Follower:
    """An experiment that is looked at again and again: each look reads what is new since the one before."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.known = folder, (0, 0)  # rows of the database
        self.trials = trials.Trials(folder)

    def load(self, alive: bool) -> Results:
        """Its results by now, running (`alive`) or not; ValueError if the folder is none of an experiment."""
        new = database.read(self.folder, self.known)
        self.known = tuple(rows[-1].row if rows else last
                           for rows, last in zip((new.events, new.metrics), self.known, strict=True))
        name = new.settings.get("experimentName") or self.folder.name
        return Results(self.folder.name, name, new.settings, self.trials.read(new, alive))


def load(folder: Path, alive: bool) -> Results:
    """Read an experiment's folder once, running (`alive`) or not; ValueError if it is none."""
    return Follower(folder).load(alive)
