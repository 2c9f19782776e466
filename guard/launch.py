"""The start of an NNI experiment: by nnictl, one at a time, and undone unless its web server is on loopback only."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from files import locked
from guard import processes, registry, web_server
from guard.registry import Experiment

START_SECONDS = 180.0  # `nnictl create` takes 3 s; a wrong filelock makes it hang for ever
# nnictl gives NNI's web server 3 s to start, too few on a busy machine: here it asks once a second for a minute.
NNICTL = """from nni.experiment import launcher
launcher._check_rest_server.__defaults__ = (60, None)  # retry, url_prefix
from nni.tools.nnictl.nnictl import parse_args
parse_args()"""
PRELOAD = Path(__file__).resolve().with_name("loopback.cjs")


class StartFailed(RuntimeError):
    """NNI did not start; the message is one line with the reason."""


@contextlib.contextmanager
def start_lock() -> Iterator[None]:
    """One start at a time on this machine: two `nnictl create` on one port both report success, and each may get the
    other's tuner and search space. No longer than a start may take: another user can hold the lock, but not us up."""
    handle = os.open(tempfile.gettempdir(), os.O_RDONLY)  # the same for every user, HOME and working directory
    try:
        if not locked(handle):
            print("waiting for another experiment to start", flush=True)
            end = time.monotonic() + START_SECONDS
            while not (ours := locked(handle)) and time.monotonic() < end:
                time.sleep(0.2)
            if not ours:
                print(f"note: somebody has kept the lock of starts, on {tempfile.gettempdir()}, for "
                      f"{START_SECONDS:.0f} s: going on without", flush=True)
        yield
    finally:
        os.close(handle)


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
        processes.stop(experiment)
        raise
    return experiment


def _assert_loopback(experiment: Experiment) -> None:
    process = processes.manager_of(experiment)
    if process is None:
        raise StartFailed("NNI's manager ended during the start: see "
                          f"{experiment.folder / 'log' / 'nnictl_stderr.log'}")
    addresses = web_server.listening(process)
    if not addresses:
        raise StartFailed(f"NNI's manager (pid {process.pid}) listens on no port")
    if exposed := [address for address in addresses if not web_server.is_loopback(address[0])]:
        where = ", ".join(f"{host}:{port}" for host, port in exposed)
        raise StartFailed(f"NNI's web server listened on {where}, reachable from other machines; it was stopped")


def _nnictl(arguments: list[str]) -> tuple[int, str]:
    command = [sys.executable, "-W", "ignore", "-c", NNICTL, *arguments]
    # A session of its own: a Ctrl-C meant for us must not cut the start in two. It keeps the files that we were told
    # to keep, hence the pipeline's lock: if we are killed meanwhile, the next one waits until what it starts is there.
    try:
        done = subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", timeout=START_SECONDS,
                              start_new_session=True, close_fds=False)
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace") + f"\nno answer for {START_SECONDS:.0f} s"
        code = -1
    return code, re.sub(r"\x1b\[[0-9;]*m", "", output)


def environment() -> dict[str, str]:
    """This interpreter first on PATH, the web server on loopback, no proxy in between, no traces of another trial."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("NNI_")}
    variables["PYTHONUTF8"] = "1"  # NNI opens some of its files without saying how
    variables["PATH"] = os.path.dirname(sys.executable) + os.pathsep + variables.get("PATH", os.defpath)
    preload = str(PRELOAD).replace("\\", "\\\\").replace('"', '\\"')
    variables["NODE_OPTIONS"] = f'{variables.get("NODE_OPTIONS", "")} --require="{preload}"'.strip()
    for key in ("no_proxy", "NO_PROXY"):
        variables[key] = ",".join(filter(None, [variables.get(key), "localhost", "127.0.0.1"]))
    return variables


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
