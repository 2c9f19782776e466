"""Free scores against the plainest reference in float64; same number every time; nothing else is disturbed."""

import math
import random

import pytest
import torch
from torch import nn

from models import nas_scores
from models.mobilenet_space import BASELINE, count_macs, search_space


def tiny(depth: int = 1) -> nn.Sequential:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)]
    for _ in range(depth):
        layers += [nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def codes_one_by_one(model: nn.Module, images: torch.Tensor) -> list[list[bool]]:
    """For each image, whether each ReLU's each unit is on."""
    codes, x = [[] for _ in images], images
    for layer in model:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            for code, one in zip(codes, x, strict=True):
                code.extend(value > 0 for value in one.flatten().tolist())
    return codes


def test_naswot_is_the_determinant_of_equal_units() -> None:
    model, images = tiny().double(), torch.randn(6, 3, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        codes = codes_one_by_one(model.train(), images)
    kernel = [[sum(p == q for p, q in zip(a, b, strict=True)) for b in codes] for a in codes]
    expected = math.log(abs(torch.linalg.det(torch.tensor(kernel, dtype=torch.float64)).item()))
    for memory in (torch.contiguous_format, torch.channels_last):
        found = nas_scores.naswot_of(model.to(memory_format=memory), images.to(memory_format=memory))
        assert found == pytest.approx(expected, rel=1e-12)


def test_equal_images_give_minus_infinity() -> None:
    assert nas_scores.naswot_of(tiny(), torch.ones(2, 3, 5, 5)) == -math.inf


def test_synflow_is_the_sum_of_weight_times_derivative() -> None:
    """The derivatives by finite differences, one weight at a time."""
    model = tiny().double().eval()
    for weight in model.parameters():
        weight.data.abs_()

    def output() -> float:
        return model(torch.ones(1, 3, 5, 5, dtype=torch.float64)).sum().item()

    flow, eps = 0.0, 1e-6
    with torch.no_grad():
        for weight in model.parameters():
            for i in range(weight.numel()):
                value = weight.view(-1)[i].item()
                weight.view(-1)[i] = value + eps
                above = output()
                weight.view(-1)[i] = value - eps
                flow += value * (above - output()) / (2 * eps)
                weight.view(-1)[i] = value
    assert nas_scores.synflow_of(model, (3, 5, 5)) == pytest.approx(math.log(flow), abs=1e-5)


def test_synflow_ignores_signs() -> None:
    model = tiny()
    before = nas_scores.synflow_of(model, (3, 5, 5))
    with torch.no_grad():
        model[0].weight.neg_()
    assert nas_scores.synflow_of(model, (3, 5, 5)) == before


def test_synflow_beyond_float32() -> None:
    model = tiny(depth=30)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(20)
    assert 88 < nas_scores.synflow_of(model, (3, 5, 5)) < 700


@pytest.mark.parametrize("score", [lambda m: nas_scores.naswot_of(m, torch.rand(4, 3, 5, 5)),
                                   lambda m: nas_scores.synflow_of(m, (3, 5, 5))])
def test_model_is_left_as_it_was(score) -> None:
    model = tiny()
    model[1].eval()
    state, modes = {k: v.clone() for k, v in model.state_dict().items()}, [m.training for m in model.modules()]
    score(model)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks for m in model.modules())
    assert all(weight.grad is None for weight in model.parameters())


# ---- samples of MobileNetSpace


@pytest.fixture(scope="module")
def sample() -> dict:
    rng = random.Random(1)
    return {name: rng.choice(spec["_value"]) for name, spec in search_space().items()}


@pytest.mark.parametrize("score", [nas_scores.naswot, nas_scores.synflow])
def test_sample_has_one_score(score, sample: dict) -> None:
    before = torch.random.get_rng_state()
    first = score(sample)
    assert torch.equal(torch.random.get_rng_state(), before)
    nas_scores._naswot.cache_clear()
    nas_scores._synflow.cache_clear()
    torch.rand(7)
    assert score(dict(reversed(sample.items()))) == first
    assert score(BASELINE) != first and math.isfinite(first)


def test_scores_are_cached(sample: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    first = nas_scores.naswot(sample)
    monkeypatch.setattr(nas_scores, "_build", None)
    assert nas_scores.naswot(sample) == first


def test_macs(sample: dict) -> None:
    assert nas_scores.macs(sample) == count_macs(sample)


def test_average_of_shares(sample: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    references = {nas_scores.macs: [0.0, 1.0], nas_scores.naswot: [-1e9, 1e9], nas_scores.synflow: [1e9, 2e9]}
    monkeypatch.setattr(nas_scores, "reference", references.get)
    assert nas_scores.average(sample) == pytest.approx((1 + 0.5 + 0) / 3)
    assert nas_scores.share(2.0, [1.0, 2.0, 2.0, 3.0]) == 0.5


def test_reference_is_sorted_and_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    values = nas_scores.reference.__wrapped__(nas_scores.macs)
    assert values == sorted(values) == nas_scores.reference.__wrapped__(nas_scores.macs)
    assert len(values) == nas_scores.REFERENCE
