"""Genotypes: samples come back the same, weights give the strongest edges, every mistake is one line."""

import ast
import sys

import pytest

from conftest import ROOT
from models.darts.genotype import (
    CHOSEN,
    EDGES,
    N_NODES,
    OPERATIONS,
    Edge,
    Genotype,
    count_skips,
    discretize,
    inputs_label,
    operation_label,
)
from models.darts.genotype_files import load_genotype

CELL = [[["sep_conv_3x3", 0], ["skip_connect", 1]], [["max_pool_3x3", 0], ["sep_conv_5x5", 2]],
        [["dil_conv_3x3", 1], ["skip_connect", 3]], [["avg_pool_3x3", 0], ["dil_conv_5x5", 4]]]
GENOTYPE = {"schema": 1, "normal": CELL, "reduction": CELL}


def test_all_edges_in_the_order_of_the_alphas():
    assert EDGES == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (2, 3),
                     (3, 0), (3, 1), (3, 2), (3, 3), (3, 4))


@pytest.mark.parametrize(("file", "below"), [("genotype.py", "operations"), ("genotype_files.py", "genotype")])
def test_the_module_is_of_the_standard_library_files_and_the_space(file, below):
    tree = ast.parse((ROOT / "models/darts" / file).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names -= {f"models.darts.{below}"}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names | {"files"}


# ---- samples and pairs


def test_sample_round_trip():
    for seed in range(50):
        genotype = load_genotype(f"random:{seed}")
        sample = genotype.sample()
        assert Genotype.from_sample(sample) == genotype
        unused = {operation_label(kind, node, source): "none" for kind in ("normal", "reduction")
                  for node, source in EDGES if source not in sample[inputs_label(kind, node)]}
        assert len(sample) == 2 * (len(EDGES) + N_NODES) and len(unused) == 2 * (len(EDGES) - 2 * N_NODES)
        assert {label for label, value in sample.items() if value == "none"} == unused.keys()
        assert Genotype.from_sample({**sample, **dict.fromkeys(unused, "skip_connect")}) == genotype  # nobody's edges


def test_the_order_inside_of_a_pair_does_not_matter():
    turned = Genotype([pair[::-1] for pair in CELL], CELL)
    assert turned == Genotype(CELL, CELL) == Genotype.from_json(GENOTYPE)
    assert hash(turned) == hash(Genotype(CELL, CELL)) and turned != Genotype(CELL, load_genotype("DARTS_V2").reduction)
    assert turned.normal[1] == (Edge("max_pool_3x3", 0), Edge("sep_conv_5x5", 2))


# ---- from weights


def weights(strong=()):
    """All weights 0.1, but those of `strong`: {(node, source, operation): weight}."""
    rows = [[0.1] * len(OPERATIONS) for _ in EDGES]
    for (node, source, operation), weight in dict(strong).items():
        rows[EDGES.index((node, source))][OPERATIONS.index(operation)] = weight
    return rows


def of(cell):
    return [[tuple(edge) for edge in pair] for pair in cell]


FIRST_TWO = [[("max_pool_3x3", 0), ("max_pool_3x3", 1)]] * 4  # all weights equal: earlier source, earlier operation


def test_the_two_strongest_edges_with_their_strongest_operation():
    reduction = weights({(0, 0, "dil_conv_5x5"): 0.2, (2, 3, "sep_conv_5x5"): 0.9, (2, 1, "skip_connect"): 0.3,
                         (2, 1, "sep_conv_3x3"): 0.2, (2, 0, "dil_conv_3x3"): 0.25, (3, 4, "avg_pool_3x3"): 0.2})
    genotype = discretize(weights(), reduction)
    assert of(genotype.normal) == FIRST_TWO
    assert of(genotype.reduction) == [
        [("dil_conv_5x5", 0), ("max_pool_3x3", 1)], FIRST_TWO[1], [("skip_connect", 1), ("sep_conv_5x5", 3)],
        [("max_pool_3x3", 0), ("avg_pool_3x3", 4)]]


def test_none_never_counts():
    strong = {(node, source, "none"): 0.9 for node, source in EDGES if source > 1}
    assert of(discretize(weights(strong), weights()).normal) == FIRST_TWO


def test_equal_weights_go_to_the_earlier_source_and_operation():
    strong = {(1, source, name): 0.4 for source in range(3) for name in ("dil_conv_3x3", "sep_conv_5x5")}
    assert of(discretize(weights(strong), weights()).normal)[1] == [("sep_conv_5x5", 0), ("sep_conv_5x5", 1)]
    strong[1, 2, "dil_conv_3x3"] = 0.5
    assert of(discretize(weights(strong), weights()).normal)[1] == [("sep_conv_5x5", 0), ("dil_conv_3x3", 2)]


def test_the_largest_weight_counts_and_not_the_sum():
    rows = weights({(2, 3, "sep_conv_5x5"): 0.5, **{(2, 2, name): 0.4 for name in CHOSEN}})
    rows[EDGES.index((2, 1))] = [0.45] + [0.3] * 7
    rows[EDGES.index((2, 3))] = [0.0 if weight < 0.5 else weight for weight in rows[EDGES.index((2, 3))]]
    assert of(discretize(rows, weights()).normal)[2] == [("max_pool_3x3", 2), ("sep_conv_5x5", 3)]


def test_an_edge_may_be_weighted_as_a_whole():
    """Partial channels multiply the weights of an edge by its own: strength is the largest product."""
    rows = weights({(1, 2, "sep_conv_3x3"): 0.5})
    assert of(discretize(rows, weights()).normal)[1][1] == ("sep_conv_3x3", 2)
    rows[EDGES.index((1, 2))] = [0.15 * weight for weight in rows[EDGES.index((1, 2))]]  # 0.075 at most
    assert of(discretize(rows, weights()).normal) == FIRST_TWO


SKIPS = {(0, 0, "skip_connect"): 0.5, (0, 1, "skip_connect"): 0.4, (1, 2, "skip_connect"): 0.6,
         (3, 4, "skip_connect"): 0.3, (3, 0, "sep_conv_3x3"): 0.25, (3, 1, "dil_conv_3x3"): 0.2}


def test_the_weakest_skips_go_until_the_rest_is_allowed():
    rows = weights(SKIPS)
    found = {limit: discretize(rows, rows, limit) for limit in (None, 4, 3, 2, 1, 0)}
    assert [count_skips(genotype) for genotype in found.values()] == [4, 4, 3, 2, 1, 0]
    assert all(genotype.reduction == found[None].reduction for genotype in found.values())
    # 0.3 goes first: then 0.25 and 0.2 are the strongest edges of node 3
    assert of(found[3].normal)[3] == [("sep_conv_3x3", 0), ("dil_conv_3x3", 1)]
    # 0.4 next: node 0 has only these two sources, so the edge stays with its next operation
    assert of(found[2].normal)[0] == [("skip_connect", 0), ("max_pool_3x3", 1)]
    assert of(found[1].normal)[0] == [("max_pool_3x3", 0), ("max_pool_3x3", 1)]
    assert of(found[1].normal)[1][1] == ("skip_connect", 2) and found[0].normal[1][1].operation == "max_pool_3x3"
    assert rows == weights(SKIPS)  # the caller's own weights are left alone


def test_a_new_skip_that_appears_counts_too():
    strong = {(1, 0, "skip_connect"): 0.3, (1, 1, "skip_connect"): 0.4, (1, 2, "skip_connect"): 0.5}
    genotype = discretize(weights(strong), weights(), 1)  # without 1 <- 0, 1 <- 1 is next, without that none is left
    assert of(genotype.normal)[1] == [("max_pool_3x3", 0), ("skip_connect", 2)]


def test_equally_weak_skips_go_from_the_last():
    strong = {(node, 0, "skip_connect"): 0.3 for node in range(4)}
    genotype = discretize(weights(strong), weights(), 2)
    assert [pair[0].operation for pair in genotype.normal] == ["skip_connect"] * 2 + ["max_pool_3x3"] * 2


@pytest.mark.parametrize(("rows", "words"), [
    (weights()[:-1], "14 edges x 8"), ([row[:-1] for row in weights()], "14 edges x 8"),
    (weights({(0, 0, "none"): float("nan")}), "finite"), (weights({(3, 4, "none"): float("inf")}), "finite"),
    (weights({(3, 4, "skip_connect"): -0.1}), "not below 0")])
def test_what_is_no_softmax_is_refused(rows, words):
    with pytest.raises(ValueError, match=f"normal: .*{words}"):
        discretize(rows, weights())
    with pytest.raises(ValueError, match=f"reduction: .*{words}"):
        discretize(weights(), rows)


# ---- bad input


def test_a_sample_that_is_no_genotype_is_refused():
    sample = load_genotype("DARTS_V2").sample()
    with pytest.raises(ValueError, match="normal, node 0: operation 'none'"):
        Genotype.from_sample({**sample, "normal_n0_s1_op": "none"})
    with pytest.raises(ValueError, match="normal_n3_inputs is missing"):
        Genotype.from_sample({label: value for label, value in sample.items() if label != "normal_n3_inputs"})
