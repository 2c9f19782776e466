"""TPE under NNI 3.0's swapped trials: ours goes on learning where NNI's own dies."""

import pytest
from nni.algorithms.hpo.tpe_tuner import TpeTuner

from guard.tuners import TPE

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
