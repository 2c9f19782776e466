"""What the logs in an NNI experiment's folder say: its manager's, its tuner's, and those of its trials."""

import os
import re
from pathlib import Path

GO_ON = "GO_ON_WITH"  # in the environment: the command that goes on with all that the experiment is a part of
TAIL = 8192  # bytes of a trial's log, in which its last line is


class ManagerLog:
    """The four facts that only nnimanager.log has: which trial was handed what, and who ended it."""

    def __init__(self, folder: Path) -> None:
        self.path, self.known = folder / "log" / "nnimanager.log", 0  # bytes of whole lines
        self.exists = False
        self.given: dict[str, str] = {}  # trial -> JSON
        self.by_user, self.by_assessor, self.over_time = set(), set(), set()

    def read_on(self) -> set[str]:
        """Take what has been written since the last look; the trials that it is about."""
        new = _bytes(self.path, self.known)
        self.known += new.rfind(b"\n") + 1  # a line that is not whole yet is looked at once more
        self.exists = self.exists or bool(new)
        text = new.decode("utf-8", errors="replace")
        given = dict(re.findall(r"Trial parameter: (\w+) (\{.*\})", text))
        by_user = set(re.findall(r"User cancelTrialJob: (\w+)", text))
        by_assessor = set(re.findall(r'cancelTrialJob: "(\w+)"', text))
        over_time = set(re.findall(r"Trial job (\w+) has been canceled because it is over", text))
        self.given |= given
        self.by_user |= by_user
        self.by_assessor |= by_assessor
        self.over_time |= over_time
        return given.keys() | by_user | by_assessor | over_time


def manager_error(folder: Path) -> str | None:
    """The last ERROR of NNI's manager."""
    text = _text(folder / "log" / "nnimanager.log")
    lines = re.findall(r"^\[[^]]*\] (?:ERROR|CRITICAL) \([^)]*\) (.*)", text, re.MULTILINE)
    return lines[-1][:300] if lines else None


def why_gone(folder: Path) -> str:
    """What nnimanager.log says about the end of the manager."""
    _, _, last_start = _text(folder / "log" / "nnimanager.log").rpartition("Start NNI manager")
    found = re.findall(r"Initiate shutdown: (.*)", last_start)
    if found and found[-1].startswith("SIG"):
        return f"it was stopped from outside ({found[-1]}, e.g. by nnictl stop)"
    if found:
        return f"{found[-1]}; {manager_error(folder) or 'no error in its log'}"
    go_on = os.environ.get(GO_ON) or f"python experiment.py resume {folder.name}"
    return f"it was killed from outside (its log ends without a word); go on with: {go_on}"


def tuner_says(folder: Path) -> str:
    """The last that a tuner of one's own has logged: it may take long over its first proposal."""
    text = _text(folder / "log" / "dispatcher.log")
    lines = re.findall(r"^\[[^]]*\] INFO \((?!nni\b)[^)]*\)+ (.*)", text, re.MULTILINE)
    return f"the tuner says: {lines[-1][:200]}" if lines else "the tuner is choosing"


def tuner_exception(folder: Path, start: int = 0) -> str | None:
    """The message of the last traceback in dispatcher.log, from byte `start` on; None if there is none."""
    text = _text(folder / "log" / "dispatcher.log", start)
    _, found, after = text.rpartition("Traceback (most recent call last):\n")
    lines = [line for line in after.splitlines() if line[:1].strip()]  # what is not indented
    return lines[0][:300] if found and lines else None


def last_error(folder: Path) -> str:
    """The last line that a trial wrote to stderr, else to its log; `folder` is the trial's."""
    for name in ("trial.stderr", "trial.log"):
        with_text = [line.strip() for line in _text(folder / name, -TAIL).splitlines() if line.strip()]
        if with_text:
            return with_text[-1][:200]
    return f"no message in {folder}"


def _text(path: Path, start: int = 0) -> str:
    """From byte `start` on, a negative one counts from the end; empty if there is no such log."""
    return _bytes(path, start).decode("utf-8", errors="replace")


def _bytes(path: Path, start: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(start if start >= 0 else max(0, path.stat().st_size + start))
            return file.read()
    except OSError:
        return b""
