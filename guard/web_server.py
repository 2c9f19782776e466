"""The web server of an NNI experiment: a port for it, who can reach it, what it answers."""

import contextlib
import itertools
import json
import socket
import urllib.request
from typing import Any

import psutil

from guard.registry import Experiment

DEFAULT_PORT = 8080


def is_free(port: int) -> bool:
    """True if a server could listen on 127.0.0.1:port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as node does: TIME_WAIT does not matter
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def pick_port(wanted: int | None, usual: int = DEFAULT_PORT) -> int:
    """`wanted` must be free (ValueError); without one, the first free port from `usual` on."""
    if wanted is not None:
        if not 1024 <= wanted <= 65535:
            raise ValueError(f"--port {wanted}: choose a port from 1024 to 65535")
        if not is_free(wanted):
            raise ValueError(f"--port {wanted}: taken by another program; leave --port out to get the next free one")
        return wanted
    for port in range(usual, min(usual + 100, 65536)):
        if is_free(port):
            return port
    raise ValueError(f"no free port from {usual} to {usual + 99}; name one with --port")


def holder(port: int) -> str:
    """Whom a taken port belongs to, as far as it is known."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            options = dict(itertools.pairwise(process.cmdline()))
            if options.get("--port") == str(port) and "--experiment-id" in options:
                return f"NNI experiment {options['--experiment-id']}"
    return "another program"


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    """(address, port) of every listening socket of the process and its children."""
    found = []
    for member in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            found += [tuple(connection.laddr) for connection in member.net_connections("inet")
                      if connection.status == psutil.CONN_LISTEN]
    return found


def is_loopback(host: str) -> bool:
    return host == "::1" or host.removeprefix("::ffff:").startswith("127.")


def get(experiment: Experiment, path: str, seconds: float = 5.0) -> Any:
    """GET of NNI's REST API, past any proxy; OSError if there is no answer, ValueError if it is not JSON."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{experiment.url}/api/v1/nni/{path}", timeout=seconds) as answer:
        return json.load(answer)
