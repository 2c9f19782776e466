"""The step of a search as a CUDA graph repeats it, by an emulation on the CPU, against the step as it is."""

import pytest
import torch

from config import DartsSearchConfig
from graph_on_cpu import GraphOnCpu
from pictures.dataset import load
from training.graphs import WARM, ready_to_step
from training.search import Search
from training.stopping import DeferredSignals

CPU = torch.device("cpu")
STEPS = 5  # an epoch


def searching(digits_dir, form, **settings):
    config = DartsSearchConfig(data="digits", channels=4, layers=3, train_size=2 * STEPS * 4, val_size=10, batch_size=4,
                               epochs=4, frozen=0.5, beta_decay=9.0, form=form, **settings)
    found = Search(config, load("digits", digits_dir), CPU)
    found.model.double()  # in float32 two roundings part within some steps
    for half in found.halves:
        ready = half.ready
        half.ready = lambda *drawn, ready=ready: (ready(*drawn)[0].double(), ready(*drawn)[1])
    return found


def trained(found, recorder):
    """Two epochs with the alphas frozen, two in which they move, each step recorded after the first ones."""
    steps = found.steps(recorder)
    if recorder is None:  # the same optimizers' steps, to compare bitwise
        for optimizer in (found.weights, found.alphas):
            ready_to_step(optimizer, CPU, True)
    for epoch in range(4):
        found.history.append(found.epoch(epoch, steps[epoch < 2], DeferredSignals(False)))
    return [*found.model.parameters()], [{key: value for key, value in record.items() if "second" not in key}
                                         for record in found.history]


@pytest.mark.slow
@pytest.mark.parametrize(("form", "settings"), [
    ("stored", {}), ("stored", {"partial_channels": 2, "label_smoothing": 0.1})], ids=str)
def test_a_recorded_search_is_the_search(form, settings, digits_dir):
    """All parameters and records, after 20 steps at learning rates and beta-decays that change: to the last bit."""
    assert 2 * STEPS > WARM + 2  # of either kind of step
    recorded, eager = (trained(searching(digits_dir, form, **settings), recorder) for recorder in (GraphOnCpu, None))
    torch.testing.assert_close(recorded[0], eager[0], rtol=0, atol=0)
    assert recorded[1] == eager[1]


@pytest.mark.slow
def test_the_optimizers_of_a_recorded_step_compute_what_the_usual_ones_do(digits_dir):
    usual, recorded = (searching(digits_dir, "stored") for _ in range(2))
    steps = [found.steps(None)[0] for found in (usual, recorded)]
    for optimizer in (recorded.weights, recorded.alphas):
        ready_to_step(optimizer, CPU, True)
    for found, step in zip((usual, recorded), steps, strict=True):
        found.epoch(3, step, DeferredSignals(False))
    torch.testing.assert_close([*recorded.model.parameters()], [*usual.model.parameters()])
