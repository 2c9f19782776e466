"""Tuners and assessors of NNI as Ray Tune asks and tells them: those of the one-machine engine, unchanged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nni
from nni.assessor import AssessResult
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from cluster.record import Entry, Record
from files import read_object

DRAWS = 1_000  # proposals that equal an earlier one before one is run twice


class Proposals(Searcher):
    """Asks a tuner of NNI for parameters, first repeats what a stop has interrupted, and keeps the record.

    config_of: what a trial's process is told of an entry; may_begin: whether another trial may; tell: of an ended one.
    """

    def __init__(self, tuner: Any, record: Record, config_of: Callable[[Entry], dict[str, Any]],
                 may_begin: Callable[[], bool], stopped: Callable[[], bool], tell: Callable[[Entry], None]) -> None:
        super().__init__(metric="metric", mode="max")
        self.tuner, self.record, self.config_of = tuner, record, config_of
        self.may_begin, self.stopped, self.tell = may_begin, stopped, tell
        self.again = [*record.unfinished]
        self.repeated = {entry.name for entry in self.again}
        self.running: dict[str, Entry] = {}  # by Tune's id
        self.failure: Exception | None = None  # of the tuner

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        try:
            entry = self.again.pop(0) if self.again else self._proposed() if self.may_begin() else None
        except nni.NoMoreTrialError:
            entry = None
        except Exception as error:  # of a tuner: those that run come to their end
            self.failure, entry = error, None
        if entry is None or self.failure:
            return Searcher.FINISHED
        entry.points = []
        self.running[trial_id] = entry
        return self.config_of(entry)

    def _proposed(self) -> Entry:
        number, ran = len(self.record.entries), [entry.parameters for entry in self.record.entries.values()]
        for _ in range(DRAWS):
            parameters = self.tuner.generate_parameters(number)
            if parameters not in ran:
                break
            self.tuner.trial_end(number, False)
        return self.record.propose(parameters)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        entry = self.running[trial_id]
        if entry.points and result["training_iteration"] == 1:
            print(f"{entry.name}  its process or machine was lost: it goes on in another one", flush=True)
        if "outcome" not in result:
            add_point(entry.points, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        entry = self.running.pop(trial_id)
        outcome = json.loads(result["outcome"]) if "outcome" in (result or {}) else None
        if outcome is None and self.stopped():
            return
        if outcome is None and not error:  # Tune tells the last metric of a trial that it stops here alone
            add_point(entry.points, result)
        _add_outcome(entry, outcome, self.record.folder / entry.name, error)
        self.record.end(entry)
        self._teach(entry)
        self.tell(entry)

    def _teach(self, entry: Entry) -> None:
        number, good = int(entry.name.rpartition("-")[2]) - 1, entry.value is not None
        if good and entry.name in self.repeated:  # as NNI does it: this tuner has not given the number out
            self.tuner.import_data([{"parameter": entry.parameters, "value": entry.value}])
        elif entry.name not in self.repeated:
            if good:
                self.tuner.receive_trial_result(number, entry.parameters, entry.value, trial_job_id=entry.name)
            self.tuner.trial_end(number, good, trial_job_id=entry.name)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing for Tune's own files, which are not used."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """The record is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """The record is the state."""


def add_point(points: list[float], result: dict[str, Any]) -> None:
    """The metric of an epoch; a trial whose machine was lost tells its epochs again."""
    points[result["training_iteration"] - 1:] = [result["metric"]]


def _add_outcome(entry: Entry, outcome: dict[str, Any] | None, folder: Path, error: bool) -> None:
    if outcome is None:
        entry.state = "FAILED" if error else "STOPPED EARLY"
        entry.note = "its process died, again and again (out of memory?)" if error else ""
        return
    if outcome["last"] is not None:
        entry.points.append(outcome["last"])
    entry.value, entry.seconds, entry.note = outcome["value"], outcome["seconds"], outcome["error"]
    told = read_object(folder / "result.json") or {}
    if entry.note:
        entry.state, entry.value = "FAILED", None
    elif not outcome["reported"]:
        entry.state, entry.note = "NO METRIC", "ended without a metric"
    elif "refused" in told:
        entry.state, entry.note = "REFUSED", str(told["refused"])
    else:
        entry.state = ("DIVERGED" if told.get("diverged") is True else "SUCCEEDED" if entry.value is not None else
                       "NOT FINITE")


class Assessment(FIFOScheduler):
    """Stops the trials that an assessor of NNI finds bad, after each epoch."""

    def __init__(self, assessor: Any, record: Record) -> None:
        super().__init__()
        self.assessor = assessor
        self.points: dict[str, list[float]] = {}  # by Tune's id
        for entry in record.ended:
            if entry.points:
                assessor.assess_trial(entry.name, entry.points)
                assessor.trial_end(entry.name, entry.value is not None)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        points = self.points.setdefault(trial.trial_id, [])
        add_point(points, result)
        bad = self.assessor.assess_trial(trial.trial_id, [*points]) is AssessResult.Bad
        return self.STOP if bad else self.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self.assessor.trial_end(trial.trial_id, "outcome" in result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self.assessor.trial_end(trial.trial_id, False)


class Stop(Stopper):
    """Ends a trial that takes longer than `seconds` (0: none does), and all as soon as `stopped` says so."""

    def __init__(self, seconds: float, stopped: Callable[[], bool]) -> None:
        self.seconds, self.stopped = seconds, stopped

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return bool(self.seconds) and result["time_total_s"] > self.seconds

    def stop_all(self) -> bool:
        return self.stopped()
