"""The search space of stage 2: every choice trains, costs what the formulas say, and NNI sees the same space."""

import itertools
import json
import math
import random
import subprocess
import sys

import pytest
import torch
from torch import nn

from conftest import ROOT
from models import MobileNetSpace, build_model
from models.blocks import SIZES
from models.mobilenet_space import space
from models.mobilenet_space.choices import (
    BLOCKS,
    OPERATIONS,
    Residual,
    Skip,
    blocks_of,
    build_skip,
    operations,
    skips,
)

CHOICES = space.choices()
BIG = {label: "ir2_dw3" if label.endswith("op") else values[-1] for label, values in CHOICES.items()}


def samples(count, seed=0):
    generator = random.Random(seed)
    return [{label: generator.choice(values) for label, values in CHOICES.items()} for _ in range(count)]


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def nni_space():
    pytest.importorskip("pytorch_lightning")
    return MobileNetSpace(10)


# ---- the networks


def test_baseline_is_mobilenet(images):
    torch.manual_seed(0)
    plain, sampled = build_model("mobilenet", 7), space.build(space.BASELINE, 7)
    sampled.load_state_dict(plain.state_dict())  # every key, so as many parameters too
    assert torch.equal(sampled(images), plain(images))
    assert torch.equal(sampled.eval()(images), plain.eval()(images))
    assert space.count_parameters(space.BASELINE) == 3_217_226


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.op_label)
def test_every_operation_keeps_the_shape_of_its_block_and_gives_gradients(block):
    x = torch.randn(2, block.c_in, block.size, block.size, requires_grad=True)
    size = block.size // block.stride
    for name in operations(block):
        module, x.grad = OPERATIONS[name].build(block), None
        y = module(x)
        assert y.shape == (2, block.c_out, size, size), name
        (y * torch.randn_like(y)).sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in [x, *module.parameters()]), name


@pytest.mark.parametrize("block", [block for block in BLOCKS if skips(block)], ids=lambda block: block.skip_label)
def test_every_skip_fits_its_block_and_gives_gradients(block):
    maps = [torch.randn(2, b.c_in, b.size, b.size, requires_grad=True) for b in BLOCKS]  # map 0 is the stem's
    x = maps[block.number - 1]
    for name, source in skips(block).items():
        module = build_skip(block, source)
        y = module(x, maps)
        assert y.shape == x.shape, name
        if source is None:
            assert y is x
            continue
        assert source < block.number - 1  # not the block's own input
        (y * torch.randn_like(y)).sum().backward()
        assert all(p.grad.abs().sum() > 0 for p in module.parameters()), name
        assert maps[source].grad.abs().sum() > 0 and x.grad.abs().sum() > 0, name


def test_a_residual_operation_adds_its_input():
    block = BLOCKS[2]
    for name in ("res_dw3", "thin_dw3", "ir2_dw3"):
        module = OPERATIONS[name].build(block)
        assert isinstance(module, Residual)
        nn.init.zeros_(module[-1][1].weight)  # the last normalisation: f(x) = 0
        x = torch.randn(2, block.c_in, 4, 4)
        assert torch.equal(module(x), x)


def test_a_skip_reads_the_map_it_is_named_after(images):
    network = space.build({**space.BASELINE, "block09_skip": "block06"}, 10).eval()
    [skip] = [module for module in network.modules() if isinstance(module, Skip)]
    assert network.skips[8] is skip
    with torch.no_grad():
        skip.merge[0].weight.zero_()
        channels = torch.arange(512)
        skip.merge[0].weight[channels, 512 + channels] = 1  # the second half of what is concatenated, alone
        seen = {}
        network.layers[5].register_forward_hook(lambda module, args, output: seen.update(block06=output))
        network.layers[8].register_forward_hook(lambda module, args, output: seen.update(into09=args[0]))
        network(images)
    torch.testing.assert_close(seen["into09"], seen["block06"] / math.sqrt(1 + skip.merge[1].eps))


# ---- what they cost


def macs(network, images):
    """Multiply-adds of all convolutions and linear layers for one image, counted while it runs."""
    counted = []

    def count(module, args, output):
        counted.append(module.weight.numel() * output[0].numel() // output.shape[1])

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        assert network(images).shape == (2, 10)
    return sum(counted)


def test_parameters_of_200_random_networks_are_those_of_the_formula():
    with torch.device("meta"):
        for sample in [BIG, *samples(199)]:
            built = sum(p.numel() for p in space.build(sample, 7).parameters())
            assert built == space.count_parameters(sample, 7), sample


def test_macs_of_random_networks_are_those_of_the_formula(images):
    for sample in [space.BASELINE, BIG, *samples(18)]:
        assert macs(space.build(sample, 10).eval(), images) == space.count_macs(sample), sample


def test_every_choice_is_counted_and_nothing_superfluous_is_built():
    with torch.device("meta"):
        for label, values in CHOICES.items():
            for value in values:
                sample = {**space.BASELINE, label: value}
                network = space.build(sample, 10)
                assert sum(p.numel() for p in network.parameters()) == space.count_parameters(sample), sample
                wanted = label.endswith("skip") and value != "none"
                assert sum(isinstance(module, Skip) for module in network.modules()) == wanted


def test_the_figures_of_the_docstring():
    size = math.prod(map(len, CHOICES.values()))
    least, most = space.smallest().parameters, max(space.count_parameters(sample) for sample in samples(2000))
    assert size == 6**5 * 8**8 * 768 and f"{size:,}".replace(",", " ") in space.__doc__
    assert f"{least / 1e6:.2f} to 13.6 million" in space.__doc__ and 8e6 < most < 13.7e6
    assert 0.03 < sum(map(space.no_larger_than_mobilenet, samples(2000))) / 2000 < 0.1
    assert space.no_larger_than_mobilenet(space.BASELINE)


def test_the_smallest_network_is_one_of_the_space():
    each = [min(values, key=lambda value, label=label: space.count_parameters({**space.BASELINE, label: value}))
            for label, values in CHOICES.items()]
    assert space.count_parameters(dict(zip(CHOICES, each, strict=True))) == space.smallest().parameters


def test_a_network_in_which_everything_differs_trains(images):
    network = space.build(BIG, 10)
    nn.functional.cross_entropy(network(images), torch.tensor([1, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


# ---- larger images


@pytest.mark.parametrize(("side", "sizes"), [
    (32, [32, 32, 16, 16, 8, 8, 4, 4, 4, 4, 4, 4, 2]), (48, [24, 24, 12, 12, 6, 6, 3, 3, 3, 3, 3, 3, 2]),
    (224, [28, 28, 14, 14, 7, 7, 4, 4, 4, 4, 4, 4, 2])])
def test_sizes_of_the_blocks_are_those_of_the_maps(side, sizes):
    assert [block.size for block in blocks_of(side)] == sizes and blocks_of(side)[-1].size_out == 2
    found = []
    with torch.device("meta"):
        network = space.build(space.BASELINE, 10, side).eval()
        for layer in network.layers:
            layer.register_forward_hook(lambda module, args, output: found.append((args[0].shape[2], output.shape[2])))
        network(torch.zeros(2, 3, side, side))
    assert found == [(block.size, block.size_out) for block in blocks_of(side)]


@pytest.mark.parametrize("side", SIZES)
def test_costs_at_every_side_are_those_of_the_formula(side):
    with torch.device("meta"):
        images = torch.zeros(2, 3, side, side)
        for sample in [space.BASELINE, BIG, *samples(30, seed=side)]:
            network = space.build(sample, 10, side).eval()
            price = space.cost(sample, 10, side)
            assert price == (sum(p.numel() for p in network.parameters()), macs(network, images)), sample
            assert price == (space.count_parameters(sample, 10, side), space.count_macs(sample, 10, side))


def test_larger_images_cost_every_network_the_same_stem():
    """So that what is no larger than MobileNet at 32 is no larger at any side."""
    for side, more in ((48, 0), (64, 0), (96, 9280), (128, 9280), (192, 2 * 9280), (224, 2 * 9280)):
        for sample in [space.BASELINE, BIG, *samples(20)]:
            assert space.count_parameters(sample, 10, side) == space.count_parameters(sample) + more
        assert space.smallest(10, side).parameters == space.smallest().parameters + more
    with torch.device("meta"):
        shapes = [[p.shape for p in space.build(BIG, 10, side).layers.parameters()] for side in SIZES]
    assert all(each == shapes[0] for each in shapes)


def test_the_fewest_multiply_adds_at_another_side():
    each = {label: min(values, key=lambda value, label=label: space.count_macs(
        {**space.BASELINE, label: value}, 10, 224)) for label, values in CHOICES.items()}
    assert space.count_macs(each, 10, 224) == space.smallest(10, 224).macs


@pytest.mark.parametrize("side", [48, 64, 96, 224])
def test_baseline_for_larger_images_is_mobilenet(side):
    torch.manual_seed(0)
    plain, sampled = build_model("mobilenet", 7, side), space.build(space.BASELINE, 7, side)
    sampled.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, side, side)
    assert torch.equal(sampled(images), plain(images))


@pytest.mark.parametrize("side", [48, 224])
def test_a_network_for_larger_images_trains(side):
    for sample in (BIG, *samples(2, seed=side)):
        network = space.build(sample, 10, side)
        nn.functional.cross_entropy(network(torch.randn(3, 3, side, side)), torch.tensor([1, 2, 3])).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_a_skip_between_odd_sizes_averages_what_is_there():
    """From 14 and 7 to 4: the pixels of the last row and column are fewer."""
    block = blocks_of(224)[6]
    for source, size, factor in ((5, 7, 2), (3, 14, 4)):
        skip, x = build_skip(block, source), torch.randn(2, 3, size, size, dtype=torch.float64)
        found = skip.pool(x)
        for row, column in itertools.product(range(4), repeat=2):
            window = x[:, :, factor * row : factor * (row + 1), factor * column : factor * (column + 1)]
            torch.testing.assert_close(found[:, :, row, column], window.mean((2, 3)))
        assert found.shape == (2, 3, 4, 4)


@pytest.mark.parametrize("side", [31, 0, "64"])
def test_another_side_is_refused(side):
    for function in (space.build, space.cost, space.count_parameters, space.count_macs):
        with pytest.raises(ValueError, match="must be one of 32, 48, 64, 96, 128, 192, 224"):
            function(space.BASELINE, 10, side)
    with pytest.raises(ValueError, match="side = "):
        space.smallest(10, side)


# ---- the space as NNI sees it


def test_the_shipped_search_space_is_the_derived_one():
    text = (ROOT / "search_space_classic_nas.json").read_text()
    assert json.loads(text) == space.search_space() and list(json.loads(text)) == list(CHOICES)
    assert list(CHOICES) == sorted(CHOICES)  # the web UI keeps the order of the alphabet


def test_nni_has_the_same_labels_and_choices(nni_space):
    simple = nni_space.simplify()
    assert sorted(simple) == sorted(CHOICES)
    for label, mutable in simple.items():
        if label.endswith("op"):
            assert mutable.values == CHOICES[label]
        else:
            assert mutable.n_chosen == 1 and mutable.values == list(range(len(CHOICES[label])))


def test_nni_freezes_to_the_network_that_build_makes(nni_space, images):
    from models.mobilenet_space.nni_space import nni_sample

    for sample in [space.BASELINE, BIG, *samples(2, seed=2)]:
        frozen, built = nni_space.freeze(nni_sample(sample)), space.build(sample, 10)
        assert type(frozen) is type(built) and frozen.state_dict().keys() == built.state_dict().keys()
        built.load_state_dict(frozen.state_dict())
        assert torch.equal(frozen(images), built(images))
        assert sum(p.numel() for p in frozen.parameters()) == space.count_parameters(sample)


@pytest.mark.parametrize("side", [48, 224])
def test_nni_freezes_to_the_network_for_larger_images(side):
    pytest.importorskip("pytorch_lightning")
    from models.mobilenet_space.nni_space import nni_sample

    nni_space, images = MobileNetSpace(10, side), torch.randn(2, 3, side, side)
    for sample in [BIG, *samples(1, seed=2)]:
        frozen, built = nni_space.freeze(nni_sample(sample)), space.build(sample, 10, side)
        built.load_state_dict(frozen.state_dict())
        assert torch.equal(frozen(images), built(images))
        assert sum(p.numel() for p in frozen.parameters()) == space.count_parameters(sample, 10, side)


def test_nni_builds_a_sample_in_its_context(nni_space):
    from nni.nas.space import model_context

    from models.mobilenet_space.nni_space import nni_sample

    with model_context(nni_sample(BIG)):
        fixed = MobileNetSpace(10)
    assert sum(p.numel() for p in fixed.parameters()) == space.count_parameters(BIG)


def test_nni_refuses_a_sample_of_another_space(nni_space):
    from nni.mutable import SampleValidationError

    with pytest.raises(SampleValidationError):
        nni_space.freeze({"block01_op": "dw9"})


def test_the_space_is_there_without_nni():
    code = "import sys; from models.mobilenet_space.space import build; sys.exit('nni' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    with pytest.raises(AttributeError, match="MobileNetspace"):
        space.MobileNetspace  # noqa: B018


# ---- bad input


@pytest.mark.parametrize(("change", "words"), [
    ({"block99_op": "dw3"}, ["block99_op", "no such label"]),
    ({"block1_op": "dw3"}, ["block1_op", "did you mean"]),
    ({"lr": 0.1}, ["lr", "allowed", "block01_op"]),
    ({"block01_op": "dw9"}, ["block01_op = 'dw9'", "dw3, dw5"]),
    ({"block01_op": "identity"}, ["block01_op = 'identity'", "one of"]),  # its channels change
    ({"block05_skip": "block04"}, ["block05_skip = 'block04'", "none, block03"]),  # its own input
    ({"block01_op": 3}, ["block01_op = 3"]),
    ({"block01_op": ["dw3"]}, ["block01_op = ['dw3']"]),
    ({"block01_op": None}, ["block01_op = None"]),
])
def test_a_bad_sample_is_named_in_one_line(change, words):
    with pytest.raises(ValueError) as caught:
        space.build({**space.BASELINE, **change}, 10)
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(("sample", "words"), [
    ({}, "block01_op is missing"), ([], "labels and choices"), ("dw3", "labels and choices"), (None, "labels"),
    ({key: value for key, value in space.BASELINE.items() if key != "block07_skip"}, "block07_skip is missing")])
def test_what_is_no_sample_is_refused(sample, words):
    for function in (space.check_sample, space.count_parameters, space.count_macs):
        with pytest.raises(ValueError, match=words):
            function(sample)
