"""The processes of an NNI experiment: found, started and stopped without ever trusting a bare pid.

`nnictl` keeps pids in ~/nni-experiments/.experiment and signals whatever carries them today. Here a process belongs
to an experiment only if its own command line or environment says so.
"""

import contextlib
import itertools
import os
import time
from pathlib import Path

import psutil

from guard import registry
from guard.registry import Experiment

STOP_SECONDS = 60.0  # NNI's own limit for its shutdown


def manager_of(experiment: Experiment) -> psutil.Process | None:
    """The live NNI manager of this experiment, recognised by its command line."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if _is_manager(process.cmdline(), experiment):
                return process
    return None


def _is_manager(cmdline: list[str], experiment: Experiment) -> bool:
    if not any(part.endswith(os.path.join("nni_node", "main.js")) for part in cmdline):
        return False
    options = dict(itertools.pairwise(cmdline))
    folder = Path(options.get("--experiments-directory", "/")) / experiment.id
    return options.get("--experiment-id") == experiment.id and folder == experiment.folder


def stranger(experiment: Experiment) -> str | None:
    """What runs under the recorded pid if it is not this experiment's manager (NNI would have killed it)."""
    if experiment.status == "STOPPED" or not experiment.pid:
        return None
    with contextlib.suppress(psutil.Error):
        cmdline = psutil.Process(experiment.pid).cmdline()
        if cmdline and not _is_manager(cmdline, experiment):
            return " ".join(cmdline)[:60]
    return None


def all_of(experiment: Experiment) -> list[psutil.Process]:
    """Manager, tuner, trials and their children; never this process or one it was started from."""
    me = psutil.Process()
    spared = {me, *me.parents()}
    found: dict[psutil.Process, None] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if _is_manager(process.cmdline(), experiment) or _carries_mark(process.environ(), experiment):
                found.update(dict.fromkeys([process, *process.children(recursive=True)]))
    return [process for process in found if process not in spared and not is_gone(process)]


def _carries_mark(environment: dict[str, str], experiment: Experiment) -> bool:
    """Trials carry the experiment's ID, the tuner carries its log folder."""
    if environment.get("NNI_EXP_ID") == experiment.id:
        return Path(environment.get("NNI_OUTPUT_DIR", "/")).is_relative_to(experiment.folder)
    return environment.get("NNI_LOG_DIRECTORY") == str(experiment.folder / "log")


def is_gone(process: psutil.Process) -> bool:
    """True for an ended process, also if nobody has collected its exit status yet (containers without init)."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_gone(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until all are gone; those that are not after `seconds` are returned."""
    end = time.monotonic() + seconds
    while (left := [process for process in processes if not is_gone(process)]) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def end(processes: list[psutil.Process], seconds: float = 5.0) -> None:
    """Terminate, wait, kill."""
    for action in ("terminate", "kill"):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                getattr(process, action)()
        processes = wait_gone(processes, seconds)


def stop(experiment: Experiment, at_once: bool = False) -> list[str]:
    """End every process of the experiment and return a line for each thing worth telling.

    `at_once` kills the manager instead of asking it: in a process storm it does not answer, and spawns on.
    """
    notes = []
    if other := stranger(experiment):
        notes.append(f"pid {experiment.pid} of the registry now belongs to another program, left alone: {other}")
    processes = all_of(experiment)  # while the family tree is whole
    manager = manager_of(experiment)
    if manager is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            manager.kill() if at_once else manager.terminate()
        if wait_gone([manager], STOP_SECONDS):
            notes.append(f"NNI's manager ignored SIGTERM for {STOP_SECONDS:.0f} s and was killed")
            manager.kill()
    if left := wait_gone(list({*processes, *all_of(experiment)}), 1.0):
        notes.append(f"{len(left)} process(es) had outlived NNI's manager and were ended")
        end(left)
    registry.mark_stopped(experiment)
    return notes
