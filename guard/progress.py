"""How far a running NNI experiment is, in one line: trials, best metric, time left."""

import math
import shutil
import sys
import time

from files import read_object
from guard import logs
from guard.registry import Experiment
from guard.results import Results
from guard.trials import ACTIVE, BAD, Trial

LINE_SECONDS = 10.0  # between progress lines if the output is not a terminal


class Progress:
    """One line that is rewritten on a terminal; elsewhere a new line now and then, and only if something changed."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.tty = sys.stdout.isatty()
        self.shown = ""
        self.shown_at = -LINE_SECONDS
        self.told: set[str] = set()  # trials whose failure was told

    def show(self, state: Results) -> None:
        for trial in state.trials:
            if trial.state in BAD and trial.id not in self.told:
                self.told.add(trial.id)
                self._print(f"trial {trial.id} {trial.state}: {trial.note}")
        facts = describe(state) if state.trials else f"no trial yet, {logs.tuner_says(self.experiment.folder)}"
        if self.tty:
            line = "  ".join(filter(None, [facts, remaining(state), self.experiment.url]))
            sys.stdout.write("\r\033[K" + line[: shutil.get_terminal_size().columns - 1])
            sys.stdout.flush()
            self.shown = line
        elif facts != self.shown and time.monotonic() - self.shown_at >= LINE_SECONDS:
            self.shown, self.shown_at = facts, time.monotonic()
            self._print(f"{facts}  {remaining(state)}".rstrip())

    def _print(self, line: str) -> None:
        print("\r\033[K" * self.tty + line, flush=True)

    def close(self) -> None:
        if self.tty and self.shown:
            print(flush=True)


def describe(state: Results) -> str:
    """`7/40 done, 1 running (epoch 3 of 30), 0 failed, 2 stopped early, best 0.8431`."""
    total = state.settings.get("maxTrialNumber")
    done = len(state.trials) - state.count(*ACTIVE)
    parts = [f"{done}/{total} done" if total else f"{done} done", f"{state.count(*ACTIVE)} running{epochs(state)}",
             f"{state.count(*BAD)} failed", f"{state.count('STOPPED EARLY')} stopped early"]
    if best := state.best:
        parts.append(f"best {best.value:.5g}")
    return ", ".join(parts)


def epochs(state: Results) -> str:
    """In which epoch each running trial is, as far as its config.json says how many there are."""
    running = [(trial, (read_object(trial.folder / "config.json") or {}).get("epochs")) for trial in state.trials
               if trial.state == "RUNNING"]
    told = [f"{min(len(trial.intermediates) + 1, total)} of {total}" for trial, total in running
            if isinstance(total, int)]
    return f" (epoch{'' if len(told) == 1 else 's'} {', '.join(told)})" if told else ""


def remaining(state: Results) -> str:
    """An estimate from the mean duration of the trials so far and the time limit; empty before the first has ended."""
    ended = [trial.seconds for trial in state.trials if trial.seconds is not None]
    total = state.settings.get("maxTrialNumber")
    if not ended or not total:
        return ""
    mean = sum(ended) / len(ended) + 1.0  # NNI takes about a second between two trials
    running = [trial for trial in state.trials if trial.state in ACTIVE]
    left = (total - len(state.trials)) * mean + sum(max(0.0, mean - _age(trial)) for trial in running)
    left = min(left / state.settings.get("trialConcurrency", 1), _within_limit(state))
    return f"about {_duration(left)} left (estimate)"


def _within_limit(state: Results) -> float:
    """Seconds until maxExperimentDuration, counted from the first trial."""
    from nni.experiment.config.utils import parse_time  # slow to import, and nnictl has done so by now

    limit = state.settings.get("maxExperimentDuration")
    oldest = max((_age(trial) for trial in state.trials), default=0.0)
    return max(0.0, parse_time(limit) - oldest) if limit else math.inf


def _age(trial: Trial) -> float:
    return max(0.0, time.time() - trial.started) if trial.started else 0.0


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
