"""The results of trials without an experiment, from a Slurm array, another tuner or by hand: `*/result.json` as the
results of one, for the same results.csv and best.json.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from files import read_json, read_object
from guard.results import Results
from guard.results_view import finite
from guard.trials import Trial

COLLECTED = "collected"  # in best.json, in place of an experiment's ID
STAGES = ("hpo", "classic_nas")
HANDED_ON = ("model", "optimizer", "lr")  # from stage 1
ALIKE = ("checksum", "metric", "epochs", "train_size", "val_size", "held_out")  # or accuracies cannot be compared
SHOWN = 3  # names in a line


class Collected(NamedTuple):
    results: Results
    notes: list[str]  # what is worth knowing
    problems: list[str]  # what could not be used
    unfinished: bool


def read(folder: Path, not_computed: Collection[str], only: Mapping[str, str]) -> Collected:
    """The results below `folder`; with `only` those alone that have these settings.

    `not_computed`: settings that do not change what a trial computes. ValueError, a line for each reason: there are no
    results, or they cannot be compared with one another.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    found, problems = _whole(folder)
    if unknown := [key for key in only if not any(key in _facts(result) for result in found.values())]:
        raise ValueError(f"--only {unknown[0]}: no setting of the results in {folder}")
    found = {name: result for name, result in found.items()
             if all(_text(_facts(result).get(key)) == value for key, value in only.items())}
    if not found:
        raise ValueError("; ".join(problems) or f"{folder}: no result.json in a folder of it" + (
            " with " + ", ".join(f"{key}={value}" for key, value in only.items()) if only else ""))
    _assert_comparable(folder, found)

    trained = [result["config"] for result in found.values() if "refused" not in result]
    differ = [key for key in dict.fromkeys(key for config in trained for key in config)
              if key not in not_computed and len({_text(config.get(key)) for config in trained}) > 1]
    stage = next(iter(found.values()))["stage"]
    names = dict.fromkeys([*HANDED_ON, *differ])
    trials = [_trial(number, folder / name, result, names) for number, (name, result) in enumerate(found.items())]
    begun = sorted(file.parent.name for file in folder.glob("*/config.json")
                   if not (file.parent / "result.json").exists())
    notes = [f"not finished, left out: {_some(begun)}"] if begun else []
    if others := [key for key in differ if stage != "hpo" or key not in HANDED_ON]:
        notes.append(f"trials differ in {', '.join(others)} too")
    return Collected(Results(COLLECTED, stage, {}, trials), notes, problems, bool(begun))


def assert_not_of_nni(folder: Path) -> None:
    """ValueError if the results of an experiment of NNI lie where those of `read` are to be written."""
    told = (read_object(folder / "best.json") or {}).get("experiment", COLLECTED)
    if told != COLLECTED or (folder / "config.yml").exists():
        raise ValueError(f"{folder}: holds the results of an NNI experiment; --out FOLDER writes elsewhere")


def _whole(folder: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """By the names of their folders; and a line for each that is damaged."""
    found, problems = {}, []
    for file in sorted(folder.glob("*/result.json")):
        try:
            result = read_json(file)
            if lacks := _lacks(result):
                raise ValueError(f"{file}: {lacks}")
            found[file.parent.name] = result
        except (ValueError, OSError) as error:
            problems.append(f"{error}; not used")
    return found, problems


def _lacks(result: Any) -> str | None:
    if not isinstance(result, dict) or result.get("stage") not in STAGES:
        stage = result.get("stage") if isinstance(result, dict) else None
        return f"stage {stage!r}: must be a result of {' or '.join(STAGES)}"
    objects = ("architecture",) * (result["stage"] == "classic_nas") + ("config", "data") * ("refused" not in result)
    return next((f"has no {key}" for key in objects if not isinstance(result.get(key), dict)), None)


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial was made with, and of which pictures."""
    data = result.get("data") or {}
    return {**(result.get("config") or {}), "checksum": str(data.get("checksum"))[:12], "metric": result.get("metric"),
            "stage": result["stage"]}


def _assert_comparable(folder: Path, found: Mapping[str, dict[str, Any]]) -> None:
    lines = []
    for key in ("stage", *ALIKE):
        groups = defaultdict(list)
        for name, result in found.items():
            if "refused" not in result or key == "stage":
                groups[_text(_facts(result).get(key))].append(name)
        if len(groups) > 1:
            told = ", ".join(f"{value} in {len(names)} ({_some(names)})" for value, names in groups.items())
            lines.append(f"{key} differs: {told}; choose by --only {key}={max(groups, key=lambda of: len(groups[of]))}")
    judged = [result.get("metric", "validation") for result in found.values()]
    if not lines and not str(judged[0]).startswith("validation"):
        lines.append(f"metric = {judged[0]!r}: nothing can be chosen without validation")
    if lines:
        raise ValueError("; ".join(f"{folder}: {line}" for line in lines))


def _trial(number: int, folder: Path, result: Mapping[str, Any], names: Collection[str]) -> Trial:
    value, config = finite(result.get("value")), result.get("config") or {}
    state = ("REFUSED" if "refused" in result else "DIVERGED" if result.get("diverged") else
             "NOT FINITE" if value is None else "SUCCEEDED")
    parameters = result.get("architecture") or {name: config[name] for name in names if name in config}
    return Trial(folder.name, number, state, parameters, value, _epochs(folder), seconds=finite(
        result.get("wall_seconds")), folder=folder, note=str(result.get("refused", "")))


def _epochs(folder: Path) -> list[float]:
    """The validation accuracy of each epoch, as far as metrics.jsonl is whole."""
    try:
        return [json.loads(line)["val_accuracy"] for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _some(names: Collection[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join([*names][:SHOWN]) + more
