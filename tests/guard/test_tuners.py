"""TPE under NNI 3.0's swapped trials: ours goes on learning where NNI's own dies."""

import contextlib
import json
import sqlite3

import pytest
from nni.algorithms.hpo.tpe_tuner import TpeTuner

from guard.lost_trials import revive
from guard.tuners import TPE
from nas.tuner import EvolutionTuner

SPACE = {"x": {"_type": "choice", "_value": [0, 1, 2, 3]}}


def swapped(tuner_class):
    """Two trials at once; the first ran the second's parameters, ends, and only then does the second report."""
    tuner = tuner_class("maximize", seed=1)
    tuner.update_search_space(SPACE)
    parameters = [tuner.generate_parameters(i) for i in range(2)]
    tuner.receive_trial_result(1, parameters[1], 0.5)
    tuner.trial_end(0, True)  # NNI names what it submitted with the trial that ended
    tuner.receive_trial_result(0, parameters[0], 0.25)
    return tuner


def test_swapped_trials():
    with pytest.raises(KeyError):  # if this passes one day, guard/tuners.py can go
        swapped(TpeTuner)
    tuner = swapped(TPE)
    assert sorted(record.loss for records in tuner._history.values() for record in records) == [-0.5, -0.25]
    assert not tuner._running_params and tuner.generate_parameters(2)


def test_without_swaps_it_is_nnis_tpe():
    suggested = []
    for tuner in (TpeTuner("maximize", seed=1), TPE("maximize", seed=1)):
        tuner.update_search_space({"x": {"_type": "uniform", "_value": [0, 1]}})
        for i in range(40):
            suggested.append(tuner.generate_parameters(i)["x"])
            tuner.receive_trial_result(i, {}, -((suggested[-1] - 0.3) ** 2))
            tuner.trial_end(i, True)
    assert suggested[:40] == suggested[40:]


def test_a_resumed_search_goes_on_as_if_it_had_not_stopped(tmp_path, monkeypatch):
    """NNI makes a new tuner, calls load_checkpoint, gives the search space, and tells all results so far."""
    monkeypatch.setenv("NNI_CHECKPOINT_DIRECTORY", str(tmp_path))
    space = {"x": {"_type": "choice", "_value": list(range(50))}}

    def tuned(tuner, numbers):
        for i in numbers:
            x = tuner.generate_parameters(i)["x"]
            tuner.receive_trial_result(i, {}, -abs(x - 20))
            tuner.trial_end(i, True)
            yield x

    whole = TPE("maximize", seed=1)
    whole.update_search_space(space)
    wanted = list(tuned(whole, range(30)))

    first = TPE("maximize", seed=1)
    first.update_search_space(space)
    found = list(tuned(first, range(12)))
    second = TPE("maximize", seed=1)
    second.load_checkpoint()
    second.update_search_space(space)
    second.import_data([{"parameter": {"x": x}, "value": -abs(x - 20)} for x in found])
    assert found + list(tuned(second, range(12, 30))) == wanted


@pytest.mark.parametrize("kind", ["tpe", "evolution"])
def test_what_nni_never_began_is_suggested_again(kind, tmp_path, monkeypatch):
    """Stopped twice while it repeats the second trial: what was suggested for the third comes again, in order."""
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "db").mkdir()
    monkeypatch.setenv("NNI_CHECKPOINT_DIRECTORY", str(tmp_path / "checkpoint"))
    database = sqlite3.connect(tmp_path / "db" / "nni.sqlite")
    database.execute("create table TrialJobEvent (trialJobId text, event text, data text)")
    space = {"x": {"_type": "choice", "_value": [f"v{i}" for i in range(50)]}}

    def tuner(resumed):
        made = TPE("maximize", seed=1) if kind == "tpe" else EvolutionTuner("maximize", seed=1)
        if resumed:
            made.load_checkpoint()
        made.update_search_space(space)
        return made

    first = tuner(resumed=False)
    wanted = [first.generate_parameters(i) for i in range(4)]
    for name, parameters in zip("AB", wanted, strict=False):
        packed = json.dumps({"parameter_id": 0, "parameters": parameters})
        database.execute("insert into TrialJobEvent values (?, 'RUNNING', ?)", (name, packed))
    database.execute("insert into TrialJobEvent values ('B', 'ADD_RESUMED', '')")
    database.commit()
    database.close()
    second = tuner(resumed=True)
    assert second.generate_parameters(2) == wanted[2]
    third = tuner(resumed=True)
    assert [third.generate_parameters(i) for i in (2, 3)] == wanted[2:]
    assert third.generate_parameters(4) not in wanted


def test_interrupted_trials_that_a_short_resume_has_marked_are_repeated(tmp_path):
    (tmp_path / "db").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "db" / "nni.sqlite")) as database, database:
        database.execute("create table TrialJobEvent (trialJobId text, event text)")
        events = ["A RUNNING", "A SUCCEEDED", "B RUNNING", "B ADD_RESUMED", "C RUNNING", "C ADD_RESUMED", "C RUNNING"]
        database.executemany("insert into TrialJobEvent values (?, ?)", [event.split() for event in events])
        database.commit()
        assert [revive(tmp_path), revive(tmp_path)] == [1, 0]
        left = [" ".join(row) for row in database.execute("select * from TrialJobEvent order by rowid")]
    assert left == [event for event in events if event != "B ADD_RESUMED"]
