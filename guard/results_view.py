"""The results of an NNI experiment for people and for the next stage: a table, results.csv and best.json."""

import csv
import json
import math
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

from files import atomic_write, read_object, write_json
from guard.results import Results
from guard.trials import Trial

ROWS = 70  # of the table; results.csv has them all
STATES = ("SUCCEEDED", "DIVERGED", "REFUSED", "NOT FINITE", "NO METRIC", "STOPPED EARLY", "RUNNING", "WAITING",
          "INTERRUPTED", "CANCELED", "FAILED")  # in the order of the table


def parameter_names(results: Results) -> list[str]:
    """Names in the order of the search space, then whatever else was run."""
    names = list(results.settings.get("searchSpace") or {})
    return list(dict.fromkeys([*names, *(name for trial in results.trials for name in trial.parameters or {})]))


def ranked(results: Results) -> list[Trial]:
    """Completed trials, best first; then the others, in the order of their states and numbers."""
    sign = 1 if results.minimize else -1

    def key(trial: Trial) -> tuple:
        value = sign * trial.value if trial.state == "SUCCEEDED" else 0.0
        return STATES.index(trial.state), value, trial.number

    return sorted(results.trials, key=key)


def table(results: Results, width: int | None = None) -> str:
    """An aligned table, then one line for each trial that has something to be said about it."""
    width = width or shutil.get_terminal_size((120, 24)).columns
    names = parameter_names(results)
    header = ["#", "trial", "state", "metric", *names, "best", "last", "points", "seconds"]
    shown = ranked(results)[:ROWS]
    rows = [header, *([str(rank), *_cells(results, trial, names)] for rank, trial in enumerate(shown, 1))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    texts = {"trial", "state", *names}  # left-aligned, numbers to the right
    lines = ["  ".join(cell.ljust(size) if title in texts else cell.rjust(size)
                       for cell, size, title in zip(row, widths, header, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    if len(results.trials) > ROWS:
        lines.append(f"... and {len(results.trials) - ROWS} more in results.csv")
    notes = [f"{trial.id}  {'MISMATCH' if trial.mismatch else trial.state}: {trial.note}"
             for trial in shown if trial.note]
    return "\n".join(_cut(line, width) for line in [*lines, *([""] if notes else []), *notes])


def _cells(results: Results, trial: Trial, names: list[str]) -> list[str]:
    parameters = trial.parameters or {}
    state = f"{trial.state} !" if trial.mismatch else trial.state
    return [trial.id, state, _figure(trial.value), *(_text(parameters.get(name, "-")) for name in names),
            _figure(results.best_intermediate(trial)), _figure((trial.intermediates or [None])[-1]),
            str(len(trial.intermediates)), "-" if trial.seconds is None else f"{trial.seconds:.1f}"]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else json.dumps(value)


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"


def summary(results: Results) -> str:
    """Counts of all states and the best trial, in one or two lines."""
    counts = Counter(trial.state for trial in results.trials)
    line = f"{len(results.trials)} trials: " + ", ".join(f"{count} {state}" for state, count in counts.items())
    best = results.best
    if best is None:
        return line
    pairs = parameters_text(best.parameters or {}) or "parameters unknown"
    return f"{line}\nbest: {best.value:.5g} in trial {best.id} with {pairs}"


def parameters_text(parameters: dict[str, Any]) -> str:
    """Names and values, in one line."""
    return ", ".join(f"{name} {_text(value)}" for name, value in parameters.items())


def write_csv(results: Results, path: Path) -> None:
    """Every trial, best first; parameters as `run.<name>`, empty where they are not known. `read_csv` reads it."""
    names = parameter_names(results)
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", "number", "state", "metric", *(f"run.{name}" for name in names), "best", "last",
                         "points", "seconds", "mismatch", "note"])
        for trial in ranked(results):
            parameters = trial.parameters or {}
            points = trial.intermediates
            writer.writerow([trial.id, trial.number, trial.state, trial.value,
                             *(parameters.get(name, "") for name in names), results.best_intermediate(trial),
                             points[-1] if points else None, len(points), trial.seconds, trial.mismatch, trial.note])


def read_csv(file: Path) -> tuple[list[str], list[Trial]]:
    """Parameter names and trials of a file of `write_csv`; ValueError, KeyError or OSError if it is none."""
    with open(file, newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        header = reader.fieldnames or []
        if missing := [key for key in ("trial", "state", "metric") if key not in header]:
            raise ValueError(f"no column {missing[0]}")
        names = [key.removeprefix("run.") for key in header if key.startswith("run.")]
        return names, [_trial(row, names) for row in reader if None not in row.values()]


def _trial(row: dict[str, str], names: list[str]) -> Trial:
    parameters = {name: _value(row[f"run.{name}"]) for name in names if row[f"run.{name}"] != ""}
    metric, seconds = finite(_value(row["metric"])), finite(_value(row.get("seconds", "")))
    state = "NOT FINITE" if row["state"] == "SUCCEEDED" and metric is None else row["state"]
    return Trial(row["trial"], state=state, parameters=parameters or None, value=metric, seconds=seconds,
                 note=row.get("note", ""), mismatch=row.get("mismatch") == "True")


def _value(text: str) -> Any:
    """A number where it is one."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def finite(value: Any) -> float | None:
    """As a float; None for what is no number, or NaN, or infinity."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


def write_best(results: Results, path: Path, finished: bool = False) -> bool:
    """best.json, the hand-over to the next stage; without a best trial an older file is removed, False returned.

    `finished`: the experiment came to its own end, it was not interrupted.
    """
    best = results.best
    if best is None:
        path.unlink(missing_ok=True)
        return False
    counts = Counter(trial.state.lower().replace(" ", "_") for trial in results.trials)
    write_json(path, {
        "schema": 1,
        "stage": results.name,
        "experiment": results.experiment,
        "finished": finished or results.complete,
        "trial": best.id,
        "metric": "default",
        "value": best.value,
        "parameters": best.parameters,
        "result": _nullable(read_object(best.folder / "result.json")),
        "trials": {"total": len(results.trials), **counts},
        "created": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
    })
    return True


def _nullable(value: Any) -> Any:
    """NaN and infinity, which JSON does not have, as null."""
    if isinstance(value, dict):
        return {key: _nullable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nullable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
