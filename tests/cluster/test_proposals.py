"""NNI's tuners and assessors, asked and told as Ray Tune does it, without a Ray."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-ray.txt")

from cluster import engine, search
from cluster.record import Record

SPACE = {"x": {"_type": "choice", "_value": [1, 2, 3]}, "y": {"_type": "choice", "_value": ["a", "b"]}}
TUNERS = {
    "TPE": {"name": "TPE", "classArgs": {"optimize_mode": "maximize", "seed": 1}},
    "Random": {"name": "Random", "classArgs": {"seed": 1}},
    "GridSearch": {"name": "GridSearch"},
    "evolution": {"className": "nas.tuner.EvolutionTuner", "codeDirectory": ".", "classArgs": {"population": 2}},
}


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """The searcher of an experiment in tmp_path, new or resumed, and its record."""
    monkeypatch.setenv("NNI_CHECKPOINT_DIRECTORY", "")
    records = []

    def begin(tuner, most=99):
        for record in records:
            record.release()
        records.append(record := Record(tmp_path))
        record.claim()
        asked = engine._tuner({"tuner": TUNERS[tuner]}, SPACE, record)
        return search.Proposals(asked, record, lambda entry: entry.parameters, lambda: len(record.entries) < most,
                                lambda: False, lambda entry: None), record
    yield begin
    records[-1].release()


def finish(searcher, trial, value, points=()):
    for number, point in enumerate(points, 1):
        searcher.on_trial_result(trial, {"training_iteration": number, "metric": point})
    outcome = {"reported": True, "value": value, "last": value, "seconds": 1.0, "error": ""}
    searcher.on_trial_complete(trial, {"training_iteration": len(points) + 1, "outcome": json.dumps(outcome)})


@pytest.mark.parametrize("tuner", TUNERS)
def test_nothing_is_tried_twice_before_a_kill_or_after_it(begin, tuner):
    searcher, record = begin(tuner)
    tried = [searcher.suggest("a"), searcher.suggest("b"), searcher.suggest("c")]
    finish(searcher, "b", 0.5, [0.4])
    searcher, record = begin(tuner)  # the driver was killed
    assert [searcher.suggest("a"), searcher.suggest("c")] == [tried[0], tried[2]]
    finish(searcher, "a", 0.6)
    while (parameters := searcher.suggest("d")) != searcher.FINISHED and len(tried) < 6:
        tried.append(parameters)
        finish(searcher, "d", 0.1)
    assert len({json.dumps(parameters, sort_keys=True) for parameters in tried}) == 6 and not searcher.failure
    assert parameters == searcher.FINISHED or tuner == "Random"
    assert record.entries["trial-0002"].points == [0.4, 0.5] and [entry.name for entry in record.unfinished][:1] == [
        "trial-0003"]


def test_an_assessor_of_nni_stops_what_is_below_the_median(begin):
    config = {"assessor": {"name": "Medianstop", "classArgs": {"optimize_mode": "maximize", "start_step": 2}}}
    searcher, record = begin("TPE")
    searcher.suggest("first")
    finish(searcher, "first", 0.9, [0.5, 0.7])
    assessment = search.Assessment(engine._made("assessor", config), record)  # told of what ended before a stop

    def judged(name, iteration, metric):
        return assessment.on_trial_result(None, SimpleNamespace(trial_id=name), {
            "training_iteration": iteration, "metric": metric})

    assert [judged("good", 1, 0.1), judged("good", 2, 0.8)] == [assessment.CONTINUE] * 2
    assert [judged("bad", 1, 0.1), judged("bad", 1, 0.1)] == [assessment.CONTINUE] * 2  # again, on another machine
    assert judged("bad", 2, 0.2) == assessment.STOP
    searcher.suggest("bad")
    searcher.on_trial_result("bad", {"training_iteration": 1, "metric": 0.1})
    searcher.on_trial_complete("bad", {"training_iteration": 2, "metric": 0.2})
    entry = record.entries["trial-0002"]
    assert (entry.state, entry.points, entry.value) == ("STOPPED EARLY", [0.1, 0.2], None)


def test_a_tuner_that_fails_ends_the_experiment_and_says_why(begin, monkeypatch):
    searcher, record = begin("TPE")
    monkeypatch.setattr(searcher.tuner, "generate_parameters", lambda number: 1 / 0)
    assert searcher.suggest("a") == searcher.FINISHED and isinstance(searcher.failure, ZeroDivisionError)
    assert not record.entries
