"""Trials that NNI 3.0 loses when a resume of its experiment ends early."""

import contextlib
import sqlite3
from pathlib import Path

# Marked as to be repeated, and neither begun nor ended since.
LOST = """trialJobId != '' and event = 'ADD_RESUMED' and rowid > coalesce((select max(rowid) from TrialJobEvent as other
          where other.trialJobId = TrialJobEvent.trialJobId and other.event != 'ADD_RESUMED'), 0)"""


def revive(folder: Path) -> int:
    """Make NNI repeat the interrupted trials that it has forgotten; returns their number. For an experiment at rest.

    A resume marks every interrupted trial in the database before it starts it. If it is killed in between, the next
    one looks for trials that run or wait, and no longer sees those marked.
    """
    with contextlib.closing(sqlite3.connect(folder / "db" / "nni.sqlite", timeout=5)) as connection, connection:
        return connection.execute(f"delete from TrialJobEvent where {LOST}").rowcount
