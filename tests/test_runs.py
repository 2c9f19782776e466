"""Run folders: their names, and that none is lost; the first line of a command, the line of an epoch, lines to copy."""

import dataclasses
import json
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import classic_nas_trial
import darts_search
import experiment
import hpo_trial
import pipeline
import predict
import retrain
import tiny_pictures
from config import DartsSearchConfig, HpoConfig, command_line, to_copy
from conftest import ROOT
from fake_experiment import Fake
from guard import logs, watchdog
from guard.registry import Experiment
from journey.processes import at_work, execute
from reporting import darts_drawing
from training import place
from training.progress import duration, left
from training.reporter import Reporter
from training.stopping import Signals

TINY = ["--train-size", "20", "--batch-size", "10", "--epochs", "1", "--device", "cpu"]
CELLS = ["--channels", "4", "--layers", "3"]
COMMANDS = {  # command -> its stage and what makes it small
    hpo_trial: ("hpo", ["--model", "shufflenetg2", "--val-size", "10"]),
    classic_nas_trial: ("classic_nas", ["--baseline", "--val-size", "10", "--hpo-best", ""]),
    darts_search: ("darts_search", [*CELLS, "--val-size", "10"]),
    retrain: ("retrain", ["--genotype", "DARTS_V2", *CELLS])}


def argv_of(command, runs: Path, digits_dir: Path, *more: str) -> list[str]:
    return [*COMMANDS[command][1], "--data", "digits", "--data-dir", str(digits_dir), *TINY, "--runs-dir", str(runs),
            *more]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- names


def test_the_data_set_is_in_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("a/my # pictures", "b/my # pictures", "cifar10", "digits", "..."):
        (tmp_path / folder).mkdir(parents=True)
    named = {data: place.with_data("vgg", data, tmp_path / "runs") for data in (
        "cifar10", "digits", "a/my # pictures", "./cifar10", "./digits", "...")}
    assert named == {"cifar10": "vgg", "digits": "digits-vgg", "a/my # pictures": "my-pictures-vgg",
                     "./cifar10": "cifar10-vgg", "./digits": "digits-vgg", "...": "pictures-vgg"}
    assert place.with_data("digits-order1", "digits", tmp_path / "runs") == "digits-order1"  # as its search is called


def test_two_folders_of_one_name_are_told_apart(tmp_path, monkeypatch):
    """The first keeps its name, also from elsewhere and once it has moved; the second gets a hash, always the same."""
    runs, one, two = tmp_path / "runs", tmp_path / "a/pictures", tmp_path / "b/pictures"
    for folder in (one, two, runs / "pictures-vgg"):
        folder.mkdir(parents=True)
    (runs / "pictures-vgg/config.json").write_text(json.dumps({"data": str(one)}), encoding="utf-8")
    names = [place.with_data("vgg", str(data), runs) for data in (one, two, two)]
    assert names[0] == "pictures-vgg" and re.fullmatch(r"pictures\.[0-9a-f]{6}-vgg", names[1]) and names[1] == names[2]
    monkeypatch.chdir(tmp_path / "a")
    assert place.with_data("vgg", "pictures", runs) == "pictures-vgg"
    (tmp_path / "c").mkdir()
    one = one.rename(tmp_path / "c/pictures")
    assert place.with_data("vgg", str(one), runs) == "pictures-vgg"
    (runs / "digits-vgg").mkdir()
    (runs / "digits-vgg/config.json").write_text('{"data": "digits"}', encoding="utf-8")
    (tmp_path / "digits").mkdir()
    assert re.fullmatch(r"digits\.\w{6}-vgg", place.with_data("vgg", str(tmp_path / "digits"), runs))


def test_two_trainings_of_two_data_sets_keep_apart(tmp_path, digits_dir):
    folders = [tiny_pictures.write(tmp_path / place / "pets") for place in ("a", "b")]
    for data in ("digits", *map(str, folders)):
        argv = argv_of(hpo_trial, tmp_path / "runs", digits_dir, "--data", data, "--lr", "0.01", "--train-size", "10")
        assert hpo_trial.main(argv) == 0
    names = sorted(path.name for path in (tmp_path / "runs/hpo").iterdir())
    assert names[:2] == [f"{data}-shufflenetg2-Adam-0.01-seed0" for data in ("digits", "pets")]
    assert len(names) == 3 and re.fullmatch(r"pets\.\w{6}-shufflenetg2-Adam-0\.01-seed0", names[2])


# ---- nothing is lost


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_a_run_is_not_overwritten_unless_it_is_said(command, tmp_path, digits_dir, capsys):
    stage = COMMANDS[command][0]
    assert command.main(argv_of(command, tmp_path, digits_dir)) == 0
    [folder] = (tmp_path / stage).iterdir()
    assert folder.name.startswith("digits-")
    before = files_of(tmp_path)
    for file, words in (("", "a finished run"), ("result.json", "a run that was stopped")):
        (folder / file).unlink() if file else None
        before.pop(str(folder / file), None)
        capsys.readouterr()
        assert command.main(argv_of(command, tmp_path, digits_dir)) == 2
        error = capsys.readouterr().err
        assert f"{folder}: holds {words}; --resume goes on with it, --overwrite" in error and error.count("\n") == 1
        assert files_of(tmp_path) == before
    assert command.main(argv_of(command, tmp_path, digits_dir, "--resume", "--overwrite")) == 2
    assert "either --resume" in capsys.readouterr().err and files_of(tmp_path) == before
    assert command.main(argv_of(command, tmp_path, digits_dir, "--overwrite", "--seed", "0", "--lr", "0.02",
                                "--name", folder.name)) == 0
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["config"]["lr"] == 0.02 and len(list(folder.glob("tensorboard/events*"))) == 1


def test_what_is_overwritten_is_gone_before_the_new_run_has_anything(tmp_path, digits_dir, monkeypatch):
    """A stop in the first epoch, and a --resume must not go on with the run of before."""
    assert hpo_trial.main(argv_of(hpo_trial, tmp_path, digits_dir, "--name", "a")) == 0
    monkeypatch.setattr("training.loop.fit", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        hpo_trial.main(argv_of(hpo_trial, tmp_path, digits_dir, "--name", "a", "--overwrite"))
    kept = {path.name for path in (tmp_path / "hpo/a").iterdir()}
    assert kept == {"config.json", "tensorboard"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_a_run_that_is_started_again_goes_on(command, tmp_path, digits_dir, capsys, monkeypatch):
    """By torchrun or Slurm, with --overwrite too, which is of the first start; not with the checkpoint of another."""
    for slow in ("draw_cells", "plot_alphas"):
        monkeypatch.setattr(darts_drawing, slow, lambda *_: None)
    assert command.main(argv_of(command, tmp_path, digits_dir, "--name", "a")) == 0
    folder = tmp_path / COMMANDS[command][0] / "a"
    before = {name: (folder / name).read_bytes() for name in ("metrics.jsonl", "checkpoint.pt")}
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert command.main(argv_of(command, tmp_path, digits_dir, "--name", "a")) == 2
    for variable, by, more in (("TORCHELASTIC_RESTART_COUNT", "torchrun", []),
                               ("SLURM_RESTART_COUNT", "Slurm", ["--overwrite"])):
        with monkeypatch.context() as context:
            context.setenv(variable, "2")
            capsys.readouterr()
            assert command.main(argv_of(command, tmp_path, digits_dir, "--name", "a", *more)) == 0
            line = f"started again by {by}: goes on after epoch 1, {folder / 'checkpoint.pt'}\n"
            assert capsys.readouterr().out.count(line) == 1
            assert before == {name: (folder / name).read_bytes() for name in before}  # with the seconds of then
            assert command.main(argv_of(command, tmp_path, digits_dir, "--name", "a", "--seed", "1")) == 2
            assert "its run had seed = 0, this one has 1" in capsys.readouterr().err
            assert before == {name: (folder / name).read_bytes() for name in before}
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert command.main(argv_of(command, tmp_path, digits_dir, "--name", "a", "--seed", "1", "--overwrite")) == 0
    assert json.loads((folder / "result.json").read_text(encoding="utf-8"))["config"]["seed"] == 1


def test_a_finished_run_without_a_checkpoint_is_not_begun_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    (tmp_path / "hpo/a").mkdir(parents=True)
    (tmp_path / "hpo/a/result.json").touch()
    with pytest.raises(ValueError, match="holds a finished run"):
        place.run_path(HpoConfig(runs_dir=str(tmp_path), name="a"), Reporter(), "hpo", "")


def test_searches_of_several_seeds_are_kept_too(tmp_path):
    (tmp_path / "darts_search/x/seed3").mkdir(parents=True)
    (tmp_path / "darts_search/x/seed3/checkpoint.pt").touch()
    with pytest.raises(ValueError, match="holds a run that was stopped"):
        place.run_path(DartsSearchConfig(runs_dir=str(tmp_path), name="x"), Reporter(), "darts_search", "")


# ---- what a command says


FIRST = {  # within a second: what it is doing, before torch is there
    "hpo_trial.py --data digits --epochs 1": "loading PyTorch, then digits",
    "classic_nas_trial.py --baseline": "loading PyTorch, then cifar10", "darts_search.py": "loading PyTorch",
    "retrain.py --model vgg": "loading PyTorch", "report.py --runs {folder}": "reading",
    "experiment.py check {folder}/x.yml": "checking",
    "experiment.py run {folder}/x.yml": "checking", "pipeline.py --data digits --dry-run": "# looking at"}


@pytest.mark.parametrize("command", FIRST)
def test_the_first_line_comes_before_torch(command, tmp_path):
    """Where importing torch never ends, it is there all the same."""
    for name in ("torch", "torchvision", "nni"):
        (tmp_path / f"{name}.py").write_text("import time; time.sleep(100)\n", encoding="utf-8")
    (tmp_path / "a.png").touch()
    words = shlex.split(command.format(folder=tmp_path))
    with subprocess.Popen([sys.executable, *words, *(["--runs-dir", str(tmp_path)] if "--data" in words else [])],
                          cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                          env={**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}) as process:
        try:
            assert select.select([process.stdout], [], [], 30)[0], "nothing within 30 s, on a busy machine"
            assert os.read(process.stdout.fileno(), 200).decode().startswith(FIRST[command])
        finally:
            process.kill()


def test_predictions_are_all_that_is_on_stdout(tmp_path, capsys, monkeypatch):
    """And on a terminal, whose stderr shows it, the first line is there."""
    import small_models

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)

    small_models.write(tmp_path / "model.pt", "mobilenet")
    folder = tiny_pictures.write(tmp_path / "pictures") / "test"
    assert predict.main(["--model", str(tmp_path / "model.pt"), "--images", str(folder), "--json"]) == 0
    out, err = capsys.readouterr()
    assert all(json.loads(line)["class"] for line in out.splitlines()) and err.startswith("loading")


def test_an_epoch_says_how_long_it_still_takes(tmp_path, digits_dir, capsys):
    for command in (hpo_trial, darts_search, retrain):
        assert command.main(argv_of(command, tmp_path, digits_dir, "--epochs", "3")) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
        assert [line[:11] for line in lines] == ["epoch   1/3", "epoch   2/3", "epoch   3/3"]
        assert all(re.search(r"about \d+ s left", line) for line in lines[:2]) and "the last epoch" in lines[2]


def test_the_training_that_chooses_says_so_too(tmp_path, digits_dir, capsys):
    more = ["--seeds", "2", "--choice-epochs", "2", "--choice-channels", "4", "--choice-layers", "3"]
    assert darts_search.main(argv_of(darts_search, tmp_path, digits_dir, *more)) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("complete training: epoch")]
    assert len(lines) == 4 and "epoch   1/2" in lines[0] and " left" in lines[0]


def test_time_left():
    assert left([{"seconds": 10.0}, {"seconds": 100.0}, {"seconds": 30.0}], 13) == "about 5 min left"
    assert left([{"seconds": 10.0}], 1) == "the last epoch"
    assert [duration(seconds) for seconds in (3, 99, 100, 5999, 6000)] == ["3 s", "99 s", "2 min", "100 min", "1.7 h"]


# ---- lines to be copied


def test_a_command_to_copy_works_where_it_is_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert to_copy("a.py", "--x", "it's # this") == """python a.py --x 'it'"'"'s # this'"""
    monkeypatch.chdir(tmp_path)
    script = shlex.split(to_copy("report.py"))[1]
    assert Path(script).resolve() == ROOT / "report.py"


def test_the_next_command_after_a_search_runs(tmp_path, digits_dir, capsys, monkeypatch):
    """As it is printed, with less work, on the same pictures and into the same place."""
    monkeypatch.chdir(tmp_path)
    data = tiny_pictures.write(tmp_path / "it's # mine: all")
    places = ["--data", data.name, "--data-dir", "a cache", "--runs-dir", "my runs", "--flip", "off"]
    assert darts_search.main([*argv_of(darts_search, tmp_path, digits_dir), *places, "--val-size", "4", "--train-size",
                              "20", "--batch-size", "5"]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1].partition("next: ")[2])
    assert command[0] == "python" and Path(command[1]).resolve() == ROOT / "retrain.py"
    assert retrain.main([*command[2:], *TINY, *CELLS]) == 0
    [folder] = (tmp_path / "my runs/retrain").iterdir()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert folder.name == "it-s-mine-all-order1-c4-l3-seed0-standard-seed0"
    assert [config[key] for key in ("data", "data_dir", "flip", "device")] == [data.name, "a cache", "off", "cpu"]


def test_everything_that_differs_is_handed_on():
    config = DartsSearchConfig(data="-x", data_dir="b c", runs_dir="d", flip="on", device="cpu", precision="fp32")
    words = shlex.split(darts_search.next_command(Path("d/g"), config))
    given = command_line(retrain.RetrainConfig, words[2:], "")
    assert given == {"genotype": "d/g/genotype.json", "data": "-x", "data_dir": "b c", "runs_dir": "d", "flip": "on",
                     "device": "cpu", "precision": "fp32"}
    shared = {field.name for field in dataclasses.fields(HpoConfig)}
    assert set(darts_search.HANDED) <= shared


def test_the_pipeline_says_how_to_go_on_and_what_to_try(tmp_path, capsys, monkeypatch):
    words = shlex.split(pipeline.again(["--data", "it's # mine", "--set", "hpo.experimentName=a b", "--resume"]))
    assert words[2:] == ["--data", "it's # mine", "--set", "hpo.experimentName=a b", "--resume"]
    import small_models
    from journey.trainings import RunStage
    from test_pipeline import plan

    data = tiny_pictures.write(tmp_path / "it's # mine")
    stage = RunStage("retrain", plan(tmp_path / "my runs", data=str(data)), {})
    stage.path.mkdir(parents=True)
    small_models.write(stage.path / "model.pt", "mobilenet")
    (stage.path / "result.json").write_text(json.dumps({"value": 0.5, "metric": "accuracy", "parameters": 1}))
    pipeline.finish([stage], 1.0)
    lines = [line.partition(":") for line in capsys.readouterr().out.splitlines()]
    words, export = (next(shlex.split(text) for name, _, text in lines if name == key) for key in ("try", "export"))
    assert export == [*words[:4], "--export", "onnx"] and Path(export[3]).is_file()
    assert Path(words[1]).resolve() == ROOT / "predict.py" and predict.main(words[2:]) == 0
    assert capsys.readouterr().out.count("\n") == 1 + 6  # pictures, below one of names


def test_results_are_written_where_they_were_begun(tmp_path, monkeypatch, capsys):
    fake = Fake(tmp_path / "nni/abc")
    fake.trial("A", 0, 0.5)
    fake.load()
    monkeypatch.chdir(tmp_path)
    found = Experiment("abc", "hpo", tmp_path / "nni/abc")
    (tmp_path / "my runs").mkdir()
    for folder in ("my runs", "runs/hpo"):
        experiment.keep_place(found, Path("my runs"))
        assert experiment.main(["results", "nni/abc"]) == 0
        assert f"wrote {folder}/results.csv and {folder}/best.json" in capsys.readouterr().out
        assert {path.parent.name for path in tmp_path.rglob("best.json")} == {Path(folder).name}
        shutil.rmtree(tmp_path / folder)  # gone: then the usual one
    assert experiment.main(["results", "nni/abc", "--out", "other"]) == 0 and (tmp_path / "other/best.json").exists()


def test_a_part_of_a_pipeline_advises_to_go_on_with_that(monkeypatch, tmp_path):
    with at_work(tmp_path) as lock, Signals() as signals:
        command = [sys.executable, "-c", "import os; open('told', 'w').write(os.environ['GO_ON_WITH'])"]
        assert execute(command, tmp_path, lock, signals, "pipeline --resume") == 0
    monkeypatch.setenv("GO_ON_WITH", (tmp_path / "told").read_text())
    told = experiment.again(Experiment("abc", "x", Path("x")), experiment.parse(["run", "x.yml"]))
    assert told == "pipeline --resume" and logs.why_gone(tmp_path).endswith("go on with: pipeline --resume")


def test_an_experiment_says_how_to_go_on():
    parsed = experiment.parse(["run", "x.yml", "--out", "my runs", "--port", "9000", "--stall", "60", "--keep-ui"])
    words = shlex.split(experiment.again(Experiment("abc", "x", Path("x")), parsed))
    resumed = experiment.parse(words[2:])
    assert (resumed.experiment, resumed.out, resumed.port, resumed.stall, resumed.keep_ui) == (
        "abc", Path("my runs"), 9000, 60.0, True)
    plain = experiment.again(Experiment("abc", "x", Path("x")), experiment.parse(["run", "x.yml"]))
    assert shlex.split(plain)[2:] == ["resume", "abc"] and watchdog.STALL_SECONDS == 300
    assert logs.why_gone(Path("/nowhere/abc")).endswith("go on with: python experiment.py resume abc")
