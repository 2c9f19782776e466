"""The supernet that a DARTS search trains: all operations on all edges at once, weighed by the softmax of the alphas.

Liu et al., 2019, arXiv:1806.09055. With `partial_channels` = K, PC-DARTS (Xu et al., 2020, arXiv:1907.05737): the
operations see 1/K of the channels, the others pass by, and a softmax of the betas weighs the edges that enter a node.

Batch norm has no affine weights but in the stem, and always takes the statistics of the batch at hand, in evaluation
too: while alphas move from step to step, running averages would be those of networks that are gone, and no look-ahead
of the second order can spoil what is not kept. So evaluate with batches as large as in training.

What is here is the plain form of the maths, and the reference. fused.py computes the same, several times faster;
`fused` chooses.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.darts.cells import CellSkeleton, StackedCells
from models.darts.fused import fused_nodes
from models.darts.genotype import EDGES, N_NODES, OPERATIONS, Genotype, discretize
from models.darts.network import edge_stride
from models.darts.operations import operation, shuffled

ALPHA_SCALE = 1e-3  # standard deviation of the first alphas: all operations count alike, but for a broken tie
FIRST_EDGE = [sum(range(2, 2 + node)) for node in range(N_NODES + 1)]  # edges enter node i from FIRST_EDGE[i] on


class MixedEdge(nn.Module):
    """All operations on one edge."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.operations = nn.ModuleList(operation(name, channels, stride, affine=False) for name in OPERATIONS)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """x (N, C, H, W), weights (8,) -> (N, C, H / stride, W / stride)"""
        return sum(weight * operation(x) for weight, operation in zip(weights, self.operations, strict=True))


class SupernetCell(CellSkeleton):
    """A cell with every edge; `nodes` holds, for each node, the edges that enter it."""

    def __init__(self, channels_pp: int, channels_p: int, channels: int, reduction_p: bool, reduction: bool,
                 partial_channels: int) -> None:
        mixed, left = divmod(channels, partial_channels)
        if left:
            raise ValueError(f"partial_channels = {partial_channels}: must divide the channels of a cell, {channels}")
        nodes = [nn.ModuleList(MixedEdge(mixed, edge_stride(source, reduction)) for source in range(2 + node))
                 for node in range(N_NODES)]
        super().__init__(channels_pp, channels_p, channels, reduction_p, nodes, affine=False)
        self.mixed, self.reduction, self.partial_channels = mixed, reduction, partial_channels

    def forward(self, s0: Tensor, s1: Tensor, operations: Tensor, edges: Tensor | None, fused: bool) -> Tensor:
        """operations (14, 8), edges (14,): the weights, after softmax; edges with partial channels alone. Fused, s0 and
        s1 are rectified already."""
        if fused:
            states = [self.preprocess0.of_rectified(s0), self.preprocess1.of_rectified(s1)]
            return torch.cat(fused_nodes(self, states, operations, edges), 1)
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        for node, first in zip(self.nodes, FIRST_EDGE, strict=False):
            entering = slice(first, first + len(node))
            states.append(self._node(node, states, operations[entering], None if edges is None else edges[entering]))
        return torch.cat(states[2:], 1)

    def _node(self, node: nn.ModuleList, states: list[Tensor], operations: Tensor, edges: Tensor | None) -> Tensor:
        if edges is None:
            return sum(edge(x, weights) for edge, x, weights in zip(node, states, operations, strict=True))
        total = 0
        for edge, x, weights, share in zip(node, states, operations, edges, strict=True):
            mixed = edge(x[:, : self.mixed], weights)
            total = total + share * torch.cat([mixed, passing(x[:, self.mixed :], mixed)], 1)
        return shuffled(total, self.partial_channels)


def passing(x: Tensor, like: Tensor) -> Tensor:
    """The channels that no operation sees, as large as those that one has seen."""
    return x if x.shape[2:] == like.shape[2:] else nn.functional.max_pool2d(x, 2)


class Supernet(StackedCells):
    """(N, in_channels, H, W) -> (N, n_classes) logits.

    alpha_normal, alpha_reduction: (14, 8), edges of genotype.EDGES x OPERATIONS, shared by all cells of a kind;
    beta_normal, beta_reduction: (14,), with partial channels. `alphas()` gives these, `weights()` all other parameters.
    recompute: forget what is inside of a cell and compute it again for the gradient; less memory, a third more time.
    """

    def __init__(self, in_channels: int, channels: int, n_classes: int, n_layers: int, stem_multiplier: int = 3,
                 partial_channels: int = 1, fused: bool = True, recompute: bool = False) -> None:
        super().__init__(
            lambda *args: SupernetCell(*args, partial_channels), in_channels, channels, n_classes, n_layers,
            stem_multiplier)
        self.fused, self.recompute = fused, recompute
        self.partial_channels = partial_channels
        for kind in ("normal", "reduction"):
            alpha = ALPHA_SCALE * torch.randn(len(EDGES), len(OPERATIONS))
            self.register_parameter(f"alpha_{kind}", nn.Parameter(alpha))
            if partial_channels > 1:
                self.register_parameter(f"beta_{kind}", nn.Parameter(ALPHA_SCALE * torch.randn(len(EDGES))))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):  # see the top of the file
                module.track_running_stats = False
                module.running_mean = module.running_var = module.num_batches_tracked = None

    def alphas(self) -> list[nn.Parameter]:
        return [parameter for name, parameter in self.named_parameters() if name.startswith(("alpha_", "beta_"))]

    def weights(self) -> list[nn.Parameter]:
        return [parameter for name, parameter in self.named_parameters() if not name.startswith(("alpha_", "beta_"))]

    def forward(self, x: Tensor) -> Tensor:
        shares = {kind: self._shares(kind) for kind in ("normal", "reduction")}
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            s1 = s1.relu_() if self.fused else s1  # once for both cells that read it
            args = (s0, s1, *shares["reduction" if cell.reduction else "normal"], self.fused)
            s0, s1 = s1, checkpoint(cell, *args, use_reentrant=False) if self.recompute else cell(*args)
        return self.head(s1)

    def _shares(self, kind: str) -> tuple[Tensor, Tensor | None]:
        """Weights of the operations (14, 8) and, with partial channels, of the edges (14,)."""
        operations = getattr(self, f"alpha_{kind}").softmax(-1)
        if self.partial_channels == 1:
            return operations, None
        beta = getattr(self, f"beta_{kind}")
        return operations, torch.cat([beta[first:end].softmax(0) for first, end in pairwise(FIRST_EDGE)])

    @torch.no_grad()
    def strengths(self) -> dict[str, list[list[float]]]:
        """kind -> 14 x 8: what each operation on each edge counts, as `discretize` wants it."""
        shares = {kind: self._shares(kind) for kind in ("normal", "reduction")}
        return {kind: (operations if edges is None else operations * edges[:, None]).tolist()
                for kind, (operations, edges) in shares.items()}

    def genotype(self, max_skips: int | None = None) -> Genotype:
        strengths = self.strengths()
        return discretize(strengths["normal"], strengths["reduction"], max_skips)

    @torch.no_grad()
    def entropy(self) -> float:
        """Mean entropy of the operations' weights over all edges, in 0..1: 1 is undecided."""
        shares = torch.cat([self._shares(kind)[0] for kind in ("normal", "reduction")])
        return float(torch.special.entr(shares).sum(-1).mean() / math.log(len(OPERATIONS)))


def named_edges(cell: SupernetCell) -> Iterator[tuple[int, int, MixedEdge]]:
    """(node, source, edge) of all edges, in the order of EDGES."""
    for node, edges in enumerate(cell.nodes):
        for source, edge in enumerate(edges):
            yield node, source, edge
