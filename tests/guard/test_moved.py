"""Experiments begun with an earlier version, which name what has moved since; at the end a whole one."""

import contextlib
import importlib
import json
import sqlite3
import time
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from fake_experiment import Fake
from guard.experiment_file import load_config
from guard.moved import MOVED, rename_in, renamed
from nas.tuner import EvolutionTuner
from test_experiment import Site, read_csv, site  # noqa: F401

TUNER = {"codeDirectory": str(ROOT), "className": "nas.tuner.EvolutionTuner",
         "classArgs": {"optimize_mode": "maximize", "seed": 1, "score": "nas.scores.macs",
                       "limit": "models.mobilenet_space.space.no_larger_than_mobilenet"}}


def as_before(text: str) -> str:
    """JSON or YAML with every name as it was."""
    for before, now in MOVED.items():
        text = text.replace(now, before)
    return text


BEFORE = json.loads(as_before(json.dumps(TUNER)))


def profiles(folder: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(folder / "db" / "nni.sqlite")) as database:
        return [params for params, in database.execute("select params from ExperimentProfile order by rowid")]


def write_profiles(folder: Path, *params: str) -> None:
    """NNI keeps a row a revision."""
    with contextlib.closing(sqlite3.connect(folder / "db" / "nni.sqlite")) as database, database:
        database.execute("delete from ExperimentProfile")
        database.executemany("insert into ExperimentProfile values (?,'abc',0,0,0,'',0,?)",
                             [(text, revision) for revision, text in enumerate(params)])


@pytest.mark.parametrize("name", MOVED.values())
def test_everything_is_where_it_is_said_to_be(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_names_are_replaced_however_deep_and_nothing_else() -> None:
    assert BEFORE != TUNER and renamed([{"tuner": BEFORE}]) == [{"tuner": TUNER}]
    others = [TUNER, "nas_tuner", "x.nas_tuner.EvolutionTuner", 1, None, 0.5, True, {"nas_tuner.EvolutionTuner": 1}]
    assert renamed(others) == others


@pytest.mark.parametrize("name", ["config_classic_nas.yml", "journey/config_demo_nas.yml"])
def test_experiment_file_of_an_earlier_version_loads_as_todays(name: str, tmp_path: Path) -> None:
    """So do names that are given with --set."""
    now, before = tmp_path / "now.yml", tmp_path / "before.yml"
    now.write_text((ROOT / name).read_text())
    before.write_text(as_before(now.read_text()))
    assert yaml.safe_load(before.read_text())["tuner"]["className"] == "nas_tuner.EvolutionTuner"
    assert load_config(before) == load_config(now)
    assert load_config(now)["tuner"]["className"] == "nas.tuner.EvolutionTuner"
    config = load_config(before, {"tuner.classArgs.score": "models.nas_scores.synflow"})
    assert config["tuner"]["classArgs"]["score"] == "nas.scores.synflow"


def test_record_of_nni_is_renamed_in_every_revision(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "abc")
    fake.trial("A", 0, 0.5)
    before = fake.load()
    write_profiles(fake.folder, *(json.dumps({"experimentName": "hpo", "maxTrialNumber": number, "tuner": BEFORE})
                                  for number in (3, 9)))
    rename_in(fake.folder)
    assert [json.loads(params) for params in profiles(fake.folder)] == [
        {"experimentName": "hpo", "maxTrialNumber": number, "tuner": TUNER} for number in (3, 9)]
    after = fake.load()
    assert after.trials == before.trials and after.settings["maxTrialNumber"] == 9


@pytest.mark.parametrize("tuner", [TUNER, {"name": "TPE", "classArgs": {"optimize_mode": "maximize"}}])
def test_record_without_such_names_is_left_as_it_is(tuner: dict, tmp_path: Path) -> None:
    fake = Fake(tmp_path / "abc")
    fake.trial("A", 0, 0.5)
    fake.load()
    write_profiles(fake.folder, json.dumps({"tuner": tuner}, indent=3))
    file = fake.folder / "db" / "nni.sqlite"
    before = file.read_bytes()
    rename_in(fake.folder)
    assert file.read_bytes() == before and [path.name for path in file.parent.iterdir()] == [file.name]


def test_other_revisions_and_tables_of_a_renamed_record_stay_byte_for_byte(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "abc")
    fake.event("A", "RUNNING", 0, {"op": "nas_tuner.EvolutionTuner"})  # a choice that happens to be called so
    fake.load()
    odd = '{"tuner":  {"name": "TPE"}, "lr": 1.0e-3}'
    write_profiles(fake.folder, odd, json.dumps({"tuner": BEFORE}))

    def dumped() -> list[str]:
        with contextlib.closing(sqlite3.connect(fake.folder / "db" / "nni.sqlite")) as database:
            return [line for line in database.iterdump() if "EvolutionTuner" not in line or "RUNNING" in line]

    before = dumped()
    rename_in(fake.folder)
    assert dumped() == before and profiles(fake.folder) == [odd, json.dumps({"tuner": TUNER})]


@pytest.mark.parametrize(("saved", "resumed", "kept"), [
    ("models.nas_scores.macs", "nas.scores.macs", True), ("models.nas_scores.macs", "models.nas_scores.macs", True),
    ("nas.scores.macs", "nas.scores.macs", True), ("models.nas_scores.macs", "nas.scores.naswot", False)])
def test_tuner_keeps_its_scores(saved: str, resumed: str, kept: bool, tmp_path: Path,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNI_CHECKPOINT_DIRECTORY", str(tmp_path))
    space = json.loads((ROOT / "search_space_classic_nas.json").read_text())
    tuner = EvolutionTuner(score="nas.scores.macs")
    tuner.update_search_space(space)
    tuner.generate_parameters(0)
    file = tmp_path / "evolution_tuner.json"
    state = json.loads(file.read_text())
    assert state["score"] == "nas.scores.macs"
    file.write_text(json.dumps({**state, "score": saved}))
    again = EvolutionTuner(score=resumed)
    again.load_checkpoint()
    assert len(tuner.scores) >= 200 and again.scores == (tuner.scores if kept else {})


@pytest.mark.slow
def test_experiment_of_an_earlier_version_goes_on(site: Site) -> None:  # noqa: F811
    """Begun, stopped, its record and its tuner's state written as the earlier version did, and resumed to its end."""
    space = json.loads((ROOT / "search_space_classic_nas.json").read_text())
    process = site.start("run", site.config("--sleep 0.5", searchSpace=space, tuner=TUNER, maxTrialNumber=4))
    found = site.await_running()
    state = found.folder / "checkpoint" / "evolution_tuner.json"
    while not json.loads(state.read_text())["results"]:
        assert process.poll() is None
        time.sleep(0.1)
    assert site.run("stop", found.id)[0] == 0
    process.communicate(timeout=60)

    now = profiles(found.folder)
    with contextlib.closing(sqlite3.connect(found.folder / "db" / "nni.sqlite")) as database, database:
        for params in now:
            database.execute("update ExperimentProfile set params = ? where params = ?", (as_before(params), params))
    state.write_text(as_before(state.read_text()))
    before = json.loads(state.read_text())
    assert all(json.loads(params)["tuner"]["className"] == "nas_tuner.EvolutionTuner"
               for params in profiles(found.folder))
    assert before["score"] == "models.nas_scores.macs" and len(before["results"]) < 4

    code, output = site.run("resume", found.id)
    after = json.loads(state.read_text())
    assert (code, "4 trials: 4 SUCCEEDED" in output) == (0, True), output
    assert all(json.loads(params)["tuner"] == json.loads(now[-1])["tuner"] for params in profiles(found.folder))
    assert after["score"] == "nas.scores.macs" and after["seen"][: len(before["seen"])] == before["seen"]
    assert {json.dumps(scored) for scored in before["scores"]} <= {json.dumps(scored) for scored in after["scores"]}
    assert len(read_csv(site.folder / "runs" / "toy" / "results.csv")) == len(after["results"]) == 4
