"""What it takes to see how far an NNI experiment is, by its number of trials: at first, and each second from then on.

The experiments are made up: NNI's database, the manager's log, and config.json and result.json of each trial. All
trials but the last one have ended. Then that one reports, and the experiment is looked at again, up to the line of
progress, as the watchdog does each second.
"""

import json
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.measure import at_least, environment, parser, publish, save, spread
from config import run_script
from guard import results
from guard.progress import describe

TABLES = """create table TrialJobEvent (timestamp integer, trialJobId text, event text, data text, logPath text,
                                        sequenceId integer, environmentId text);
            create table MetricData (timestamp integer, trialJobId text, parameterId text, type text, sequence integer,
                                     data text);
            create table ExperimentProfile (params text, revision integer);
            insert into ExperimentProfile values ('{"experimentName": "hpo"}', 1)"""


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, rounds=5, data=False)
    options.add_argument("--trials", type=at_least(2), nargs="+", default=[100, 1000, 3000, 10000], help="how many")
    options.add_argument("--epochs", type=at_least(1), default=3, help="that each trial reports")
    args = options.parse_args(argv)
    return run_script(lambda: run(args))


def run(args) -> None:
    where = environment(torch.device("cpu"))
    found = {trials: measured(trials, args.epochs, args.rounds) for trials in args.trials}
    publish(f"Looking at an experiment whose trials report {args.epochs} epochs, milliseconds", [
        {"trials": str(trials), "at first": f"{1000 * first:.0f}",
         "from then on": spread([1000 * poll for poll in polls])}
        for trials, (first, polls) in found.items()], where, f"From then on: median (smallest to largest) of "
        f"{args.rounds}, each after one report.")
    save(args.out, args, where, seconds={str(trials): seconds for trials, seconds in found.items()})


def measured(trials: int, epochs: int, rounds: int) -> tuple[float, list[float]]:
    """Seconds of the first look, and of those after it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        database = made_up(folder, trials, epochs)
        follower = results.Follower(folder)
        first, polls = _seconds(follower), []
        for number in range(rounds):
            metric(database, trials - 1, number, 0.5)
            database.commit()
            polls.append(_seconds(follower))
    return first, polls


def _seconds(follower: results.Follower) -> float:
    start = time.perf_counter()
    state = follower.load(alive=True)
    assert state.count("RUNNING") == 1 and "best" in describe(state)
    return time.perf_counter() - start


def made_up(folder: Path, trials: int, epochs: int) -> sqlite3.Connection:
    """An experiment in `folder`; its database."""
    for name in ("db", "log"):
        (folder / name).mkdir()
    database = sqlite3.connect(folder / "db" / "nni.sqlite")
    database.executescript(TABLES)
    log = []
    for number in range(trials):
        packed = json.dumps({"parameter_id": number, "parameters": {"lr": 0.1, "model": "vgg"}})
        log.append(f"[now] INFO (LocalV3.local) Trial parameter: t{number} {packed}\n")
        event(database, number, "RUNNING", packed)
        for epoch in range(epochs if number < trials - 1 else 0):
            metric(database, number, epoch, 0.5)
        if number < trials - 1:
            metric(database, number, 0, 0.5, "FINAL")
            event(database, number, "SUCCEEDED")
            trial = folder / "environments" / "local-env" / "trials" / f"t{number}"
            trial.mkdir(parents=True)
            (trial / "config.json").write_text('{"lr": 0.1, "model": "vgg"}', encoding="utf-8")
            (trial / "result.json").write_text('{"value": 0.5}', encoding="utf-8")
    database.commit()
    (folder / "log" / "nnimanager.log").write_text("".join(log), encoding="utf-8")
    return database


def event(database: sqlite3.Connection, number: int, kind: str, data: str | None = None) -> None:
    database.execute("insert into TrialJobEvent values (?,?,?,?,?,?,'local-env')",
                     (1000 * number, f"t{number}", kind, data, "/nowhere", number))


def metric(database: sqlite3.Connection, number: int, sequence: int, value: float, kind: str = "PERIODICAL") -> None:
    database.execute("insert into MetricData values (?,?,?,?,?,?)", (
        1000 * number + sequence, f"t{number}", str(number), kind, sequence, json.dumps(json.dumps(value))))


if __name__ == "__main__":
    sys.exit(main())
