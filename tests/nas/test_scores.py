"""Free scores against the plainest reference in float64; same number every time; nothing else is disturbed."""

import math
import random

import pytest
import torch
from torch import nn

from models.blocks import SIZES
from models.mobilenet_space.space import (
    BASELINE,
    build,
    choices,
    count_macs,
    count_parameters,
    no_larger_than_mobilenet,
    search_space,
)
from nas import scores as nas_scores


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
    nas_scores._part.cache_clear()
    torch.rand(7)
    assert score(dict(reversed(sample.items()))) == first
    assert score(BASELINE) != first and math.isfinite(first)


def test_scores_are_cached(sample: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    first = nas_scores.naswot(sample)
    monkeypatch.setattr(nas_scores, "_build", None)
    assert nas_scores.naswot(sample) == first


def samples(count: int, seed: int = 1) -> list[dict]:
    """Random ones, no larger than MobileNet."""
    rng, found = random.Random(seed), []
    while len(found) < count:
        sample = {label: rng.choice(values) for label, values in choices().items()}
        if no_larger_than_mobilenet(sample):
            found.append(sample)
    return found


def test_network_of_parts_is_the_one_that_build_makes() -> None:
    """Its outputs too, given its weights; one network after another out of the same parts."""
    images = torch.randn(2, 3, 32, 32)
    for sample in [*samples(3), BASELINE]:
        shared, plain = nas_scores._build(nas_scores.freeze(sample)).eval(), build(sample, nas_scores.CLASSES).eval()
        plain.load_state_dict(shared.state_dict())
        with torch.no_grad():
            assert torch.allclose(shared(images), plain(images), atol=1e-5)


def test_200_random_networks_run_and_count_as_the_formula() -> None:
    """Of all sizes, at 32x32."""
    rng, images = random.Random(2), torch.randn(2, 3, 32, 32)
    for _ in range(200):
        sample = {label: rng.choice(values) for label, values in choices().items()}
        network = nas_scores._build(nas_scores.freeze(sample)).eval()
        with torch.no_grad():
            logits = network(images)
        assert logits.shape == (2, 10) and logits.isfinite().all()
        assert sum(weight.numel() for weight in network.parameters()) == count_parameters(sample)


def test_initial_weights_are_pytorch_s() -> None:
    """Uniform in the same bounds, layer by layer; no two layers have the same."""
    parts = nas_scores._build(nas_scores.freeze(BASELINE)).state_dict()
    for name, weight in build(BASELINE, nas_scores.CLASSES).named_parameters():
        mine = parts[name]
        if weight.numel() >= 10_000:
            for figure in (torch.std, torch.amax, torch.amin):
                assert figure(mine).item() == pytest.approx(figure(weight).item(), rel=0.03)
            assert abs(mine.mean()) < 0.03 * mine.std()
    kernels = [weight for name, weight in parts.items() if weight.ndim == 4]
    assert len({weight.flatten()[:9].sum().item() for weight in kernels}) == len(kernels)


def test_a_score_leaves_no_trace_in_the_parts() -> None:
    first, second = samples(2)
    alone = nas_scores._naswot.__wrapped__(nas_scores.freeze(second))
    for other in (nas_scores._naswot, nas_scores._synflow):
        other.__wrapped__(nas_scores.freeze(first))
    assert nas_scores._naswot.__wrapped__(nas_scores.freeze(second)) == alone


def test_naswot_of_smaller_images_ranks_as_that_of_whole_ones() -> None:
    """Spearman's rho with the plain score: networks drawn anew by build, images of 32x32."""
    def plain(sample: dict) -> float:
        torch.manual_seed(0)
        return nas_scores.naswot_of(build(sample, nas_scores.CLASSES), torch.randn(nas_scores.BATCH, 3, 32, 32))

    networks = samples(12)
    ranks = [torch.tensor([score(sample) for sample in networks]).argsort().argsort().double()
             for score in (plain, nas_scores.naswot)]
    assert torch.corrcoef(torch.stack(ranks))[0, 1] > 0.95


def rho(one: list[float], other: list[float]) -> float:
    """Spearman's."""
    ranks = [torch.tensor(values, dtype=torch.float64).argsort().argsort().double() for values in (one, other)]
    return torch.corrcoef(torch.stack(ranks))[0, 1].item()


@pytest.mark.parametrize("side", SIZES[1:])
def test_macs_of_larger_images_rank_as_the_score_does(side: int) -> None:
    networks = samples(60)
    assert rho([nas_scores.macs(sample) for sample in networks],
               [count_macs(sample, 10, side) for sample in networks]) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("side", [48, 224])
def test_the_other_scores_of_larger_images_rank_as_they_do(side: int) -> None:
    """Networks for these images, drawn anew by build, with the images as they are."""
    def plain(sample: dict) -> tuple[float, float]:
        torch.manual_seed(0)
        network = build(sample, nas_scores.CLASSES, side)
        return (nas_scores.naswot_of(network, torch.randn(nas_scores.BATCH, 3, side, side)),
                nas_scores.synflow_of(network, (3, side, side)))

    networks = samples(10)
    for score, values in zip((nas_scores.naswot, nas_scores.synflow), zip(*map(plain, networks), strict=True),
                             strict=True):
        assert rho([score(sample) for sample in networks], list(values)) > 0.9


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
