"""How long a training still takes, for people."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def left(records: Sequence[Mapping[str, Any]], epochs: int) -> str:
    """An estimate of the time left, from the `seconds` in the records of those epochs, of `epochs`, that are over."""
    seconds = statistics.median(record["seconds"] for record in records) * (epochs - len(records))
    return f"about {duration(seconds)} left" if len(records) < epochs else "the last epoch"


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
