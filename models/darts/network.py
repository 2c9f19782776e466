"""The discrete network of a genotype: what a DARTS search is for, and what is trained from scratch."""

from collections.abc import Iterable
from functools import partial

from torch import Tensor, nn

from models.darts import joined
from models.darts.cells import CellSkeleton, StackedCells
from models.darts.genotype import Genotype, Pair
from models.darts.operations import drop_path, operation
from models.kernels.branches import side_by_side


class Sum(nn.Module):
    """A node: the sum of its edges, each with its own operation on one of the states before."""

    def __init__(self, edges: Iterable[nn.Module], sources: Iterable[int]) -> None:
        super().__init__()
        self.edges = nn.ModuleList(map(drop_path, edges))
        self.sources = tuple(sources)

    def forward(self, states: list[Tensor]) -> Tensor:
        sources = [states[source] for source in self.sources]
        parts = [partial(edge, source) for edge, source in zip(self.edges, sources, strict=True)]
        first, *others = side_by_side(parts, *sources)
        return sum(others, first)


class DiscreteCell(CellSkeleton):
    """Whose nodes are Sums; on a GPU, in training, by few launches."""

    def node_maps(self, states: list[Tensor]) -> list[Tensor]:
        bundles = joined.bundles(self.nodes)
        if joined.possible(bundles, states[0]):
            return joined.node_maps(self.nodes, bundles, states)
        return super().node_maps(states)


def edge_stride(source: int, reduction: bool) -> int:
    """A reduction cell halves what comes from the cells before it; its nodes are halved already."""
    return 2 if reduction and source < 2 else 1


def _node(pair: Pair, channels: int, reduction: bool, affine: bool) -> Sum:
    edges = [operation(edge.operation, channels, edge_stride(edge.source, reduction), affine) for edge in pair]
    return Sum(edges, [edge.source for edge in pair])


class DartsNetwork(StackedCells):
    """(N, in_channels, S, S) -> (N, n_classes) logits, S = side; with an auxiliary head, in training, those of both
    classifiers.

    The published networks have 36 channels and 20 layers; for ImageNet, at side 224, 48 and 14. `affine=False` is for
    comparisons with the search space, whose batch norms have no weights.
    """

    def __init__(self, genotype: Genotype, in_channels: int, channels: int, n_classes: int, n_layers: int,
                 stem_multiplier: int = 3, auxiliary: bool = False, affine: bool = True, side: int = 32) -> None:
        def make_cell(c_pp: int, c_p: int, c: int, reduction_p: bool, reduction: bool) -> CellSkeleton:
            pairs = genotype.reduction if reduction else genotype.normal
            nodes = [_node(pair, c, reduction, affine) for pair in pairs]
            return DiscreteCell(c_pp, c_p, c, reduction_p, nodes, affine)

        super().__init__(make_cell, in_channels, channels, n_classes, n_layers, stem_multiplier, auxiliary, side)
        self.genotype = genotype
