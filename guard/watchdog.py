"""Follow a running NNI experiment to its end: show the progress, and name the true reason when it goes wrong.

NNI says RUNNING for ever when its tuner is dead, when the search space cannot be read, or when the tuner has nothing
left to suggest; its exit codes say nothing. What is checked here is what really happens: processes, logs, trials.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from guard import logs, processes, results, web_server
from guard.progress import Progress
from guard.registry import Experiment
from guard.results import Results
from guard.trials import ACTIVE

POLL_SECONDS = 1.0
STALL_SECONDS = 300.0  # RUNNING, and no trial waiting or running: slow tuners need a minute, not five
DEAD_SECONDS = 5.0  # the same with a dead tuner
TRACEBACK_SECONDS = 10.0  # the same with an exception in the tuner's log
SILENT_SECONDS = 60.0  # no answer from the web server although its process lives
LOOK_SECONDS = 20.0  # a look takes less: between two of them no more than that counts, whatever the clock says
EXHAUSTED_SECONDS = 5.0  # the tuner has no more trials and none is running
COLLECTORS = 8  # GPU info collectors at once; NNI needs one
FAILED_FROM_START = 5  # so many failed trials and none of another kind: the script is broken


class ExperimentFailed(RuntimeError):
    """The experiment cannot go on; the message is one line with the true reason."""


class ProcessStorm(ExperimentFailed):
    """NNI spawns processes without end: its manager has to be killed, not asked."""


@dataclass
class Watch:
    """`follow` returns when the experiment is finished or `interrupted()` is true; it raises ExperimentFailed."""

    experiment: Experiment
    interrupted: Callable[[], bool]
    stall_seconds: float = STALL_SECONDS
    log_start: int = 0  # bytes of dispatcher.log that an earlier run of a resumed experiment wrote
    since: dict[str, float] = field(default_factory=dict)  # condition -> when it became true, in counted seconds
    counted: float = 0.0  # seconds of watching: a laptop's sleep, or a stop of this process, is none
    looked: float = field(default_factory=time.monotonic)

    def follow(self) -> None:
        process = processes.manager_of(self.experiment)
        progress, follower = Progress(self.experiment), results.Follower(self.experiment.folder)
        try:
            while not self.interrupted():
                if process is None or processes.is_gone(process):
                    raise ExperimentFailed(f"NNI's manager is gone: {logs.why_gone(self.experiment.folder)}")
                commands = _commands(process)
                check_storm(commands)
                state = follower.load(alive=True)
                status = self.status()
                progress.show(state)
                if status and self.finished(status["status"], state):
                    return
                if status and (problem := self.problem(status, state, commands)):
                    raise ExperimentFailed(problem)
                self.sleep(POLL_SECONDS)
        finally:
            progress.close()

    def sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.interrupted():
            time.sleep(0.1)

    def held(self, name: str, condition: bool) -> float:
        """For how many seconds the condition has been true without a break."""
        now = time.monotonic()
        self.counted, self.looked = self.counted + min(now - self.looked, LOOK_SECONDS), now
        if not condition:
            self.since.pop(name, None)
            return 0.0
        return self.counted - self.since.setdefault(name, self.counted)

    def status(self) -> dict | None:
        try:
            status = web_server.get(self.experiment, "check-status")
        except (OSError, ValueError) as error:
            stopped = self.stopped()
            if self.held("silent", not stopped) > SILENT_SECONDS:
                message = f"NNI's web server has not answered for {SILENT_SECONDS:.0f} s ({error})"
                raise ExperimentFailed(message) from None
            return None
        self.held("silent", False)
        return status

    def stopped(self) -> bool:
        """Whether NNI's manager is, by SIGSTOP: that ends by SIGCONT, and counts as no silence."""
        manager = processes.manager_of(self.experiment)
        with contextlib.suppress(psutil.Error):
            if manager is not None and manager.status() == psutil.STATUS_STOPPED:
                if "stopped" not in self.since:
                    print(f"NNI's manager is stopped: waiting; kill -CONT {manager.pid} goes on", flush=True)
                self.held("stopped", True)
                return True
        self.held("stopped", False)
        return False

    def finished(self, status: str, state: Results) -> bool:
        exhausted = status == "TUNER_NO_MORE_TRIAL" and not state.count(*ACTIVE)
        return status == "DONE" or self.held("exhausted", exhausted) > EXHAUSTED_SECONDS

    def problem(self, status: dict, state: Results, commands: list[str]) -> str | None:
        """One line if the experiment cannot go on; `commands` are those of NNI's processes."""
        if status["status"] == "ERROR":
            said = "; ".join(status["errors"]) or logs.manager_error(self.experiment.folder) or "no message"
            return f"NNI says ERROR: {self.tuner_error() or said + ' (its logs name no exception: overloaded?)'}"
        if state.count("FAILED") >= FAILED_FROM_START and state.count("FAILED", *ACTIVE) == len(state.trials):
            failed = [trial for trial in state.trials if trial.state == "FAILED"]
            return f"the first {len(failed)} trials all failed; the last one: {failed[-1].note}"
        idle = status["status"] in ("INITIALIZED", "RUNNING") and not state.count(*ACTIVE)
        error = self.tuner_error() if idle else None
        alive = any("--exp_params" in command for command in commands)
        if self.held("dead", idle and not alive) > DEAD_SECONDS:
            said = error or logs.manager_error(self.experiment.folder) or "no message"
            return f"the tuner died: {said}{hint(error, state)}"
        if self.held("traceback", idle and error is not None) > TRACEBACK_SECONDS:
            return f"the tuner failed and no trial is running: {error}{hint(error, state)}"
        if self.held("stall", idle) > self.stall_seconds:
            return f"no trial has been waiting or running for {self.stall_seconds:.0f} s, and no log says why"
        return None

    def tuner_error(self) -> str | None:
        return logs.tuner_exception(self.experiment.folder, self.log_start)


def check_storm(commands: list[str]) -> None:
    """Raise ProcessStorm if NNI's manager spawns GPU collectors without end."""
    collectors = sum("collect_gpu_info" in command for command in commands)
    if collectors > COLLECTORS:
        raise ProcessStorm(f"NNI started {collectors} GPU collectors at once, its bug with trialGpuNumber: it needs "
                           "more GPU slots than running trials; raise maxTrialNumberPerGpu or leave trialGpuNumber out")


def _commands(process: psutil.Process) -> list[str]:
    """The command lines of all descendants."""
    commands = []
    with contextlib.suppress(psutil.Error):
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                commands.append(" ".join(child.cmdline()))
    return commands


def hint(error: str | None, state: Results) -> str:
    """TPE and Evolution die when a result comes that they do not expect, and do not say what is behind it."""
    if found := [trial.id for trial in state.trials if trial.finals > 1]:
        return f" (trial {found[0]} called report_final_result twice)"
    if error and (error.startswith("KeyError: ") or "not in running_trials" in error):
        return (" (NNI 3.0 gave a trial the parameters meant for another one, which this tuner does not survive: "
                "use trialConcurrency: 1, or the Random tuner)")
    return ""
