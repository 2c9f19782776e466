"""The processes of an NNI experiment: found, started and stopped without ever trusting a bare pid.

`nnictl` keeps pids in ~/nni-experiments/.experiment and signals whatever carries them today. Here a process belongs
to an experiment only if its own command line or environment says so.
"""

import contextlib
import fcntl
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from guard import registry, web_server
from guard.registry import Experiment

START_SECONDS = 180.0  # `nnictl create` takes 3 s; a wrong filelock makes it hang for ever
# nnictl gives NNI's web server 3 s to start, too few on a busy machine: here it asks once a second for a minute.
NNICTL = """from nni.experiment import launcher
launcher._check_rest_server.__defaults__ = (60, None)  # retry, url_prefix
from nni.tools.nnictl.nnictl import parse_args
parse_args()"""
STOP_SECONDS = 60.0  # NNI's own limit for its shutdown
PRELOAD = Path(__file__).resolve().with_name("loopback.cjs")


class StartFailed(RuntimeError):
    """NNI did not start; the message is one line with the reason."""


def manager_process(experiment: Experiment) -> psutil.Process | None:
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


def processes_of(experiment: Experiment) -> list[psutil.Process]:
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
    processes = processes_of(experiment)  # while the family tree is whole
    manager = manager_process(experiment)
    if manager is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            manager.kill() if at_once else manager.terminate()
        if wait_gone([manager], STOP_SECONDS):
            notes.append(f"NNI's manager ignored SIGTERM for {STOP_SECONDS:.0f} s and was killed")
            manager.kill()
    if left := wait_gone(list({*processes, *processes_of(experiment)}), 1.0):
        notes.append(f"{len(left)} process(es) had outlived NNI's manager and were ended")
        end(left)
    registry.mark_stopped(experiment)
    return notes


@contextlib.contextmanager
def start_lock() -> Iterator[None]:
    """One start at a time on this machine: two `nnictl create` on one port both report success, and each may get the
    other's tuner and search space."""
    handle = os.open(tempfile.gettempdir(), os.O_RDONLY)  # the same for every user, HOME and working directory
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another experiment to start", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def launch_environment() -> dict[str, str]:
    """This interpreter first on PATH, the web server on loopback, no proxy in between, no traces of another trial."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NNI_")}
    environment["PATH"] = os.path.dirname(sys.executable) + os.pathsep + environment.get("PATH", os.defpath)
    preload = str(PRELOAD).replace("\\", "\\\\").replace('"', '\\"')
    environment["NODE_OPTIONS"] = f'{environment.get("NODE_OPTIONS", "")} --require="{preload}"'.strip()
    for key in ("no_proxy", "NO_PROXY"):
        environment[key] = ",".join(filter(None, [environment.get(key), "localhost", "127.0.0.1"]))
    return environment


def create(config_file: Path, port: int, home: Path) -> Experiment:
    """`nnictl create` into `home`; StartFailed unless its manager lives and listens on loopback only."""
    code, output = _nnictl(["create", "--config", str(config_file), "--port", str(port)])
    started = re.search(r"Experiment ID: (\w+)", output)
    if started is None:
        raise StartFailed(f"nnictl create failed: {_reason(output)}")
    in_registry = started[1] in registry.read()
    unknown = Experiment(started[1], started[1], home / started[1], port=port)
    return _checked(registry.find(started[1]) if in_registry else unknown, code, output)


def resume(experiment: Experiment, port: int) -> Experiment:
    """`nnictl resume`, under the same conditions as `create`."""
    code, output = _nnictl(["resume", experiment.id, "--port", str(port),
                             "--experiment_dir", str(experiment.folder.parent)])
    return _checked(registry.find(experiment.id), code, output)


def _checked(experiment: Experiment, code: int, output: str) -> Experiment:
    try:
        if code != 0:
            raise StartFailed(f"NNI did not start: {_reason(output)}")
        _assert_loopback(experiment)
    except StartFailed:
        stop(experiment)
        raise
    return experiment


def _nnictl(arguments: list[str]) -> tuple[int, str]:
    command = [sys.executable, "-W", "ignore", "-c", NNICTL, *arguments]
    # A session of its own: a Ctrl-C meant for us must not cut the start in two. It keeps the files that we were told
    # to keep, hence the pipeline's lock: if we are killed meanwhile, the next one waits until what it starts is there.
    try:
        done = subprocess.run(command, env=launch_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=START_SECONDS, start_new_session=True,
                              close_fds=False)
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace") + f"\nno answer for {START_SECONDS:.0f} s"
        code = -1
    return code, re.sub(r"\x1b\[[0-9;]*m", "", output)


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


def _assert_loopback(experiment: Experiment) -> None:
    manager = manager_process(experiment)
    if manager is None:
        raise StartFailed("NNI's manager ended during the start: see "
                          f"{experiment.folder / 'log' / 'nnictl_stderr.log'}")
    addresses = web_server.listening(manager)
    if not addresses:
        raise StartFailed(f"NNI's manager (pid {manager.pid}) listens on no port")
    if exposed := [address for address in addresses if not web_server.is_loopback(address[0])]:
        where = ", ".join(f"{host}:{port}" for host, port in exposed)
        raise StartFailed(f"NNI's web server listened on {where}, reachable from other machines; it was stopped")
