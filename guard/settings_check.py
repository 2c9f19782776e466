"""Whether the trial scripts of this project take what an experiment would give them: every option of the search space
and the command line, looked at by the script itself before anything starts."""

import contextlib
import json
import math
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from guard import launch, trial_check
from guard.search_space import read_space

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("hpo_trial.py", "classic_nas_trial.py", "darts_search.py", "retrain.py")
SAMPLES = "CHECK_SAMPLES"  # as in training/settings_check.py
SECONDS = 300.0  # it imports torch, no more
FAR = 4.0  # standard deviations that a number of a normal axis may be from its mean, once in 16 000


class WrongSettings(ValueError):
    """What the script would refuse, a line each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def check_settings(config: dict, port: int) -> str:
    """Run the very command of the trials, told to check samples in place of training."""
    script, space = None, None
    with contextlib.suppress(ValueError):  # a bad command and a bad search space have their own lines
        script, space = trial_check.script_of(config), read_space(config)
    ours = script is not None and script.name in SCRIPTS and script.resolve().parent == ROOT
    if not ours or config["trainingService"]["platform"] != "local":
        return "not checked: the trial is no script of this project on this machine"
    try:
        tried = list(samples(space))
    except Exception:
        return "not checked: see search space"
    if lines := _mistakes(trial_check.command_of(config), trial_check.code_of(config), tried):
        raise WrongSettings(lines)
    return f"{script.name} takes all {len(tried)} samples of the search space"


def _mistakes(command: str, code: Path, tried: list[dict]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "samples.json"
        file.write_text(json.dumps(tried), encoding="utf-8")
        try:
            done = subprocess.run(command, shell=True, cwd=code, env={**launch.environment(), SAMPLES: str(file)},
                                  stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace",
                                  timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise ValueError(f"trialCommand: no answer for {SECONDS:.0f} s") from None
        if done.returncode:
            said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise ValueError(f"trialCommand ends with exit code {done.returncode}: {(said or ['no message'])[-1]}")
        return json.loads(file.read_text(encoding="utf-8"))


def samples(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Parameters in which every option of a choice, and both ends of every other axis, is there at least once."""
    values = {name: [*_values(spec["_type"], spec["_value"])] for name, spec in space.items()}
    first = {name: options[0] for name, options in values.items()}
    yield first
    for name, options in values.items():
        yield from ({**first, name: value} for value in options[1:])


def _values(kind: str, values: list) -> Iterator[Any]:
    """All options, or both ends, as NNI's tuners hand them out."""
    if kind == "choice":
        yield from (dict(_inner(value)) if isinstance(value, dict) else value for value in values)
        return
    low, high = values[:2]
    if "normal" in kind:
        low, high = low - FAR * high, low + FAR * high
        low, high = (math.exp(low), math.exp(high)) if "log" in kind else (low, high)
    if kind == "randint":
        yield from dict.fromkeys((low, high - 1))
    elif kind.startswith("q"):
        rounded = (round(end / values[2]) * values[2] for end in (low, high))
        yield from dict.fromkeys(float(min(max(end, low), high)) for end in rounded)
    else:
        yield from dict.fromkeys((float(low), float(high)))


def _inner(option: dict) -> Iterator[tuple[str, Any]]:
    """A nested choice with the first value of each of its own axes."""
    for key, spec in option.items():
        yield key, spec if key == "_name" else next(_values(spec["_type"], spec["_value"]))
