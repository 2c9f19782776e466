"""The finalists of a pipeline: the network of each stage for the leaderboard, where it lies, and what it took."""

from pathlib import Path
from typing import Any, NamedTuple

from files import read_object
from guard.results_view import read_csv

BOARD = "leaderboard.json"  # in the folder of all results
FOLDERS = {  # of single runs, by the name of their stage in the pipeline
    "baseline": "retrain/baseline", "hpo_final": "hpo/final", "nas_final": "classic_nas/final",
    "plain_mobilenet": "classic_nas/plain", "darts": "darts_search/search", "retrain": "retrain/final",
    "random_cell": "retrain/random"}
# What the leaderboard calls it, the stage that trains it, and the folder of the search that found it.
ENTRIES = (("baseline", "baseline", ""), ("hpo", "hpo_final", "hpo"), ("classic_nas", "nas_final", "classic_nas"),
           ("plain_mobilenet", "plain_mobilenet", ""), ("darts", "retrain", FOLDERS["darts"]),
           ("random_cell", "random_cell", ""))
EXPERIMENTS = ("hpo", "classic_nas")  # searches by NNI, whose best trial has weights of its own


class Finalist(NamedTuple):
    stage: str  # as in ENTRIES
    folder: Path  # of its training, with result.json and model.pt
    result: dict[str, Any]  # that result.json; empty if there is a problem with it
    search_seconds: float  # of the search that found it
    problem: str  # why it cannot be judged; empty if it can


def finalists(runs: Path) -> list[Finalist]:
    """Of every stage that was begun there, in the order of the pipeline."""
    found = []
    for stage, trained, search in ENTRIES:
        folder = runs / FOLDERS[trained]
        if not folder.exists():
            if not _begun(runs, search):
                continue
            folder = _best_trial(runs / search) if search in EXPERIMENTS else folder
        result = read_object(folder / "result.json") or {}
        found.append(Finalist(stage, folder, result, _seconds(runs / search) if search else 0.0,
                              _problem(folder, result, runs / search if search else folder)))
    return found


def made_of(runs: Path, found: list[Finalist]) -> dict[str, str]:
    """What tells a leaderboard of these from another one: stage -> when it was trained, or why it was not."""
    again = {f"refit {stage}": read_object(folder / "result.json") or {}
             for stage, _, _ in ENTRIES if (folder := refitted(runs, stage))}
    return {one.stage: one.problem or str(one.result.get("finished")) for one in found} | {
        name: str(result.get("finished")) for name, result in again.items()}


def refitted(runs: Path, winner: str) -> Path | None:
    """The folder of the winner's training on all pictures, if it has come to its end."""
    trained = next(name for stage, name, _ in ENTRIES if stage == winner)
    folder = runs / Path(FOLDERS[trained]).parent / f"refit_{trained}"
    return folder if (folder / "result.json").exists() and (folder / "model.pt").exists() else None


def _begun(runs: Path, search: str) -> bool:
    """Whether a search was; the folder of an experiment holds other trainings too."""
    return bool(search) and (runs / search / ("config.yml" if search in EXPERIMENTS else "")).exists()


def _best_trial(experiment: Path) -> Path:
    """Its folder, which NNI has made, as best.json names it; the experiment's own if there is none."""
    best = read_object(experiment / "best.json") or {}
    places = experiment.glob(f"nni/{best.get('experiment')}/environments/*/trials/{best.get('trial')}")
    return next(places, experiment)


def _problem(folder: Path, result: dict[str, Any], search: Path) -> str:
    if not result and (read_object(search / "result.json") or {}).get("diverged"):
        return "its search diverged, the loss is not finite"
    if not result:
        return "it has no result: its training has not come to an end"
    if result.get("diverged"):
        return "its training diverged, the loss is not finite"
    return "" if (folder / "model.pt").is_file() else "its model.pt is missing"


def _seconds(search: Path) -> float:
    """Of a search by DARTS, or of all trials of an experiment."""
    if result := read_object(search / "result.json"):
        return result.get("wall_seconds") or 0.0
    try:
        _, trials = read_csv(search / "results.csv")
    except (OSError, ValueError, KeyError):
        return 0.0
    return sum(trial.seconds or 0.0 for trial in trials)
