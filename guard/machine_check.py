"""Whether NNI 3.0 runs on this machine: the versions of Python and of packages, a folder for it, a free port."""

import contextlib
import errno
import importlib.metadata
import importlib.util
import os
import re
import socket
import sys
from pathlib import Path


def check_python(config: dict, port: int) -> str:
    version = sys.version_info[:2]
    if not (3, 10) <= version <= (3, 13):
        raise ValueError(
            f"{version[0]}.{version[1]} does not run NNI 3.0 with today's packages: use 3.10 to 3.13"
        )
    return ".".join(map(str, sys.version_info[:3]))


def check_setuptools(config: dict, port: int) -> str:
    found = _below("setuptools", (82,), "nnictl imports pkg_resources, which it no longer has")
    if importlib.util.find_spec("pkg_resources") is None:
        raise ValueError("pkg_resources, which nnictl imports, is missing: pip install -U 'setuptools<82'")
    return found


def check_filelock(config: dict, port: int) -> str:
    return _below("filelock", (3, 12), "nnictl then hangs for ever after 'Starting web server'")


def check_typeguard(config: dict, port: int) -> str:
    """NNI asks for less than 4.1.3; 4.6 was seen to run an experiment all the same, so this only tells."""
    return f"{'.'.join(map(str, _version('typeguard')))} (NNI asks for less than 4.1.3)"


def check_nni(config: dict, port: int) -> str:
    if _version("nni")[:2] != (3, 0):
        raise ValueError(f"NNI {importlib.metadata.version('nni')}: made for 3.0; pip install nni==3.0")
    beside = Path(sys.executable).with_name("nnictl")
    if not beside.exists() and importlib.util.find_spec("nni.tools.nnictl") is None:
        raise ValueError(f"{beside} does not exist: pip install -r requirements.txt")
    return importlib.metadata.version("nni")


def _version(name: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in re.findall(r"\d+", importlib.metadata.version(name))[:3])
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"{name} is not installed: pip install -r requirements.txt") from None


def _below(name: str, bound: tuple[int, ...], why: str) -> str:
    version, limit = _version(name), ".".join(map(str, bound))
    if version >= bound:
        raise ValueError(f"{'.'.join(map(str, version))} is too new: {why}; pip install '{name}<{limit}'")
    return f"{'.'.join(map(str, version))} (below {limit})"


def check_folder(config: dict, port: int) -> str:
    folder = Path(config.get("experimentWorkingDirectory") or "~/nni-experiments").expanduser()
    existing = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"experimentWorkingDirectory {folder}: {existing} is not a writable folder")
    return str(folder)


def check_port(config: dict, port: int | None) -> str:
    if port is None:
        return "chosen at the start"
    remote = config["trainingService"]["platform"] == "remote"  # workers connect to the next port
    for number in (port, port + 1)[: 1 + remote]:
        if not 1 <= number <= 65535:
            raise ValueError(f"port {number}: must be 1 to 65535")
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, ""), (socket.AF_INET6, "::")):
            _try_port(family, host, number)
    return f"{port}{f' and {port + 1}' if remote else ''} free"


def _try_port(family: int, host: str, port: int) -> None:
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            # as node does it, so that a port that was just closed counts as free
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((host, port))
        except OSError as error:
            if family == socket.AF_INET or error.errno == errno.EADDRINUSE:  # no IPv6 here is fine
                raise ValueError(f"port {port}: {error.strerror}; choose another with --port") from None
