"""What the fast forms of the supernet share: a cell computed source by source, all edges that leave one together."""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.darts.genotype import EDGES
from models.darts.operations import shuffled
from models.kernels import usable

# x (N, C, H, W), the Edges that leave it, shares (E, O), stride -> E maps
Leave = Callable[[Tensor, nn.Module, Tensor, int], Sequence[Tensor]]


def by_source(cell: nn.Module, states: Sequence[Tensor], operations: Tensor, edges: Tensor | None, leave: Leave,
              add: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    """The maps of the nodes, from the two preprocessed inputs; operations (14, O) and edges (14,) are weights.

    `add` sums what enters a node: in place, if the maps that `leave` gives are nobody else's.
    """
    rows = (operations if edges is None else operations * edges[:, None]).unbind()
    count = len(cell.sources) - 1
    sums, passed, found = [[] for _ in range(count)], [[] for _ in range(count)], list(states)
    for source, leaving in enumerate(cell.sources):
        if source >= 2:
            found.append(_finished(cell, sums[source - 2], passed[source - 2], add))
        x, entered, stride = found[source], cell.entered(source), 2 if cell.reduction and source < 2 else 1
        places = [EDGES.index((node, source)) for node in entered]
        shares = picked(rows, places)
        if edges is not None:
            whole = x if usable(x) else x[:, cell.mixed :]
            rest = F.max_pool2d(whole, 2) if stride == 2 else whole
            for node, place in zip(entered, places, strict=True):
                passed[node].append((rest, edges[place]))
            x = x[:, : cell.mixed].contiguous(memory_format=torch.channels_last)
        for node, map in zip(entered, leave(x, leaving, shares, stride), strict=True):
            sums[node].append(map)
    return [*found[2:], _finished(cell, sums[-1], passed[-1], add)]


def picked(rows: Sequence[Tensor], places: Sequence[int], dim: int = 0) -> Tensor:
    """Some of the rows, stacked. A list as index would be copied from the host to the device, and be waited for."""
    return torch.stack([rows[place] for place in places], dim)


def _finished(cell: nn.Module, maps: list[Tensor], passed: list[tuple[Tensor, Tensor]],
              add: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """A node's map: the sum of what enters it, and the channels that pass by; kernels of our own get whole maps."""
    total = reduce(add, maps)
    if total.requires_grad:  # a slice of the gradient of all nodes: once dense for all edges
        total.register_hook(_dense)
    if not passed:
        return total
    maps, shares = zip(*passed, strict=True)
    if usable(total):
        from models.kernels.passing import interleaved  # Triton, which not every machine has

        return interleaved(total, torch.stack(shares), *maps)
    (rest, share), *others = passed
    by = reduce(lambda found, more: found.addcmul_(*more), others, rest * share)
    return shuffled(torch.cat([total, by], 1), cell.partial_channels)


def _dense(map: Tensor) -> Tensor:
    return map.contiguous(memory_format=torch.channels_last)
