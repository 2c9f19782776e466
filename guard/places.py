"""Where the results of an experiment are, and where that is kept for whoever asks for them later."""

import os
import re
from pathlib import Path

from files import read_object, write_json
from guard.registry import Experiment

PLACE = "results_folder.json"  # in the experiment's own folder


def folder_of(name: str) -> Path:
    """runs/NAME, with a name that is safe as a folder."""
    return Path("runs") / (re.sub(r"[^\w.-]+", "-", name).strip(".-") or "experiment")


def keep_place(experiment: Experiment, folder: Path) -> None:
    """The folder of results, for whoever asks for them later."""
    write_json(experiment.folder / PLACE, {"out": os.path.relpath(folder, experiment.folder.resolve())})


def place_of(experiment: Experiment) -> Path | None:
    """What `keep_place` has kept, as long as the folder is there."""
    kept = (read_object(experiment.folder / PLACE) or {}).get("out")
    folder = Path(os.path.normpath(experiment.folder.resolve() / kept)) if isinstance(kept, str) else None
    return Path(os.path.relpath(folder)) if folder and folder.is_dir() else None
