"""The experiments that NNI knows, by its registry in the user's home or by their own folders."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Experiment:
    """One experiment as NNI's registry records it; pid, port and status are hints, not facts."""

    id: str
    name: str
    folder: Path
    pid: int | None = None
    port: int | None = None
    status: str = "STOPPED"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def home() -> Path:
    """Where NNI keeps its registry, whatever `experimentWorkingDirectory` says."""
    return Path.home() / "nni-experiments"


def read() -> dict[str, dict]:
    """All experiments NNI knows; a missing or half-written registry counts as empty."""
    try:
        records = json.loads((home() / ".experiment").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: record for key, record in records.items() if isinstance(record, dict)}


def find(spec: str) -> Experiment:
    """The experiment of an ID, of `latest` or of an experiment's folder; ValueError if there is none."""
    records = read()
    if spec == "latest" and records:
        spec = max(records, key=lambda key: records[key].get("startTime") or 0)
    if spec in records:
        return _from_record(spec, records[spec])
    for folder in (Path(spec), home() / spec):
        if (folder / "db" / "nni.sqlite").is_file():
            return _from_folder(folder.resolve(), records)
    known = ", ".join(sorted(records, key=lambda key: -(records[key].get("startTime") or 0))[:5])
    raise ValueError(f"{spec}: no such experiment; latest first: {known or 'none, nothing was ever started here'}")


def _from_folder(folder: Path, records: dict[str, dict]) -> Experiment:
    if folder.name in records:
        known = _from_record(folder.name, records[folder.name])
        if known.folder.resolve() == folder:  # and not a copy of it elsewhere
            return known
    return Experiment(folder.name, folder.name, folder)


def _from_record(key: str, record: dict) -> Experiment:
    folder = Path(record.get("logDir") or home()) / key
    name = record.get("experimentName") or key
    return Experiment(key, name, folder, record.get("pid"), record.get("port"), record.get("status", "STOPPED"))


def mark_stopped(experiment: Experiment) -> None:
    """Write STOPPED into NNI's registry, with NNI's own lock; only if it says anything else."""
    if read().get(experiment.id, {}).get("status", "STOPPED") != "STOPPED":
        from nni.tools.nnictl.config_utils import Experiments  # 1 s, and rarely needed

        Experiments().update_experiment(experiment.id, "status", "STOPPED")
