"""The true results, from hand-made databases: no NNI is started here."""

import csv
import json
import math
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

import experiment
from fake_experiment import PARAMETERS, Fake
from guard import results, results_view
from guard.results import Results
from guard.trials import Trial


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path / "abc")


def test_join_gives_each_trial_what_it_ran(fake: Fake) -> None:
    """B crashes before its first call; C and D get what was meant for B and C, and NNI records the opposite."""
    for trial, parameter_id in (("A", 0), ("B", 1), ("C", 2)):
        fake.event(trial, "RUNNING", parameter_id)
    fake.metric("A", 0, 0.5)
    fake.event("B", "FAILED")
    fake.metric("C", 1, 0.7)
    state = fake.load(alive=True)
    assert [trial.parameters for trial in state.trials] == [PARAMETERS[0], None, PARAMETERS[1]]


def test_log_gives_parameters_of_a_trial_without_metrics(fake: Fake) -> None:
    fake.event("A", "RUNNING", 0)
    fake.event("A", "FAILED")
    packed = json.dumps({"parameter_id": 1, "parameters": PARAMETERS[1]})
    fake.log.append(f"[now] INFO (LocalV3.local) Trial parameter: A {packed}")
    (fake.trial_folder("A") / "trial.stderr").write_text("Traceback\n  File\nValueError: broken\n\n")
    trial = fake.one()
    assert (trial.state, trial.parameters, trial.note) == ("FAILED", PARAMETERS[1], "ValueError: broken")


def test_parameter_ids_start_again_after_a_resume(fake: Fake) -> None:
    fake.trial("A", 0, 0.5)
    fake.event("B", "RUNNING", 0, {"lr": 9.0, "model": "vgg"})
    fake.metric("B", 0, 0.6)
    assert [trial.parameters["lr"] for trial in fake.load().trials] == [0.1, 9.0]


def test_repeated_trial_counts_its_last_run_only(fake: Fake) -> None:
    fake.event("A", "RUNNING", 0)
    fake.metric("A", 0, 0.9, "PERIODICAL")
    fake.event("A", "ADD_RESUMED")
    fake.event("A", "RUNNING", 0)
    fake.metric("A", 0, 0.2, "PERIODICAL")
    fake.metric("A", 0, 0.3)
    fake.event("A", "SUCCEEDED")
    trial = fake.one()
    assert (trial.intermediates, trial.value, trial.seconds) == ([0.2], 0.3, 3.0)


@pytest.mark.parametrize("record", ["config.json", "echo", "log"])
def test_contradiction_is_shown_and_never_best(fake: Fake, record: str) -> None:
    fake.event("A", "RUNNING", 0)
    fake.metric("A", 0, {"default": 0.9, "run.lr": 0.5 if record == "echo" else 0.1})
    fake.event("A", "SUCCEEDED")
    if record == "config.json":
        (fake.trial_folder("A") / "config.json").write_text('{"lr": 0.5, "model": "vgg"}')
    if record == "log":
        fake.log.append('[now] INFO (LocalV3.local) Trial parameter: A {"parameter_id": 0, "parameters": {"lr": 0.5}}')
    state = fake.load()
    assert state.best is None
    assert "lr: NNI gave 0.1" in results_view.table(state)
    assert any("ran other parameters" in line for line in state.problems())


@pytest.mark.parametrize(("value", "state"), [(0.5, "SUCCEEDED"), ({"default": 0.5}, "SUCCEEDED"), (1, "SUCCEEDED"),
                                              (math.nan, "NOT FINITE"), (math.inf, "NOT FINITE"), ("x", "NOT FINITE"),
                                              ({"accuracy": 1.0}, "NOT FINITE")])
def test_final_metric(fake: Fake, value: object, state: str) -> None:
    fake.trial("A", 0, value)
    found = fake.load()
    assert found.trials[0].state == state
    assert bool(found.problems()) == (state != "SUCCEEDED")
    results_view.table(found)


@pytest.mark.parametrize(("events", "log", "alive", "state"), [
    (["SUCCEEDED"], "", False, "NO METRIC"),
    (["FAILED"], "", False, "FAILED"),
    (["USER_CANCELED"], 'cancelTrialJob: "A"', False, "STOPPED EARLY"),
    (["FAILED"], 'cancelTrialJob: "A"', False, "STOPPED EARLY"),
    (["USER_CANCELED"], "Trial job A has been canceled because it is over max trial duration.", False, "STOPPED EARLY"),
    (["USER_CANCELED", "USER_TO_CANCEL"], "", False, "CANCELED"),
    (["USER_CANCELED"], "", False, "FAILED"),  # a signal from outside: NNI cannot tell, its log can
    (["SYS_CANCELED"], "", False, "FAILED"),
    ([], "", True, "RUNNING"),
    ([], "", False, "INTERRUPTED"),
    ([], "cancelTrialJob: A", False, "INTERRUPTED"),  # the stop of the whole experiment
])
def test_state(fake: Fake, events: list[str], log: str, alive: bool, state: str) -> None:
    fake.event("A", "RUNNING", 0)
    for event in events:
        fake.event("A", event)
    fake.log.append(log)
    assert fake.one(alive).state == state


@pytest.mark.parametrize(("end", "log"), [("USER_CANCELED", 'cancelTrialJob: "A"'), ("EARLY_STOPPED", "")])
def test_what_has_ended_before_it_was_stopped_counts(fake: Fake, end: str, log: str) -> None:
    """An assessor judges the last epoch too: by then the trial has told its final metric."""
    fake.event("A", "RUNNING", 0)
    fake.metric("A", 0, 0.5, "PERIODICAL")
    fake.metric("A", 0, 0.5)
    fake.event("A", end)
    fake.log.append(log)
    state = fake.load()
    assert (state.trials[0].state, state.best.id, state.problems()) == ("SUCCEEDED", "A", [])


@pytest.mark.parametrize(("told", "state"), [('{"diverged": true}', "DIVERGED"), ('{"refused": "large"}', "REFUSED")])
def test_diverged_and_refused_count_neither_as_failure_nor_as_best(fake: Fake, told: str, state: str) -> None:
    fake.trial("A", 0, 0.0)
    (fake.trial_folder("A") / "result.json").write_text(told)
    fake.trial("B", 1, -1.0)
    loaded = fake.load()
    assert (loaded.trials[0].state, loaded.best.id, loaded.problems()) == (state, "B", [])


def test_stopped_early_is_never_best(fake: Fake) -> None:
    fake.event("A", "RUNNING", 0)
    fake.metric("A", 0, 0.99, "PERIODICAL")
    fake.event("A", "USER_CANCELED")
    fake.log.append('cancelTrialJob: "A"')
    fake.trial("B", 1, 0.5)
    state = fake.load()
    assert (state.best.id, state.problems()) == ("B", [])
    assert results_view.table(state).splitlines()[2].split()[1] == "B"


@pytest.mark.parametrize(("mode", "best"), [("maximize", "B"), ("minimize", "A")])
def test_optimize_mode(tmp_path: Path, mode: str, best: str) -> None:
    fake = Fake(tmp_path / "abc", mode)
    fake.trial("A", 0, 0.1)
    fake.trial("B", 1, 0.9)
    assert fake.load().best.id == best


def test_intermediates_are_in_the_order_of_the_trial(fake: Fake) -> None:
    """Quick reports overtake each other on their way into the database."""
    fake.event("A", "RUNNING", 0)
    for sequence in (0, 2, 1):
        fake.metric("A", 0, float(sequence), "PERIODICAL", sequence)
    assert fake.one().intermediates == [0.0, 1.0, 2.0]


def test_two_final_results(fake: Fake) -> None:
    fake.event("A", "RUNNING", 0)
    fake.metric("A", 0, 0.1)
    fake.metric("A", 0, 0.9)
    fake.event("A", "SUCCEEDED")
    assert any("more than once by A" in line for line in fake.load().problems())
    trial = fake.one()
    assert (trial.value, trial.note) == (0.1, "reported 2 final results, the first counts")


def test_files(fake: Fake, tmp_path: Path) -> None:
    fake.trial("A", 0, {"default": 0.5, "run.lr": 0.1})
    (fake.trial_folder("A") / "result.json").write_text('{"accuracy": 0.5, "loss": NaN}')
    fake.event("B", "RUNNING", 1)
    fake.event("B", "FAILED")
    state = fake.load()
    results_view.write_csv(state, tmp_path / "results.csv")
    assert results_view.write_best(state, tmp_path / "best.json")
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [(row["trial"], row["state"], row["run.lr"], row["run.model"]) for row in rows] == [
        ("A", "SUCCEEDED", "0.1", "vgg"), ("B", "FAILED", "", "")]
    best = json.loads((tmp_path / "best.json").read_text())
    assert best.pop("created").endswith("+00:00")
    assert best == {"schema": 1, "stage": "hpo", "experiment": "abc", "finished": False, "trial": "A",
                    "metric": "default", "value": 0.5,
                    "parameters": PARAMETERS[0], "result": {"accuracy": 0.5, "loss": None},
                    "trials": {"total": 2, "succeeded": 1, "failed": 1}}


def test_trials_come_back_as_they_were_written(tmp_path: Path) -> None:
    trials = [Trial("t000", 0, "SUCCEEDED", {"lr": 10**-1.37, "model": "vgg"}, 0.9, [0.5], 0.0, 12.5),
              Trial("t001", 1, "SUCCEEDED", {"lr": 10**-2.37, "model": "dpn92"}, 0.899, [0.5], 0.0, 12.5),
              Trial("bad", 2, "SUCCEEDED", {"lr": 0.1, "model": "vgg"}, 0.99, mismatch=True, note="x"),
              Trial("ill", 3, "NOT FINITE", None, float("nan")),
              Trial("new", 4, "RUNNING", {"lr": 1.0, "model": "vgg"})]
    results_view.write_csv(Results("e", "hpo", {}, trials), tmp_path / "results.csv")
    names, back = results_view.read_csv(tmp_path / "results.csv")
    assert names == ["lr", "model"]
    rows = {trial.id: (trial.state, trial.parameters, trial.value, trial.mismatch, trial.note) for trial in back}
    assert rows["t000"] == ("SUCCEEDED", trials[0].parameters, 0.9, False, "")
    assert rows["bad"] == ("SUCCEEDED", {"lr": 0.1, "model": "vgg"}, 0.99, True, "x")
    assert rows["ill"][:3] == ("NOT FINITE", None, None)
    assert rows["new"][:3] == ("RUNNING", {"lr": 1.0, "model": "vgg"}, None)


def test_no_best_removes_an_old_file(fake: Fake, tmp_path: Path) -> None:
    fake.trial("A", 0, math.nan)
    (tmp_path / "best.json").write_text("{}")
    assert not results_view.write_best(fake.load(), tmp_path / "best.json")
    assert not (tmp_path / "best.json").exists()


def test_table_fits_and_is_limited(fake: Fake) -> None:
    for number in range(80):
        fake.trial(f"T{number}", 0, number / 80)
    lines = results_view.table(fake.load(), width=40).splitlines()
    assert max(map(len, lines)) <= 40
    assert len(lines) == results_view.ROWS + 3
    assert lines[-1] == "... and 10 more in results.csv"


def test_database_of_a_killed_manager_is_rolled_back(fake: Fake, tmp_path: Path) -> None:
    """A half-written transaction, whose journal lies beside the database: only readable after a rollback."""
    fake.trial("A", 0, 0.5)
    fake.load()
    writer = sqlite3.connect(fake.folder / "db" / "nni.sqlite", isolation_level=None)
    writer.execute("pragma cache_size=1")
    writer.execute("begin immediate")
    writer.executemany("insert into TrialJobEvent values (1,'Z','RUNNING',?,'',0,null,'')", [("x" * 5000,)] * 50)
    copy = tmp_path / "killed"
    (copy / "db").mkdir(parents=True)
    for file in (fake.folder / "db").iterdir():
        (copy / "db" / file.name).write_bytes(file.read_bytes())
    writer.execute("rollback")
    assert (copy / "db" / "nni.sqlite-journal").exists()
    assert [trial.id for trial in results.load(copy, alive=False).trials] == ["A"]


def test_command_takes_a_folder(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture) -> None:
    """No NNI, no registry: an experiment's folder is enough, also one that was copied from elsewhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    fake.trial("A", 0, 0.5)
    fake.load()
    assert experiment.main(["results", str(fake.folder), "--csv", "own.csv"]) == 0
    assert "best: 0.5 in trial A with lr 0.1, model vgg" in capsys.readouterr().out
    assert (tmp_path / "own.csv").exists()
    assert json.loads((tmp_path / "runs" / "hpo" / "best.json").read_text())["experiment"] == "abc"


def test_command_without_a_best_trial(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    fake.trial("A", 0, 0.5, "FAILED")
    (fake.trial_folder("A") / "trial.stderr").write_text("ValueError: no\n")
    fake.load()
    assert experiment.main(["results", str(fake.folder), "--out", str(tmp_path / "out")]) == 1
    assert "failed: 1 of 1 trials FAILED; A: ValueError: no" in capsys.readouterr().err


def executed(function: Callable[[], object]) -> int:
    """Lines of guard/ that it takes, those of each turn of a loop."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Callable | None:
        nonlocal lines
        lines += event == "line"
        return trace if "/guard/" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return lines


def test_the_work_grows_with_the_trials_and_a_further_look_does_not(tmp_path: Path) -> None:
    first, further = [], []
    for count in (50, 100, 200):
        fake = Fake(tmp_path / str(count))
        for number in range(count):
            fake.event(f"T{number}", "RUNNING", number, PARAMETERS[0])
            fake.metric(f"T{number}", number, 0.5)
            fake.event(f"T{number}", "SUCCEEDED")
        fake.event("last", "RUNNING", count, PARAMETERS[0])
        fake.load()
        follower = results.Follower(fake.folder)
        first.append(executed(lambda follower=follower: follower.load(alive=True)))
        fake.metric("last", count, 0.5, "PERIODICAL")
        fake.database.commit()
        further.append(executed(lambda follower=follower: follower.load(alive=True)))
    assert first[2] - first[1] == pytest.approx(2 * (first[1] - first[0]), rel=0.1)
    assert max(further) < 1.1 * min(further)


def test_a_follower_sees_what_a_first_look_sees(fake: Fake) -> None:
    """At every moment of an experiment: what comes late, or is said only by the log, or concerns a trial that ended."""
    (fake.trial_folder("A") / "config.json").write_text('{"lr": 0.01, "model": "vgg"}')
    packed = json.dumps({"parameter_id": 1, "parameters": PARAMETERS[1]})
    follower = results.Follower(fake.folder)
    steps = [
        lambda: fake.event("A", "WAITING", 0), lambda: fake.event("B", "WAITING", 1),
        lambda: fake.event("A", "RUNNING"), lambda: fake.log.append(f"x Trial parameter: A {packed}"),
        lambda: fake.metric("A", 1, 0.4, "PERIODICAL"), lambda: fake.event("B", "RUNNING"),
        lambda: fake.event("A", "SUCCEEDED"), lambda: fake.metric("A", 1, {"default": 0.5, "run.lr": 0.01}),
        lambda: fake.event("B", "USER_CANCELED"), lambda: fake.log.append('x cancelTrialJob: "B"'),
        lambda: fake.event("C", "RUNNING", 2), lambda: fake.event("C", "ADD_RESUMED"),
        lambda: fake.event("C", "RUNNING", 0), lambda: fake.metric("C", 0, 0.7), lambda: fake.event("C", "SUCCEEDED")]
    for step in steps:
        step()
        now = fake.load(alive=True)
        assert follower.load(alive=True) == now
    assert [trial.state for trial in now.trials] == ["SUCCEEDED", "STOPPED EARLY", "SUCCEEDED"]
    assert now.trials[0].parameters == PARAMETERS[1]


def test_not_an_experiment(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not an NNI experiment"):
        results.load(tmp_path, alive=False)
