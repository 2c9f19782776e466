"""One test a mistake: what a user may get wrong, and the words that the one line about it must hold."""

import importlib.metadata
import json
import shutil
import socket
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from guard import machine_check, trial_check
from guard.experiment_file import load_config
from guard.preflight import Finding, check, render

TUNER = """\
import json
from nni.tuner import Tuner

class MyTuner(Tuner):
    def __init__(self, seed, *, size=3):
        pass
"""


@pytest.fixture(scope="session")
def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped experiment beside a stub of its trial; NNI's own folder is not in the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("config_hpo.yml", "search_space.json"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "hpo_trial.py").write_text("import nni\n")
    (tmp_path / "nas_trial.py").write_text("def main():\n    from nni.nas.space import ModelSpace\n")
    (tmp_path / "my_tuner.py").write_text(TUNER)
    (tmp_path / "broken_tuner.py").write_text("class MyTuner(\n")
    (tmp_path / "id_rsa").write_text("")
    return tmp_path


def problems(folder: Path, port: int, changes: dict) -> dict[str, str]:
    """Problems, by check, of the shipped config with `changes`: dotted keys to values, None for unset."""
    overrides = {key: json.dumps(value) for key, value in changes.items() if key != "space"}
    if "space" in changes:
        (folder / "search_space.json").write_text(json.dumps(changes["space"]))
    findings = check(load_config(folder / "config_hpo.yml", overrides), port)
    assert all("\n" not in (finding.problem or "") for finding in findings)
    return {finding.name: finding.problem for finding in findings if finding.problem}


def ranged(kind: str, *values: object) -> dict:
    return {"space": {"lr": {"_type": kind, "_value": list(values)}}, "maxTrialNumber": 2}


def chosen(*values: object, **changes: object) -> dict:
    return {"space": {"lr": {"_type": "choice", "_value": list(values)}}, "maxTrialNumber": 1, **changes}


REMOTE = {
    "platform": "remote",
    "machineList": [{"host": "worker1", "user": "me", "sshKeyFile": "id_rsa"}],
    "nniManagerIp": "10.0.0.1",
}
PASSWORD = {**REMOTE, "machineList": [{"host": "worker1", "user": "me", "password": "secret"}]}
CUSTOM = {"className": "my_tuner.MyTuner", "classArgs": {"seed": 1}}
MAXIMIZE = {"optimize_mode": "maximize"}

BAD = [  # changes to the shipped experiment, the check that must fail, words of its line
    (ranged("chioce", 1, 2), "search space", "lr chioce choice"),
    (ranged("uniform", "x", 2), "search space", "lr uniform 'x' number"),
    (ranged("uniform", "1e-4", 2), "search space", "1e-4 1.0e-3"),
    (ranged("uniform", True, 2), "search space", "lr True number"),
    (ranged("uniform", 2, 1), "search space", "lr below"),
    (ranged("uniform", 1), "search space", "lr 2 numbers"),
    (ranged("randint", 3, 3), "search space", "lr below"),
    (ranged("randint", 0, 2.5), "search space", "lr int"),
    (ranged("loguniform", 0, 1), "search space", "lr above 0"),
    (ranged("quniform", 0, 1, 0), "search space", "lr step above 0"),
    (ranged("quniform", 0, 1), "search space", "lr 3 numbers"),
    (ranged("normal", 0, -1), "search space", "lr deviation above 0"),
    ({"space": {"lr": [0.1, 0.01]}}, "search space", "lr _type _value"),
    ({"space": {"lr": {"_type": "choice", "_value": 3}}}, "search space", "lr list"),
    ({"space": []}, "search space", "names"),
    ({"space": {}}, "search space", "names"),
    (chosen(), "search space", "lr empty"),
    (chosen(1, 2, 1), "search space", "lr 1 twice"),
    (chosen({"_name": "a"}, 1), "search space", "lr _name"),
    (
        chosen({"_name": "a", "k": {"_type": "unifrom", "_value": [0, 1]}}),
        "search space",
        "lr.a. k unifrom uniform",
    ),
    ({"searchSpaceFile": "missing.json"}, "search space", "missing.json no such file"),
    ({"searchSpaceFile": "hpo_trial.py"}, "search space", "hpo_trial.py not valid JSON"),
    ({"searchSpace": {"lr": {"_type": "choice", "_value": [1]}}}, "search space", "searchSpaceFile not both"),
    ({"maxTrialNumber": 65}, "trials", "65 64 TPE"),
    (
        chosen(1, 2, maxTrialNumber=3, **{"tuner.name": "GridSearch", "tuner.classArgs": None}),
        "trials",
        "3 2 GridSearch",
    ),
    (
        {"maxTrialNumber": None, "maxExperimentDuration": None},
        "budget",
        "maxTrialNumber maxExperimentDuration never end",
    ),
    ({"maxTrialNumber": 0}, "budget", "maxTrialNumber 0 1 or more"),
    ({"maxTrialNumber": "many"}, "budget", "maxTrialNumber many whole"),
    ({"maxExperimentDuration": "2 weeks"}, "budget", "maxExperimentDuration weeks 24h"),
    ({"maxTrialDuration": 0}, "budget", "maxTrialDuration 0 24h"),
    ({"debug": "yes"}, "config", "debug yes"),
    ({"logLevel": "loud"}, "config", "logLevel in fatal"),
    ({"trialConcurrency": 0}, "concurrency", "trialConcurrency 0 1 or more"),
    ({"trialConcurrency": 2}, "concurrency", "trialConcurrency 2 TPE Random tuners.TPE"),
    ({"trialConcurrency": 2, "tuner": {"name": "Evolution", "classArgs": MAXIMIZE}}, "concurrency", "Evolution"),
    ({"trialConcurrency": "two"}, "concurrency", "trialConcurrency 'two' 1 or more"),
    ({"trainingService.reuseMode": True}, "concurrency", "reuseMode crashes"),
    ({"tuner.name": "TPEE"}, "tuner", "TPEE does not exist 'TPE'"),
    ({"tuner.name": "Medianstop"}, "tuner", "Medianstop does not exist Random"),
    ({"tuner.name": "Hyperband"}, "tuner", "Hyperband does not work today type error TPE"),
    ({"tuner.name": "BOHB"}, "tuner", "BOHB does not work today"),
    ({"tuner.name": "Anneal"}, "tuner", "Anneal numpy 2"),
    ({"tuner.name": "SMAC"}, "tuner", "SMAC builds"),
    ({"tuner.name": "PPOTuner"}, "tuner", "PPOTuner TensorFlow"),
    ({"tuner": {"name": "GP", "classArgs": MAXIMIZE}}, "tuner", "GP numerical"),
    ({"tuner": {"name": "Metis", "classArgs": MAXIMIZE}}, "tuner", "Metis numerical"),
    ({"tuner": {"name": "Batch"}}, "tuner", "Batch one combined"),
    ({"tuner": None}, "tuner", "no tuner TPE"),
    ({"advisor": {"name": "Hyperband"}}, "tuner", "advisor TPE"),
    ({"tuner.classArgs.sed": 1}, "tuner", "classArgs.sed 'seed'"),
    ({"tuner.classArgs.optimize_mode": "max"}, "tuner", "optimize_mode 'max' maximize or minimize"),
    ({"tuner.classArgs.tpe_args": {"gama": 3}}, "tuner", "classArgs refused by TPE gama"),
    ({"tuner": {**CUSTOM, "className": "MyTuner"}}, "tuner", "className 'MyTuner' module.Class"),
    ({"tuner": {**CUSTOM, "className": "no_tuner.MyTuner"}}, "tuner", "no_tuner.py must exist"),
    (
        {"tuner": {**CUSTOM, "className": "my_tuner.MyTuna"}},
        "tuner",
        "my_tuner.py no class 'MyTuna' 'MyTuner'",
    ),
    ({"tuner": {**CUSTOM, "className": "broken_tuner.MyTuner"}}, "tuner", "broken_tuner.py line 1"),
    ({"tuner": {**CUSTOM, "classArgs": {"sede": 1}}}, "tuner", "classArgs.sede 'seed'"),
    ({"tuner": {"className": "my_tuner.MyTuner"}}, "tuner", "classArgs.seed is missing"),
    ({"assessor.name": "Medianstp"}, "assessor", "Medianstp does not exist 'Medianstop'"),
    ({"assessor.name": "TPE"}, "assessor", "TPE does not exist Curvefitting"),
    ({"assessor.classArgs.start_step": "five"}, "assessor", "start_step five Medianstop"),
    ({"assessor": {"name": "Curvefitting"}}, "assessor", "Curvefitting epoch_num"),
    ({"assessor": {"name": "Curvefitting", "classArgs": MAXIMIZE}}, "assessor", "optimize_mode epoch_num"),
    ({"assessor.classArgs.start": 1}, "assessor", "classArgs.start 'start_step'"),
    ({"assessor.classArgs.optimize_mode": "minimize"}, "assessor", "minimize maximize best trials"),
    ({"tuner": {"name": "TPE"}}, "assessor", "maximize minimize best trials"),  # the default of NNI's TPE
    ({"trialCommand": "cd src && python hpo_trial.py"}, "trial command", "one simple command '&'"),
    ({"trialCommand": "python hpo_trial.py > log"}, "trial command", "one simple command '>'"),
    ({"trialCommand": "python hpo_trial.py | tee log"}, "trial command", "one simple command '|'"),
    ({"trialCommand": "python hpo_trial.py; true"}, "trial command", "one simple command ';'"),
    ({"trialCommand": "python hpo_trial.py\ntrue"}, "trial command", "one simple command '\\n'"),
    ({"trialCommand": 'python hpo_trial.py --data "$(pwd)"'}, "trial command", "one simple command"),
    ({"trialCommand": "bash -c 'python hpo_trial.py'"}, "trial command", "one simple command shell"),
    ({"trialCommand": "cd src"}, "trial command", "one simple command"),
    ({"trialCommand": "python 'hpo_trial.py"}, "trial command", "quotation"),
    ({"trialCommand": ""}, "trial command", "must be one command"),
    ({"trialCommand": "pyhton hpo_trial.py"}, "trial command", "pyhton not an executable"),
    ({"trialCommand": "python hpo_tral.py"}, "trial command", "hpo_tral.py does not exist"),
    ({"trialCommand": "python -u -m hpo.trial"}, "trial command", "trial.py does not exist"),
    ({"trialCodeDirectory": "nowhere"}, "trial command", "trialCodeDirectory nowhere no such folder"),
    ({"trialGpuNumber": 1}, "GPUs", "useActiveGpu true"),
    (
        {"trialGpuNumber": 1, "trainingService.useActiveGpu": False},
        "GPUs",
        "useActiveGpu true busy without end",
    ),
    ({"trainingService.maxTrialNumberPerGpu": 2}, "config", "maxTrialNumberPerGpu trialGpuNumber"),
    ({"experimentName": "../../etc"}, "name", "experimentName ../../etc folder"),
    ({"experimentName": ""}, "name", "experimentName"),
    (
        {"experimentWorkingDirectory": "hpo_trial.py/experiments"},
        "folder",
        "hpo_trial.py not a writable folder",
    ),
    ({"trainingService": PASSWORD}, "machines", "worker1 password plain text"),
    ({"trainingService": {**REMOTE, "nniManagerIp": None}}, "machines", "nniManagerIp"),
]


@pytest.mark.parametrize(
    ("changes", "name", "words"), BAD, ids=lambda value: None if isinstance(value, str) else ""
)
def test_mistake_gets_its_line(folder: Path, free_port: int, changes: dict, name: str, words: str) -> None:
    found = problems(folder, free_port, changes)
    assert name in found, found
    assert not [word for word in words.split() if word not in found[name]], found[name]
    assert set(found) <= {name, "config"}, found  # one mistake, one line (and NNI's own words for it)


GOOD = [
    {},
    {"assessor": None},
    {"trialCommand": "exec python hpo_trial.py --name 'a; b' --other=\"c && d\""},
    {"trialCommand": "OMP_NUM_THREADS=2 python3 -u hpo_trial.py"},
    {"trialCommand": "python -m hpo_trial"},
    {"trialConcurrency": 4, "tuner": {"name": "Random"}},
    {"trialConcurrency": 4, "tuner": {"className": "tuners.TPE", "codeDirectory": str(ROOT / "guard")}},
    {"trialGpuNumber": 0},
    {"tuner": {"name": "random"}, "assessor": {"name": "medianstop"}},
    {
        "tuner": {"name": "Evolution", "classArgs": MAXIMIZE},
        "maxTrialNumber": 100,
    },  # repeats itself, so never stops
    {"tuner": {"name": "PBT", "classArgs": MAXIMIZE}},
    {"tuner": CUSTOM},
    {"assessor": {"name": "Curvefitting", "classArgs": {"epoch_num": 30}}},
    {"tuner": {"name": "GP", "classArgs": MAXIMIZE}, **ranged("quniform", 0, 1, 0.5)},
    {**ranged("lognormal", -3, 1), "maxTrialNumber": 1000},
    chosen({"_name": "a", "k": {"_type": "choice", "_value": [1, 2]}}, {"_name": "b"}, maxTrialNumber=3),
    {
        "tuner": {"name": "BatchTuner"},
        **chosen({"lr": 1, "model": "vgg"}, {"lr": 2, "model": "vgg"}, maxTrialNumber=2),
    },
    {"trainingService": REMOTE},
]


@pytest.mark.parametrize("changes", GOOD, ids=lambda changes: " ".join(changes) or "as shipped")
def test_sound_config_passes(folder: Path, free_port: int, changes: dict) -> None:
    assert problems(folder, free_port, changes) == {}


def test_concurrency_says_that_the_web_ui_swaps(folder: Path, free_port: int) -> None:
    changes = {"trialConcurrency": "2", "tuner.name": "Random", "tuner.classArgs": "null"}
    findings = check(load_config(folder / "config_hpo.yml", changes), free_port)
    detail = next(finding.detail for finding in findings if finding.name == "concurrency")
    assert "swapped" in detail and "experiment.py results" in detail


@pytest.mark.parametrize(
    ("package", "version", "name"),
    [
        ("setuptools", "84.2.1", "setuptools"),
        ("filelock", "3.12.0", "filelock"),
        ("nni", "2.10", "NNI"),
    ],
)
def test_wrong_version(
    folder: Path, free_port: int, monkeypatch, package: str, version: str, name: str
) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda key: version if key == package else real(key))
    found = problems(folder, free_port, {})
    assert set(found) == {name} and version in found[name] and "pip install" in found[name]


@pytest.mark.parametrize(
    ("module", "name", "trial"),
    [
        ("pkg_resources", "setuptools", "hpo_trial"),
        ("pytorch_lightning", "lightning", "nas_trial"),
    ],
)
def test_missing_module(
    folder: Path, free_port: int, monkeypatch, module: str, name: str, trial: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda key, *rest: None if key == module else real(key, *rest)
    )
    found = problems(folder, free_port, {"trialCommand": f"python {trial}.py"})
    assert set(found) == {name} and "pip install" in found[name]


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 14, 0)])
def test_wrong_python(monkeypatch, version: tuple) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(ValueError, match=r"3\.10 to 3\.13"):
        machine_check.check_python({}, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
def test_port_in_use(folder: Path, host: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        try:
            server.bind((host, 0))
        except OSError:
            pytest.skip(f"no {host} here")
        server.listen()
        port = server.getsockname()[1]
        found = problems(folder, port, {})
    assert set(found) == {"port"} and str(port) in found["port"] and "in use" in found["port"]


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_port_out_of_range(folder: Path, port: int) -> None:
    assert "1 to 65535" in problems(folder, port, {})["port"]


def test_remote_needs_the_next_port_too(folder: Path) -> None:
    assert "65536" in problems(folder, 65535, {"trainingService": REMOTE})["port"]


@pytest.mark.parametrize(
    ("gpus", "trials", "each", "share", "words"),
    [
        (0, 1, 1, 1, "no GPU or NVIDIA driver"),
        (1, 1, 1, 1, "below the number of GPUs (1) without end"),
        (1, 2, 1, 2, None),
        (1, 3, 1, 2, "trialConcurrency 3 2 GPU slots"),
        (2, 3, 1, 1, "trialConcurrency 3 2 GPU slots"),
        (4, 4, 1, 1, None),
        (4, 1, 4, 1, "below the number of GPUs (4) without end"),
        (4, 1, 1, 0, "1 or more"),
    ],
)
def test_gpu_settings(folder, free_port, monkeypatch, gpus, trials, each, share, words) -> None:
    monkeypatch.setattr(trial_check, "gpu_count", lambda: gpus)
    service = {"platform": "local", "useActiveGpu": True, "maxTrialNumberPerGpu": share}
    found = problems(
        folder, free_port,
        {"trialConcurrency": trials, "trialGpuNumber": each, "trainingService": service, "tuner": {"name": "Random"}}
    )
    assert set(found) == ({"GPUs"} if words else set()), found
    assert not [word for word in (words or "").split() if word not in found["GPUs"]], found


def test_gpu_indices_leave_fewer_slots(folder: Path, free_port: int, monkeypatch) -> None:
    monkeypatch.setattr(trial_check, "gpu_count", lambda: 4)
    service = {"platform": "local", "useActiveGpu": True, "gpuIndices": "1,3,9"}
    changes = {"trialGpuNumber": 1, "trainingService": service}
    assert problems(folder, free_port, {**changes, "trialConcurrency": 2, "tuner": {"name": "Random"}}) == {}
    assert "2 GPU slots" in problems(folder, free_port, {**changes, "trialConcurrency": 3})["GPUs"]


def test_render(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    text = render([Finding("port", None, "8080 free"), Finding("trial command", "word " * 30, "")])
    lines = text.splitlines()
    assert lines[0].startswith("ok") and lines[0].endswith("8080 free") and "\033" not in text
    assert lines[1].startswith("PROBLEM  trial command  word") and lines[2].startswith(" " * 24 + "word")
    assert max(map(len, lines)) < 70 and lines[-1] == "1 problem"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert "\033[31mPROBLEM\033[0m" in render([Finding("port", "in use", "")])


def test_check_fits_one_screen(folder: Path, free_port: int) -> None:
    findings = check(load_config(folder / "config_hpo.yml"), free_port)
    assert len(render(findings).splitlines()) < 24 and len({finding.name for finding in findings}) == len(
        findings
    )
