"""Ray on this machine: its token, its environment, its start and its end.

Ray listens on ports that run whatever code they are sent. Here no part of it starts without a token (`RAY_AUTH_MODE`),
a Ray of our own listens on loopback alone, and there is no dashboard.
"""

import contextlib
import importlib.util
import ipaddress
import os
import secrets
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import psutil

from guard import processes
from guard.launch import StartFailed

PORT = 6379
SECONDS = 5.0  # for an answer of another machine
INSTALL = "Ray is not installed: python -m pip install -r requirements-ray.txt"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "3",  # a second each, of a head that refuses our token
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the trials write what there is to be read
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # training.stopping.Signals has it
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # our own record is written at once (cluster/record.py)
    "RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_AIR_NEW_OUTPUT": "0",
}
ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0: Ray takes 127.0.0.1 for itself, as by default on these systems


def token_file() -> Path:
    """Where Ray itself looks for it, too."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def use_token(make: bool = False) -> None:
    """Ray with a token alone, in this process and those that it starts; ValueError if there is none, or others read it.

    `make`: write one, for a head that has none yet.
    """
    os.environ["RAY_AUTH_MODE"] = "token"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    file = token_file()
    if make and not file.exists():
        write_token(file)
    try:
        if not file.read_text("ascii").strip():
            raise ValueError(f"{file}: is empty, must hold the token of the head")
    except FileNotFoundError:
        raise ValueError(f"{file}: no such token; copy that of the head, written by `experiment.py ray head`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read as a token ({error})") from None
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ValueError(f"{file}: others may read this token: chmod 600 {file}")


def write_token(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as stream:
        stream.write(secrets.token_hex(32))


def assert_installed() -> None:
    if importlib.util.find_spec("ray") is None:
        raise ValueError(INSTALL)


def host_and_port(address: str, option: str = "--address") -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{option} {address}: must be HOST:PORT, such as 10.0.0.1:{PORT}")
    return host, int(port)


def assert_answers(address: str, option: str = "--address") -> None:
    """ValueError unless something listens there: Ray itself would try for a long time."""
    try:
        socket.create_connection(host_and_port(address, option), SECONDS).close()
    except OSError as error:
        raise ValueError(f"{option} {address}: no answer ({error.strerror or error})") from None


# ---- a Ray of our own


@contextlib.contextmanager
def own(folder: Path) -> Iterator[None]:
    """A Ray for the experiment in `folder`, on this machine alone, with a token of its own; it ends with us."""
    place = Path(tempfile.gettempdir()) / f"ray-{os.getuid()}-{folder.stat().st_dev:x}-{folder.stat().st_ino:x}"
    end_own(place)  # of a driver that was killed
    place.mkdir(mode=0o700)
    write_token(place / "token")
    os.environ |= {**QUIET, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(place / "token"), ON_LOOPBACK: "0"}
    os.environ.pop("RAY_AUTH_TOKEN", None)
    import ray

    try:
        try:
            with _silent():
                ray.init(address="local", include_dashboard=False, logging_level="error", log_to_driver=False,
                         _temp_dir=str(place))
        except Exception as error:  # of many kinds
            raise StartFailed(f"Ray did not start: {' '.join(str(error).split())[:300]}") from None
        yield
    finally:
        ray.shutdown()
        end_own(place)


def end_own(place: Path) -> None:
    """End what is left of the Ray in the folder `place`, and remove that."""
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # each has a log open there; its environment some hide
            if process.pid != os.getpid() and any(file.path.startswith(f"{place}/") for file in process.open_files()):
                left.append(process)
    processes.end(processes.wait_gone(left, 1.0))
    shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def joined(address: str) -> Iterator[None]:
    """The Ray at `address`, of which this machine must be a part; ValueError if it does not take us."""
    os.environ |= QUIET
    if is_loopback(host_and_port(address)[0]):
        os.environ[ON_LOOPBACK] = "0"
    import ray

    try:
        with _silent():
            ray.init(address=address, logging_level="error", log_to_driver=False)
    except Exception as error:  # of many kinds; what Ray knows of the reason it only logs
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"--address {address}: it answers, but does not take us ({reason}): the token must be that of "
                         f"its head, Ray and Python the same versions, and this machine a part of it") from None
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Standard error of libraries in C++ too, which tell of every try; what is wrong is raised."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


# ---- a Ray of several machines


def start(head: bool, host: str | None, address: str | None, port: int) -> NoReturn:
    """Become `ray start`, in the foreground: the head on `host`, or a worker of the head at `address`.

    ValueError if there is no token, if `host` is none of this machine's addresses, or no head answers.
    """
    assert_installed()
    if host:
        _assert_ours(host)
    if address:
        assert_answers(address, "ADDRESS")
    use_token(make=head)
    os.environ |= QUIET | ({ON_LOOPBACK: "0"} if head and is_loopback(host) else {})
    if head:
        print(f"token: {token_file()}, for the same place on each worker, mode 600\n"
              f"workers: python experiment.py ray worker {host}:{port}\n"
              f"experiments: python experiment.py run CONFIG --engine ray --address {host}:{port}", flush=True)
        if not is_loopback(host):
            print("Ray listens on all interfaces: let a firewall admit your machines alone", flush=True)
    words = ["--head", "--port", str(port), "--include-dashboard=false"] if head else ["--address", address]
    words += ["--node-ip-address", host] if host else []
    os.execv(sys.executable, [sys.executable, "-m", "ray.scripts.scripts", "start", *words, "--block",
                              "--disable-usage-stats"])


def _assert_ours(host: str) -> None:
    ours = {address.address for of_one in psutil.net_if_addrs().values() for address in of_one
            if address.family in (socket.AF_INET, socket.AF_INET6)}
    if host not in ours:
        raise ValueError(f"--host {host}: no address of this machine, which has {', '.join(sorted(ours))}")
