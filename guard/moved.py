"""What experiments begun with an earlier version name where it lay then: read as where it lies now."""

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

MOVED = {
    "nas_tuner.EvolutionTuner": "nas.tuner.EvolutionTuner",
    "models.mobilenet_space.no_larger_than_mobilenet": "models.mobilenet_space.space.no_larger_than_mobilenet",
    **{f"models.nas_scores.{score}": f"nas.scores.{score}" for score in ("average", "macs", "naswot", "synflow")},
}


def renamed(value: Any) -> Any:
    """`value`, of JSON or YAML, with every text that is such a name replaced, however deep it lies."""
    if isinstance(value, dict):
        return {key: renamed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item) for item in value]
    return MOVED.get(value, value) if isinstance(value, str) else value


def rename_in(folder: Path) -> None:
    """Do so in NNI's own record of an experiment at rest, which it starts from in a resume."""
    with contextlib.closing(sqlite3.connect(folder / "db" / "nni.sqlite", timeout=5)) as connection, connection:
        for row, params in connection.execute("select rowid, params from ExperimentProfile").fetchall():
            if (now := renamed(settings := json.loads(params))) != settings:
                connection.execute("update ExperimentProfile set params = ? where rowid = ?", (json.dumps(now), row))
