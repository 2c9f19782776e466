"""States of the supernet as versions before November 26, 2026 wrote them: each edge with parameters of its own."""

import re

from models.darts.genotype import OPERATIONS


def of_before(state):
    """A state in the layout in which each edge had parameters of its own."""
    found = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"(cells\.\d+\.)sources\.(\d)\.operations\.(.+)\.(\d)", name)
        if not match:
            found[name] = tensor
            continue
        cell, source, operation, number = match.groups()
        nodes = range(max(int(source) - 1, 0), 4)
        chain = ("1.weight", "2.weight", "5.weight", "6.weight")
        own = ("even.weight", "odd.weight") if operation == "skip_connect" else chain
        for node, part in zip(nodes, tensor.chunk(len(nodes)), strict=True):
            found[f"{cell}nodes.{node}.{source}.operations.{OPERATIONS.index(operation)}.{own[int(number)]}"] = part
    return found
