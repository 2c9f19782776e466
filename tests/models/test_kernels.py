"""The kernels for GPUs, by Triton's interpreter on a CPU, against PyTorch's own operations in float64."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import build_model, kernels
from models.blocks import BatchNorm2d
from models.darts import joined
from models.darts.genotype import Edge, Genotype
from models.darts.genotype_files import load_genotype
from models.darts.network import DartsNetwork
from models.darts.operations import shuffled
from models.darts.supernet import Supernet
from models.kernels import branches
from training.execution import Execution
from training.hardware import true_fp32
from training.loop import build_optimizer, set_seed, train_step

pytest.importorskip("triton", reason="Triton comes with PyTorch's CUDA builds")
from models.kernels import sums

EXACT = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 6e-3}
TYPES = pytest.mark.parametrize("dtype", [torch.float64, *(pytest.param(dtype, marks=pytest.mark.slow)
                                                           for dtype in (torch.float32, torch.bfloat16))], ids=str)


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setenv(kernels.CHOICE, "cpu")


def map_of(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype).to(memory_format=torch.channels_last)


def agree(ours, theirs, *inputs: Tensor) -> None:
    """Values and all gradients, theirs in float64."""
    tolerance = EXACT[inputs[0].dtype]
    mine, exact = ([tensor.detach().to(dtype or tensor.dtype).requires_grad_() for tensor in inputs]
                   for dtype in (None, torch.float64))
    found, expected = ours(*mine), theirs(*exact)
    slope = torch.randn(expected.shape, dtype=torch.float64).to(found.dtype)
    assert found.shape == expected.shape
    assert found.dtype == inputs[0].dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    for a, b in zip([found, *torch.autograd.grad(found, mine, slope)],
                    [expected, *torch.autograd.grad(expected, exact, slope.double())], strict=True):
        assert float((a.detach().double() - b.detach()).norm()) <= tolerance * float(b.detach().norm())


# ---- each kernel


@TYPES
@pytest.mark.parametrize(("n", "c", "h", "w", "groups", "kernel", "stride", "dilation"), [
    (2, 16, 8, 8, 3, 3, 1, 1), (2, 4, 7, 9, 2, 5, 1, 2), (1, 36, 6, 6, 1, 3, 2, 1), (2, 4, 8, 8, 2, 5, 2, 2),
    (1, 8, 5, 7, 1, 3, 2, 2), (1, 6, 8, 8, 1, 7, 1, 1)])
def test_depthwise(dtype, n, c, h, w, groups, kernel, stride, dilation):
    from models.kernels.depthwise import rectified_depthwise

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        x = x.relu().repeat(1, groups, 1, 1)
        return torch.conv2d(x, weight, None, stride, dilation * (kernel // 2), dilation, groups * c)

    agree(lambda x, weight: rectified_depthwise(x, weight, stride, dilation), plain, map_of(n, c, h, w, dtype=dtype),
          torch.randn(groups * c, 1, kernel, kernel, dtype=dtype))


def test_a_relu_keeps_what_is_no_number():
    """Else a training that has diverged would not be seen to."""
    from models.kernels.depthwise import rectified_depthwise

    x, weight = map_of(1, 2, 5, 5), torch.randn(2, 1, 3, 3, dtype=torch.float64)
    x[0, 0, 2, 2] = torch.nan
    found = rectified_depthwise(x.requires_grad_(), weight)
    expected = torch.conv2d(x.relu(), weight, padding=1, groups=2)
    assert found.isnan().equal(expected.isnan()) and found.isnan().sum() == 9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)  # bf16 is beyond the interpreter here
@pytest.mark.parametrize(("c", "groups"), [(16, 3), (4, 4), (36, 2), (64, 2), (72, 3), (144, 2), (8, 1)])
@true_fp32()
def test_pointwise(dtype, c, groups):
    from models.kernels.pointwise import pointwise

    agree(pointwise, lambda x, weight: torch.conv2d(x, weight, groups=groups),
          map_of(2, groups * c, 5, 9, dtype=dtype), torch.randn(groups * c, c, 1, 1, dtype=dtype))


@pytest.mark.parametrize(("n", "c", "groups", "h", "w"), [(2, 8, 2, 16, 16), (3, 36, 3, 9, 7), (1, 72, 2, 3, 3)])
def test_a_norm_of_what_a_pointwise_convolution_tells_of_its_parts(n, c, groups, h, w):
    from models.kernels.batch_norm import normalized
    from models.kernels.pointwise import pointwise_with_parts

    x, weight = map_of(n, groups * c, h, w, dtype=torch.float32) + 3, torch.randn(groups * c, c, 1, 1)
    y, parts = pointwise_with_parts(x, weight)
    assert len(parts) == -(-n * h * w // kernels.PART)
    torch.testing.assert_close(normalized([y], parts=parts), normalized([y]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(normalized([y], parts=parts), F.batch_norm(y, None, None, training=True), rtol=1e-5,
                               atol=1e-5)


@TYPES
@pytest.mark.parametrize(("c", "count"), [(8, 3), (36, 2), (80, 1)])
def test_copies_for_all_edges(dtype, c, count):
    from models.kernels.copies import rectified_copies

    agree(lambda x: rectified_copies(x, count), lambda x: x.relu().repeat(1, count, 1, 1),
          map_of(2, c, 5, 9, dtype=dtype))


@TYPES
@pytest.mark.parametrize(("c", "count"), [(8, 4), (36, 3), (80, 1)])
def test_maps_side_by_side(dtype, c, count):
    from models.kernels.copies import joined

    agree(lambda *maps: joined(maps), lambda *maps: torch.cat(maps, 1),
          *(map_of(2, c, 5, 9, dtype=dtype) for _ in range(count)))


@TYPES
@pytest.mark.parametrize(("c", "groups", "count"), [(16, 4, 3), (12, 2, 1), (80, 5, 2), (6, 1, 2)])
def test_channels_that_pass_by(dtype, c, groups, count):
    from models.kernels.passing import interleaved

    def plain(total, shares, *maps):
        by = sum(share * map[:, c // groups :] for share, map in zip(shares, maps, strict=True))
        return shuffled(torch.cat([total, by], 1), groups)

    agree(interleaved, plain, map_of(2, c // groups, 9, 17, dtype=dtype), torch.rand(count, dtype=dtype),
          *(map_of(2, c, 9, 17, dtype=dtype) for _ in range(count)))


@TYPES
@pytest.mark.parametrize(("n", "c", "h", "w", "count", "weighed"), [
    (3, 16, 8, 9, 1, False), (2, 36, 8, 8, 4, True), (2, 48, 4, 4, 2, False), (2, 8, 16, 16, 5, True)])
def test_weighed_sums_of_norms(dtype, n, c, h, w, count, weighed):
    from models.kernels.batch_norm import normalized

    def plain(*inputs: Tensor) -> Tensor:
        maps, weights = inputs[:count], inputs[count] if weighed else [None] * count
        return sum(F.batch_norm(x, None, None, weight, None, training=True)
                   for x, weight in zip(maps, weights, strict=True))

    maps = [map_of(n, c, h, w, dtype=dtype) * 3 + 20 * number for number in range(count)]  # means far from 0
    weights = [torch.randn(count, c, dtype=torch.float64 if dtype == torch.float64 else torch.float32)] * weighed
    agree(lambda *inputs: normalized(inputs[:count], *inputs[count:]), plain, *maps, *weights)


@TYPES
def test_a_norm_with_bias_moves_the_running_statistics(dtype):
    from models.kernels.batch_norm import normalized

    running = [tuple(statistic.to(kind) for statistic in (torch.zeros(6), torch.ones(6)))
               for kind in (kernels.precision_of(torch.empty(0, dtype=dtype)), torch.float64)]

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.batch_norm(x, *running[1], weight[0], bias, training=True)

    agree(lambda x, weight, bias: normalized([x], weight, bias, running=running[0]), plain,
          map_of(2, 6, 5, 5, dtype=dtype), torch.randn(1, 6, dtype=running[0][0].dtype),
          torch.randn(6, dtype=running[0][0].dtype))
    for ours, theirs in zip(*running, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=1e-7)


@TYPES
def test_a_norm_goes_on_with_a_relu(dtype):
    from models.kernels.batch_norm import normalized

    of = torch.float64 if dtype == torch.float64 else torch.float32
    agree(lambda x, weight, bias: normalized([x], weight, bias, rectified=True),
          lambda x, weight, bias: F.batch_norm(x, None, None, weight[0], bias, training=True).relu(),
          map_of(3, 6, 7, 5, dtype=dtype), torch.randn(1, 6, dtype=of), torch.randn(6, dtype=of))


@TYPES
@pytest.mark.parametrize(("c", "count", "kept"), [(36, 3, True), (80, 2, False), (8, 1, True)])
def test_a_norm_gives_its_groups_apart_with_factors_of_samples(dtype, c, count, kept):
    from models.kernels.batch_norm import normalized_apart

    of = torch.float64 if dtype == torch.float64 else torch.float32
    factors = torch.randint(3, (3, count), dtype=of) if kept else torch.ones(3, count, dtype=of)

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        found = normalized_apart(x, count, weight, bias, eps=1e-5, running=None, momentum=0.1,
                                 kept=factors if kept else None)
        assert [map.is_contiguous(memory_format=torch.channels_last) for map in found] == [True] * count
        return torch.cat(found, 1)

    agree(ours, lambda x, weight, bias: F.batch_norm(x, None, None, weight, bias, training=True)
          * factors.repeat_interleave(c // count, 1)[:, :, None, None],
          map_of(3, c, 7, 5, dtype=dtype), torch.randn(c, dtype=of), torch.randn(c, dtype=of))


@pytest.mark.parametrize("layer", [nn.BatchNorm2d, BatchNorm2d])
def test_a_norm_refuses_what_pytorch_refuses(layer):
    for shape in ((4, 4, 5, 5), (4, 2), (1, 2, 1, 1)):
        with pytest.raises((ValueError, RuntimeError)):
            layer(2)(torch.zeros(shape))
    x = map_of(4, 2, 5, 5, dtype=torch.float32)
    cumulative, batch = layer(2, momentum=None), layer(2, track_running_stats=False).eval()
    torch.testing.assert_close(cumulative(x), batch(x))
    torch.testing.assert_close(cumulative.running_mean, x.mean((0, 2, 3)))


@TYPES
@pytest.mark.parametrize(("n", "c", "h", "w"), [(2, 8, 8, 8), (1, 6, 7, 5), (3, 36, 5, 9)])
@pytest.mark.parametrize("stride", [1, 2])
def test_pools(dtype, n, c, h, w, stride):
    from models.kernels.pooling import avg_pool, max_pool

    x = map_of(n, c, h, w, dtype=dtype).relu()  # with ties: the first has the gradient
    for count in (True, False):
        agree(lambda x, count=count: avg_pool(x, 3, stride, count),
              lambda x, count=count: F.avg_pool2d(x, 3, stride, 1, count_include_pad=count), x)
    agree(lambda x: max_pool(x, 3, stride), lambda x: F.max_pool2d(x, 3, stride, 1), x)


def test_a_sum_of_many_parts():
    from models.kernels.sums import total

    parts = torch.randn(300, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(total(parts), parts.sum(0), rtol=1e-13, atol=1e-13)


# ---- networks


@pytest.mark.slow
@pytest.mark.parametrize("partial_channels", [1, 2])
def test_a_supernet_by_kernels_is_the_plain_one(monkeypatch, partial_channels):
    model = Supernet(3, 4, 10, 3, form="plain", partial_channels=partial_channels).double()
    parameters, x = [*model.alphas(), *model.weights()], map_of(2, 3, 8, 8)
    monkeypatch.setenv(kernels.CHOICE, "0")
    expected = torch.autograd.grad((model(x) ** 2).sum(), parameters)
    monkeypatch.setenv(kernels.CHOICE, "cpu")
    model.form = "stored"
    for ours, theirs in zip(torch.autograd.grad((model(x) ** 2).sum(), parameters), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("make", [
    lambda: DartsNetwork(load_genotype("DARTS_V2"), 3, 4, 10, 3, auxiliary=True),
    lambda: build_model("shufflenetg2", 10)], ids=["DARTS_V2", "shufflenetg2"])
def test_a_training_step_by_kernels_is_that_of_pytorch(monkeypatch, make):
    """Gradients, and the statistics that batch norms keep."""
    found, x, y = [], map_of(2, 3, 32, 32), torch.tensor([1, 2])
    for choice in ("0", "cpu"):
        monkeypatch.setenv(kernels.CHOICE, choice)
        set_seed(0)
        model = make().double().train().to(memory_format=torch.channels_last)
        train_step(model, build_optimizer(model, "SGD", 0.1, 5e-4, 0.9), x, y, lr=0.1, dtype=torch.float32,
                   label_smoothing=0.1, clip=0.0, auxiliary=0.4)
        found.append({**{name: p.grad for name, p in model.named_parameters()}, **dict(model.named_buffers())})
    for name, theirs in found[0].items():
        torch.testing.assert_close(found[1][name], theirs, rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.parametrize("by_cudnn", [{torch.float64}, set()], ids=["cudnn", "ours"])
@pytest.mark.parametrize("names", [["sep_conv_3x3"] * 8, [
    "dil_conv_5x5", "skip_connect", "max_pool_3x3", "dil_conv_5x5", "sep_conv_5x5", "sep_conv_5x5", "avg_pool_3x3",
    "dil_conv_3x3"]], ids=["of one kind", "of many"])
@pytest.mark.parametrize("reduction", [False, True], ids=["normal", "reduction"])
def test_a_cell_with_its_chains_joined_is_that_cell(monkeypatch, by_cudnn, names, reduction):
    """With drop path, of which both draw the same: all is kept, and doubled."""
    monkeypatch.setattr(joined, "FASTER_BY_CUDNN", by_cudnn)
    monkeypatch.setattr(torch, "bernoulli", torch.ones_like)
    edges = list(map(Edge, names, [0, 1, 0, 1, 1, 2, 0, 1]))
    pairs, found = [edges[number : number + 2] for number in range(0, 8, 2)], []
    for choice in ("0", "cpu"):
        monkeypatch.setenv(kernels.CHOICE, choice)
        set_seed(0)
        model = DartsNetwork(Genotype(pairs, pairs), 3, 4, 10, 3).double().to(memory_format=torch.channels_last)
        model.drop_path_probability(0.5)
        cell = model.cells[int(reduction)]
        y = cell(map_of(2, 12, 8, 8), map_of(2, 16 if reduction else 12, 8, 8))
        found.append([y, *torch.autograd.grad((y**2).sum(), list(cell.parameters())), *cell.buffers()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_chains_are_joined_in_training_alone(monkeypatch):
    """And not where batch norms gather statistics of many batches."""
    cell, x = DartsNetwork(load_genotype("DARTS_V2"), 3, 4, 10, 3).cells[0], map_of(2, 4, 8, 8)
    of_cell = joined.bundles(cell.nodes)
    assert [len(bundle) for bundle in of_cell] == [2, 3, 1]
    assert joined.possible(of_cell, x)
    norm = of_cell[0][0].chain.steps()[0][2]
    norm.momentum = None
    assert not joined.possible(of_cell, x)
    norm.momentum = 0.1
    assert not joined.possible(joined.bundles(nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(cell)).nodes), x)
    assert not joined.possible(joined.bundles(cell.eval().nodes), x)


def test_pytorch_computes_where_it_is_asked_to(monkeypatch):
    x = torch.zeros(1)
    assert kernels.usable(x)
    monkeypatch.setenv(kernels.CHOICE, "0")
    assert not kernels.usable(x)
    monkeypatch.delenv(kernels.CHOICE)
    assert not kernels.usable(x), "of a CPU"


@pytest.mark.parametrize(("at_hand", "reason"), [
    ({}, ""), ({"triton": None}, "no Triton"), ({"interpreted": "1"}, "TRITON_INTERPRET=1"),
    ({"capability": (7, 5)}, "compute capability 7.5"), ({"choice": "0"}, "OWN_KERNELS=0"),
    ({"total": lambda parts: parts[0]}, "Triton adds wrongly"),
    ({"total": lambda parts: [][0]}, "IndexError: list index out of range")])
def test_why_a_gpu_has_no_kernels_is_told(monkeypatch, at_hand, reason):
    monkeypatch.setattr(kernels, "find_spec", lambda name: at_hand.get("triton", "there"))
    monkeypatch.setattr(sums, "total", at_hand.get("total", lambda parts: parts.sum(0)))
    monkeypatch.setattr(torch, "ones", lambda *shape, device: torch.full(shape, 1.0))
    monkeypatch.setenv("TRITON_INTERPRET", at_hand.get("interpreted", "0"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: at_hand.get("capability", (9, 0)))
    monkeypatch.setenv(kernels.CHOICE, at_hand.get("choice", ""))
    kernels._lacking.cache_clear()
    try:
        assert kernels.lacking(torch.device("cuda")) == reason
    finally:
        kernels._lacking.cache_clear()
    told = str(Execution("cuda", "bf16", captured=True, no_kernels=reason))
    assert told.endswith(f"graph, by PyTorch's kernels alone ({reason})" if reason else "graph")


# ---- branches


class FakeStream:
    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def wait_stream(self, other: "FakeStream") -> None:
        self.log.append(f"{self.name} waits for {other.name}")

    def __enter__(self) -> None:
        self.log.append(f"on {self.name}")

    def __exit__(self, *error: object) -> None:
        self.log.append(f"off {self.name}")


class FakeMap:
    is_cuda = True

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def record_stream(self, stream: FakeStream) -> None:
        self.log.append(f"{self.name} is kept for {stream.name}")


def test_branches_of_a_recorded_step_start_after_their_source_and_are_waited_for(monkeypatch):
    log: list[str] = []
    main = FakeStream(log, "main")
    monkeypatch.setattr(branches, "allowed", True)
    monkeypatch.setattr(branches, "_stream", lambda number: FakeStream(log, f"side {number}"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)

    def part(name: str) -> FakeMap:
        log.append(f"launch {name}")
        return FakeMap(log, name)

    parts, source = [partial(part, "a"), partial(part, "b")], FakeMap(log, "source")
    assert [map.name for map in branches.side_by_side(parts, source)] == ["a", "b"]
    assert log == [
        "side 0 waits for main", "source is kept for side 0", "on side 0", "launch a", "off side 0",
        "side 1 waits for main", "source is kept for side 1", "on side 1", "launch b", "off side 1",
        "main waits for side 0", "a is kept for main", "main waits for side 1", "b is kept for main"]
    log.clear()
    monkeypatch.setattr(branches, "allowed", False)
    branches.side_by_side(parts, source)
    assert log == ["launch a", "launch b"]


def test_what_is_not_recorded_has_no_branches(monkeypatch):
    monkeypatch.setattr(branches, "_stream", lambda number: pytest.fail("a stream"))
    assert branches.side_by_side([lambda: 1, lambda: 2], map_of(1, 2, 3, 3)) == [1, 2]
