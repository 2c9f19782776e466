"""experiment.py against the real NNI: every promise of its life cycle, with toy trials that need no torch.

HOME is a temporary folder, so that the user's own experiments are never touched. An experiment takes 15 to 40 s,
nearly all of it NNI's own, hence a few experiments that show many things each.
"""

import contextlib
import csv
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

import experiment
from guard import processes, registry, web_server
from guard.registry import Experiment

TESTS = Path(__file__).resolve().parent
SCRIPT = TESTS.parent / "experiment.py"


class Site:
    """A folder with a HOME of its own, in which experiment.py is run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()

    def config(self, trial: str = "", **changes: object) -> Path:
        config = {
            "experimentName": "toy",
            "searchSpace": {"x": {"_type": "choice", "_value": list(range(1, 33))}},
            "trialCommand": f"python toy_trial.py {trial}".strip(),
            "trialCodeDirectory": str(TESTS),
            "trialConcurrency": 1,
            "maxTrialNumber": 2,
            "tuner": {"name": "TPE", "classArgs": {"optimize_mode": "maximize", "seed": 1}},
            "trainingService": {"platform": "local"},
            **changes,
        }
        path = self.folder / "toy.yml"
        path.write_text(yaml.safe_dump(config))
        return path

    def start(self, *arguments: object) -> subprocess.Popen:
        environment = {**os.environ, "HOME": str(self.home), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
        return subprocess.Popen([sys.executable, str(SCRIPT), *map(str, arguments)], cwd=self.folder, env=environment,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, *arguments: object) -> tuple[int, str]:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=180)
        assert "Traceback (most" not in output, output
        return process.returncode, output

    def latest(self) -> Experiment | None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(self.home))
            return registry.find("latest") if registry.read() else None

    def await_running(self, seconds: float = 120.0) -> Experiment:
        """Until a trial is in its training loop."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.latest()
            if found and list(found.folder.glob("environments/*/trials/*/toy.json")):
                return found
            time.sleep(0.2)
        raise AssertionError("no trial came to its training loop")

    def clean(self) -> None:
        """Nothing may outlive a test, whatever went wrong in it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(self.home))
            for key in registry.read():
                processes.stop(registry.find(key))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.clean()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def own_address() -> str | None:
    """An address of this machine that other machines could reach."""
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not web_server.is_loopback(address.address):
                return address.address
    return None


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


# ---- one experiment with everything that trials do wrong, four at once ---------------------------------------------


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    """12 trials, 4 at a time, with start jitter; the second crashes before its first call."""
    site = Site(tmp_path_factory.mktemp("crowd"))
    config = site.config("--jitter 1.5 --crash-before 1", trialConcurrency=4, maxTrialNumber=12,
                         tuner={"className": "tuners.TPE", "codeDirectory": str(TESTS.parent / "guard"),
                                "classArgs": {"optimize_mode": "maximize", "seed": 1}},
                         experimentWorkingDirectory=str(site.folder / "elsewhere"))
    port = free_port()
    process = site.start("run", config, "--port", port)
    try:
        found = site.await_running()
        seen = {"site": site, "port": port, "experiment": found, "process": processes.manager_of(found)}
        seen["sockets"] = web_server.listening(seen["process"])
        seen["local"], seen["own"] = reach("127.0.0.1", port), reach(own_address() or "127.0.0.2", port)
        seen["results"] = site.run("results", "latest", "--out", site.folder / "midway")
        seen["resume"] = site.run("resume", "latest")
        seen["output"], _ = process.communicate(timeout=180)
        seen["code"] = process.returncode
        yield seen
    finally:
        process.terminate()
        process.communicate()
        site.clean()


def reach(host: str, port: int) -> int:
    """The HTTP status of NNI's web server at an address, 0 if it refuses."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/api/v1/nni/check-status")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


@pytest.mark.slow
def test_every_trial_carries_its_true_parameters(crowd: dict) -> None:
    rows = read_csv(crowd["site"].folder / "runs" / "toy" / "results.csv")
    assert len(rows) == 12
    for row in rows:
        (folder,) = crowd["experiment"].folder.glob(f"environments/*/trials/{row['trial']}")
        wrote = json.loads((folder / "toy.json").read_text())["x"] if row["state"] == "SUCCEEDED" else ""
        assert row["run.x"] == str(wrote), crowd["output"]
    assert [row["state"] for row in rows].count("FAILED") == 1
    best = json.loads((crowd["site"].folder / "runs" / "toy" / "best.json").read_text())
    assert best["value"] == best["parameters"]["x"] == max(float(row["metric"] or 0) for row in rows)


@pytest.mark.slow
def test_one_failed_trial_is_told_and_fails_the_run(crowd: dict) -> None:
    assert crowd["code"] == 1
    assert "failed: 1 of 12 trials FAILED" in crowd["output"]
    assert "RuntimeError: crashed before the first call" in crowd["output"]


@pytest.mark.slow
def test_web_port_is_on_loopback_only(crowd: dict) -> None:
    assert crowd["sockets"] == [("127.0.0.1", crowd["port"])]
    assert (crowd["local"], crowd["own"]) == (200, 0)


@pytest.mark.slow
def test_results_of_a_running_experiment(crowd: dict) -> None:
    code, output = crowd["results"]
    assert code in (0, 1)  # whether one has completed by then is chance
    assert "RUNNING" in output


@pytest.mark.slow
def test_running_experiment_is_not_resumed(crowd: dict) -> None:
    code, output = crowd["resume"]
    assert (code, "is running" in output) == (2, True)


@pytest.mark.slow
def test_nothing_is_left_after_a_run(crowd: dict) -> None:
    assert processes.is_gone(crowd["process"])
    assert processes.all_of(crowd["experiment"]) == []
    assert web_server.is_free(crowd["port"])


CUT = """
from nni.assessor import AssessResult, Assessor

class Cut(Assessor):
    def assess_trial(self, trial_job_id, trial_history):
        return AssessResult.Bad if float(trial_history[-1]) == -1 else AssessResult.Good
"""


@pytest.mark.slow
def test_each_fault_of_a_trial_is_named(site: Site) -> None:
    (site.folder / "cut.py").write_text(CUT)
    config = site.config(
        "--crash-after 1 --killed 2 --silent 3 --nan 4 --diverge 5 --lie 6 --poor 7", maxTrialNumber=8,
        trialConcurrency=2, tuner={"name": "Random"},
        assessor={"className": "cut.Cut", "codeDirectory": str(site.folder)})
    code, output = site.run("run", config)
    rows = {row["number"]: row for row in read_csv(site.folder / "runs" / "toy" / "results.csv")}
    assert code == 1
    expected = {"0": ("SUCCEEDED", ""), "1": ("FAILED", "RuntimeError: crashed after the first call"),
                "2": ("FAILED", "killed by a signal"), "3": ("NO METRIC", "without report_final_result"),
                "4": ("NOT FINITE", "nan"), "5": ("DIVERGED", ""), "6": ("SUCCEEDED", "its config.json says"),
                "7": ("STOPPED EARLY", "")}
    for number, (state, note) in expected.items():
        assert rows[number]["state"] == state, output
        assert note in rows[number]["note"]
        assert rows[number]["run.x"], "the parameters of a trial that reported nothing are known from NNI's log"
    assert rows["6"]["mismatch"] == "True"


@pytest.mark.slow
def test_script_that_never_works_ends_the_experiment(site: Site) -> None:
    code, output = site.run("run", site.config("--no-such-option", maxTrialNumber=30))
    assert code == 1
    assert "failed: the first 5 trials all failed; the last one: toy_trial.py: error: unrecognized" in output
    assert "no trial completed" in output
    assert not (site.folder / "runs" / "toy" / "best.json").exists()


TUNER = """
from nni.tuner import Tuner

class Broken(Tuner):
    def __init__(self, where):
        self.where = where
        if where == "start":
            raise RuntimeError("broken at the start")
    def update_search_space(self, search_space):
        if self.where == "space":
            raise RuntimeError("broken by the search space")
    def generate_parameters(self, parameter_id, **kwargs):
        return {"x": 1}
    def receive_trial_result(self, parameter_id, parameters, value, **kwargs):
        raise RuntimeError("broken by a result")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("where", "reason"), [
    ("start", "broken at the start"), ("space", "broken by the search space"), ("result", "broken by a result")])
def test_broken_tuner_is_named(site: Site, where: str, reason: str) -> None:
    (site.folder / "broken.py").write_text(TUNER)
    tuner = {"className": "broken.Broken", "codeDirectory": str(site.folder), "classArgs": {"where": where}}
    code, output = site.run("run", site.config(tuner=tuner, maxTrialNumber=5))
    assert code == 1
    assert re.search(rf"failed: .*RuntimeError: {reason}", output), output


@pytest.mark.slow
def test_two_final_results_are_named(site: Site) -> None:
    code, output = site.run("run", site.config("--twice 0", maxTrialNumber=4))
    assert code == 1
    assert re.search(r"failed: the tuner .*KeyError.*report_final_result twice", output), output


@pytest.mark.slow
def test_used_up_space_is_an_end_and_the_ui_can_stay(site: Site) -> None:
    """NNI stays in TUNER_NO_MORE_TRIAL for ever here. Plain trials: a float, and no files."""
    space = {"x": {"_type": "choice", "_value": [1, 2]}}
    config = site.config("--plain", searchSpace=space, tuner={"name": "GridSearch"}, maxTrialNumber=2)
    code, output = site.run("run", config, "--keep-ui", "--set", "experimentName=grid search")
    found = site.latest()
    assert (code, "2 trials: 2 SUCCEEDED" in output) == (0, True), output
    assert reach("127.0.0.1", found.port) == 200
    assert json.loads((site.folder / "runs" / "grid-search" / "best.json").read_text())["parameters"] == {"x": 2}
    assert site.run("stop", found.id) == (0, f"stopping {found.id}\n{found.id} stopped\n")
    assert site.run("stop", found.id) == (0, f"{found.id} was not running\n")
    assert reach("127.0.0.1", found.port) == 0


@pytest.mark.slow
def test_two_users_start_at_the_same_moment(site: Site) -> None:
    """On one port NNI would give each experiment the other's tuner and search space."""
    (site.folder / "other").mkdir()
    other = Site(site.folder / "other")
    only_99 = {"x": {"_type": "choice", "_value": [99]}}
    started = [site.start("run", site.config(maxTrialNumber=1)),
               other.start("run", other.config(maxTrialNumber=1, searchSpace=only_99))]
    try:
        outputs = [process.communicate(timeout=180)[0] for process in started]
    finally:
        other.clean()
    assert [process.returncode for process in started] == [0, 0], outputs
    [mine], [theirs] = (read_csv(user.folder / "runs" / "toy" / "results.csv") for user in (site, other))
    assert int(mine["run.x"]) <= 32 and int(theirs["run.x"]) == 99, outputs
    assert sum("waiting for another experiment to start" in output for output in outputs) == 1, outputs


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_everything(site: Site, number: signal.Signals) -> None:
    process = site.start("run", site.config("--sleep 60"))
    found = site.await_running()
    family = processes.all_of(found)
    process.send_signal(number)
    time.sleep(0.5)
    process.send_signal(number)  # impatience must not cut the stop in two
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 128 + number, output
    assert len(family) >= 3
    assert [member for member in family if not processes.is_gone(member)] == []
    assert web_server.is_free(found.port)
    assert "INTERRUPTED" in output


@pytest.mark.slow
def test_killed_manager_is_told_then_results_then_resume(site: Site) -> None:
    process = site.start("run", site.config("--sleep 2"))
    found = site.await_running()
    processes.manager_of(found).kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "manager is gone: it was killed from outside" in output
    code, output = site.run("results", found.id)
    assert (code, "INTERRUPTED" in output) == (1, True)
    code, output = site.run("resume", found.id)
    assert code == 0, output
    assert "2 trials: 2 SUCCEEDED" in output
    assert [row["points"] for row in read_csv(site.folder / "runs" / "toy" / "results.csv")] == ["3", "3"]
    assert processes.all_of(found) == []


# ---- no experiment is started below --------------------------------------------------------------------------------


def register(site: Site, pid: int) -> None:
    """An experiment that NNI's registry calls running under this pid."""
    home = site.home / "nni-experiments"
    home.mkdir()
    record = {"id": "old12345", "experimentName": "old", "pid": pid, "port": 8080, "status": "RUNNING",
              "startTime": 1, "logDir": str(home)}
    (home / ".experiment").write_text(json.dumps({"old12345": record}))


def test_stop_spares_a_stranger_with_the_recorded_pid(site: Site) -> None:
    sleeper = subprocess.Popen(["sleep", "100"])
    try:
        register(site, sleeper.pid)
        code, output = site.run("stop", "old12345")
        assert sleeper.poll() is None
        assert (code, "another program, left alone: sleep 100" in output) == (0, True)
        records = json.loads((site.home / "nni-experiments" / ".experiment").read_text())
        assert records["old12345"]["status"] == "STOPPED"
    finally:
        sleeper.kill()
        sleeper.wait()


def test_taken_port(site: Site) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        code, output = site.run("run", site.config(), "--port", port)
        assert (code, f"--port {port}: taken" in output) == (2, True)
    assert site.latest() is None


def test_port_of_another_experiment_is_named_and_the_next_one_taken(capsys: pytest.CaptureFixture) -> None:
    serve = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[2]))); print(flush=True); " \
            "time.sleep(60)"
    port = free_port()
    server = subprocess.Popen([sys.executable, "-c", serve, "--port", str(port), "--experiment-id", "abc"],
                              stdout=subprocess.PIPE)
    try:
        server.stdout.readline()
        taken = experiment.free_port(None, port)
        assert taken > port
        said = capsys.readouterr().out
        assert said == f"port {port} is taken by NNI experiment abc; using the next free one, {taken}\n"
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("command", ["stop", "results", "resume"])
@pytest.mark.parametrize("spec", ["nosuch", "latest", "/nowhere/abc"])
def test_unknown_experiment(command: str, spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                            capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert experiment.main([command, spec]) == 2
    assert capsys.readouterr().err.startswith(f"error: {spec}: no such experiment")


def test_check(site: Site) -> None:
    code, output = site.run("check", site.config())
    assert (code, "PROBLEM" in output) == (0, False), output
    code, output = site.run("check", site.config(tuner={"name": "Anneal"}), "--set", "maxTrialNumber=3")
    assert (code, "PROBLEM" in output) == (2, True), output


@pytest.mark.parametrize(("arguments", "words"), [
    (["run", "nosuch.yml"], "nosuch.yml"), (["check", "toy.yml", "--set", "maxTrialNumber"], "must be KEY=VALUE"),
    (["run", "toy.yml", "--port", "80"], "1024"), (["run", "toy.yml", "--set", "tunr.name=TPE"], "tunr")])
def test_mistake_gets_one_line(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
                               arguments: list[str], words: str) -> None:
    site.config()
    monkeypatch.chdir(site.folder)
    monkeypatch.setenv("HOME", str(site.home))
    assert experiment.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1


def test_signals_are_remembered_and_given_back(capsys: pytest.CaptureFixture) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(experiment.Signals())
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert "still stopping" in capsys.readouterr().err
