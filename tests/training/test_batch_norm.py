"""Batch norm's statistics, estimated anew before a network is judged: the plain maths, and training with it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pictures.augmentation import Augmentation, Normalization, words
from pictures.dataset import PLAIN, Batches
from tiny_training import FromAnyStep, Settings, network, same
from training import batch_norm
from training.batch_norm import reestimate
from training.checkpoints import load_checkpoint
from training.loop import evaluate, fit


def two_norms():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 5, 3),
                         nn.BatchNorm2d(5, momentum=0.3)).double()


def test_statistics_are_the_means_of_those_of_the_batches():
    """Each batch is normed by its own, as in training, but nothing is dropped."""
    model, batches = two_norms(), [torch.randn(n, 3, 9, 9, dtype=torch.float64) * 3 + 1 for n in (6, 6, 5)]
    model[1].running_mean.fill_(float("nan"))
    model[5].running_var.fill_(float("inf"))
    before = copy.deepcopy(model)
    assert reestimate(model.train(), batches, torch.float32) == 17
    means, variances = [], []
    for x in batches:
        x = F.conv2d(x, before[0].weight, before[0].bias)
        first = x.mean((0, 2, 3)), x.var((0, 2, 3))
        x = (x - first[0].view(-1, 1, 1)) / (x.var((0, 2, 3), correction=0).view(-1, 1, 1) + 1e-5).sqrt()
        x = F.conv2d(x.relu(), before[4].weight, before[4].bias)
        second = x.mean((0, 2, 3)), x.var((0, 2, 3))
        means.append((first[0], second[0]))
        variances.append((first[1], second[1]))
    for number, norm in enumerate((model[1], model[5])):
        assert torch.allclose(norm.running_mean, torch.stack([mean[number] for mean in means]).mean(0), rtol=1e-12)
        assert torch.allclose(norm.running_var, torch.stack([var[number] for var in variances]).mean(0), rtol=1e-12)
    for name, value in model.named_parameters():
        assert torch.equal(value, before.get_parameter(name))
    assert (model[1].momentum, model[5].momentum) == (0.1, 0.3)
    assert not any(module.training for module in model.modules())


def test_a_network_without_batch_norm_is_not_run():
    def never(*_):
        raise AssertionError("was called")

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    model.register_forward_hook(never)
    assert reestimate(model, [torch.zeros(2, 3, 8, 8)], torch.float32) == 0


@pytest.mark.parametrize("images", [10, PLAIN, PLAIN + 2, 2 * PLAIN + 40])
def test_plain_pictures_are_those_of_the_split_in_even_batches(images):
    generator = torch.Generator().manual_seed(0)
    pixels = words(torch.randint(256, (600, 32, 32, 4), dtype=torch.uint8, generator=generator))
    index, normalization = np.random.default_rng(0).permutation(600)[:580], Normalization(torch.rand(3), torch.rand(3))
    batches = Batches(pixels, torch.arange(600), index, normalization, 32, Augmentation(4, True, 8))
    found = list(batches.plain(images))
    assert torch.equal(torch.cat(found), normalization(pixels[torch.from_numpy(index[:images])]))
    assert max(map(len, found)) <= PLAIN and max(map(len, found)) - min(map(len, found)) <= 1


# ---- within a training


class Textures:
    """Four classes of 32x32 noise, told apart by its grain; 7 steps of 32 an epoch."""

    def __init__(self, images, seed):
        generator = torch.Generator().manual_seed(seed)
        self.images, self.y = images, torch.arange(images) % 4
        fine = torch.randn(images, 3, 32, 32, generator=generator)
        grain = {0: (1, 1), 1: (1, 8), 2: (8, 1), 3: (8, 8)}
        self.x = torch.stack([
            F.interpolate(x[None, :, : 32 // grain[y][0], : 32 // grain[y][1]], size=32)[0]
            for x, y in zip(fine, self.y.tolist(), strict=True)])

    def __len__(self):
        return self.images // 32

    def epoch(self, epoch, start=0):
        order = torch.randperm(self.images, generator=torch.Generator().manual_seed(epoch))
        for picked in order.split(32)[start : len(self)]:
            yield self.x[picked], self.y[picked]

    def plain(self, images):
        yield self.x[:images]


def deep():
    torch.manual_seed(0)
    layers = [layer for _ in range(8) for layer in (nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16),
                                                    nn.ReLU())]
    return nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(16, 4))


@pytest.fixture(scope="module")
def textures():
    return Textures(240, 0), Textures(60, 1)


FEW = Settings(lr=0.02, clip=0.0, warmup=0.0, epochs=2)


def test_a_network_that_has_learnt_is_judged_so(textures, monkeypatch):
    """By running averages the same weights are at chance, or nearly."""
    settled, running = deep(), deep()
    after = fit(settled, *textures, FEW, identity={})
    monkeypatch.setattr(batch_norm, "SETTLED", 0)
    before = fit(running, *textures, FEW, identity={})
    assert before.last["val_accuracy"] <= 0.5 and after.last["val_accuracy"] >= 0.75
    assert (before.last["batch_norm_images"], after.last["batch_norm_images"]) == (0, 240)
    for p, q in zip(settled.parameters(), running.parameters(), strict=True):
        assert torch.equal(p, q)
    assert evaluate(settled, textures[1].epoch(1), torch.float32)["accuracy"] == after.metric  # so it is exported


@pytest.mark.parametrize("ema", [0.0, 0.8])
@pytest.mark.parametrize("validated", [True, False])
def test_what_a_training_leaves_is_settled(textures, ema, validated):
    """Without validation too, and averaged weights get statistics of their own."""
    model = deep()
    result = fit(model, textures[0], textures[1] if validated else None, Settings(lr=0.02, epochs=2, ema=ema),
                 identity={})
    again = copy.deepcopy(model)
    reestimate(again, textures[0].plain(batch_norm.IMAGES), torch.float32)
    left = {name: value for name, value in model.state_dict().items() if "running" in name}
    assert left and all(torch.equal(value, again.state_dict()[name]) for name, value in left.items())
    assert ["batch_norm_images" in record for record in result.history] == [validated, True]


def test_many_steps_leave_the_running_averages(textures, monkeypatch):
    """From the first epoch that ends with so many steps on."""
    monkeypatch.setattr(batch_norm, "SETTLED", 14)
    result = fit(network(), *textures, Settings(epochs=3), identity={})
    assert [record["batch_norm_images"] for record in result.history] == [240, 0, 0]


@pytest.mark.parametrize("ema", [0.0, 0.8])
@pytest.mark.parametrize("at", [7, 10])
def test_stop_and_resume_is_bitwise_no_stop(textures, tmp_path, ema, at):
    """After an epoch and within one."""
    train, val = textures
    settings = Settings(lr=0.02, epochs=3, ema=ema)
    whole, resumed = deep(), deep()
    expected = fit(whole, train, val, settings, identity={})
    with pytest.raises(KeyboardInterrupt):
        fit(deep(), Stopping(train, at), val, settings, identity={}, checkpoint=tmp_path / "c.pt",
            checkpoint_minutes=0)
    saved = load_checkpoint(tmp_path / "c.pt", {}, torch.device("cpu"))
    found = fit(resumed, Stopping(train), val, settings, identity={}, resume_from=saved)
    assert same(whole, resumed)
    for a, b in zip(expected.history, found.history, strict=True):
        assert {k: v for k, v in a.items() if "second" not in k} == {k: v for k, v in b.items() if "second" not in k}


class Stopping(FromAnyStep):
    def __init__(self, loader, at=None):
        super().__init__(loader, KeyboardInterrupt(), at)

    def plain(self, images):
        return self.loader.plain(images)
