"""What people read while a training goes on: what it is of, and how long it still takes."""

import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

TOLD = "NOTES_TOLD"  # in the environment: a pipeline has told all that is to be said of the data set


def of_data(summary: str) -> str:
    """The summary of a data set; within a pipeline its first line."""
    return summary.partition("\n")[0] if TOLD in os.environ else summary


def left(records: Sequence[Mapping[str, Any]], epochs: int) -> str:
    """An estimate of the time left, from the `seconds` in the records of those epochs, of `epochs`, that are over."""
    seconds = statistics.median(record["seconds"] for record in records) * (epochs - len(records))
    return f"about {duration(seconds)} left" if len(records) < epochs else "the last epoch"


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
