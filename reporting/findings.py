"""What there is under a runs folder: experiments of NNI (results.csv, best.json) and runs (config.json, metrics.jsonl,
result.json), grouped by what must be equal to compare two results: the data set, by its checksum, and the versions.

Nothing that is broken raises: it is told in `problems`, and the rest is kept.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from files import read_json, read_object
from guard import processes, registry
from guard.results import Results, load
from guard.results_view import finite, read_csv, write_best, write_csv
from guard.trials import Trial
from pictures.listing import named

DEPTH = 5  # of folders: runs/<pipeline>/<stage>/<name>/seed<number>
STAGES = ("hpo", "classic_nas", "darts_search", "retrain")  # folders of runs
BOARD = "leaderboard.json"  # of a pipeline, in the folder of its results
OBJECTS = ("config", "data")  # what a result must hold as objects to be shown at all


class Origin(NamedTuple):
    """Results of different origins are never compared."""

    data: str
    checksum: str  # empty while no run has finished that tells it
    versions: str

    def __str__(self) -> str:
        known = [f"checksum {self.checksum[:12]}" if self.checksum else "checksum not known yet", self.versions]
        return f"{named(self.data)} ({', '.join(filter(None, known))})"


@dataclass(frozen=True)
class Run:
    """One run's folder; `result` is none as long as the run has not finished."""

    path: Path
    name: str  # below the runs folder, such as retrain/first
    stage: str
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    result: dict[str, Any] | None

    @property
    def origin(self) -> Origin:
        return origin_of(self.result) if self.result else Origin(str(self.config.get("data", "unknown")), "", "")

    @property
    def epochs(self) -> int:
        return len(self.metrics) or int(((self.result or {}).get("last") or {}).get("epoch", 0))


@dataclass(frozen=True)
class Experiment:
    """An NNI experiment; `best` is its best.json, none if no trial has completed. Trials are as in results.csv."""

    name: str
    state: Results
    names: list[str]  # of the parameters
    best: dict[str, Any] | None

    @property
    def origin(self) -> Origin:
        result = (self.best or {}).get("result")
        return origin_of(result) if isinstance(result, dict) else Origin("unknown data", "", "")

    @property
    def done(self) -> list[Trial]:
        """Trials whose metric counts, best first."""
        return [trial for trial in self.state.trials if trial.state == "SUCCEEDED" and not trial.mismatch]


@dataclass
class Group:
    """All that has one origin, newest run first."""

    experiments: list[Experiment] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    boards: dict[str, dict[str, Any]] = field(default_factory=dict)  # leaderboards, by their folders


@dataclass
class Findings:
    groups: dict[Origin, Group]
    problems: list[str]


def find(folder: Path) -> Findings:
    """Everything below `folder`; those groups first that have read the test set, then those with most results."""
    problems: list[str] = []
    boards = dict(_boards(folder, problems))
    found = [*_experiments(folder, problems), *_judged(folder, _runs(folder, problems), boards)]
    groups: dict[Origin, Group] = {}
    named: dict[tuple[str, str], Origin] = {}  # one data set may lie in several places
    for one in found:
        origin = named.setdefault((one.origin.checksum or one.origin.data, one.origin.versions), one.origin)
        group = groups.setdefault(origin, Group())
        (group.experiments if isinstance(one, Experiment) else group.runs).append(one)
    _settle(groups)
    for origin, group in groups.items():
        group.boards = {name: board for name, board in boards.items() if board["data"]["checksum"] == origin.checksum
                        and any(run.name == exported(name, board) for run in group.runs)}
        group.runs.sort(key=lambda run: (-finished(run), run.name))

    def weight(item: tuple[Origin, Group]) -> tuple:
        origin, group = item
        return not any(map(tests, group.runs)), not origin.checksum, -len(group.experiments) - len(group.runs), origin

    return Findings(dict(sorted(groups.items(), key=weight)), problems)


def _settle(groups: dict[Origin, Group]) -> None:
    """A run that has not finished belongs to the results of a data set of its name, if they are of one origin."""
    for unknown in [origin for origin in groups if not origin.checksum]:
        known = [origin for origin in groups if origin.checksum and origin.data == unknown.data]
        if len(known) == 1:
            groups[known[0]].runs += groups.pop(unknown).runs


def finished(run: Run) -> float:
    """When result.json was written, seconds since 1970."""
    return (run.path / "result.json").stat().st_mtime if run.result else 0.0


def tests(run: Run) -> dict[str, Any] | None:
    """The figures of the test pictures, if the run is one that has read them."""
    test = (run.result or {}).get("test")
    return test if isinstance(test, dict) and finite(test.get("accuracy")) is not None else None


def origin_of(result: dict[str, Any]) -> Origin:
    data, versions = result["data"], result.get("versions")
    text = ", ".join(f"{name} {version}" for name, version in versions.items()) if isinstance(versions, dict) else ""
    return Origin(str(data.get("name", "unknown data")), str(data.get("checksum", "")), text)


# ---- leaderboards


def _boards(folder: Path, problems: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Those of the pipelines there, by their folders below it."""
    for file in sorted([*folder.glob(BOARD), *folder.glob(f"*/{BOARD}")]):
        name = file.parent.relative_to(folder).as_posix()
        board = _object(file, name, problems)
        if board and not (isinstance(board.get("rows"), list) and board["rows"]
                          and all(isinstance(board.get(key), dict) for key in ("data", "exported"))):
            problems.append(f"`{name}/{BOARD}`: not a whole leaderboard; not shown")
        elif board:
            yield name, board


def _judged(folder: Path, runs: Iterator[Run], boards: dict[str, dict[str, Any]]) -> Iterator[Run]:
    """The runs; the network that a leaderboard has exported with the figures of its test, be it a trial of NNI's."""
    found = {run.name: run for run in runs}
    for place, board in boards.items():
        name, path = exported(place, board), folder / place / str(board["exported"].get("folder"))
        run = found.get(name)
        if run is None and (result := read_object(path / "result.json")) and not _lacks(result):
            run = Run(path, name, str(result.get("stage")), result["config"], _lines(path / "metrics.jsonl", name, []),
                      result)
        if run and run.result:
            test = board["exported"].get("test")
            found[name] = replace(run, result=run.result | ({"test": test} if test else {}))
    yield from found.values()


def exported(name: str, board: dict[str, Any]) -> str:
    """The name of the run that a leaderboard in folder `name` has exported: its path, but for a trial of NNI's."""
    folder = Path(name) / str(board["exported"].get("folder"))
    stage, _, trial = folder.as_posix().partition("/nni/")
    return f"{stage}, trial {folder.name}" if trial else stage


# ---- runs


def _runs(folder: Path, problems: list[str]) -> Iterator[Run]:
    for path in sorted({file.parent for depth in range(2, DEPTH) for name in ("config.json", "result.json")
                        for file in folder.glob("/".join(["*"] * depth + [name]))}):
        name = path.relative_to(folder).as_posix()
        config = _object(path / "config.json", name, problems) or {}
        result = _object(path / "result.json", name, problems) if (path / "result.json").exists() else None
        if result is not None and (lacks := _lacks(result)):
            problems.append(f"`{name}/result.json`: {lacks} is missing; not shown")
            continue
        if result is None and not (path / "result.json").exists():
            problems.append(f"`{name}`: no result.json: the run goes on, or was broken off")
        metrics = _lines(path / "metrics.jsonl", name, problems, (result or {}).get("last"))
        if result or metrics or config:
            stage = str((result or {}).get("stage") or next((part for part in name.split("/") if part in STAGES),
                                                            name.split("/")[0]))
            yield Run(path, name, stage, (result or {}).get("config") or config, metrics, result)


def _lacks(result: dict[str, Any]) -> str | None:
    return next((key for key in OBJECTS if not isinstance(result.get(key), dict)), None)


def _object(file: Path, name: str, problems: list[str]) -> dict[str, Any] | None:
    """A JSON object, or none and a problem."""
    try:
        value = read_json(file)
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
    except (ValueError, OSError) as error:
        problems.append(f"`{name}/{file.name}`: {str(error).removeprefix(f'{file}: ')}")
        return None
    return value


def _lines(file: Path, name: str, problems: list[str], last: Any = None) -> list[dict[str, Any]]:
    """One record an epoch, up to the first broken line; `last`: that of a run that has finished."""
    records: list[dict[str, Any]] = []
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            epoch, due = record.get("epoch") if isinstance(record, dict) else None, len(records) + 1
            if not isinstance(epoch, int) or epoch != due:
                raise ValueError(f"no epoch {due}")
            records.append(record)
        if records and isinstance(last, dict) and len(records) < last.get("epoch", 0):
            raise ValueError(f"result.json tells of {last['epoch']}")
    except FileNotFoundError:
        pass  # no epoch has ended yet, or a summary of several seeds
    except (ValueError, TypeError, OSError) as error:
        problems.append(f"`{name}/{file.name}`: broken after {len(records)} epochs ({error}); the rest is not shown")
    return records


# ---- experiments


def _experiments(folder: Path, problems: list[str]) -> Iterator[Experiment]:
    names = ("config.yml", "results.csv", "best.json")
    for path in sorted({file.parent for name in names for place in ("*", "*/*") for file in folder.glob(
            f"{place}/{name}")}):
        name = path.relative_to(folder).as_posix()
        try:
            going_on = so_far(path)
        except (ValueError, OSError, yaml.YAMLError) as error:
            problems.append(f"`{name}`: no results.csv of its latest start, and {' '.join(str(error).split())}")
            going_on = None
        if going_on is None:
            if any((path / file).exists() for file in names[1:]):
                yield from _experiment(path, name, problems)
            continue
        problems.append(f"`{name}`: experiment {going_on.experiment} goes on, or was broken off; this is what it "
                        "has so far")
        with tempfile.TemporaryDirectory() as work:  # best.json beside config.yml would hand an unfinished result on
            write_csv(going_on, Path(work, "results.csv"))
            write_best(going_on, Path(work, "best.json"))
            yield from _experiment(Path(work), name, problems)


def so_far(path: Path) -> Results | None:
    """The trials of an experiment that experiment.py has started but not seen end, from NNI's own files, else none.

    path: its folder below the runs. ValueError if NNI does not know the experiment, or only half.
    """
    config, table = path / "config.yml", path / "results.csv"
    if not config.exists() or (table.exists() and table.stat().st_mtime >= config.stat().st_mtime):
        return None
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    name = settings.get("experimentName") if isinstance(settings, dict) else None
    starts = {record.get("startTime") or 0: key for key, record in registry.read().items()
              if record.get("experimentName") == name}
    written = 1000 * config.stat().st_mtime  # just before the start
    later = [start for start in starts if start >= written]
    if not later:
        raise ValueError("NNI knows of no experiment that started then")
    experiment = registry.find(starts[min(later)])
    return load(experiment.folder, alive=processes.manager_of(experiment) is not None)


def _experiment(path: Path, name: str, problems: list[str]) -> Iterator[Experiment]:
    """What results.csv and best.json in `path` tell of experiment `name`."""
    best = _object(path / "best.json", name, problems)
    if best and not (isinstance(told := best.get("result"), dict) and _lacks(told) is None):
        problems.append(f"`{name}/best.json`: no whole result of its best trial; its data set is unknown")
        best = {**best, "result": None}
    try:
        names, trials = read_csv(path / "results.csv")
    except (ValueError, OSError, KeyError) as error:
        problems.append(f"`{name}/results.csv`: cannot be read ({error})")
        return
    if best and not any(trial.id == best.get("trial") for trial in trials):
        problems.append(f"`{name}`: best.json and results.csv are of different experiments; best.json is left out")
        best = None
    told = best or {}
    state = Results(str(told.get("experiment", "")), str(told.get("stage", name)), {}, trials)
    yield Experiment(name, state, names, best)
