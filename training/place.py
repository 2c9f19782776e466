"""The folder of a run: where it is, and whether the run goes on from what lies there, which is never lost unless that
was said.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from config import TrainingConfig
from files import read_object
from training.reporter import Reporter

# Of a run, beside its records:
LEAVES = ("checkpoint.pt", "checkpoint.pt.before", "choice.pt", "choice.pt.before", "model.pt", "genotype.json")
RESTARTS = {"TORCHELASTIC_RESTART_COUNT": "torchrun", "SLURM_RESTART_COUNT": "Slurm"}  # in the environment: above 0


def run_path(config: TrainingConfig, reporter: Reporter, stage: str, name: str) -> Path:
    """The tuner's folder of it, else runs/<stage>/<name>; ValueError if that would cost what an earlier run has left.

    `name`, made of the settings, gets that of the data set before it, unless this is the usual one.
    """
    if reporter.tuned:
        return reporter.folder()
    if config.resume and config.overwrite:
        raise ValueError("give either --resume, to go on, or --overwrite, to begin anew")
    stage_folder = Path(config.runs_dir) / stage
    path = stage_folder / (config.name or with_data(name, config.data, stage_folder))
    if not (config.resume or config.overwrite):
        assert_free(path)
    return path


def assert_free(path: Path) -> None:
    """ValueError if a folder holds a run, but for a checkpoint where this run was started again."""
    again = restarted()
    kept = [file for pattern in ("result.json", "checkpoint.pt", "seed*/checkpoint.pt") for file in path.glob(pattern)]
    if kept and not (again and kept[-1].name == "checkpoint.pt"):
        what = "a finished run" if kept[0].name == "result.json" else "a run that was stopped"
        raise ValueError(f"{path}: holds {what}; --resume goes on with it, --overwrite begins anew, --name NAME gives "
                         "another folder")


def with_data(name: str, data: str, folder: Path) -> str:
    """`name` behind the data set's; of two folders of pictures with one name the later one gets a hash behind it."""
    from pictures.known import DATASETS

    if data == TrainingConfig.data:
        return name
    label = data if data in DATASETS else re.sub(r"[^\w.-]+", "-", Path(data).resolve().name).strip(".-") or "pictures"
    found = name if name.startswith(f"{label}-") else f"{label}-{name}"  # after the search that found the cells
    other = (read_object(folder / found / "config.json") or {}).get("data", data)
    if other == data or (other not in DATASETS and data not in DATASETS and (
            not Path(other).exists() or Path(other).resolve() == Path(data).resolve())):
        return found
    return f"{label}.{hashlib.sha256(str(Path(data).resolve()).encode()).hexdigest()[:6]}{found.removeprefix(label)}"


def restarted() -> str:
    """Which of torchrun and Slurm has started this run again; empty if it is its first start.

    The same in all processes: a torchrun on one machine does not count the failures on another one.
    """
    from training.distributed import gathered

    by = next((by for name, by in RESTARTS.items() if os.environ.get(name, "0") not in ("", "0")), "")
    return max(gathered(by))


def earlier(config: TrainingConfig, checkpoint: Path, reporter: Reporter,
            load: Callable[[Path], dict[str, Any]]) -> dict[str, Any] | None:
    """What `load` gives of the checkpoint that this run goes on from; None if it begins with its first epoch.

    It goes on if that was said, as a trial that its tuner repeats in the same folder, or if it was started again. Then
    with --overwrite a checkpoint that is none of its own is what was to be overwritten; without, ValueError.
    """
    from training.distributed import gathered, rank

    again = restarted()
    if not config.resume and not ((again or reporter.tuned) and gathered(checkpoint.exists())[0]):
        return None
    try:
        saved = load(checkpoint)
    except ValueError:
        if again and config.overwrite:
            return None
        raise
    if again and rank() == 0:
        print(f"started again by {again}: goes on after epoch {len(saved['history'])}, {checkpoint}", flush=True)
    return saved


def begin_anew(config: TrainingConfig, path: Path, reporter: Reporter) -> None:
    """With --overwrite remove what an earlier run has left in its folder, its searches of several seeds too."""
    from training.distributed import rank

    if not config.overwrite or reporter.tuned or rank() > 0:
        return
    for place in (path, *path.glob("seed*")):
        for file in LEAVES:
            (place / file).unlink(missing_ok=True)
        shutil.rmtree(place / "tensorboard", ignore_errors=True)
