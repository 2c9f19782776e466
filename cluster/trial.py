"""What runs on the machines of Ray: a process that imports PyTorch once and runs one trial after another."""

import contextlib
import importlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune

from files import read_object, write_json
from guard.results_view import finite
from training.reporter import Reporter

ENDED = "trial.json"  # in a trial's folder, when it has ended: its outcome
LOG = "trial.log"
NOTHING = {"reported": False, "value": None, "last": None, "seconds": None, "error": ""}  # an outcome
LEAVE_SECONDS = 60.0  # for a stopped trial to come to the end of its epoch


class Stopped(BaseException):
    """Raised in a trial that is to end; no `except Exception` of a script keeps it."""


class RayReporter(Reporter):
    """Of a trial of Ray Tune. `epoch` waits until Tune has judged it, as a trial must not run on."""

    tuned = True

    def __init__(self, folder: Path) -> None:
        self.place = folder
        self.told: queue.Queue[dict[str, Any]] = queue.Queue()
        self.judged = threading.Semaphore(0)
        self.stopped = False
        self.last: float | None = None  # the metric of the last epoch
        self.value: float | None = None

    def folder(self) -> Path:
        return self.place

    def epoch(self, metric: float) -> None:
        if (self.place / "result.json").exists():  # its epochs are behind it: nothing is left to be stopped
            self.last = float(metric)
            return
        self.told.put({"metric": float(metric), "done": False})
        self.judged.acquire()
        if self.stopped:
            raise Stopped

    def final(self, metric: float, facts: Mapping[str, float], ran: Mapping[str, Any]) -> None:
        self.value = float(metric)


class Process(tune.Trainable):
    """A process of Ray that runs trials, one after another; `config`: folder, parameters, script and argv of one."""

    reporter: RayReporter | None = None

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        """Begin another trial; False if the one before does not end."""
        if self.reporter and not self._leave():
            return False
        self.reporter = RayReporter(Path(config["folder"]))
        self.thread = threading.Thread(target=_attempt, args=(config, self.reporter), daemon=True)
        return True

    def step(self) -> dict[str, Any]:
        """The metric of the next epoch, or the outcome."""
        if self.thread.ident is None:
            self.thread.start()
        else:
            self.reporter.judged.release()
        return self.reporter.told.get()

    def _leave(self) -> bool:
        self.reporter.stopped = True
        self.reporter.judged.release()
        if self.thread.ident is not None:
            self.thread.join(LEAVE_SECONDS)
        return not self.thread.is_alive()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """The trial keeps its own checkpoint, in its folder."""


def _attempt(config: dict[str, Any], reporter: RayReporter) -> None:
    """Run a trial, unless it has ended before (its machine was lost on the way to tell), and tell the outcome."""
    file = reporter.place / ENDED
    outcome = read_object(file)
    if outcome is None:
        try:
            outcome = _run(config, reporter)
            write_json(file, outcome)
        except Stopped:
            return
        except OSError as error:  # a full disk
            outcome = {**NOTHING, "error": f"{type(error).__name__}: {error}"}
    reporter.told.put({"metric": outcome["value"], "done": True, "outcome": json.dumps(outcome)})


def _run(config: dict[str, Any], reporter: RayReporter) -> dict[str, Any]:
    """Run a trial as its command would; its output goes to trial.log. The outcome, as NOTHING."""
    begin, error = time.monotonic(), ""
    with open(reporter.place / LOG, "a", encoding="utf-8", buffering=1) as log, contextlib.redirect_stdout(log), \
            contextlib.redirect_stderr(log):
        try:
            script = Path(config["script"])
            os.chdir(config["code"])
            if str(script.parent) not in sys.path:
                sys.path.insert(0, str(script.parent))
            importlib.import_module(script.stem).run([*config["argv"]], dict(config["parameters"]), reporter)
        except Stopped:
            raise
        except BaseException as reason:  # SystemExit of a bad command line, too
            traceback.print_exc()
            error = " ".join(f"{type(reason).__name__}: {reason}".split())[:500]
        finally:
            _tidy()
    return {"reported": reporter.value is not None, "value": finite(reporter.value), "last": finite(reporter.last),
            "seconds": round(time.monotonic() - begin, 3), "error": error}


def _tidy() -> None:
    """The next trial of this process, or another one's on the same GPU, finds the memory free."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        import gc

        gc.collect()
        torch.cuda.empty_cache()
