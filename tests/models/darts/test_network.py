"""The discrete network: exact sizes, shapes, gradients, plain references for its pieces, drop path, auxiliary head."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmarks.counting import Launches
from models.darts.cells import CellSkeleton, StackedCells
from models.darts.depthwise import DepthwiseConv2d
from models.darts.genotype import CHOSEN, N_NODES, OPERATIONS, Genotype
from models.darts.genotype_files import load_genotype
from models.darts.network import DartsNetwork, Sum, edge_stride
from models.darts.operations import DropPath, FactorizedReduce, ReluConvBn, Zero, drop_path, operation


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def one_operation(name):
    """The genotype with the same operation everywhere, on the two sources just before."""
    cell = [[(name, node), (name, node + 1)] for node in range(N_NODES)]
    return Genotype(cell, cell)


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def network(genotype="DARTS_V2", channels=4, n_classes=10, n_layers=3, **kwargs):
    genotype = load_genotype(genotype) if isinstance(genotype, str) else genotype
    return DartsNetwork(genotype, 3, channels, n_classes, n_layers, **kwargs)


# ---- sizes


@pytest.mark.parametrize(("name", "count"), [("DARTS_V1", 3_169_414), ("DARTS_V2", 3_349_342), ("PC_DARTS", 3_634_678)])
def test_the_published_sizes(name, count):
    """36 channels, 20 cells, 10 classes."""
    head = 4 * 144 * 128 + 2 * 128 + 128 * 2 * 2 * 768 + 2 * 768 + 768 * 10 + 10
    with torch.device("meta"):
        assert parameters(network(name, 36, 10, 20)) == count
        assert parameters(network(name, 36, 10, 20, auxiliary=True)) == count + head


def test_the_published_size_for_imagenet():
    """48 channels, 14 cells, 1000 classes: 4.719 million in the README of quark0/darts."""
    with torch.device("meta"):
        assert parameters(network("DARTS_V2", 48, 1000, 14, side=224)) == 4_718_752


@pytest.mark.parametrize("n_layers", range(1, 10))
def test_reductions_at_one_and_two_thirds(n_layers):
    stacked = network(one_operation("skip_connect"), 2, 3, n_layers)
    halvings = {n_layers // 3, 2 * n_layers // 3}
    shapes, expected, channels, side = [], [], 2, 32
    for layer, cell in enumerate(stacked.cells):
        cell.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape)))
        if layer in halvings:
            channels, side = 2 * channels, side // 2
        expected.append((2, 4 * channels, side, side))
    assert stacked(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    assert shapes == expected


@pytest.mark.parametrize("multiplier", [1, 2, 3])
def test_the_stem_has_its_multiple_of_the_channels(multiplier):
    stacked = network(n_layers=2, stem_multiplier=multiplier)
    assert stacked.stem[0].weight.shape == (4 * multiplier, 3, 3, 3) and stacked.stem[1].affine
    assert stacked(torch.randn(2, 3, 16, 16)).shape == (2, 10)


# ---- larger pictures

# side -> convolutions of the stem as (c_in, c_out), of 6 channels; that of stem1; sides of s0 and s1
STEMS = {32: ([(3, 18)], [], 32, 32), 48: ([(3, 6)], [], 24, 24), 64: ([(3, 6)], [], 32, 32),
         96: ([(3, 3), (3, 6)], [], 24, 24), 128: ([(3, 3), (3, 6)], [], 32, 32),
         192: ([(3, 3), (3, 6)], [(6, 6)], 48, 24), 224: ([(3, 3), (3, 6)], [(6, 6)], 56, 28)}


@pytest.mark.parametrize("side", STEMS)
def test_the_stems_of_every_size(side):
    stem, stem1, large, small = STEMS[side]
    with torch.device("meta"):
        stacked, seen, shapes = network(channels=6, n_layers=4, side=side).eval(), [], []
        stacked.cells[0].register_forward_hook(lambda module, args, output: seen.extend(args))
        for cell in stacked.cells:
            cell.register_forward_hook(lambda module, args, output: shapes.append(output.shape[2]))
        assert stacked(torch.zeros(2, 3, side, side)).shape == (2, 10)
    channels = (stem1 or stem)[-1][1]
    assert [tuple(each.shape) for each in seen] == [(2, stem[-1][1], large, large), (2, channels, small, small)]
    assert (seen[0] is seen[1]) == (not stem1) and small <= 32
    assert shapes == [small, small // 2, small // 4, small // 4]
    for made, expected in ((stacked.stem, stem), (stacked.stem1 or [], stem1)):
        convolutions = [module for module in made if isinstance(module, nn.Conv2d)]
        assert [(module.in_channels, module.out_channels) for module in convolutions] == expected
        assert {module.stride for module in convolutions} <= {(1, 1) if side == 32 else (2, 2)}
    assert isinstance(stacked.cells[0].preprocess0, FactorizedReduce if stem1 else ReluConvBn)


def test_at_32_nothing_is_new():
    torch.manual_seed(1)
    plain = network(auxiliary=True)
    torch.manual_seed(1)
    found = network(auxiliary=True, side=32)
    assert str(found) == str(plain) and not any(key.startswith("stem1") for key in plain.state_dict())
    assert all(torch.equal(found.state_dict()[key], value) for key, value in plain.state_dict().items())


def test_odd_channels_of_larger_pictures():
    assert network(channels=3, side=224)(torch.randn(2, 3, 224, 224)).shape == (2, 10)
    assert network(channels=5, side=96)(torch.randn(2, 3, 96, 96)).shape == (2, 10)


@pytest.mark.parametrize("side", [40, 0, 256])
def test_a_size_that_there_is_not(side):
    with pytest.raises(ValueError, match=f"side = {side}: must be one of 32, 48, 64, 96, 128, 192, 224"):
        network(side=side)


@pytest.mark.parametrize("side", [48, 64, 96, 224])
def test_every_parameter_of_a_network_of_larger_pictures_gets_a_gradient(side):
    stacked, x = network(n_layers=4, n_classes=7, auxiliary=True, side=side), torch.randn(3, 3, side, side)
    logits, auxiliary_logits = stacked(x)
    assert logits.shape == auxiliary_logits.shape == (3, 7)
    (logits.square().sum() + auxiliary_logits.square().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in stacked.parameters())


# ---- forward and backward


@pytest.mark.parametrize("genotype", ["DARTS_V1", "DARTS_V2", "PC_DARTS", *(f"random:{seed}" for seed in range(6))])
def test_every_parameter_gets_a_gradient(genotype):
    stacked, x = network(genotype, 4, 7, 4, auxiliary=True), torch.randn(4, 3, 32, 32)
    stacked.drop_path_probability(0.1)
    logits, auxiliary_logits = stacked(x)
    assert logits.shape == auxiliary_logits.shape == (4, 7) and logits.isfinite().all()
    y = torch.tensor([0, 1, 5, 6])
    (functional.cross_entropy(logits, y) + 0.4 * functional.cross_entropy(auxiliary_logits, y)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in stacked.parameters())
    assert stacked.eval()(x).shape == (4, 7)  # one classifier only


def test_gray_images_and_odd_channels():
    stacked = DartsNetwork(load_genotype("random:1"), 1, 5, 3, 3)
    stacked(torch.randn(2, 1, 16, 16)).sum().backward()
    assert stacked(torch.randn(2, 1, 16, 16)).shape == (2, 3)


@pytest.mark.parametrize("genotype", ["DARTS_V2", "PC_DARTS", "random:3"])
@pytest.mark.parametrize("training", [True, False])
def test_channels_last_is_the_same_network(genotype, training):
    stacked, x = network(genotype, 6).double().train(training), torch.randn(3, 3, 16, 16, dtype=torch.float64)
    expected = stacked(x)
    expected_grads = torch.autograd.grad(expected.square().sum(), list(stacked.parameters()))
    stacked, layouts = stacked.to(memory_format=torch.channels_last), []
    for cell in stacked.cells:
        cell.register_forward_hook(
            lambda module, args, output: layouts.append(output.is_contiguous(memory_format=torch.channels_last)))
    logits = stacked(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, expected)
    for grad, other in zip(torch.autograd.grad(logits.square().sum(), list(stacked.parameters())), expected_grads,
                           strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-7, atol=1e-9)
    assert layouts == [True] * 3


# ---- plain references


def plain_norm(x, norm):
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    y = (x - mean) / (var + 1e-5).sqrt()
    return y if norm.weight is None else y * norm.weight[:, None, None] + norm.bias[:, None, None]


def plain_separable(x, module, stride, dilation=1):
    _, depthwise, pointwise, norm = module
    padding = dilation * (depthwise.weight.shape[-1] - 1) // 2
    x = functional.conv2d(x.clamp(min=0), depthwise.weight, None, stride, padding, dilation, x.shape[1])
    return plain_norm(torch.einsum("nchw,oc->nohw", x, pointwise.weight[:, :, 0, 0]), norm)


def windows(x, stride, filling):
    """(N, C, H, W) -> (N, C, H / stride, W / stride, 9): the pixels around each."""
    padded = functional.pad(x, (1, 1, 1, 1), value=filling)
    return padded.unfold(2, 3, stride).unfold(3, 3, stride).flatten(4)


def plain(name, x, module, stride, affine):
    """A literal transcription of each operation."""
    if name == "none":
        return torch.zeros_like(x)[:, :, ::stride, ::stride]
    if name == "max_pool_3x3":
        pooled = windows(x, stride, -torch.inf).amax(-1)
    elif name == "avg_pool_3x3":  # over the pixels that are there
        pooled = windows(x, stride, 0).sum(-1) / windows(torch.ones_like(x), stride, 0).sum(-1)
    elif name == "skip_connect":
        return x if stride == 1 else plain_reduce(x, module)
    elif name.startswith("dil"):
        return plain_separable(x, module, stride, 2)
    else:
        return plain_separable(plain_separable(x, list(module)[:4], stride), list(module)[4:], 1)
    return pooled if affine else plain_norm(pooled, module[1])


def plain_reduce(x, module):
    x = x.clamp(min=0)
    shifted = functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    even = functional.conv2d(x, module.even.weight, stride=2)
    odd = functional.conv2d(shifted, module.odd.weight, stride=2)
    return plain_norm(torch.cat([even, odd], 1), module.norm)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_its_formula(name, stride, affine):
    module, x = operation(name, 6, stride, affine).double(), torch.randn(3, 6, 8, 8, dtype=torch.float64)
    for p in module.parameters():
        nn.init.normal_(p)
    x = x.requires_grad_()
    y, expected = module(x), plain(name, x, module, stride, affine)
    assert y.shape == (3, 6, 8 // stride, 8 // stride)
    torch.testing.assert_close(y, expected)
    if name == "none":
        assert not y.any() and not y.requires_grad
        return
    direction = torch.randn_like(y)
    inputs = [x, *module.parameters()]
    grads, plain_grads = (torch.autograd.grad((out * direction).sum(), inputs) for out in (y, expected))
    for grad, other in zip(grads, plain_grads, strict=True):
        torch.testing.assert_close(grad, other)
    assert (sum(p.numel() for p in module.parameters() if p.ndim == 1) > 0) == (affine and has_norm(name, stride))
    assert any(isinstance(m, nn.BatchNorm2d) for m in module.modules()) == (has_norm(name, stride) or
                                                                            (not affine and "pool" in name))


def has_norm(name, stride):
    return "conv" in name or (name == "skip_connect" and stride == 2)


def test_depthwise_convolutions_are_the_fast_ones():
    for name in CHOSEN[3:]:
        assert isinstance(operation(name, 4, 1, True)[1], DepthwiseConv2d)


def plain_cell(cell, genotype_cell, s0, s1, reduction, reduction_p):
    """Equations 1 and 2 of the paper, on the operations of `cell` one by one."""
    states = [plain_reduce(s0, cell.preprocess0) if reduction_p else plain_conv(s0, cell.preprocess0),
              plain_conv(s1, cell.preprocess1)]
    for node, pair in zip(cell.nodes, genotype_cell, strict=True):
        maps = []
        for edge, module in zip(pair, node.edges, strict=True):
            stride = 2 if reduction and edge.source in (0, 1) else 1
            module = module[0] if isinstance(module, nn.Sequential) and isinstance(module[-1], DropPath) else module
            maps.append(plain(edge.operation, states[edge.source], module, stride, True))
        states.append(maps[0] + maps[1])
    return torch.cat(states[2:], 1)


def plain_conv(x, module):
    return plain_norm(functional.conv2d(x.clamp(min=0), module[1].weight), module[2])


@pytest.mark.parametrize("genotype", ["DARTS_V1", "DARTS_V2", "PC_DARTS", "random:5"])
def test_a_network_is_its_formulas(genotype):
    stacked, x = network(genotype, 4, 5, 5).double(), torch.randn(3, 3, 16, 16, dtype=torch.float64)
    s0 = s1 = plain_norm(functional.conv2d(x, stacked.stem[0].weight, padding=1), stacked.stem[1])
    for layer, cell in enumerate(stacked.cells):
        reduction, reduction_p = layer in (1, 3), layer in (2, 4)
        pairs = stacked.genotype.reduction if reduction else stacked.genotype.normal
        s0, s1 = s1, plain_cell(cell, pairs, s0, s1, reduction, reduction_p)
    linear = stacked.head[-1]
    torch.testing.assert_close(stacked(x), s1.mean((2, 3)) @ linear.weight.T + linear.bias)


@pytest.mark.parametrize("side", [48, 96, 224])
def test_a_network_of_larger_pictures_is_its_formulas(side):
    """Its gradients too, though maps are rectified in place, once for all that read them."""
    stacked = network("DARTS_V2", 4, 5, 3, side=side).double()
    x = torch.randn(2, 3, side, side, dtype=torch.float64)

    def halved(x, conv, norm):
        return plain_norm(functional.conv2d(x, conv.weight, stride=2, padding=1), norm)

    def formula():
        s1 = halved(x, *stacked.stem[:2])
        if side > 64:
            s1 = halved(s1.clamp(min=0), *stacked.stem[3:])
        s0, s1 = s1, halved(s1.clamp(min=0), *stacked.stem1) if side > 128 else s1
        for layer, cell in enumerate(stacked.cells):
            pairs = stacked.genotype.reduction if layer else stacked.genotype.normal
            s0, s1 = s1, plain_cell(cell, pairs, s0, s1, layer > 0, layer == 2 or (layer == 0 and side > 128))
        linear = stacked.head[-1]
        return s1.mean((2, 3)) @ linear.weight.T + linear.bias

    results = [[logits, *torch.autograd.grad(logits.square().sum(), list(stacked.parameters()))]
               for logits in (stacked(x), formula())]
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-9)


def test_a_stride_only_for_what_comes_from_the_cells_before():
    assert [edge_stride(source, True) for source in range(5)] == [2, 2, 1, 1, 1]
    assert {edge_stride(source, False) for source in range(5)} == {1}


# ---- the auxiliary head


def test_the_auxiliary_head_reads_the_cell_at_two_thirds_in_training_only():
    stacked, x = network(n_layers=6, auxiliary=True), torch.randn(4, 3, 32, 32)
    seen = []
    stacked.auxiliary.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    maps = []
    stacked.cells[4].register_forward_hook(lambda module, args, output: maps.append(output))
    _, auxiliary_logits = stacked(x)
    [(read, output)] = seen
    assert read is maps[0] and read.shape == (4, 64, 8, 8) and output is auxiliary_logits
    # The head did not change what the next cell reads, which has been rectified since.
    assert torch.equal(read, stacked_map(stacked, x, 4).relu())
    stacked.eval()
    assert isinstance(stacked(x), torch.Tensor) and len(seen) == 1


def stacked_map(stacked, x, layer):
    s0 = s1 = stacked.stem(x)
    for cell in stacked.cells[:layer + 1]:
        s0, s1 = s1, cell(s0.relu(), s1.relu())
    return s1


def test_the_auxiliary_head_is_its_formula():
    head, x = network(n_layers=3, auxiliary=True).double().auxiliary, torch.randn(4, 64, 8, 8, dtype=torch.float64)
    _, _, conv1, norm1, _, conv2, norm2, _, _, linear = head
    rectified = x.clamp(min=0)
    pooled = torch.stack([torch.stack([rectified[:, :, i:i + 5, j:j + 5].mean((2, 3)) for j in (0, 3)], -1)
                          for i in (0, 3)], -2)
    h = plain_norm(functional.conv2d(pooled, conv1.weight), norm1).clamp(min=0)
    h = plain_norm(functional.conv2d(h, conv2.weight), norm2).clamp(min=0).flatten(1)
    torch.testing.assert_close(head(x), h @ linear.weight.T + linear.bias)


@pytest.mark.parametrize(("side", "size", "stride"), [(32, 8, 3), (48, 6, 1), (128, 8, 3), (192, 6, 1), (224, 7, 2)])
def test_the_auxiliary_head_pools_to_2x2_at_every_size(side, size, stride):
    with torch.device("meta"):
        stacked, seen = network(n_layers=6, auxiliary=True, side=side), []
        stacked.auxiliary[1].register_forward_hook(lambda module, args, output: seen.extend([args[0], output]))
        stacked(torch.zeros(2, 3, side, side))
    assert [each.shape[2:] for each in seen] == [(size, size), (2, 2)]
    assert stacked.auxiliary[1].kernel_size == 5 and stacked.auxiliary[1].stride == stride


# ---- drop path


def test_drop_path_keeps_the_expectation_and_drops_whole_samples():
    drop, p, samples = DropPath(), 0.3, 40_000
    drop.set_probability(p)
    x = torch.randn(1, 2, 2, 2, dtype=torch.float64).expand(samples, 2, 2, 2)
    y = drop(x.clone())
    kept = y.flatten(1).ne(0)
    assert torch.equal(kept.all(1), kept.any(1))  # a sample as a whole
    torch.testing.assert_close(y[kept.all(1)], x[kept.all(1)] / (1 - p), rtol=1e-6, atol=0)
    share = kept.all(1).double().mean().item()
    assert abs(share - (1 - p)) < 4 * (p * (1 - p) / samples) ** 0.5  # four standard deviations
    torch.testing.assert_close(y.mean(0), x[0], rtol=0.02, atol=0)


def test_drop_path_gradient_is_its_mask():
    drop = DropPath()
    drop.set_probability(0.5)
    x = torch.ones(64, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    y = drop(x * 1)
    y.sum().backward()
    assert set(y.unique().tolist()) == {0.0, 2.0} and torch.equal(x.grad, y)


def test_drop_path_does_nothing_in_eval_or_at_0():
    drop, x = DropPath(), torch.randn(5, 3, 2, 2)
    state = torch.get_rng_state()
    assert drop(x) is x
    drop.set_probability(0.5)
    assert drop.eval()(x) is x
    drop.set_probability(0)
    assert drop.train()(x) is x and torch.equal(torch.get_rng_state(), state)


def test_a_probability_that_will_rise_from_0_draws_masks_of_ones():
    drop, x = DropPath(), torch.randn(5, 3, 2, 2)
    drop.set_probability(0, rising=True)
    active, keep, state = drop.active, drop.keep, torch.get_rng_state()
    y = drop(x.clone())
    assert torch.equal(y, x) and not torch.equal(torch.get_rng_state(), state)
    drop.set_probability(0.9, rising=True)
    assert drop.active == active and drop.keep is keep  # nothing but the number in it has changed
    assert not torch.equal(drop(x.clone()), x)
    stacked, images = network(), torch.randn(2, 3, 16, 16)
    plain = stacked(images)
    stacked.drop_path_probability(0.0, rising=True)
    assert torch.equal(stacked(images), plain)


def test_drop_path_in_half_precision():
    drop = DropPath()
    drop.set_probability(0.2)
    x = torch.ones(1000, 1, 1, 1, dtype=torch.bfloat16)
    with Launches() as launches:
        y = drop(x)
    assert y is x and y.dtype == torch.bfloat16 and set(y.unique().tolist()) == {0.0, 1.25}
    assert launches.of == {"bernoulli": 1, "div": 1, "mul_": 1}, launches.of


@pytest.mark.parametrize("p", [-0.1, 1, 1.5, float("nan")])
def test_a_bad_probability_is_refused(p):
    with pytest.raises(ValueError, match=r"drop path probability = .*at least 0 and less than 1"):
        network().drop_path_probability(p)


def test_no_identity_is_ever_dropped():
    assert isinstance(drop_path(operation("skip_connect", 4, 1, True)), nn.Identity)
    assert isinstance(drop_path(operation("skip_connect", 4, 2, True))[-1], DropPath)
    stacked = network("DARTS_V2", n_layers=6)
    for cell, reduction in zip(stacked.cells, [False, False, True, False, True, False], strict=True):
        pairs = stacked.genotype.reduction if reduction else stacked.genotype.normal
        for node, pair in zip(cell.nodes, pairs, strict=True):
            for edge, module in zip(pair, node.edges, strict=True):
                identity = edge.operation == "skip_connect" and not (reduction and edge.source < 2)
                assert identity == isinstance(module, nn.Identity)
                assert identity != any(isinstance(m, DropPath) for m in module.modules())
    stacked = network(one_operation("skip_connect"), n_layers=6).double()
    x = torch.randn(8, 3, 16, 16, dtype=torch.float64)
    before = stacked_map(stacked, x, 1)
    stacked.drop_path_probability(0.9)
    assert torch.equal(stacked_map(stacked, x, 1), before)  # two normal cells of identities
    assert not torch.equal(stacked_map(stacked, x, 2), before[:, :, ::2, ::2])


def test_drop_path_of_a_node_is_per_sample_and_independent_of_its_other_edge():
    class Add(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, x):
            return torch.full_like(x, self.value)

    node, x = Sum([Add(1.0), Add(2.0)], [0, 2]), torch.zeros(4000, 2, 3, 3)
    for module in node.modules():
        if isinstance(module, DropPath):
            module.set_probability(0.5)
    y = node([x, None, x])
    values, counts = y[:, 0, 0, 0].unique(return_counts=True)
    assert values.tolist() == [0.0, 2.0, 4.0, 6.0] and counts.min() > 850  # 1000 each: none, first, second, both
    assert torch.equal(y, y[:, :1, :1, :1].expand_as(y))


def test_the_schedule_reaches_every_path_and_is_no_part_of_the_state():
    stacked = network()
    paths = [module for module in stacked.modules() if isinstance(module, DropPath)]
    assert len(paths) == 3 * 8 - 2 - 2 * 3  # V2: two identities in the normal cell, three in each reduction cell
    for p in (0.2, 0.0, 0.15):
        stacked.drop_path_probability(p)
        assert all(path.active == (p > 0) and path.keep.item() == pytest.approx(1 - p) for path in paths)
    assert stacked.state_dict().keys() == network().state_dict().keys()
    assert not any("keep" in key for key in stacked.state_dict())
    network(n_layers=3).load_state_dict(stacked.state_dict())


# ---- the skeleton on its own


def test_a_node_may_be_anything_that_takes_the_states():
    class Last(nn.Module):
        def forward(self, states):
            return states[-1] + len(states)

    def make_cell(c_pp, c_p, c, reduction_p, reduction):
        asked.append((c_pp, c_p, c, reduction_p, reduction))
        return CellSkeleton(c_pp, c_p, c, False, [Last(), Last(), Last()], affine=False)

    asked = []
    stacked = StackedCells(make_cell, 3, 4, 10, 4, stem_multiplier=2)
    assert asked == [(8, 8, 4, False, False), (8, 12, 8, False, True), (12, 24, 16, True, True),
                     (24, 48, 16, True, False)]
    cell = stacked.cells[0]
    s0, s1 = torch.rand(2, 8, 6, 6), torch.rand(2, 8, 6, 6)
    state = cell.preprocess1(s1)
    torch.testing.assert_close(cell(s0, s1), torch.cat([state + 2, state + 5, state + 9], 1))
    assert isinstance(cell.preprocess0, ReluConvBn) and not cell.preprocess0[2].affine
    assert isinstance(CellSkeleton(8, 8, 4, True, [], True).preprocess0, FactorizedReduce)


def test_zero_keeps_the_layout():
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    assert Zero(2)(x).is_contiguous(memory_format=torch.channels_last)
