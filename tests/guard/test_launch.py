"""What an experiment is started with; none is started."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from guard import launch, processes
from guard.registry import Experiment


def test_preload_binds_every_form_of_listen_to_loopback(tmp_path: Path) -> None:
    import nni_node

    script = """
        const net = require('net'), http = require('http');
        const forms = [s => s.listen(0), s => s.listen('0'), s => s.listen(0, () => {}), s => s.listen(0, '0.0.0.0'),
                       s => s.listen(0, null, 5), s => s.listen(0, 5), s => s.listen({port: 0}),
                       s => s.listen({port: 0, host: '::'}), s => s.listen(0, undefined, () => {}), s => s.listen()];
        for (const form of forms) for (const make of [net.createServer, http.createServer]) {
            const server = make();
            form(server);
            server.on('listening', () => { console.log(server.address().address); server.close(); });
        }"""
    node = Path(nni_node.__path__[0]) / "node"
    command = [node, "--require", launch.PRELOAD, "-e", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["127.0.0.1"] * 20, done.stderr


def test_preload_gives_the_tuner_a_minute_to_connect() -> None:
    import nni_node

    script = """
        const { promisify } = require('util');
        for (const words of ['Tuner did not connect', 'another']) {
            const timer = setTimeout(new Function(`return '${words}'`), 10000);
            console.log(timer._idleTimeout);
            clearTimeout(timer);
        }
        promisify(setTimeout)(1, 'promised').then(console.log);"""
    node = Path(nni_node.__path__[0]) / "node"
    command = [node, "--require", launch.PRELOAD, "-e", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["60000", "10000", "promised"], done.stderr


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_OPTIONS", "--no-warnings")
    monkeypatch.setenv("NNI_PLATFORM", "local")
    monkeypatch.setattr(launch, "PRELOAD", Path('/a b/"c"/loopback.cjs'))
    environment = launch.environment()
    assert environment["NODE_OPTIONS"] == '--no-warnings --require="/a b/\\"c\\"/loopback.cjs"'
    assert environment["PATH"].startswith(os.path.dirname(sys.executable) + os.pathsep)
    assert "NNI_PLATFORM" not in environment


def test_exposed_web_server_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        monkeypatch.setattr(processes, "manager_of", lambda found: psutil.Process())
        with pytest.raises(launch.StartFailed, match="reachable from other machines"):
            launch._assert_loopback(Experiment("a", "a", tmp_path))
