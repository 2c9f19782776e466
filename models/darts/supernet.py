"""The supernet that a DARTS search trains: all operations on all edges at once, weighed by the softmax of the alphas.

Liu et al., 2019, arXiv:1806.09055. With `partial_channels` = K, PC-DARTS (Xu et al., 2020, arXiv:1907.05737): the
operations see 1/K of the channels, the others pass by, and a softmax of the betas weighs the edges that enter a node.

Batch norm has no affine weights but in the stem, and always takes the statistics of the batch at hand, in evaluation
too: while alphas move from step to step, running averages would be those of networks that are gone, and no look-ahead
of the second order can spoil what is not kept. So evaluate with batches as large as in training.

The edges that leave one source keep their parameters side by side (`Edges`). Three forms compute the same from them:

    plain     each operation on each edge by itself, by the very modules that SPACE declares; the reference
    stored    all edges that leave a source by one convolution a step: few launches, for GPUs (stored.py)
    fused     by hand-written gradients: little arithmetic and memory traffic, for CPUs (fused.py)
"""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from models.darts import fused, stored
from models.darts.cells import CellSkeleton, StackedCells, abreast
from models.darts.genotype import EDGES, N_NODES, OPERATIONS, Genotype, discretize
from models.darts.network import edge_stride
from models.darts.operations import operation, shuffled

ALPHA_SCALE = 1e-3  # standard deviation of the first alphas: all operations count alike, but for a broken tie
FIRST_EDGE = [sum(range(2, 2 + node)) for node in range(N_NODES + 1)]  # edges enter node i from FIRST_EDGE[i] on
FORMS = ("plain", "stored", "fused")


class Edges(nn.Module):
    """All operations on the E edges that leave one source: `operations[name]` holds, for each parameter that the
    operation has on one edge, one with those of all edges behind one another, (E * n, ...) for (n, ...)."""

    def __init__(self, edges: Sequence[Mapping[str, nn.Module]]) -> None:
        """edges: name -> operation, of each edge; the parameters are taken over. ValueError for an operation that keeps
        more than kernels and matrices, which could not lie side by side."""
        super().__init__()
        self.count, self.operations = len(edges), nn.ModuleDict()
        self.modules_of: dict[str, nn.Module] = {}  # without parameters of their own
        for name in OPERATIONS:
            alone = batch_statistics(edges[0][name])
            if [*alone.buffers()] or not all(parameter.ndim for parameter in alone.parameters()):
                raise ValueError(f"{name}: an operation of the supernet has no buffers and no parameters of one number")
            parameters = zip(*(edge[name].parameters() for edge in edges), strict=True)
            self.operations[name] = nn.ParameterList(torch.cat(list(same)).detach() for same in parameters)
            self.modules_of[name] = alone.to("meta")

    def edge(self, number: int, x: Tensor, weights: Tensor) -> Tensor:
        """The weighed sum of all operations on one edge: x (N, C, H, W), weights (operations,)."""
        total = 0
        for weight, (name, parameters) in zip(weights, self.operations.items(), strict=True):
            names = (name for name, _ in self.modules_of[name].named_parameters())
            own = {name: each.chunk(self.count)[number] for name, each in zip(names, parameters, strict=True)}
            total = total + weight * functional_call(self.modules_of[name], own, (x,))
        return total


def batch_statistics(module: nn.Module) -> nn.Module:
    """Its batch norms keep no running averages; see the top of the file."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.track_running_stats = False
            norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    return module


class SupernetCell(CellSkeleton):
    """A cell with every edge; `sources[s]` holds those that leave state s, in the order of the nodes they enter."""

    def __init__(self, channels_pp: int, channels_p: int, channels: int, reduction_p: bool, reduction: bool,
                 partial_channels: int) -> None:
        mixed, left = divmod(channels, partial_channels)
        if left:
            raise ValueError(f"partial_channels = {partial_channels}: must divide the channels of a cell, {channels}")
        edges = {edge: {name: operation(name, mixed, edge_stride(edge[1], reduction), affine=False)
                        for name in OPERATIONS} for edge in EDGES}
        super().__init__(channels_pp, channels_p, channels, reduction_p, [], affine=False)
        self.sources = nn.ModuleList(Edges([edges[node, source] for node in self.entered(source)])
                                     for source in range(N_NODES + 1))
        self.channels_out = N_NODES * channels
        self.mixed, self.reduction, self.partial_channels = mixed, reduction, partial_channels

    @staticmethod
    def entered(source: int) -> range:
        """The nodes that edges from state `source` enter."""
        return range(max(source - 1, 0), N_NODES)

    def forward(self, s0: Tensor, s1: Tensor, operations: Tensor, edges: Tensor | None, form: str) -> Tensor:
        """operations (14, O), edges (14,): the weights, after softmax; edges with partial channels alone. s0 and s1 are
        rectified already."""
        states = self.preprocessed(s0, s1)
        if form == "plain":
            return torch.cat(self._nodes(states, operations, edges), 1)
        return abreast({"stored": stored, "fused": fused}[form].nodes(self, states, operations, edges))

    def _nodes(self, states: list[Tensor], operations: Tensor, edges: Tensor | None) -> list[Tensor]:
        """The maps of the nodes from the two preprocessed inputs."""
        for node in range(N_NODES):
            total = 0
            for source in range(node + 2):
                index, x = EDGES.index((node, source)), states[source]
                number = self.entered(source).index(node)
                mixed = self.sources[source].edge(number, x[:, : self.mixed], operations[index])
                if edges is not None:
                    mixed = edges[index] * torch.cat([mixed, passing(x[:, self.mixed :], mixed)], 1)
                total = total + mixed
            states.append(total if edges is None else shuffled(total, self.partial_channels))
        return states[2:]


def passing(x: Tensor, like: Tensor) -> Tensor:
    """The channels that no operation sees, as large as those that one has seen."""
    return x if x.shape[2:] == like.shape[2:] else nn.functional.max_pool2d(x, 2)


class Supernet(StackedCells):
    """(N, in_channels, S, S) -> (N, n_classes) logits, S = side.

    alpha_normal, alpha_reduction: (14, O), edges of genotype.EDGES x OPERATIONS, shared by all cells of a kind;
    beta_normal, beta_reduction: (14,), with partial channels. `alphas()` gives these, `weights()` all other parameters.
    form: of FORMS; ValueError names the operations that it cannot compute.
    recompute: forget what is inside of a cell and compute it again for the gradient; less memory, a third more time.
    """

    def __init__(self, in_channels: int, channels: int, n_classes: int, n_layers: int, stem_multiplier: int = 3,
                 partial_channels: int = 1, form: str = "fused", recompute: bool = False, side: int = 32) -> None:
        if lacking := cannot(form):
            raise ValueError(f"form = {form!r}: cannot compute {', '.join(lacking)}; allowed: plain")
        super().__init__(
            lambda *args: SupernetCell(*args, partial_channels), in_channels, channels, n_classes, n_layers,
            stem_multiplier, side=side)
        self.form, self.recompute = form, recompute
        self.partial_channels = partial_channels
        for kind in ("normal", "reduction"):
            alpha = ALPHA_SCALE * torch.randn(len(EDGES), len(OPERATIONS))
            self.register_parameter(f"alpha_{kind}", nn.Parameter(alpha))
            if partial_channels > 1:
                self.register_parameter(f"beta_{kind}", nn.Parameter(ALPHA_SCALE * torch.randn(len(EDGES))))
        batch_statistics(self)
        named = dict(self.named_parameters())  # walked through once: every step asks for them
        self._alphas = [parameter for name, parameter in named.items() if name.startswith(("alpha_", "beta_"))]
        self._weights = [parameter for name, parameter in named.items() if not name.startswith(("alpha_", "beta_"))]

    def alphas(self) -> list[nn.Parameter]:
        return self._alphas

    def weights(self) -> list[nn.Parameter]:
        return self._weights

    def forward(self, x: Tensor) -> Tensor:
        shares = {kind: self._shares(kind) for kind in ("normal", "reduction")}
        s0, s1 = self.first_states(x)
        for cell in self.cells:
            s1 = s1.relu_()  # once for both cells that read it
            args = (s0, s1, *shares["reduction" if cell.reduction else "normal"], self.form)
            s0, s1 = s1, checkpoint(cell, *args, use_reentrant=False) if self.recompute else cell(*args)
        return self.head(s1)

    def _shares(self, kind: str) -> tuple[Tensor, Tensor | None]:
        """Weights of the operations (14, O) and, with partial channels, of the edges (14,)."""
        operations = getattr(self, f"alpha_{kind}").softmax(-1)
        if self.partial_channels == 1:
            return operations, None
        beta = getattr(self, f"beta_{kind}")
        return operations, torch.cat([beta[first:end].softmax(0) for first, end in pairwise(FIRST_EDGE)])

    @torch.no_grad()
    def strengths(self) -> dict[str, list[list[float]]]:
        """kind -> 14 x O: what each operation on each edge counts, as `discretize` wants it."""
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


def cannot(form: str) -> list[str]:
    """The operations of SPACE that a form of the supernet does not compute."""
    return {"plain": lambda: [], "stored": stored.cannot, "fused": fused.cannot}[form]()


def stacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state of the layout before `Edges`, with `nodes.NODE.SOURCE.operations.COLUMN.NAME` for each edge, as today's;
    one of today's as it is. Any tensors by the names of the parameters will do, such as their momentum."""
    found, of_edges = {}, {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"(cells\.\d+\.)nodes\.(\d)\.(\d)\.operations\.(\d)\.(.+)", name):
            cell, node, source, column, own = match.groups()
            of_edges.setdefault((cell, source, OPERATIONS[int(column)], own), {})[node] = tensor
        else:
            found[name] = tensor
    numbers: dict[str, int] = {}
    for (cell, source, candidate, _), edges in of_edges.items():
        of_operation = f"{cell}sources.{source}.operations.{candidate}."
        number = numbers[of_operation] = numbers.get(of_operation, -1) + 1
        found[f"{of_operation}{number}"] = torch.cat([edges[node] for node in sorted(edges)])
    return found
