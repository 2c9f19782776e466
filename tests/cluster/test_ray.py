"""Experiments on a Ray of their own, and on one that is there: real ones, of trials that take no time."""

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from conftest import ROOT
from guard.web_server import is_loopback

pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-ray.txt")
pytestmark = pytest.mark.slow

TOY = f"""
experimentName: toy
searchSpace:
  x: {{_type: uniform, _value: [0, 1]}}
trialCommand: python toy.py
trialCodeDirectory: {ROOT / "tests/cluster"}
trialConcurrency: 2
maxTrialNumber: 6
tuner: {{name: TPE, classArgs: {{optimize_mode: maximize, seed: 1}}}}
trainingService: {{platform: local}}
"""


def starter(folder):
    """A function that starts experiment.py in `folder`, and what it has started."""
    begun = []

    def start(*words, **environment):
        log = folder / f"log{len(begun)}"
        with open(log, "w", encoding="utf-8") as said:
            begun.append(subprocess.Popen(
                [sys.executable, ROOT / "experiment.py", *map(str, words)], cwd=folder, stdout=said, stderr=said,
                env={**os.environ, "HOME": str(folder), "OMP_NUM_THREADS": "1", **environment}))
        begun[-1].said = lambda: log.read_text(encoding="utf-8")
        return begun[-1]
    return start, begun


def end(begun):
    for process in begun:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


@pytest.fixture
def start(tmp_path):
    """Start experiment.py in a folder with toy.yml; what a test leaves running is ended."""
    (tmp_path / "toy.yml").write_text(TOY, encoding="utf-8")
    start, begun = starter(tmp_path)
    yield start
    end(begun)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """Address and token of a head."""
    folder = tmp_path_factory.mktemp("head")
    start, begun = starter(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = start("ray", "head", "--port", port)
    await_that(lambda: "Ray runtime started" in process.said(), process)
    yield f"127.0.0.1:{port}", folder / ".ray/auth_token"
    assert process.poll() is None
    end(begun)


def await_that(holds, process=None, seconds=90.0):
    latest = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < latest and (process is None or process.poll() is None), process and process.said()
        time.sleep(0.05)


def ended(process, seconds=90.0):
    return process.wait(seconds), process.said()


def left(folder):
    """The folder in which the experiment's Ray was, if it is there; processes that have a file in it open."""
    place = Path(tempfile.gettempdir()) / f"ray-{os.getuid()}-{folder.stat().st_dev:x}-{folder.stat().st_ino:x}"
    open_there = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            open_there += [process.pid for file in process.open_files() if file.path.startswith(f"{place}/")]
    return place.exists(), open_there


def assert_whole(folder, count, epochs):
    """All trials are there, none twice, each epoch once, and the files say the same."""
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert len(rows) == count == len({row["run.x"] for row in rows})
    assert {row["state"] for row in rows} == {"SUCCEEDED"} and {row["points"] for row in rows} == {str(epochs)}
    assert all(row["run.x"] == row["metric"] for row in rows)
    assert [len((folder / row["trial"] / "epochs").read_text()) for row in rows] == [epochs] * count
    best = json.loads((folder / "best.json").read_text())
    assert best["finished"] and best["value"] == max(float(row["metric"]) for row in rows)


def times_begun(folder):
    return sum(len(file.read_text().split()) for file in folder.glob("*/begun"))


def test_forty_trials_by_warm_processes_that_only_this_machine_reaches(start, tmp_path):
    folder, addresses = tmp_path / "runs/toy", set()
    process = start("run", "toy.yml", "--engine", "ray", "--set", "maxTrialNumber=40")
    await_that(lambda: "SUCCEEDED" in process.said(), process)
    for child in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it has ended
            addresses |= {link.laddr.ip for link in child.net_connections("inet") if link.status == psutil.CONN_LISTEN}
    code, said = ended(process)
    assert code == 0, said
    assert addresses and all(is_loopback(address.removeprefix("::ffff:")) for address in addresses)
    assert_whole(folder, 40, 1)
    assert times_begun(folder) == 40
    assert len({file.read_text() for file in folder.glob("*/begun")}) <= 4  # processes
    assert left(folder) == (False, [])
    code, said = ended(start("run", "toy.yml", "--engine", "ray"))
    assert code == 2 and "holds an experiment" in said


def test_a_killed_driver_and_a_killed_process_cost_no_epoch(start, tmp_path):
    folder, slow = tmp_path / "runs/toy", ("--set", "trialCommand=python toy.py --epochs 4 --sleep 0.2")
    process = start("run", "toy.yml", "--engine", "ray", *slow)
    await_that(lambda: process.said().count("SUCCEEDED") > 0, process)
    process.kill()
    process.wait()
    process = start("resume", folder)
    await_that(lambda: process.said().count("SUCCEEDED") > 0, process)

    found = []  # processes that have done a part of a trial; those of the first driver are gone

    def half_done():
        begun = [file.with_name("begun") for file in folder.glob("*/epochs")
                 if 0 < len(file.read_text()) < 3 and not file.with_name("trial.json").exists()]
        found.extend(filter(psutil.pid_exists, (int(file.read_text().split()[-1]) for file in begun)))
        return found
    await_that(half_done, process)
    os.kill(found[0], signal.SIGKILL)
    code, said = ended(process)
    assert code == 0 and "it goes on in another one" in said, said
    assert_whole(folder, 6, 4)
    assert left(folder) == (False, [])


def test_a_head_takes_nobody_without_its_token(start, head, tmp_path):
    address, token = head
    run = ("run", "toy.yml", "--engine", "ray", "--address", address)
    assert token.stat().st_mode & 0o777 == 0o600
    code, said = ended(start(*run))
    assert code == 2 and "no such token" in said
    code, said = ended(start(*run, RAY_AUTH_TOKEN="f" * 64))
    assert code == 2 and "the token must be that of its head" in said and said.count("\n") == 2, said
    plain = subprocess.run([sys.executable, "-c", f"import ray; ray.init({address!r})"], capture_output=True, text=True,
                           env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_NUM_REDIS_GET_RETRIES": "1",
                                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"})
    assert plain.returncode == 1 and "InvalidAuthToken" in plain.stderr
    assert not list(tmp_path.glob("runs/*"))


def test_a_stop_and_a_failure_tell_by_their_exit_codes(start, head, tmp_path):
    address, token = head
    folder, run = tmp_path / "runs/toy", ("run", "toy.yml", "--engine", "ray", "--address", address, "--set",
                                          "maxTrialNumber=2", "--set")
    process = start(*run, "trialCommand=python toy.py --epochs 9 --sleep 0.2", RAY_AUTH_TOKEN_PATH=str(token))
    await_that(lambda: len(list(folder.glob("*/begun"))) == 2, process)
    process.terminate()
    code, said = ended(process)
    assert code == 143 and "2 INTERRUPTED" in said and f"resume runs/toy --address {address}" in said
    pids = [int(file.read_text().split()[-1]) for file in folder.glob("*/begun")]
    await_that(lambda: not any(map(psutil.pid_exists, pids)))
    code, said = ended(start("resume", folder, "--address", address, RAY_AUTH_TOKEN_PATH=str(token)))
    assert code == 0, said
    assert_whole(folder, 2, 9)
    code, said = ended(start(*run, "trialCommand=python toy.py --fail", "--out", "bad", RAY_AUTH_TOKEN_PATH=str(token)))
    assert code == 1 and "2 of 2 trials FAILED" in said and "this trial fails" in said


def test_stage_2_runs(start, head, tmp_path, digits_dir):
    command = (f"python classic_nas_trial.py --data digits --data-dir {digits_dir} --train-size 40 --val-size 20 "
               "--batch-size 20 --epochs 1 --max-params 3217226")
    process = start("run", ROOT / "config_classic_nas.yml", "--engine", "ray", "--address", head[0], "--set",
                    "maxTrialNumber=2", "--set", "tuner.classArgs.score=null", "--set", f"trialCommand={command}",
                    RAY_AUTH_TOKEN_PATH=str(head[1]))
    code, said = ended(process, 180)
    assert code == 0, said
    best = json.loads((tmp_path / "runs/classic_nas/best.json").read_text())
    assert best["result"]["stage"] == "classic_nas" and best["trials"] == {"total": 2, "succeeded": 2}
    assert (tmp_path / "runs/classic_nas/best.png").exists()
