"""Averaged weights against torch's AveragedModel: the same values and checkpoints, in fewer launches."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.counting import Launches
from models import build_model
from tiny_training import Settings, network, same
from training.average import Average
from training.checkpoints import load_checkpoint, save_checkpoint
from training.loop import fit

DECAY = 0.9


def averaged_by_torch(model: nn.Module) -> AveragedModel:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)


def train_a_step(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model(torch.randn(4, 3, 8, 8, generator=generator))  # moves the statistics of batch norm
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.1)


def test_twenty_steps_give_what_torch_gives():
    """Bitwise; but counters, which torch averages and rounds down, are those of the model."""
    model = network()
    ours, theirs = Average(model, DECAY), averaged_by_torch(model)
    for step in range(20):
        train_a_step(model, step)
        ours.update()
        theirs.update_parameters(model)
    a, b = ours.state_dict(), theirs.state_dict()
    assert list(a) == list(b) and a["n_averaged"] == b["n_averaged"] == 20
    assert a["n_averaged"].device.type == "cpu"
    counters = [key for key in a if key.endswith("num_batches_tracked")]
    assert [a[key].item() for key in counters] == [20] and b[counters[0]] < 20
    assert all(torch.equal(a[key], b[key]) for key in a if key not in counters)
    assert not torch.equal(a["module.0.weight"], model[0].weight)


def test_a_step_is_two_launches_and_waits_for_nothing():
    """Torch's has three more for each of 62 batch norms, and looks at its own counter."""
    average = Average(build_model("googlenet", 10), DECAY)
    for _ in range(2):  # the first takes over, the second averages
        with Launches() as launches:
            average.update()
        assert launches.total == 2 and not launches.waits, launches.of


@pytest.mark.parametrize("network", [lambda: nn.Linear(2, 2), network])
def test_with_and_without_counters(network):
    model = network()
    average = Average(model, DECAY)
    average.update()
    assert same(average.module, model)


def test_a_checkpoint_with_the_average_of_torch_goes_on(tiny_batches, tmp_path):
    """As runs wrote it before: AveragedModel.state_dict."""
    settings, whole, resumed = Settings(ema=DECAY, epochs=4), network(), network(seed=1)
    fit(whole, *tiny_batches, settings, identity={})

    def stop_after_two(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(network(), *tiny_batches, settings, identity={}, checkpoint=tmp_path / "c.pt", checkpoint_minutes=0,
            on_epoch=stop_after_two)
    saved = load_checkpoint(tmp_path / "c.pt", {}, torch.device("cpu"))
    theirs = averaged_by_torch(network())
    theirs.load_state_dict(saved["average"])
    parts = {"average": theirs, **{name: Part(saved[name]) for name in ("model", "optimizer")}}
    save_checkpoint(tmp_path / "old.pt", parts, {}, saved["history"])
    fit(resumed, *tiny_batches, settings, identity={},
        resume_from=load_checkpoint(tmp_path / "old.pt", {}, torch.device("cpu")))
    assert same(whole, resumed)


class Part:
    """Has the state that it was given."""

    def __init__(self, state: dict) -> None:
        self.state = state

    def state_dict(self) -> dict:
        return self.state
