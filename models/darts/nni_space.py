"""DartsStackedCells: the search space of DARTS as an NNI 3.0 ModelSpace, of LayerChoice and InputChoice.

Imports nni.nas, hence pytorch-lightning; darts_search.py works without it, on the supernet of supernet.py.

Every edge is a LayerChoice of all operations, every node an InputChoice of two of its edges. Labels are those of
genotype.py: `normal_n2_s0_op` is the operation of node 2 on source 0, `normal_n2_inputs` the two sources of node 2;
all normal cells share theirs, and all reduction cells, so `Genotype.sample()` samples the space. A sample may choose
none for an edge that a node takes, as NNI's own strategies may: it freezes to a network, but is no genotype.

NNI's DARTS strategy relaxes the InputChoice too, so its nodes are sums over sources weighted by alphas of their own,
where the paper has plain sums and takes the two edges with the strongest operation.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableModule
from torch import Tensor, nn

from models.darts.cells import CellSkeleton, StackedCells
from models.darts.genotype import OPERATIONS, inputs_label, operation_label
from models.darts.network import Sum, edge_stride
from models.darts.operations import operation


class NodeChoice(MutableModule):
    """A node: two of the edges from all states before it; frozen, only these are left."""

    def __init__(self, node: int, channels: int, reduction: bool) -> None:
        super().__init__()
        self.edges = nn.ModuleList(_edges(node, channels, reduction))
        self.inputs = _inputs(node, reduction)

    def forward(self, states: list[Tensor]) -> Tensor:
        return self.inputs([edge(state) for edge, state in zip(self.edges, states, strict=True)])

    def freeze(self, sample: Mapping[str, Any]) -> Sum:
        chosen = self.inputs.freeze(sample).chosen
        return Sum([self.edges[source].freeze(sample) for source in chosen], chosen)

    @classmethod
    def create_fixed_module(cls, sample: Mapping[str, Any], node: int, channels: int, reduction: bool) -> Sum:
        """What NNI makes in place of this module inside of its model_context(sample)."""
        chosen, edges = _inputs(node, reduction).chosen, list(_edges(node, channels, reduction))
        return Sum([edges[source] for source in chosen], chosen)


def _kind(reduction: bool) -> str:
    return "reduction" if reduction else "normal"


def _edges(node: int, channels: int, reduction: bool) -> Iterator[nn.Module]:
    for source in range(node + 2):
        stride = edge_stride(source, reduction)
        candidates = {name: operation(name, channels, stride, affine=False) for name in OPERATIONS}
        yield LayerChoice(candidates, label=operation_label(_kind(reduction), node, source))


def _inputs(node: int, reduction: bool) -> nn.Module:
    return InputChoice(node + 2, n_chosen=2, label=inputs_label(_kind(reduction), node))


class DartsCell(CellSkeleton):
    """(N, channels_pp, H, W) and (N, channels_p, H, W) -> (N, n_nodes * channels, H, W), in a reduction H/2, W/2."""

    def __init__(self, n_nodes: int, channels_pp: int, channels_p: int, channels: int, reduction_p: bool,
                 reduction: bool) -> None:
        self.arguments = (channels_pp, channels_p, channels, reduction_p)
        super().__init__(*self.arguments, [NodeChoice(node, channels, reduction) for node in range(n_nodes)],
                         affine=False)

    def freeze(self, sample: Mapping[str, Any]) -> CellSkeleton:
        nodes = [node.freeze(sample) for node in self.nodes]
        with torch.device("meta"):  # its own weights are replaced at once
            cell = CellSkeleton(*self.arguments, nodes, affine=False)
        cell.preprocess0, cell.preprocess1 = self.preprocess0, self.preprocess1
        return cell


class DartsStackedCells(ModelSpace, StackedCells):
    """(N, in_channels, S, S) -> (N, n_classes) logits, S = side.

    A frozen sample is DartsNetwork(genotype, ..., affine=False) with the stem multiplier of the space: the same
    state_dict, so as many weights. The network to train from scratch has weights in its batch norms and none after
    pooling: make it by `DartsNetwork(Genotype.from_sample(sample), ...)`. Drop path is in frozen networks only.
    """

    def __init__(self, in_channels: int, channels: int, n_classes: int, n_layers: int, n_nodes: int = 4,
                 stem_multiplier: int = 2, side: int = 32) -> None:
        def make_cell(*arguments: Any) -> DartsCell:
            return DartsCell(n_nodes, *arguments)

        self.arguments = (in_channels, channels, n_classes, n_layers, stem_multiplier)
        self.side = side
        StackedCells.__init__(self, make_cell, *self.arguments, side=side)

    def freeze(self, sample: Mapping[str, Any]) -> StackedCells:
        """The network of `sample`, which shares its weights with the space."""
        self.validate(sample)
        cells = iter([cell.freeze(sample) for cell in self.cells])
        with torch.device("meta"):  # its own weights are replaced at once
            network = StackedCells(lambda *_: next(cells), *self.arguments, side=self.side)
        network.stem, network.stem1, network.head = self.stem, self.stem1, self.head
        return network
