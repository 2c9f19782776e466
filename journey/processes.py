"""The processes of a pipeline: one stage at a time, which ends when the pipeline does, however that happens."""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from files import locked
from guard.logs import GO_ON
from training.progress import TOLD
from training.stopping import Signals

PR_SET_PDEATHSIG = 1  # of prctl(2)
WAIT_SECONDS = 240.0  # for what a killed pipeline has left: a start and a stop of NNI


def execute(command: list[str], folder: Path, lock: int, signals: Signals, go_on: str = "") -> int:
    """Run a stage in `folder` to its end, return its exit code; a signal to us is handed on, its clean stop awaited.

    In a session of its own, so that it gets a Ctrl-C from us alone, once. It inherits the lock. `go_on`: the command
    that it advises after a stop, in place of its own.
    """
    child = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=[lock],
                             preexec_fn=tied_to_us(),
                             env={**os.environ, TOLD: "1", **({GO_ON: go_on} if go_on else {})})
    asked = False
    try:
        while child.poll() is None:
            if signals.received and not asked:
                child.terminate()
                asked = True
            time.sleep(0.1)
    finally:
        if child.poll() is None:  # we crash
            child.terminate()
            child.wait()
    return child.returncode


def tied_to_us() -> Callable[[], None]:
    """What a child calls before its program: the kernel shall send it SIGTERM when we die, however that happens."""
    libc, us = ctypes.CDLL(None), os.getpid()

    def tie() -> None:
        if hasattr(libc, "prctl"):  # Linux
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != us:  # we died before that
            os._exit(1)

    return tie


@contextlib.contextmanager
def at_work(runs: Path) -> Iterator[int]:
    """Hold the folder's lock file: one pipeline at a time, and none before all that a killed one has started is gone.

    A lock of fcntl dies with this process. One of flock is shared by all that inherit the file: the stages, and what
    experiment.py starts NNI by. They do not know of each other.
    """
    runs.mkdir(parents=True, exist_ok=True)
    file = os.open(runs / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"runs_dir = {str(runs)!r}: another pipeline is at work there") from None
        end, told = time.monotonic() + WAIT_SECONDS, False
        while not locked(file):
            if time.monotonic() > end:
                raise ValueError(f"runs_dir = {str(runs)!r}: a stage of an earlier run is still at work there")
            if not told:
                print("waiting for a stage of an earlier run to stop", flush=True)
            told = True
            time.sleep(0.2)
        yield file
    finally:
        os.close(file)
