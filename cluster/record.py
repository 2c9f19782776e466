"""The record of an experiment in its folder: what was proposed and what came of it, a line each, written at once.

    {"trial": "trial-0001", "parameters": {...}, "clock": 0.1}
    {"trial": "trial-0001", "state": "SUCCEEDED", "value": 0.9, "points": [0.8, 0.9], "seconds": 60.1, "note": "", ...}

A driver that is killed loses nothing: what was proposed and has not ended is run again, in its own folder.
"""

import fcntl
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from files import atomic_write
from guard.experiment_file import read_yaml
from guard.results import Results
from guard.trials import Trial

SETTINGS, LINES = "ray.yml", "ray.jsonl"  # in the experiment's folder
NAME = "ray"  # in best.json, in place of NNI's ID


@dataclass
class Entry:
    """A trial: its parameters, and what came of it."""

    name: str
    parameters: dict[str, Any]
    state: str = ""  # of guard.trials; empty: it has not ended
    value: float | None = None
    points: list[float] = field(default_factory=list)
    seconds: float | None = None
    note: str = ""


class Record:
    """The trials of an experiment, in the order they were proposed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.entries, self.handle = folder, {}, None
        self.size, self.before = 0, 0.0  # bytes of whole lines; seconds that the experiment ran until the last of them
        file = folder / LINES
        for line in file.read_bytes().splitlines(keepends=True) if file.exists() else ():
            if not line.endswith(b"\n"):  # torn by a kill
                break
            self._take(json.loads(line))
            self.size += len(line)
        self.begin = time.monotonic()

    def _take(self, event: dict[str, Any]) -> None:
        self.before = event.pop("clock")
        name = event.pop("trial")
        if "parameters" in event:
            self.entries[name] = Entry(name, event["parameters"])
        else:
            self.entries[name].__dict__.update(event)

    @property
    def clock(self) -> float:
        """Seconds that the experiment has run, without the time between a stop and a resume."""
        return self.before + time.monotonic() - self.begin

    @property
    def unfinished(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if not entry.state]

    @property
    def ended(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.state]

    def claim(self) -> None:
        """To write; ValueError if another process does."""
        self.handle = os.open(self.folder / LINES, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self.folder}: this experiment is running") from None
        os.ftruncate(self.handle, self.size)
        os.lseek(self.handle, 0, os.SEEK_END)

    def release(self) -> None:
        os.close(self.handle)

    def propose(self, parameters: dict[str, Any]) -> Entry:
        entry = Entry(f"trial-{len(self.entries) + 1:04d}", parameters)
        self.entries[entry.name] = entry
        self._write(entry, {"parameters": parameters})
        return entry

    def end(self, entry: Entry) -> None:
        told = {key: value for key, value in entry.__dict__.items() if key not in ("name", "parameters")}
        self._write(entry, told)

    def _write(self, entry: Entry, event: dict[str, Any]) -> None:
        line = json.dumps({"trial": entry.name, **event, "clock": round(self.clock, 3)}) + "\n"
        os.write(self.handle, line.encode())
        os.fsync(self.handle)

    def is_written(self) -> bool:
        """Whether a process runs the experiment."""
        try:
            with open(self.folder / LINES, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def results(self, config: dict[str, Any], space: dict[str, Any], unfinished: str = "INTERRUPTED") -> Results:
        """`unfinished`: the state of trials that have not ended."""
        trials = [Trial(entry.name, number, entry.state or unfinished, entry.parameters, entry.value, entry.points,
                        seconds=entry.seconds, folder=self.folder / entry.name, note=entry.note)
                  for number, entry in enumerate(self.entries.values(), 1)]
        name = config.get("experimentName") or self.folder.name
        return Results(NAME, name, {**config, "searchSpace": space}, trials)


def is_one(folder: Path) -> bool:
    """Whether there is an experiment of Ray in `folder`."""
    return (folder / SETTINGS).is_file()


def write_settings(folder: Path, config: dict[str, Any]) -> None:
    with atomic_write(folder / SETTINGS) as stream:
        yaml.safe_dump(config, stream, sort_keys=False, allow_unicode=True)


def read_settings(folder: Path) -> dict[str, Any]:
    config = read_yaml(folder / SETTINGS)
    if not isinstance(config, dict):
        raise ValueError(f"{folder / SETTINGS}: must be keys and values")
    return config
