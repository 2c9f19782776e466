"""What an experiment is started with; none is started."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
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


def test_preload_keeps_tensorboard_on_loopback(tmp_path: Path) -> None:
    import nni_node

    (tmp_path / "tensorboard").write_text('#!/bin/sh\nprintf "%s\\n" "$NNI_LOG_DIRECTORY" "$@"\n')
    (tmp_path / "tensorboard").chmod(0o755)
    script = """
        const of = (id) => `:/x y/E/trials/${id}/output/tensorboard`;
        const words = [`--bind_all --logdir_spec=0-a${of('a')},1-b${of('b')}`, '--port=6006'];
        const how = {shell: true, stdio: 'inherit', env: process.env};
        require('child_process').spawn('tensorboard', words, how);
        require('child_process').spawn('echo', ['another', '--bind_all'], {shell: true, stdio: 'inherit'});"""
    node = Path(nni_node.__path__[0]) / "node"
    done = subprocess.run([node, "--require", launch.PRELOAD, "-e", script], capture_output=True, text=True, timeout=30,
                          env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    trials = "/x y/E/environments/local-env/trials"
    assert set(done.stdout.splitlines()) == {
        "/x y/E/log", "--host=127.0.0.1", f"--logdir_spec=0-a:{trials}/a/tensorboard,1-b:{trials}/b/tensorboard",
        "--port=6006", "another --bind_all"}, done.stderr


@pytest.fixture(scope="module")
def guarded_port() -> Iterator[int]:
    """Of a web server with the preload, that answers whatever it lets in."""
    import nni_node

    script = """
        const server = require('http').createServer((request, answer) => answer.end('in'));
        server.on('upgrade', (request, socket) => socket.end('HTTP/1.1 101 Switching Protocols\\r\\n\\r\\n'));
        server.listen(0, () => console.log(server.address().port));"""
    command = [Path(nni_node.__path__[0]) / "node", "--require", launch.PRELOAD, "-e", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        yield int(server.stdout.readline())
        server.terminate()


@pytest.mark.parametrize(("host", "origin", "status"), [
    ("127.0.0.1:{}", None, 200), ("localhost:{}", None, 200), ("LOCALHOST:{}", "http://localhost:{}", 200),
    ("[::1]:{}", None, 200), ("localhost:9999", "http://localhost:9999", 200), ("localhost", None, 200),
    ("evil.example:{}", None, 403), ("127.0.0.1.evil.example:{}", None, 403), ("localhost.evil.example", None, 403),
    ("192.168.0.7:{}", None, 403), ("", None, 403), ("evil@127.0.0.1:{}", None, 403),
    ("127.0.0.1:{}", "http://evil.example", 403), ("127.0.0.1:{}", "null", 403), ("127.0.0.1:{}", "", 403),
    ("127.0.0.1:{}", "http://127.0.0.1:1", 403), ("127.0.0.1:{}", "https://127.0.0.1:{}", 403),
    ("127.0.0.1:{}", "http://localhost:{}", 403)])
@pytest.mark.parametrize("upgrade", [False, True], ids=["request", "websocket"])
def test_preload_refuses_pages_of_others(guarded_port: int, host: str, origin: str | None, status: int,
                                         upgrade: bool) -> None:
    lines = ["POST /api/v1/nni/trial-jobs HTTP/1.1", f"Host: {host.format(guarded_port)}", "Content-Length: 0"]
    lines += [f"Origin: {origin.format(guarded_port)}"] if origin is not None else []
    lines += ["Connection: Upgrade", "Upgrade: websocket"] if upgrade else ["Connection: close"]
    with socket.create_connection(("127.0.0.1", guarded_port), timeout=10) as client:
        client.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = client.recv(4096).decode()
    wanted = {200: "101" if upgrade else "200", 403: "403"}[status]
    assert answer.startswith(f"HTTP/1.1 {wanted} "), answer


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


def test_nobody_can_hold_up_a_start_for_ever(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                             tmp_path: Path) -> None:
    monkeypatch.setattr(launch.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(launch, "START_SECONDS", 0.5)
    with launch.start_lock():
        assert not capsys.readouterr().out
        with launch.start_lock():
            told = capsys.readouterr().out.splitlines()
    assert told == ["waiting for another experiment to start",
                    f"note: somebody has kept the lock of starts, on {tmp_path}, for 0 s: going on without"]


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
