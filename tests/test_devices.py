"""A step's tensors all live on the model's device, and nobody waits for it: seen without a GPU, on the meta device.

The meta device computes shapes alone. It refuses what a GPU refuses, a tensor of the CPU among its own, and what a GPU
has to be waited for: any look at a value. A GPU may still find fault with a step; this is what can be known without.
What its kernels answer is in test_cuda.py, for the same steps.
"""

import random
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from benchmarks.counting import Launches
from models import MODELS, build_model
from models.darts.genotype_files import load_genotype
from models.darts.network import DartsNetwork
from models.darts.supernet import Supernet
from models.mobilenet_space import space as mobilenet_space
from pictures import autoaugment, dataset
from pictures.augmentation import Augmentation, Draws
from tiny_training import Settings
from training import loop
from training.bilevel import Batch, architecture_step, first_order, second_order, weight_step
from training.graphs import ready_to_step
from training.loop import build_optimizer, fit, train_step

META = torch.device("meta")


class NoLists(TorchFunctionMode):
    """A list as index is copied to the device, and waited for; no dispatch mode sees it."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(part, list) for part in index), index
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows no meta device, not even where it is disabled."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())


@pytest.fixture
def batch() -> Batch:
    images = torch.randn(4, 3, 32, 32, device=META).to(memory_format=torch.channels_last)
    return Batch(images, torch.randint(10, (4,), device=META))


def on_meta(build) -> nn.Module:
    with META:
        return build().to(memory_format=torch.channels_last)


def train(model: nn.Module, batch: Batch, optimizer: str = "SGD", dtype: torch.dtype = torch.float32) -> list[Tensor]:
    step = partial(train_step, lr=0.1, dtype=dtype, label_smoothing=0.1, clip=5.0, auxiliary=0.4)
    with NoLists():
        hits = step(model, build_optimizer(model, optimizer, 0.1, 1e-4, 0.9), *batch)
    assert all(value.device == batch.images.device for value in hits)
    return [*hits]


@pytest.mark.parametrize("name", MODELS)
def test_step_of_the_zoo(name, batch):
    train(on_meta(lambda: build_model(name, 10)), batch, "Adam")


def test_steps_of_sampled_networks(batch):
    rng = random.Random(0)
    for _ in range(5):
        sample = {label: rng.choice(choices) for label, choices in mobilenet_space.choices().items()}
        train(on_meta(lambda sample=sample: mobilenet_space.build(sample, 10)), batch)


@pytest.mark.parametrize("name", ["DARTS_V1", "DARTS_V2", "PC_DARTS"])
def test_step_of_a_retrain(name, batch):
    model = on_meta(lambda: DartsNetwork(load_genotype(name), 3, 8, 10, 5, auxiliary=True))
    model.drop_path_probability(0.2)
    train(model, batch)


SEARCHES = [
    (1, {}), (2, {}), (1, {"partial_channels": 4}), (1, {"recompute": True}), (1, {"form": "plain"}),
    (1, {"form": "stored"}), (2, {"form": "stored"}), (1, {"form": "stored", "partial_channels": 4})]


@pytest.mark.parametrize(("order", "settings"), SEARCHES, ids=str)
def test_step_of_a_search(order, settings, batch):
    model = on_meta(lambda: Supernet(3, 8, 10, 3, **settings))
    assert all(value.device == META for value in search_step(model, batch, order))


def search_step(model: Supernet, batch: Batch, order: int, recorded: bool = False) -> list[Tensor]:
    weights, alphas = torch.optim.SGD(model.weights(), 0.1, 0.9), torch.optim.Adam(model.alphas(), 0.1)
    for optimizer in (weights, alphas):
        ready_to_step(optimizer, batch.images.device, recorded)
    gradient = partial(first_order, model, batch) if order == 1 else partial(second_order, model, batch, batch, weights)
    with NoLists():
        return [*architecture_step(model, alphas, gradient, decay=0.1), *weight_step(model, weights, batch, clip=5.0)]


@pytest.mark.parametrize("policy", ["basic", "autoaugment"])
def test_augmentation(policy):
    augmentation = Augmentation(crop_padding=4, flip=True, cutout=16, policy=policy)
    draws = augmentation.draw(6, torch.Generator().manual_seed(0))
    moved = Draws(*(draw.to(META) for draw in draws[:-1]),
                  draws.policy and autoaugment.Drawn(*(rows.to(META) for rows in draws.policy)))
    pixels, index = (torch.empty(size, dtype=dtype, device=META) for size, dtype in (((9, 32, 32), torch.int32),
                                                                                   ((6,), torch.int64)))
    found = augmentation(pixels, index, moved, torch.empty((), dtype=torch.int32, device=META))
    assert found.device == META and found.shape == (6, 32, 32)


# ---- whole epochs


class Same:
    """A loader that gives the same batch `steps` times."""

    def __init__(self, batch: Batch, steps: int) -> None:
        self.batch, self.steps, self.images = batch, steps, steps * len(batch[1])

    def __len__(self) -> int:
        return self.steps

    def epoch(self, epoch):
        yield from [tuple(self.batch)] * self.steps


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_an_epoch_is_waited_for_once_a_logging_interval(batch, optimizer, monkeypatch):
    """With all that a training can have: average, clipping, drop path, auxiliary head, validation, confusion."""
    waited = Counter()

    def look(name):
        def at_zeros(value):
            assert value.device == META
            waited[name] += 1
            return torch.zeros(2)
        return at_zeros

    for name in ("summed", "first"):
        monkeypatch.setattr(loop, name, look(name))
    model = on_meta(lambda: DartsNetwork(load_genotype("DARTS_V2"), 3, 4, 10, 3, auxiliary=True))
    tensor = torch.tensor  # not seen by Launches; a copy from the host, unless it is one of the CPU
    monkeypatch.setattr(torch, "tensor", lambda *args, device=None, **more: (
        tensor(*args, **more) if device in (None, "cpu") else pytest.fail("a copy from the host")))
    monkeypatch.setattr(loop, "LOG_INTERVAL", 3)
    settings = Settings(optimizer=optimizer, epochs=2, ema=0.9)
    with Launches("meta") as launches:
        fit(model, Same(batch, 7), Same(batch, 2), settings, identity={}, auxiliary=0.4, drop_path=0.2)
    # After 3, 6 and 7 steps and once for the record; once for a validation.
    assert waited == {"summed": 2 * 4, "first": 2}
    assert not launches.waits


@pytest.mark.parametrize("augment", ["basic", "autoaugment"])
def test_no_batch_is_waited_for(digits_dir, augment):
    """On the CPU, where a copy between devices would not show, but a look at a value does."""
    loaders = dataset.training_batches(
        dataset.load("digits", digits_dir), torch.device("cpu"), train_size=96, val_size=50, batch_size=24,
        crop_padding=4, flip="on", cutout=8, seed=0, augment=augment)
    with Launches() as launches:
        assert len([*loaders.train.epoch(0), *loaders.val.epoch(0)]) == 5
    assert not launches.waits, launches.waits
