"""What a DARTS search finds and a retrain builds: a normal and a reduction cell. Files of it: genotype_files.py.

A cell has four nodes; each is the sum of two edges, each edge an operation on a source (arXiv:1806.09055).
Sources are counted as in the paper: 0 and 1 are the outputs of the two cells before, 2 + k is node k. Node i may
take any of the sources 0 to i + 1, so a cell has 2 + 3 + 4 + 5 = 14 possible edges.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from models.darts.operations import SPACE

OPERATIONS = tuple(SPACE)
CHOSEN = OPERATIONS[1:]  # an edge of a genotype is one of these
SKIPS = tuple(name for name in CHOSEN if SPACE[name].skip)
N_NODES = 4
EDGES = tuple((node, source) for node in range(N_NODES) for source in range(node + 2))  # the order of alphas
SCHEMA = 1  # of the JSON
FORM = "four pairs of edges, such as [[\"sep_conv_3x3\", 0], [\"skip_connect\", 1]]"


class Edge(NamedTuple):
    operation: str
    source: int


Pair = tuple[Edge, Edge]


@dataclass(frozen=True)
class Genotype:
    """One pair of edges a node; pairs are kept sorted by source, so equal networks compare equal."""

    normal: tuple[Pair, ...]
    reduction: tuple[Pair, ...]

    def __post_init__(self) -> None:
        for kind in ("normal", "reduction"):
            object.__setattr__(self, kind, _checked_cell(kind, getattr(self, kind)))

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **{kind: [[list(edge) for edge in pair] for pair in getattr(self, kind)]
                                     for kind in ("normal", "reduction")}}

    @classmethod
    def from_json(cls, value: Any) -> "Genotype":
        if not isinstance(value, dict):
            raise ValueError(f"{short(value)} is no genotype: an object with schema, normal and reduction")
        schema = value.get("schema")
        if type(schema) is not int or schema < 1:
            raise ValueError(f"schema = {short(schema)}: must be {SCHEMA}")
        if schema > SCHEMA:
            raise ValueError(f"schema = {schema}: newer than {SCHEMA}, the newest that this version reads")
        if unknown := sorted(value.keys() - {"schema", "normal", "reduction"}):
            raise ValueError(f"{unknown[0]}: no such key; allowed: schema, normal, reduction")
        return cls(value.get("normal"), value.get("reduction"))

    def sample(self) -> dict[str, str | list[int]]:
        """As NNI samples DartsStackedCells: an edge that no node takes is none."""
        sample: dict[str, str | list[int]] = {}
        for kind in ("normal", "reduction"):
            for node, pair in enumerate(getattr(self, kind)):
                operations = {edge.source: edge.operation for edge in pair}
                sample[inputs_label(kind, node)] = list(operations)
                sample |= {operation_label(kind, node, source): operations.get(source, "none")
                           for source in range(node + 2)}
        return sample

    @classmethod
    def from_sample(cls, sample: Mapping[str, Any]) -> "Genotype":
        """ValueError if a node takes an edge whose operation is none: NNI may sample that, a genotype has no such."""
        try:
            return cls(*([[(sample[operation_label(kind, node, source)], source)
                           for source in sample[inputs_label(kind, node)]] for node in range(N_NODES)]
                         for kind in ("normal", "reduction")))
        except KeyError as error:
            raise ValueError(f"sample: {error.args[0]} is missing") from None


def inputs_label(kind: str, node: int) -> str:
    return f"{kind}_n{node}_inputs"


def operation_label(kind: str, node: int, source: int) -> str:
    return f"{kind}_n{node}_s{source}_op"


def count_skips(genotype: Genotype) -> int:
    """Skip connections of the normal cell; many are the sign of a collapsed search."""
    return sum(edge.operation in SKIPS for pair in genotype.normal for edge in pair)


def short(value: Any) -> str:
    """As a message names it."""
    return repr(value)[:60]


def _checked_cell(kind: str, cell: Any) -> tuple[Pair, ...]:
    if isinstance(cell, str) or not isinstance(cell, Sequence):
        raise ValueError(f"{kind} = {short(cell)}: must be {FORM}")
    if len(cell) != N_NODES:
        raise ValueError(f"{kind}: {len(cell)} nodes, must be {N_NODES}")
    return tuple(_checked_pair(f"{kind}, node {node}", node, pair) for node, pair in enumerate(cell))


def _checked_pair(name: str, node: int, pair: Any) -> Pair:
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise ValueError(f"{name} = {short(pair)}: must be two edges of [operation, source]")
    first, second = sorted((_checked_edge(name, node, edge) for edge in pair), key=lambda edge: edge.source)
    if first.source == second.source:
        raise ValueError(f"{name}: both edges come from source {first.source}, must be two different ones")
    return first, second


def _checked_edge(name: str, node: int, edge: Any) -> Edge:
    if isinstance(edge, str) or not isinstance(edge, Sequence) or len(edge) != 2:
        raise ValueError(f"{name}: edge {short(edge)} must be [operation, source]")
    operation, source = edge
    if not isinstance(operation, str) or operation not in CHOSEN:
        raise ValueError(f"{name}: operation {short(operation)} must be one of {', '.join(CHOSEN)}")
    if type(source) is not int or not 0 <= source < node + 2:
        raise ValueError(f"{name}: source {short(source)} must be 0 to {node + 1} "
                         "(0 and 1: the cells before, 2 + k: node k)")
    return Edge(operation, source)


# ---- from weights


Weights = Sequence[Sequence[float]]  # (14 edges in the order of EDGES, operations)


def discretize(normal: Weights, reduction: Weights, max_skips: int | None = None) -> Genotype:
    """The genotype of softmaxed alphas, which with partial channels are multiplied by the weights of their edges.

    An edge's strength is its largest weight over the operations but none; a node keeps its two strongest edges
    (equal ones: the earlier source), each with its strongest operation (equal ones: the earlier in OPERATIONS).
    If the normal cell then has more than `max_skips` skip connections, the weight of the lowest of them (equal ones:
    the later edge) becomes 0 and the cell is derived anew, until they are no more (P-DARTS, arXiv:1904.12760).
    """
    normal, reduction = _checked_weights("normal", normal), _checked_weights("reduction", reduction)
    genotype = Genotype(_strongest(normal), _strongest(reduction))
    while max_skips is not None and count_skips(genotype) > max_skips:
        skips = [(EDGES.index((node, edge.source)), OPERATIONS.index(edge.operation))
                 for node, pair in enumerate(genotype.normal) for edge in pair if edge.operation in SKIPS]
        edge, skip = min(skips, key=lambda place: (normal[place[0]][place[1]], -place[0]))
        normal[edge][skip] = 0.0
        genotype = Genotype(_strongest(normal), genotype.reduction)
    return genotype


def _checked_weights(kind: str, weights: Weights) -> list[list[float]]:
    rows = [[float(weight) for weight in row] for row in weights]
    if len(rows) != len(EDGES) or any(len(row) != len(OPERATIONS) for row in rows):
        raise ValueError(f"{kind}: weights must be {len(EDGES)} edges x {len(OPERATIONS)} operations")
    if not all(math.isfinite(weight) and weight >= 0 for row in rows for weight in row):
        raise ValueError(f"{kind}: weights must be finite and not below 0, as a softmax gives them")
    return rows


def _strongest(weights: Weights) -> list[list[Edge]]:
    """The two strongest edges of each node."""
    cell = []
    for node in range(N_NODES):
        edges = [(weights[index][1:], source) for index, (of, source) in enumerate(EDGES) if of == node]
        edges.sort(key=lambda edge: -max(edge[0]))  # stable: equal ones keep the order of their sources
        cell.append([Edge(CHOSEN[row.index(max(row))], source) for row, source in edges[:2]])
    return cell
