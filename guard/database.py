"""NNI's own record of an experiment: the SQLite database in its folder, read while NNI may be writing it."""

import json
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote


class Event(NamedTuple):
    """A step in a trial's life, such as RUNNING; `data` is JSON of the parameters that were submitted with it."""

    row: int
    timestamp: int  # ms since the epoch
    trial: str
    kind: str
    data: str | None
    path: str | None  # of the trial's folder
    number: int | None
    environment: str | None


class Metric(NamedTuple):
    """What a trial has reported: PERIODICAL or FINAL; `data` is JSON in JSON."""

    row: int
    timestamp: int  # ms since the epoch
    trial: str
    parameter_id: Any  # as the trial sent it; trials added by hand in the web UI have none
    kind: str
    data: str
    sequence: int


class Record(NamedTuple):
    settings: dict  # the experiment file as NNI stored it
    events: list[Event]
    metrics: list[Metric]


def read(folder: Path, after: tuple[int, int] = (0, 0)) -> Record:
    """What the database in an experiment's folder holds; retried, since NNI writes at any moment.

    after: the last rows of events and of metrics that are known; while it runs NNI only appends. Raises ValueError with
    one line if there is no database, or it cannot be read.
    """
    file = folder / "db" / "nni.sqlite"
    if not file.is_file():
        raise ValueError(f"{folder}: not an NNI experiment (it has no db/nni.sqlite)")
    for wait in (0.0, 0.5, 1.0):
        time.sleep(wait)
        try:
            return _query(f"file:{quote(str(file))}?mode=ro", after)
        except sqlite3.Error as error:
            problem = error
        try:  # a killed manager may leave a journal, which can be rolled back in a copy only
            return _query_copy(file, after)
        except (sqlite3.Error, OSError) as error:
            problem = error
    raise ValueError(f"{file}: cannot be read ({problem})")


def _query(uri: str, after: tuple[int, int]) -> Record:
    connection = sqlite3.connect(uri, uri=True, timeout=5)
    try:
        profile = connection.execute(
            "select params from ExperimentProfile order by revision desc limit 1").fetchone()
        events = connection.execute(
            "select rowid, timestamp, trialJobId, event, data, logPath, sequenceId, environmentId from TrialJobEvent "
            "where rowid > ? and trialJobId != '' order by rowid", after[:1]).fetchall()
        metrics = connection.execute(
            "select rowid, timestamp, trialJobId, parameterId, type, data, sequence from MetricData "
            "where rowid > ? order by rowid", after[1:]).fetchall()
    finally:
        connection.close()
    return Record(json.loads(profile[0]) if profile else {}, [Event(*row) for row in events],
                  [Metric(*row) for row in metrics])


def _query_copy(file: Path, after: tuple[int, int]) -> Record:
    with tempfile.TemporaryDirectory() as folder:
        for source in file.parent.glob(f"{file.name}*"):
            shutil.copy(source, folder)
        return _query(f"file:{quote(str(Path(folder) / file.name))}", after)


def decoded(text: Any) -> Any:
    """The value of a column that holds JSON; None if it does not."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return None
