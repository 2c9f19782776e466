"""The file of an experiment: what is no such file, overrides, paths."""

import shutil
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from guard.experiment_file import _fold, load_config
from guard.old_format import TODAY


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a shipped experiment's file; the folder is HOME, too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(ROOT / "config_hpo.yml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "missing.yml cannot be read No such file"),
        ("a: [1\nb: 2\n", "line 2 not valid YAML"),
        ("- 1\n", "the file keys and values"),
        ("", "the file None keys and values"),
        ("trainingService: {platform: locl}\n", "trainingService.platform 'locl' local, remote"),
        ("trainingService: {platform: kubeflow}\n", "'kubeflow' local, remote"),
        ("maxTrialNumber: 3\n", "trainingService.platform None local, remote"),
        ("maxtrialnum: 3\ntrainingService: {platform: local}\n", "'maxtrialnum' 'maxTrialNumber'"),
        ("tuner: {nam: TPE}\ntrainingService: {platform: local}\n", "'tuner.nam' 'name'"),
        ("tuner: TPE\ntrainingService: {platform: local}\n", "tuner 'TPE' keys and values"),
        (
            "trainingService: {platform: local, useActiveGpus: true}\n",
            "'trainingService.useActiveGpus' 'useActiveGpu'",
        ),
        (
            "trainingService: {platform: remote, machineList: [{hots: a}]}\n",
            "'trainingService.machineList.hots' 'host'",
        ),
        ("experimentType: nas\ntrainingService: {platform: local}\n", "experimentType hpo"),
    ],
)
def test_file_that_is_no_experiment(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "missing.yml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError) as error:
        load_config(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not [word for word in words.split() if word not in str(error.value)], str(error.value)


def test_overrides(folder: Path) -> None:
    changes = {
        "tuner.classArgs.seed": "7",
        "tuner.class_args.optimize_mode": "minimize",
        "assessor": "null",
        "max_trial_number": "5",
        "trainingService": "{platform: local, debug: true}",
    }
    config = load_config(folder / "config_hpo.yml", changes)
    assert config["tuner"] == {"name": "TPE", "classArgs": {"optimize_mode": "minimize", "seed": 7}}
    assert (
        config["assessor"] is None
        and config["maxTrialNumber"] == 5
        and config["trainingService"]["debug"] is True
    )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("maxTrialNumbr", "3", "--set maxTrialNumbr 'maxTrialNumber'"),
        ("tuner.nme", "TPE", "--set tuner.nme 'name'"),
        ("trialCommand.x", "1", "--set trialCommand.x=1 no keys"),
        ("maxTrialNumber", "[1", "--set maxTrialNumber=[1 not valid YAML"),
        ("trainingService.platform", "locl", "--set 'locl' local, remote"),
    ],
)
def test_bad_override(folder: Path, key: str, value: str, words: str) -> None:
    with pytest.raises(ValueError) as error:
        load_config(folder / "config_hpo.yml", {key: value})
    assert not [word for word in words.split() if word not in str(error.value)], str(error.value)


def test_paths_become_absolute_beside_the_file(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir("/")
    overrides = {
        "tuner": "{className: my_tuner.MyTuner, classArgs: {seed: 1}}",
        "experimentWorkingDirectory": "~/x",
    }
    config = load_config(folder / "config_hpo.yml", overrides)
    assert config["trialCodeDirectory"] == config["tuner"]["codeDirectory"] == str(folder)
    assert config["searchSpaceFile"] == str(folder / "search_space.json")
    assert config["experimentWorkingDirectory"] == str(folder / "x")
    del config["trialCodeDirectory"]
    (folder / "bare.yml").write_text(yaml.safe_dump(config))
    assert load_config(folder / "bare.yml")["trialCodeDirectory"] == str(
        folder
    )  # NNI's default, made explicit


@pytest.mark.parametrize("path", sorted(ROOT.glob("config_*.yml")), ids=lambda path: path.name)
def test_every_yaml_passes_nni(path: Path) -> None:
    from nni.experiment.config import ExperimentConfig

    ExperimentConfig.load(path).validate()
    ExperimentConfig(**load_config(path)).validate()


# ---- what is given is taken as it is


AWKWARD = ["a # b", "a: b", "a\tb", "a\nb", "it's", 'say "x"', "$HOME/*", "ä Ω \U0001f600", "{a: 1}", "- a", "yes",
           "1e3", "'", "*a", "%a", "@a", "a\\nb"]


@pytest.mark.parametrize("value", AWKWARD, ids=ascii)
@pytest.mark.parametrize("key", ["experimentName", "trial_command", "tuner.className"])
def test_text_is_taken_as_it_is(folder: Path, key: str, value: str) -> None:
    changes = {"tuner": "{className: a.B}", key: value}
    config = load_config(folder / "config_hpo.yml", changes)
    outer, _, inner = {"trial_command": "trialCommand"}.get(key, key).partition(".")
    assert (config[outer][inner] if inner else config[outer]) == value
    again = folder / "again.yml"
    again.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    assert load_config(again) == config


@pytest.mark.parametrize("value", AWKWARD, ids=ascii)
def test_paths_may_have_any_name(folder: Path, value: str) -> None:
    places = {key: f"/x/{value}" for key in ("experimentWorkingDirectory", "searchSpaceFile", "trialCodeDirectory")}
    config = load_config(folder / "config_hpo.yml", places)
    assert {key: config[key] for key in places} == places


@pytest.mark.parametrize(("text", "value"), [
    ('"a # b"', "a # b"), ("'it''s'", "it's"), ("null", None), ("~", None), ("", None), ('"a" "b"', '"a" "b"'),
    ("'a' # b", "'a' # b"), ("3", "3")], ids=ascii)
def test_quotes_around_text_are_those_of_yaml(folder: Path, text: str, value: str | None) -> None:
    assert load_config(folder / "config_hpo.yml", {"experimentName": text})["experimentName"] == value


def test_other_values_are_yaml(folder: Path) -> None:
    config = load_config(folder / "config_hpo.yml", {"tuner.classArgs": '{seed: 3, score: "a # b"}', "debug": "yes"})
    assert config["tuner"]["classArgs"] == {"seed": 3, "score": "a # b"} and config["debug"] is True


# ---- what is wrong in it, and where


@pytest.mark.parametrize(("content", "words"), [
    (b"a: 1\nb: [1, 2\nc: 3\n", "line 3, column 2"), (b"a: 1\n\tb: 2\n", "line 2, column 1"),
    (b"a: b: c\n", "not valid YAML (line 1, column 5: mapping values are not allowed here)"),
    (b"a: 'x\n", "line 2, column 1"), (b"a: 1\nb: \x07\n", "not valid YAML (line 2, column 4: special characters"),
    (b"a: 1\nb: 2\na: 3\n", "not valid YAML (line 3, column 1: key 'a' stands twice)"),
    (b"tuner:\n  name: TPE\n  name: Random\n", "not valid YAML (line 3, column 3: key 'name' stands twice)"),
    (b"a: caf\xe9\n", "byte 7 is not UTF-8"), (b"a: *b\n", "line 1, column 4")])
def test_a_broken_file_says_where(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "broken.yml").write_bytes(content)
    with pytest.raises(ValueError) as error:
        load_config(tmp_path / "broken.yml")
    assert words in str(error.value) and "broken.yml: " in str(error.value) and "\n" not in str(error.value)


def test_a_byte_order_mark_is_no_mistake(folder: Path) -> None:
    file = folder / "config_hpo.yml"
    before = load_config(file)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load_config(file) == before


# ---- the format of NNI 1 and 2


OLD = """\
authorName: me
experimentName: mine
trialConcurrency: 1
maxExecDuration: 1h
maxTrialNum: 10
trainingServicePlatform: local
searchSpacePath: search_space.json
useAnnotation: false
logDir: logs
tuner: {builtinTunerName: TPE, optimize_mode: maximize, classArgs: {seed: 1}, gpuIndices: "0"}
assessor: {codeDir: ., classFileName: mine.py, className: Mine, includeIntermediateResults: true}
trial: {command: python trial.py, codeDir: ., gpuNum: 0, nasMode: classic_mode}
localConfig: {useActiveGpu: true, maxTrialNumPerGpu: 2}
machineList:
- {ip: 10.0.0.1, username: me, passwd: secret}
"""
NOW = {
    "authorName": None, "maxExecDuration": "maxExperimentDuration", "maxTrialNum": "maxTrialNumber",
    "trainingServicePlatform": "trainingService.platform", "searchSpacePath": "searchSpaceFile",
    "logDir": "experimentWorkingDirectory", "tuner.builtinTunerName": "tuner.name",
    "tuner.optimize_mode": "tuner.classArgs.optimize_mode", "tuner.gpuIndices": "tunerGpuIndices",
    "assessor.codeDir": "assessor.codeDirectory", "assessor.classFileName": "assessor.className, as module.Class",
    "assessor.includeIntermediateResults": None, "trial.command": "trialCommand",
    "trial.codeDir": "trialCodeDirectory", "trial.gpuNum": "trialGpuNumber", "trial.nasMode": None,
    "localConfig.useActiveGpu": "trainingService.useActiveGpu",
    "localConfig.maxTrialNumPerGpu": "trainingService.maxTrialNumberPerGpu",
    "machineList.ip": "trainingService.machineList.host", "machineList.username": "trainingService.machineList.user",
    "machineList.passwd": "trainingService.machineList.password"}


def test_the_old_format_is_told_with_the_keys_of_today(tmp_path: Path) -> None:
    (tmp_path / "old.yml").write_text(OLD, encoding="utf-8")
    with pytest.raises(ValueError) as error:
        load_config(tmp_path / "old.yml")
    told = [f"'{old}' is now '{now}'" if now else f"'{old}' is no more" for old, now in NOW.items()]
    assert str(error.value) == f"{tmp_path / 'old.yml'}: the old format, of NNI 1 and 2: {', '.join(told)}"


@pytest.mark.parametrize("text", ["builtinTunerName: TPE", "optimize_mode: maximize", "codeDir: ."])
def test_a_single_old_key_is_told_too(folder: Path, text: str) -> None:
    file = folder / "config_hpo.yml"
    file.write_text(file.read_text(encoding="utf-8").replace("  name: TPE", f"  name: TPE\n  {text}"), encoding="utf-8")
    with pytest.raises(ValueError, match=f"old format.*'tuner.{text.partition(':')[0]}' is now"):
        load_config(file)


def test_the_names_of_today_are_those_of_nni(tmp_path: Path) -> None:
    """Each key of the table, in a file of today, is one that NNI 3.0 has."""
    from nni.experiment.config import ExperimentConfig, LocalConfig, RemoteMachineConfig

    fields = {"": ExperimentConfig, "trainingService.": LocalConfig,
              "trainingService.machineList.": RemoteMachineConfig}
    names = {where + _fold(name) for where, cls in fields.items() for name in cls.__dataclass_fields__}
    names |= {f"{kind}.{_fold(key)}" for kind in ("tuner", "assessor", "advisor")
              for key in ("name", "className", "codeDirectory", "classArgs.optimize_mode")}
    for now in filter(None, TODAY.values()):
        where, _, key = now.partition(",")[0].rpartition(".")
        where, key = ("", now) if "classArgs" in now else (where and f"{where}.", key)
        assert where + _fold(key) in {*names, *map(_fold, names)}, now
