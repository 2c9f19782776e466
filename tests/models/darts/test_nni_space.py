"""The search space as NNI sees it: labels, freezing, NNI's own DARTS strategy, and the networks of samples."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from conftest import ROOT
from models.darts.cells import StackedCells
from models.darts.genotype import EDGES, N_NODES, OPERATIONS, Genotype
from models.darts.genotype_files import load_genotype
from models.darts.network import DartsNetwork

pytest.importorskip("pytorch_lightning")
GENOTYPES = [load_genotype(name) for name in ("DARTS_V2", "PC_DARTS", "random:0", "random:1")]


@pytest.fixture(scope="module")
def space():
    from models.darts.nni_space import DartsStackedCells

    torch.manual_seed(0)
    return DartsStackedCells(3, 4, 7, 4)  # reduction cells 1 and 2


@pytest.fixture
def images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_the_published_size():
    from models.darts.nni_space import DartsStackedCells

    with torch.device("meta"):
        space = DartsStackedCells(3, 16, 10, 8, stem_multiplier=3)
    assert parameters(space) == 1_930_618
    affine = [name for name, p in space.named_parameters() if p.ndim == 1]
    assert affine == ["stem.1.weight", "stem.1.bias", "head.2.bias"]  # no batch norm of a cell has weights


def test_labels_and_choices(space):
    simple = space.simplify()
    assert len(simple) == 2 * (len(EDGES) + N_NODES)  # shared by all cells of a kind
    for genotype in GENOTYPES:
        assert simple.keys() == genotype.sample().keys()
    assert simple["normal_n3_s4_op"].values == list(OPERATIONS)
    for node in range(N_NODES):
        inputs = simple[f"reduction_n{node}_inputs"]
        assert inputs.values == list(range(node + 2)) and inputs.n_chosen == 2


def test_every_choice_has_its_own_weights_but_the_labels_are_shared(space):
    choices = [edge for cell in space.cells for node in cell.nodes for edge in node.edges]
    assert len({id(p) for choice in choices for p in choice.parameters()}) == sum(
        len(list(choice.parameters())) for choice in choices)
    first, last = space.cells[0].nodes[2].edges[1], space.cells[3].nodes[2].edges[1]
    assert first.label == last.label == "normal_n2_s1_op" and first is not last


@pytest.mark.parametrize("genotype", GENOTYPES)
def test_frozen_it_is_the_network_of_the_genotype(space, genotype, images):
    frozen = space.freeze(genotype.sample())
    assert type(frozen) is StackedCells
    built = DartsNetwork(genotype, 3, 4, 7, 4, stem_multiplier=2, affine=False)
    assert frozen.state_dict().keys() == built.state_dict().keys() and parameters(frozen) == parameters(built)
    assert {id(p) for p in frozen.parameters()} <= {id(p) for p in space.parameters()}  # the weights of the space
    built.load_state_dict(frozen.state_dict())
    frozen.train(), built.train()
    assert torch.equal(frozen(images), built(images))
    assert torch.equal(frozen.eval()(images), built.eval()(images))


def test_what_the_network_to_train_has_besides(space):
    """Batch norms with weights: two for each channel of each batch norm that is not a pooling's."""
    for genotype in GENOTYPES:
        frozen = space.freeze(genotype.sample())
        trained = DartsNetwork(genotype, 3, 4, 7, 4, stem_multiplier=2)
        norms = [module for module in trained.cells.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        assert parameters(trained) == parameters(frozen) + sum(2 * norm.num_features for norm in norms)


def test_a_frozen_network_trains_with_drop_path(space, images):
    frozen = space.freeze(GENOTYPES[3].sample()).train()
    frozen.drop_path_probability(0.5)
    logits = frozen(images)
    assert not torch.equal(logits, frozen(images))
    logits.sum().backward()
    assert all(p.grad is not None for p in frozen.parameters())
    assert all(p.grad is None for p in set(space.parameters()) - set(frozen.parameters()))
    frozen.drop_path_probability(0)


def test_nni_builds_a_sample_in_its_context(images):
    from nni.nas.space import model_context

    from models.darts.nni_space import DartsStackedCells

    for genotype in GENOTYPES:
        with model_context(genotype.sample()):
            fixed = DartsStackedCells(3, 4, 7, 4)
        built = DartsNetwork(genotype, 3, 4, 7, 4, stem_multiplier=2, affine=False)
        built.load_state_dict(fixed.state_dict())
        assert torch.equal(fixed(images), built(images)) and parameters(fixed) == parameters(built)


@pytest.mark.parametrize("side", [48, 96, 224])
def test_a_space_for_larger_pictures(side):
    from models.darts.nni_space import DartsStackedCells

    space, images = DartsStackedCells(3, 4, 7, 3, side=side), torch.randn(2, 3, side, side)
    assert space(images).shape == (2, 7)
    for genotype in GENOTYPES[:2]:
        frozen = space.freeze(genotype.sample())
        built = DartsNetwork(genotype, 3, 4, 7, 3, stem_multiplier=2, affine=False, side=side)
        assert frozen.state_dict().keys() == built.state_dict().keys()
        assert {id(p) for p in frozen.parameters()} <= {id(p) for p in space.parameters()}
        built.load_state_dict(frozen.state_dict())
        assert torch.equal(frozen(images), built(images))


def test_nnis_random_samples_freeze(space, images):
    """A node may take an edge of none: the network works, but the sample is no genotype."""
    sample = space.random()
    assert sample.cells  # NNI's random() gives the frozen network
    assert sample(images).shape == (2, 7)
    none = {**GENOTYPES[0].sample(), "normal_n0_s0_op": "none", "normal_n0_s1_op": "none"}
    assert space.freeze(none)(images).isfinite().all()
    with pytest.raises(ValueError, match="normal, node 0: operation 'none'"):
        Genotype.from_sample(none)


def test_nni_refuses_a_sample_of_another_space(space):
    from nni.mutable import SampleValidationError

    sample = GENOTYPES[0].sample()
    for change in ({"normal_n0_s0_op": "conv_7x7"}, {"normal_n0_inputs": [0, 2]}, {"normal_n3_inputs": [0]}):
        with pytest.raises(SampleValidationError):
            space.freeze({**sample, **change})


def test_another_number_of_nodes(images):
    from models.darts.nni_space import DartsStackedCells

    space = DartsStackedCells(3, 4, 5, 3, n_nodes=2)
    assert space(images).shape == (2, 5) and len(space.simplify()) == 2 * (2 + 3 + 2)


def strategy_run(space, batches, **kwargs):
    """NNI's DARTS strategy over `batches` of 4 images, one epoch."""
    from nni.nas.evaluator.pytorch import Classification
    from nni.nas.execution import SequentialExecutionEngine
    from nni.nas.space import RawFormatModelSpace
    from nni.nas.strategy import DARTS

    images = torch.randn(4 * batches, 3, 8, 8)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, torch.arange(4 * batches) % 7), 4)
    evaluator = Classification(
        train_dataloaders=loader, val_dataloaders=loader, num_classes=7, max_epochs=1, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    strategy = DARTS(**kwargs)
    strategy.initialize(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    strategy.run()
    return strategy


@pytest.mark.filterwarnings("ignore")  # Lightning's, on the number of workers and on what it would like installed
def test_nnis_darts_strategy_runs():
    from models.darts.nni_space import DartsStackedCells

    torch.manual_seed(0)
    space = DartsStackedCells(3, 4, 7, 4)
    before = {name: p.detach().clone() for name, p in space.named_parameters()}
    strategy = strategy_run(space, 3, arc_learning_rate=0.1)
    alphas = strategy.oneshot_module.arch_parameters()
    assert len(alphas) == 2 * (len(EDGES) + N_NODES)  # one for each label, not for each cell
    assert all(0.05 < alpha.abs().max() < 0.5 for alpha in alphas)  # 3 steps of Adam at 0.1
    after = dict(space.named_parameters())
    assert all(not torch.equal(p, after[name]) for name, p in before.items() if "edges" in name)
    sample = strategy.oneshot_module.export()
    assert sample.keys() == GENOTYPES[0].sample().keys()
    frozen = space.freeze(sample)
    assert type(frozen) is StackedCells and frozen(torch.randn(2, 3, 8, 8)).shape == (2, 7)


@pytest.mark.filterwarnings("ignore")
def test_a_node_of_nnis_supernet_is_the_weighted_sum_of_weighted_operations(images):
    """Two layers of softmax: over the operations of an edge, and over the edges of a node."""
    from models.darts.nni_space import DartsStackedCells

    torch.manual_seed(0)
    space = DartsStackedCells(3, 4, 7, 4)
    strategy_run(space, 1, arc_learning_rate=0.5)
    node = space.cells[0].nodes[1].double()
    states = [torch.randn(2, 4, 6, 6, dtype=torch.float64) for _ in range(3)]
    expected = 0
    for weight, edge, state in zip(functional.softmax(node.inputs._arch_alpha, -1), node.edges, states, strict=True):
        operations = functional.softmax(edge._arch_alpha, -1)
        expected = expected + weight * sum(operations[i] * edge[name](state) for i, name in enumerate(OPERATIONS))
    torch.testing.assert_close(node(states), expected)


def test_the_genotype_and_the_network_are_there_without_nni():
    code = "import sys, models.darts.network, models.darts.genotype; sys.exit('nni' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
