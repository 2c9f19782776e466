"""torch.compile: how often it compiles, that nothing breaks a graph, and that the results are those of eager mode."""

import shutil
from functools import partial

import pytest
import torch
from torch import nn
from torch._dynamo import config as dynamo
from torch._dynamo.backends.debugging import aot_eager
from torch._inductor import config as inductor

from models.darts.genotype import Genotype
from models.darts.network import DartsNetwork
from tiny_training import Settings, network
from training import compiling, loop
from training.compiling import compiled
from training.loop import fit


class Backend:
    """Autograd's graphs, run as they are; `graphs` counts compilations."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return aot_eager(graph, inputs)


@pytest.fixture(autouse=True)
def fresh():
    """Nothing that was compiled before counts, and torch's settings are put back."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with (dynamo.patch(recompile_limit=dynamo.recompile_limit),
          inductor.patch(force_layout_optimization=inductor.force_layout_optimization)):
        yield


@pytest.fixture
def backend(monkeypatch):
    backend = Backend()
    monkeypatch.setattr(loop, "compiled", partial(compiled, backend=backend))
    return backend


def darts(layers=3):
    """Cells that compile fast, with paths that are dropped."""
    torch.manual_seed(0)
    cell = [[("max_pool_3x3", node), ("avg_pool_3x3", node + 1)] for node in range(4)]
    return DartsNetwork(Genotype(cell, cell), 3, 4, 4, layers)


class Resized:
    """A loader's batches, enlarged to 16 pixels; with `join` of them as one."""

    def __init__(self, loader, join=1):
        self.loader, self.images, self.join = loader, loader.images, join

    def __len__(self):
        return len(self.loader) // self.join

    def epoch(self, epoch):
        batches = list(self.loader.epoch(epoch))
        for start in range(0, len(batches), self.join):
            x, y = map(torch.cat, zip(*batches[start : start + self.join], strict=True))
            yield nn.functional.interpolate(x, scale_factor=2).to(memory_format=torch.channels_last), y


@pytest.mark.parametrize(("build", "drop_path", "graphs"), [(darts, 0.3, 3), (partial(network, dropout=0), 0.0, 1)],
                         ids=["cells", "whole"])
def test_three_epochs_with_validation_are_compiled_once(tiny_batches, backend, build, drop_path, graphs):
    """Drop path rises from 0; a validation batch is larger. In eager mode the loss is the same."""
    train, val = Resized(tiny_batches[0]), Resized(tiny_batches[1], join=2)
    settings, model, plain = Settings(epochs=3), build(), build()
    result = fit(model, train, val, Settings(epochs=3, compile=True), identity={}, drop_path=drop_path)
    counters = torch._dynamo.utils.counters
    assert backend.graphs == counters["stats"]["unique_graphs"] == graphs and not counters["graph_break"]
    expected = fit(plain, train, val, settings, identity={}, drop_path=drop_path)
    for key in ("train_loss", "val_loss"):
        assert [e[key] for e in result.history] == pytest.approx([e[key] for e in expected.history], rel=1e-4), key
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_cells_of_one_shape_are_compiled_once_and_more_shapes_than_torch_would():
    """Nine shapes, as of any network of nine cells or more whose second and third reductions have neighbours."""
    backend, model = Backend(), darts(layers=12)
    stepped = compiled(model, backend=backend)
    images = torch.randn(2, 3, 16, 16)
    model.drop_path_probability(0.0, rising=True)
    assert torch.allclose(stepped(images), model(images), atol=1e-6)
    assert backend.graphs == 9 > 8 and len(model.cells) == 12


def test_the_twin_has_the_same_tensors_and_the_model_stays_as_it_is():
    model = darts()
    stepped = compiled(model, backend=Backend())
    assert [*map(id, stepped.parameters())] == [*map(id, model.parameters())]
    assert [*map(id, stepped.buffers())] == [*map(id, model.buffers())]
    assert type(model.cells[0]) is not type(stepped.cells[0])
    model.eval()
    assert stepped.training


@pytest.mark.parametrize("chosen", [None, "0", "1"])
def test_channels_last_is_kept_unless_the_user_chose(monkeypatch, chosen):
    inductor.force_layout_optimization = chosen == "1"  # as torch reads it
    monkeypatch.delenv(compiling.FORCE_LAYOUT, raising=False)
    if chosen:
        monkeypatch.setenv(compiling.FORCE_LAYOUT, chosen)
    compiling.keep_channels_last()
    assert inductor.force_layout_optimization == (chosen != "0")


class OneCell(nn.Module):
    def __init__(self):
        super().__init__()
        cell = [[["sep_conv_3x3", 0], ["skip_connect", 1]], [["max_pool_3x3", 0], ["dil_conv_5x5", 2]]] * 2
        self.cells = DartsNetwork(Genotype(cell, cell), 3, 4, 4, 3).cells[1:2]  # a reduction

    def forward(self, x):
        return self.cells[0](x[:, :12], x)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler on the CPU")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.1)], ids=str)
def test_a_cell_by_inductor(dtype, tolerance):
    """Output and gradients."""
    torch.manual_seed(0)
    model, images = OneCell(), torch.randn(8, 16, 16, 16).to(memory_format=torch.channels_last)
    found = []
    for one in (model, compiled(model)):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            output = one(images).float()
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
        found.append([output, *torch.autograd.grad((output * weights).sum(), list(model.parameters()))])
    for plain, again in zip(*found, strict=True):
        assert (plain - again).abs().max() < tolerance * (plain.abs().max() + 1e-4)
