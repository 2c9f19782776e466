"""What each trial of an NNI experiment truly did, from the database, the log and the trial's own files.

NNI 3.0 records the parameters in the order they were submitted, while whichever trial asks first gets them: with two
trials at once its web UI, its export and its `trial ls` are wrong for about half of them. What is right is the
`parameterId` that a trial sends with its metrics. Here it is joined with the parameters submitted under that id, and
compared with NNI's log of what it handed out and with what the trial itself wrote; a disagreement is always shown.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from files import read_object
from guard.database import Event, Metric, Record, decoded
from guard.logs import ManagerLog, last_error

ACTIVE = ("WAITING", "RUNNING")
ENDED = ("SUCCEEDED", "FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED")  # NNI's events
UNENDED = (*ACTIVE, "INTERRUPTED")  # states
BAD = ("FAILED", "NO METRIC", "NOT FINITE")  # states of a trial that make an experiment fail


@dataclass
class Trial:
    """What one trial truly did. `value` is its final metric, `parameters` is None if it never asked for any."""

    id: str
    number: int = 0
    state: str = "WAITING"
    parameters: dict[str, Any] | None = None
    value: float | None = None
    intermediates: list[float] = field(default_factory=list)
    started: float | None = None  # seconds since the epoch
    seconds: float | None = None
    folder: Path = Path()
    note: str = ""  # the last line of its error, or what else is wrong with it
    mismatch: bool = False  # its own record contradicts NNI's
    finals: int = 0


class Trials:
    """The trials of an experiment, in the order they were started: each `read` looks anew at those of which there is
    news, or that have not ended."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, ManagerLog(folder)
        self.events: defaultdict[str, list[Event]] = defaultdict(list)  # of each trial
        self.metrics: defaultdict[str, list[Metric]] = defaultdict(list)
        self.submitted: defaultdict[str, list[tuple[int, dict]]] = defaultdict(list)
        self.found: dict[str, Trial] = {}
        self.open: set[str] = set()

    def read(self, new: Record, alive: bool) -> list[Trial]:
        """All trials, after what is new in the database; `alive`: the experiment is running."""
        for event in new.events:
            self.events[event.trial].append(event)
            self.found.setdefault(event.trial, Trial(event.trial))
            self._submit(event)
        for metric in new.metrics:
            self.metrics[metric.trial].append(metric)
        news = {row.trial for row in (*new.events, *new.metrics)} | self.log.read_on() | self.open
        for name in news & self.found.keys():
            self.found[name] = trial = self._look_at(name, alive)
            (self.open.add if trial.state in UNENDED else self.open.discard)(name)
        return [*self.found.values()]

    def _submit(self, event: Event) -> None:
        """parameter_id -> [(time, parameters)]: several, since the numbering can start again after a resume."""
        packed = decoded(event.data)
        if isinstance(packed, dict) and isinstance(packed.get("parameters"), dict):
            self.submitted[str(packed.get("parameter_id"))].append((event.timestamp, packed["parameters"]))

    def _look_at(self, name: str, alive: bool) -> Trial:
        events = self.events[name]
        trial = _begun(self.folder, name, events)
        metrics = _of_last_run(trial, self.metrics[name])
        echo = _add_metrics(trial, metrics)
        _add_state(trial, [event.kind for event in events], self.log, alive)
        _add_parameters(trial, _joined(metrics, self.submitted), _handed(trial, self.log), echo)
        _add_best_known_note(trial, self.log)
        return trial


def _begun(folder: Path, name: str, events: Iterable[Event]) -> Trial:
    trial = Trial(name)
    for event in events:
        trial.number = trial.number or event.number or 0
        if event.environment and event.path:
            here = folder / "environments" / event.environment / "trials" / event.trial
            trial.folder = here if here.is_dir() else Path(event.path)
        if event.kind in ACTIVE:
            trial.started, trial.seconds = event.timestamp / 1000, None
        elif event.kind in ENDED and trial.started is not None:
            trial.seconds = max(0.0, event.timestamp / 1000 - trial.started)
    return trial


def _of_last_run(trial: Trial, metrics: Iterable[Metric]) -> list[Metric]:
    """The trial's metrics; a resume repeats an interrupted trial from the start, and appends."""
    since = (trial.started or 0) * 1000 - 1
    return [metric for metric in metrics if metric.timestamp >= since]


def _add_metrics(trial: Trial, metrics: list[Metric]) -> dict[str, Any]:
    """Fill in the trial's metrics; returns the echoed `run.*` values of its final one."""
    final, echo = None, {}
    for metric in sorted(metrics, key=lambda metric: metric.sequence):  # they may overtake each other
        value = decoded(decoded(metric.data))
        if metric.kind == "PERIODICAL":
            trial.intermediates.append(_number(value))
        elif metric.kind == "FINAL":
            trial.finals += 1
            final = value if trial.finals == 1 else final  # the first is what the tuner learns from
    if isinstance(final, dict):
        echo = {key[4:]: item for key, item in final.items() if key.startswith("run.")}
    if trial.finals:
        trial.value = _number(final)
    return echo


def _number(value: Any) -> float:
    """A metric as a float; NaN for what is no number, so that it is shown and never best."""
    if isinstance(value, dict):
        value = value.get("default")
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _add_state(trial: Trial, events: list[str], log: ManagerLog, alive: bool) -> None:
    state = next((event for event in reversed(events) if event in (*ENDED, *ACTIVE)), "WAITING")
    early = trial.id in log.by_assessor | log.over_time or state == "EARLY_STOPPED"
    by_user = "USER_TO_CANCEL" in events or trial.id in log.by_user
    if state in ACTIVE:
        trial.state = state if alive else "INTERRUPTED"
    elif trial.finals and (state == "SUCCEEDED" or (early and not by_user)):  # told to stop when it had ended by itself
        told = read_object(trial.folder / "result.json") or {}
        refused, diverged, finite = told.get("refused"), told.get("diverged") is True, math.isfinite(trial.value)
        trial.state = "REFUSED" if refused else "DIVERGED" if diverged else "SUCCEEDED" if finite else "NOT FINITE"
        trial.note = str(refused or "")
    elif by_user:
        trial.state = "CANCELED"
    elif early or (state == "USER_CANCELED" and not log.exists):
        trial.state = "STOPPED EARLY"
    else:  # NNI calls it USER_CANCELED, too, when the kernel kills a trial that needs too much memory
        trial.state = "NO METRIC" if state == "SUCCEEDED" else "FAILED"
        trial.note = {"USER_CANCELED": "killed by a signal from outside NNI (out of memory?)",
                      "SYS_CANCELED": "cancelled by NNI's training service"}.get(state, "")


def _joined(metrics: list[Metric], submitted: Mapping[str, list[tuple[int, dict]]]) -> dict | None:
    """The parameters of the last metric's parameterId: the latest submitted under it before the metric came."""
    if not metrics or metrics[-1].parameter_id is None:  # trials added by hand in the web UI have no id
        return None
    sent_under = submitted.get(_id(metrics[-1].parameter_id), [])
    before = [parameters for sent, parameters in sent_under if sent <= metrics[-1].timestamp]
    return before[-1] if before else None


def _id(parameter_id: Any) -> str:
    """The column is text, yet a number may come back as 3 or 3.0."""
    text = str(parameter_id)
    return text[:-2] if text.endswith(".0") else text


def _handed(trial: Trial, log: ManagerLog) -> dict | None:
    """The parameters that NNI handed out to the trial, by its log."""
    return (decoded(log.given.get(trial.id)) or {}).get("parameters")


def _add_parameters(trial: Trial, joined: dict | None, logged: dict | None, echo: dict[str, Any]) -> None:
    """Set the true parameters, by rank of evidence: the join, NNI's log, the trial's own record; compare them all."""
    trial.parameters = joined or logged
    if trial.parameters is None:  # e.g. a trial added by hand, whose folder is elsewhere
        trial.parameters = echo or None
        return
    records = (("its config.json", read_object(trial.folder / "config.json")), ("its final report", echo),
               ("NNI's log", logged))
    for source, record in records:
        for name, value in trial.parameters.items():
            if name in (record or {}) and not _same(record[name], value):
                trial.mismatch = True
                trial.note = trial.note or f"{name}: NNI gave {value!r}, {source} says {record[name]!r}"


def _same(one: Any, other: Any) -> bool:
    numbers = isinstance(one, (int, float)) and isinstance(other, (int, float))
    return math.isclose(one, other, rel_tol=1e-9) if numbers else one == other


def _add_best_known_note(trial: Trial, log: ManagerLog) -> None:
    if trial.note:
        return
    if trial.state == "FAILED":
        trial.note = last_error(trial.folder)
    elif trial.state == "NO METRIC":
        asked = "" if trial.parameters else "never asked for parameters and "
        trial.note = f"{asked}ended without report_final_result()"
    elif trial.state == "NOT FINITE":
        trial.note = f"reported {trial.value} as its final result"
    elif trial.id in log.over_time:
        trial.note = "over maxTrialDuration"
    if trial.finals > 1:
        trial.note = f"reported {trial.finals} final results, the first counts"
