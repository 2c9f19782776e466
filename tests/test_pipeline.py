"""pipeline.py: what it would run, what it refuses, how it ends, and that no kill changes what comes out.

The slow tests run real NNI experiments, with a HOME of their own.
"""

import csv
import itertools
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
import yaml

import pipeline
import tiny_pictures
from config import command_line, identity, merge
from conftest import ROOT
from fake_experiment import Fake
from files import write_json
from guard import preflight, processes
from guard.experiment_file import load_config
from guard.moved import MOVED
from guard.registry import Experiment
from guard.trial_check import check_command
from journey import budgets
from journey.plan import ABSENT, BEGUN, FINISHED, Plan
from journey.processes import at_work, execute
from journey.stages import ExperimentStage
from journey.trainings import RunStage
from own_pictures import make_classes
from training.stopping import Signals

SIZES = "epochs=1 train_size=64 val_size=32 batch_size=32"
TINY = [f"{stage}.{pair}" for stage in ("hpo", "classic_nas") for pair in SIZES.split()] + [
    "hpo.maxTrialNumber=2", "classic_nas.maxTrialNumber=1",  # what stage 2 chooses after a resume, NNI's timing decides
    "baseline.epochs=1", "baseline.train_size=64",
    "classic_nas.tuner.classArgs.score=nas.scores.macs", "darts.epochs=3", "darts.train_size=48",
    "darts.val_size=32", "darts.batch_size=12", "retrain.epochs=3", "retrain.train_size=64", "retrain.channels=4",
    "retrain.layers=3"]


def dry_run(capsys: pytest.CaptureFixture, *arguments: str) -> dict[str, list[str]]:
    """stage -> the words of its command"""
    assert pipeline.main(["--dry-run", *arguments]) == 0
    parts = capsys.readouterr().out.split("\n\n# ")[1:]
    return {part.splitlines()[0]: shlex.split(part.partition("\n")[2].replace(" \\\n ", " ")) for part in parts}


def options(words: list[str], flag: str) -> dict[str, str]:
    return dict(word.split("=", 1) for before, word in itertools.pairwise(words) if before == flag)


# ---- what it would run


@pytest.mark.parametrize("budget", list(budgets.BUDGETS))
@pytest.mark.parametrize("data", ["cifar10", "digits"])
def test_dry_run_is_valid_and_runs_nothing(budget: str, data: str, tmp_path: Path,
                                           capsys: pytest.CaptureFixture) -> None:
    commands = dry_run(capsys, "--data", data, "--budget", budget, "--runs-dir", str(tmp_path / "runs"))
    last = ["choice", "refit"] if budget == "full" else []
    assert list(commands) == [*budgets.BUDGETS[budget], *last, "leaderboard", "report"]
    assert not (tmp_path / "runs").exists()
    for stage, words in commands.items():
        if stage == "refit":  # of which network, the choice will tell
            assert words[0].startswith("#")
            continue
        assert words[0] == sys.executable and (ROOT / words[1]).exists()
        if stage in ("hpo", "classic_nas"):
            words = shlex.split(options(words, "--set")["trialCommand"])
            assert words[:2] == ["python", f"{stage}_trial.py"]
        if stage in budgets.SETTINGS:
            given = command_line(budgets.SETTINGS[stage], words[2:], "")
            assert merge(budgets.SETTINGS[stage], given) and (given["data"], given["seed"]) == (data, 0)
    assert commands["retrain"][3] == str(tmp_path / "runs/darts_search/search/genotype.json")


def test_long_commands_are_folded_for_the_shell() -> None:
    command = ["printf", r"%s\0", "run", "--out", "a b", "--set", "x=python hpo_trial.py --data 'a # b' --data-dir x",
               "--set", "-x\ny", "--lr=-1", *(f"--option-{number}" for number in range(20))]
    folded = pipeline.folded(command)
    done = subprocess.run(["bash", "-c", folded], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == command[2:]
    assert len(folded.splitlines()) > 3 and max(map(len, folded.splitlines())) < 120


def test_a_reader_that_has_seen_enough_is_no_mistake() -> None:
    """As of `--dry-run | head -1`."""
    command = f"{shlex.quote(sys.executable)} pipeline.py --data digits --dry-run --runs-dir runs/none | head -1"
    done = subprocess.run(["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}"], cwd=ROOT, capture_output=True,
                          text=True)
    line, code = done.stdout.splitlines()
    assert line.startswith("# looking at") and code == "141" and done.stderr == ""


def test_the_files_of_the_demo_say_what_its_budget_says() -> None:
    for stage, file in budgets.EXPERIMENTS["demo"].items():
        config, table = yaml.safe_load((ROOT / file).read_text()), budgets.BUDGETS["demo"][stage]
        given = command_line(budgets.SETTINGS[stage], config["trialCommand"].split()[2:], "")
        for key in ("data", "max_params", "hpo_best"):
            given.pop(key, None)
        assert {"maxTrialNumber": config["maxTrialNumber"], **given} == table


def test_options_reach_the_stages(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for split in ("train", "test"):
        make_classes(tmp_path / "pictures" / split, cat=20, dog=20, owl=20)
    commands = dry_run(capsys, "--data", str(tmp_path / "pictures"), "--data-dir", str(tmp_path / "data"), "--seed",
                       "5", "--runs-dir", str(tmp_path / "runs"), "--stages", "darts", "hpo", "classic_nas", "retrain",
                       "--set", "darts.lr=0.5", "hpo.trialConcurrency=2", "--set", "retrain.compile=true")
    assert list(commands) == ["hpo", "classic_nas", "darts", "retrain"]
    hpo, nas = (options(commands[stage], "--set") for stage in ("hpo", "classic_nas"))
    assert (hpo["trialConcurrency"], nas["tuner.classArgs.seed"], '"seed": 6' in hpo["tuner"]) == ("2", "6", True)
    assert f"--data {tmp_path / 'pictures'} " in hpo["trialCommand"] and "--seed 5" in hpo["trialCommand"]
    trial = command_line(budgets.SETTINGS["classic_nas"], shlex.split(nas["trialCommand"])[2:], "")
    assert trial["max_params"] == 3217226 - 7 * 1025  # MobileNet for 3 classes
    assert (trial["train_size"], trial["batch_size"], trial["epochs"]) == (0, 13, 30)  # 60 pictures, 6 of validation
    assert trial["hpo_best"] == str(tmp_path / "runs/hpo/best.json")
    darts = command_line(budgets.SETTINGS["darts"], commands["darts"][2:], "")
    assert "--compile" in commands["retrain"] and darts["lr"] == 0.5


@pytest.mark.parametrize(("size", "stem"), [("auto", 0), ("64", 0), ("128", 9280), ("224", 2 * 9280)])
def test_no_larger_than_mobilenet_for_pictures_of_that_size(size: str, stem: int, tmp_path: Path,
                                                            capsys: pytest.CaptureFixture) -> None:
    commands = dry_run(capsys, "--data", "digits", "--image-size", size, "--runs-dir", str(tmp_path / "runs"))
    words = shlex.split(options(commands["classic_nas"], "--set")["trialCommand"])
    assert command_line(budgets.SETTINGS["classic_nas"], words[2:], "")["max_params"] == 3217226 + stem


def test_balance_is_that_of_every_training(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    commands = dry_run(capsys, "--data", "digits", "--budget", "demo", "--balance", "--runs-dir", str(tmp_path),
                       "--set", "retrain.balance=no")
    balanced = {name for name, words in commands.items() if "--balance" in " ".join(words).split()}
    assert balanced == {"baseline", "hpo", "classic_nas", "darts"} and "--no-balance" in commands["retrain"]


AWKWARD = ["a # b", "a: b", "a\tb", "a\nb", "it's", 'say "x"', "$HOME", "`date`", "ä Ω", "{a: 1}", "-a", "a\\nb", "*"]


@pytest.mark.parametrize("name", AWKWARD, ids=ascii)
def test_folders_may_have_any_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """To the commands that it prints, and on to those of the trials, by the checks of experiment.py."""
    data, runs = tiny_pictures.write(tmp_path / f"{name} data"), tmp_path / f"{name} runs"
    commands = dry_run(capsys, "--data", str(data), "--data-dir", str(tmp_path / name), "--runs-dir", str(runs),
                       "--budget", "demo", "--set", f"hpo.experimentName={name}")
    for stage in ("darts", "retrain"):
        given = command_line(budgets.SETTINGS[stage], commands[stage][2:], "")
        assert (given["data"], given["data_dir"], given["runs_dir"]) == (str(data), str(tmp_path / name), str(runs))
    assert given["genotype"] == str(runs / "darts_search/search/genotype.json")
    assert commands["report"][2:] == ["--runs", str(runs)]
    for stage in ("hpo", "classic_nas"):
        given = options(commands[stage], "--set")
        config = load_config(ROOT / commands[stage][3], given)
        trial = command_line(budgets.SETTINGS[stage], shlex.split(config["trialCommand"])[2:], "")
        assert (trial["data"], trial["data_dir"]) == (str(data), str(tmp_path / name))
        assert config["experimentWorkingDirectory"] == str((runs / stage / "nni").resolve())
        assert Path(commands[stage][5]) == runs / stage
        assert check_command(config, 0) == shlex.join(shlex.split(config["trialCommand"]))


@pytest.mark.parametrize("name", ["mine # b", "mine: 'b' \"c\" $HOME ä", "a\nb"], ids=ascii)
def test_a_run_of_any_name_passes_the_checks_before_the_start(name: str, tmp_path: Path) -> None:
    """All but the name of an experiment, which NNI makes a folder of."""
    data, runs = tiny_pictures.write(tmp_path / f"{name} data"), tmp_path / f"{name} runs"
    given = {**budgets.fitted("demo", "hpo", 24), "experimentName": name}
    shared = plan(runs, data=str(data), data_dir=str(tmp_path / name), classes=2, images=24)
    config = ExperimentStage("hpo", shared, given).before_start()
    found = {finding.name: finding.problem for finding in preflight.check(config, 18080) if finding.problem}
    assert found.keys() == {"name"} and f"experimentName {name!r}: it names a folder" in found["name"], found
    assert pipeline.check([ExperimentStage("classic_nas", shared, budgets.fitted("demo", "classic_nas", 24))]) == 0


def test_words_that_are_neither_yes_nor_no(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for text, flag in (("true", "--compile"), ("NO", "--no-compile"), ("0", "--no-compile")):
        assert flag in dry_run(capsys, "--data", "digits", "--runs-dir", str(tmp_path), "--set",
                               f"retrain.compile={text}")["retrain"]
    assert pipeline.main(["--data", "digits", "--dry-run", "--set", "retrain.compile=treu"]) == 2
    assert "retrain.compile=treu: must be true or false" in capsys.readouterr().err


def test_small_data_sets_get_what_they_have() -> None:
    for budget in budgets.BUDGETS:
        for images in (20, 100, 1000, 50_000):
            for stage in budgets.BUDGETS[budget]:
                found, held_out = budgets.fitted(budget, stage, images), images // 10
                assert found.get("train_size", 0) + held_out <= images and found.get("val_size", 0) <= held_out
                used = (found.get("train_size") or images - held_out) // (2 if stage == "darts" else 1)
                assert stage == "baseline" or 2 <= found.get("batch_size", budgets.SETTINGS[stage].batch_size) <= used
    assert budgets.fitted("full", "retrain", 50_000) == budgets.BUDGETS["full"]["retrain"]


# ---- what it refuses, in one line


@pytest.mark.parametrize(("arguments", "words"), [
    (["--set", "hpo.epocs=3"], "epocs"), (["--set", "darts.epocs=3"], "did you mean epochs"),
    (["--set", "hpo.epochs=many"], "epochs = 'many': must be a whole number"),
    (["--set", "hpo.maxTrialNumbers=3"], "maxTrialNumber"), (["--set", "epochs=3"], "must be STAGE.KEY=VALUE"),
    (["--set", "retrain.genotype=DARTS_V2"], "the pipeline sets that itself"),
    (["--stages", "hpo", "nas"], "stages = 'nas': must be of baseline hpo"), (["--seed", "-1"], "seed = -1"),
    (["--stages", "hpo_final"], "needs the best.json of hpo, which is not there yet; add hpo"),
    (["--stages", "hpo_final", "--budget", "demo"], "budget demo has none, but baseline hpo classic_nas"),
    (["--set", "hpo_final.epochs=3", "--budget", "demo"], "budget demo has no stage hpo_final"),
    (["--set", "retrain.held_out=3"], "the pipeline sets that itself"),
    (["--stages", "retrain"], "add darts"), (["--data", "no/such"], "data = "), (["--budget", "huge"], "must be one")])
def test_mistake_gets_one_line(arguments: list[str], words: str, tmp_path: Path,
                               capsys: pytest.CaptureFixture) -> None:
    runs = tmp_path / "runs"
    assert pipeline.main(["--data", "digits", "--dry-run", "--runs-dir", str(runs), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1 and not runs.exists()


def test_existing_results_are_not_overwritten(tmp_path: Path, digits_dir: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "hpo").mkdir()
    assert pipeline.main(["--data", "digits", "--data-dir", str(digits_dir), "--runs-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "holds results already (hpo); --resume goes on" in error and error.count("\n") == 1


def plan(runs: Path, **changes: object) -> Plan:
    return Plan(**{"runs": runs, "data": "digits", "data_dir": ".data", "budget": "demo", "seed": 0, "checksum": "abc",
                   "classes": 10, "images": 1437, "after_hpo": True, **changes})


def test_a_run_is_finished_by_its_results_and_only_by_those_wanted(tmp_path: Path) -> None:
    stage = RunStage("darts", plan(tmp_path), {"epochs": 2})
    assert stage.progress() == ABSENT and "--resume" not in stage.command(go_on=True)
    stage.path.mkdir(parents=True)
    (stage.path / "checkpoint.pt").touch()
    assert stage.progress() == BEGUN and stage.command(go_on=True)[-1] == "--resume"
    config = asdict(merge(budgets.SETTINGS["darts"], command_line(budgets.SETTINGS["darts"], stage.command()[2:], "")))
    write_json(stage.path / "result.json", {"config": config, "data": {"checksum": "abc"}, "value": 0.5})
    assert stage.progress() == BEGUN, "without its genotype"
    stage.genotype.touch()
    assert stage.progress() == FINISHED
    made = {key: value for key, value in config.items() if key != "balance"}  # by an earlier version
    write_json(stage.path / "result.json", {"config": made, "data": {"checksum": "abc"}, "value": 0.5})
    assert stage.progress() == FINISHED
    balanced = RunStage("darts", plan(tmp_path), {"epochs": 2, "balance": "yes"})
    for other, words in ((balanced, "balance = False, wanted is True"),
                         (RunStage("darts", plan(tmp_path), {"epochs": 3}), "made with epochs = 2, wanted is 3"),
                         (RunStage("darts", plan(tmp_path, seed=1), {"epochs": 2}), "seed = 0, wanted is 1"),
                         (RunStage("darts", plan(tmp_path, checksum="f" * 64), {"epochs": 2}), "other pictures")):
        with pytest.raises(ValueError, match=words):
            other.progress()
    (stage.path / "checkpoint.pt").unlink()
    stage.genotype.unlink()
    assert stage.progress() == BEGUN and stage.command(go_on=True)[-1] == "--overwrite"
    (stage.path / "checkpoint.pt").touch()
    stage.genotype.touch()
    (stage.path / "result.json").write_text("{")
    assert stage.progress() == BEGUN


def test_what_a_preset_sets_is_known_to_the_search_alone(tmp_path: Path) -> None:
    stage = RunStage("darts", plan(tmp_path), {"epochs": 2, "preset": "published"})
    stage.path.mkdir(parents=True)
    stage.genotype.touch()
    made = merge(budgets.SETTINGS["darts"], command_line(budgets.SETTINGS["darts"], stage.command()[2:], ""))
    config = asdict(made) | {"frozen": 0.0, "max_skips": 8, "val_size": -1}
    result = {"config": config, "data": {"checksum": "abc"}, "value": 0.5,
              "metric": "accuracy of the supernet on the alphas' half of the training images, over the last epoch"}
    write_json(stage.path / "result.json", result)
    assert stage.progress() == FINISHED
    assert stage.outcome() == f"cells found, {result['metric']} 50.0%"
    with pytest.raises(ValueError, match="made with val_size = -1, wanted is 0"):
        RunStage("darts", plan(tmp_path), {"epochs": 2}).progress()
    write_json(stage.path / "result.json", result | {"config": config | {"preset": ""}})
    with pytest.raises(ValueError, match="made with preset = '', wanted is 'published'"):
        stage.progress()


def test_experiment_that_never_started_is_begun_anew(tmp_path: Path) -> None:
    stage = ExperimentStage("hpo", plan(tmp_path), budgets.fitted("demo", "hpo", 1437))
    (stage.home / "abcdefgh" / "db").mkdir(parents=True)  # killed before NNI had written anything
    (stage.home / "_latest").symlink_to("abcdefgh")
    assert [one.id for one in stage.experiments()] == ["abcdefgh"]
    assert stage.progress() == ABSENT and stage.command(go_on=True)[2] == "run"


def test_experiment_of_which_every_trial_failed_is_begun_anew(tmp_path: Path) -> None:
    stage = ExperimentStage("hpo", plan(tmp_path), budgets.fitted("demo", "hpo", 1437))
    fake = Fake(stage.home / "abcdefgh")
    fake.event("A", "RUNNING", 0)
    fake.event("A", "FAILED")
    assert fake.one().state == "FAILED"
    assert stage.progress() == ABSENT and stage.command(go_on=True)[2] == "run"
    fake.event("B", "RUNNING", 1)  # and then the power failed
    fake.load()
    assert stage.found().id == "abcdefgh" and stage.command(go_on=True)[2] == "resume"


def test_experiment_of_an_earlier_version_is_gone_on_with(tmp_path: Path) -> None:
    """Its own file, and what the pipeline is told, name the tuner and its score where they lay then."""
    given = {**budgets.fitted("demo", "classic_nas", 1437), "tuner.classArgs.score": "models.nas_scores.macs"}
    stage = ExperimentStage("classic_nas", plan(tmp_path), given)
    fake = Fake(stage.home / "abcdefgh")
    fake.trial("A", 0, 0.5)
    fake.load()
    text = yaml.safe_dump(stage.config())
    for before, now in MOVED.items():
        text = text.replace(now, before)
    assert "nas_tuner.EvolutionTuner" in text and "models.nas_scores.macs" in text
    (stage.folder / "config.yml").write_text(text)
    assert stage.progress() == BEGUN


def test_nnictl_is_not_needed_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    stage = ExperimentStage("hpo", plan(tmp_path), budgets.fitted("demo", "hpo", 1437))
    assert pipeline.check([stage]) == 0, capsys.readouterr().err


def test_without_nni_nothing_starts(tmp_path: Path) -> None:
    program = "import sys; sys.modules['nni'] = None; import pipeline; sys.exit(pipeline.main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", program, "--data", "digits", "--stages", "hpo", "--runs-dir",
                           str(tmp_path / "runs")], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (done.returncode, (tmp_path / "runs").exists()) == (2, False), done.stderr
    assert "NNI cannot be imported" in done.stderr and done.stderr.count("\n") == 1


# ---- how it ends: the processes of a toy stage

TOY = """
import pathlib, signal, sys, time
def stop(number, frame):
    time.sleep(1)
    pathlib.Path(sys.argv[1], "stopped").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
pathlib.Path(sys.argv[1], "started").touch()
time.sleep(100)
"""
OWNER = """
import sys
from pathlib import Path
from config import run_script
from journey.processes import at_work, execute
from training.stopping import Signals
def run():
    with at_work(Path(sys.argv[1])) as lock, Signals() as signals:
        code = execute([sys.executable, "-c", sys.argv[2], sys.argv[1]], Path(), lock, signals)
        return 128 + signals.received if signals.received else code
sys.exit(run_script(run))
"""


def owner(folder: Path, child: str = TOY) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", OWNER, str(folder), child], cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def await_file(path: Path, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_is_handed_on_and_the_clean_stop_awaited(number: signal.Signals, tmp_path: Path) -> None:
    process = owner(tmp_path)
    await_file(tmp_path / "started")
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, (tmp_path / "stopped").exists()) == (128 + number, True), output


def test_killed_pipeline_takes_its_stage_along_and_the_next_one_waits_for_that(tmp_path: Path) -> None:
    first = owner(tmp_path)
    await_file(tmp_path / "started")
    busy = owner(tmp_path, "")
    output, _ = busy.communicate(timeout=60)
    assert (busy.returncode, "another pipeline is at work" in output) == (2, True), output
    first.kill()
    second = owner(tmp_path, "import pathlib, sys; sys.exit(not pathlib.Path(sys.argv[1], 'stopped').exists())")
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0, output
    first.communicate(timeout=60)


def test_crash_of_the_pipeline_ends_its_stage(tmp_path: Path) -> None:
    class Broken(Signals):
        @property
        def received(self) -> int | None:
            if (tmp_path / "started").exists():
                raise RuntimeError("crash")

        @received.setter
        def received(self, value: int | None) -> None:
            pass

    with at_work(tmp_path) as lock, pytest.raises(RuntimeError, match="crash"):
        execute([sys.executable, "-c", TOY, str(tmp_path)], ROOT, lock, Broken())
    assert (tmp_path / "stopped").exists()


# ---- the whole journey, small


class Site:
    """A HOME of its own, and pipelines in it; their output goes to files, since a killed one's stage writes on."""

    def __init__(self, folder: Path, data_dir: Path) -> None:
        self.folder, self.data_dir = folder, data_dir
        self.environment = {**os.environ, "HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
        (folder / "home").mkdir()

    def start(self, runs: str, *arguments: str, log: Path | None = None) -> subprocess.Popen:
        command = [sys.executable, str(ROOT / "pipeline.py"), "--data", "digits", "--data-dir", str(self.data_dir),
                   "--budget", "demo", "--runs-dir", str(self.folder / runs), "--set", *TINY, *arguments]
        with open(log or self.folder / f"{runs}.log", "w", encoding="utf-8") as file:
            return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=file, stderr=file)

    def run(self, runs: str, *arguments: str) -> tuple[int, str]:
        log = self.folder / f"{runs}-{time.monotonic_ns()}.log"
        process = self.start(runs, *arguments, log=log)
        process.wait(timeout=400)
        return process.returncode, log.read_text()

    def experiments(self, runs: str) -> list[Experiment]:
        return [Experiment(path.name, path.name, path) for path in (self.folder / runs).resolve().glob("*/nni/[!_]*")]

    def clean(self) -> None:
        for runs in self.folder.iterdir():
            for experiment in self.experiments(runs.name) if runs.is_dir() else ():
                processes.stop(experiment)


@pytest.fixture
def site(tmp_path: Path, digits_dir: Path) -> Iterator[Site]:
    site = Site(tmp_path, digits_dir)
    yield site
    site.clean()


def outcome(runs: Path) -> dict[str, object]:
    """All that a run has computed, without names, times and places."""
    found: dict[str, object] = {}
    for stage in ("hpo", "classic_nas"):
        rows = csv.DictReader((runs / stage / "results.csv").read_text().splitlines())
        found[stage] = sorted(tuple((key, value) for key, value in row.items() if key in ("state", "metric", "last")
                                    or key.startswith("run.")) for row in rows)
        found[f"{stage} best"] = json.loads((runs / stage / "best.json").read_text())["parameters"]
    found["cells"] = json.loads((runs / "darts_search/search/genotype.json").read_text())
    result = json.loads((runs / "retrain/final/result.json").read_text())
    board = json.loads((runs / "leaderboard.json").read_text())
    found["leaderboard"] = [(row["stage"], row["validation"], row["test"]) for row in board["rows"]]
    return found | {key: result[key] for key in ("value", "parameters", "architecture")}


SECONDS = {"baseline": 7.0, "hpo": 20.0, "classic_nas": 20.0, "darts": 9.0, "retrain": 7.0, "leaderboard": 7.0,
           "report": 3.0}  # of each, about
KILLS = ["baseline"] + ["hpo"] * 2 + ["classic_nas"] * 2 + ["darts"] * 2 + ["retrain", "leaderboard", "report"]


@pytest.mark.slow
def test_ten_kills_change_nothing(site: Site) -> None:
    """Beside it runs an unbroken pipeline. Every third kill takes the stage along, so that NNI outlives both."""
    unbroken, moments, log = site.start("unbroken"), random.Random(5), site.folder / "killed.log"
    for number, stage in enumerate(KILLS):
        process = site.start("killed", "--resume", log=log)
        while f"== {stage}" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        time.sleep(moments.uniform(0.0, SECONDS[stage]))
        children = psutil.Process(process.pid).children() if process.poll() is None else []
        for victim in [process, *(children if number % 3 == 2 else [])]:
            victim.kill()
        process.wait()
    code, output = site.run("killed", "--resume")
    assert code == 0, output
    assert unbroken.wait(timeout=400) == 0, (site.folder / "unbroken.log").read_text()
    assert outcome(site.folder / "killed") == outcome(site.folder / "unbroken")
    assert [processes.all_of(one) for one in site.experiments("killed") + site.experiments("unbroken") if
            processes.all_of(one)] == []

    shutil.rmtree(site.folder / "killed")
    code, output = site.run("unbroken", "--resume")
    assert code == 0 and output.count("finished before, skipped") == 7, output
    assert f"model:       {site.folder / 'unbroken/model.pt'}" in output
    assert (site.folder / "unbroken/MODEL_CARD.md").exists()
    code, output = site.run("unbroken", "--resume", "--set", "hpo.epochs=2")
    assert code == 2 and "hpo: made with epochs = 1, wanted is 2" in output, output


@pytest.mark.slow
def test_interrupt_leaves_nothing_running(site: Site) -> None:
    process = site.start("runs")
    await_trial = time.monotonic() + 100
    while not list((site.folder / "runs").glob("hpo/nni/[!_]*/environments/*/trials/*/config.json")):
        assert time.monotonic() < await_trial and process.poll() is None, (site.folder / "runs.log").read_text()
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    [experiment] = site.experiments("runs")
    family += processes.all_of(experiment)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=100) == 130
    output = (site.folder / "runs.log").read_text()
    assert "web UI http://127.0.0.1:" in output and "interrupted, everything is stopped; go on with: python" in output
    hints = {line.partition("go on with: ")[2] for line in output.splitlines()} - {""}
    assert len(hints) == 1, hints
    assert len(family) >= 4 and [member for member in family if not processes.is_gone(member)] == []


@pytest.mark.slow
def test_full_disk_is_told_and_the_run_goes_on_after_it(site: Site) -> None:
    """On a disk of its own: a small tmpfs, which only root can mount."""
    runs = site.folder / "small"
    runs.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(runs)], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here: not root, or not allowed to")
    try:
        (runs / "filler").write_bytes(bytes(2_900_000))
        code, output = site.run("small", "--stages", "darts", "retrain")
        assert code == 1 and "Traceback" not in output, output
        assert "No space left on device" in output and "MB left: make room" in output
        (runs / "filler").unlink()
        code, output = site.run("small", "--stages", "darts", "retrain", "--resume")
        assert code == 0, output
    finally:
        subprocess.run(["umount", "--lazy", str(runs)], check=True)


def test_identity_covers_what_a_trial_computes() -> None:
    """`computes` of a stage is what its checkpoints compare."""
    stage = RunStage("retrain", plan(Path("runs")), {"epochs": 2})
    assert stage.config() == identity(merge(budgets.SETTINGS["retrain"], command_line(
        budgets.SETTINGS["retrain"], stage.command()[2:], "")))
