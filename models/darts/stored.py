"""The edges of a supernet cell, in few launches: what supernet.py's plain form computes, all edges of a source at once.

The E edges that leave a source are E groups of channels of one map (N, E * C, H, W): one depthwise convolution over all
of them, one pointwise convolution with E groups, one batch norm. What weighs an operation on an edge, the softmax of
alpha, is the weight of its last norm. ReLU and pooling depend on the source alone: once a source; what has no norm of
its own edge, pools and the skip connection, is weighed and summed for all edges by one pointwise convolution. The map
is split into edges at the very end.

On a GPU a step of the search is bound by launches, some thousand of small kernels, and not by arithmetic. There the
steps are kernels of our own (models/kernels), and a graph runs the chains of a source side by side.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.darts.by_source import by_source, picked
from models.darts.depthwise import convolve
from models.darts.operations import SPACE, Shape, reducing_kernels
from models.kernels import usable
from models.kernels.branches import side_by_side

EPS = 1e-5  # of batch norm


def cannot() -> list[str]:
    """The operations that are declared without a fast form."""
    return [name for name, operation in SPACE.items() if not any(operation[1:])]


def nodes(cell: nn.Module, states: Sequence[Tensor], operations: Tensor, edges: Tensor | None) -> list[Tensor]:
    """The maps of the nodes, from the two preprocessed inputs; operations (14, O) and edges (14,) are weights."""
    return by_source(cell, states, operations, edges, leave, torch.add)


def leave(x: Tensor, edges: nn.Module, shares: Tensor, stride: int) -> Sequence[Tensor]:
    """All that leaves source `x` (N, C, H, W) by its E edges, a map for each; shares (E, O)."""
    steps, (count, c) = _own_steps() if usable(x) else PYTORCH, (len(shares), x.shape[1])
    wide = steps.rectified(x, count)
    weights = shares.T.repeat_interleave(c, 1).unbind()  # (E * C,) of each operation
    chains, skips, of_chains, of_skips, blended, columns, pools = [], [], [], [], [], [], []
    for column, (name, operation) in enumerate(SPACE.items()):
        parameters = edges.operations[name]
        if operation.chain:
            chains.append(partial(_chain, wide, parameters, operation.chain, stride, steps))
            of_chains.append(weights[column])
        elif operation.pool:
            pools.append(operation.pool(x, stride))
            columns.append(column)
        elif operation.skip and stride == 2:
            skips.append(torch.conv2d(x.relu(), reducing_kernels(*parameters, count), stride=2))
            of_skips.append(weights[column])
        elif operation.skip:
            blended.append((column, x))
    if pools:
        normalized = steps.normalized([torch.cat(pools, 1)], None)
        blended = [*zip(columns, normalized.chunk(len(pools), 1), strict=True), *blended]
    maps = [*side_by_side(chains, wide), *skips]
    sums = [steps.normalized(maps, [*of_chains, *of_skips])] if maps else []
    if blended:
        columns, sources = zip(*blended, strict=True)
        sums.append(_blend(sources, picked(shares.unbind(1), columns, 1)))
    return sum(sums[1:], sums[0]).chunk(count, 1)


def _chain(x: Tensor, parameters: Sequence[Tensor], shape: Shape, stride: int, steps: "Steps") -> Tensor:
    """x as `rectified` gives it, parameters (E * C, 1, k, k) and (E * C, C, 1, 1) in turn; without its last norm."""
    for number in range(shape.times):
        depthwise, pointwise = parameters[2 * number : 2 * number + 2]
        if number:
            x, stride = steps.rectified(steps.normalized([x], None), 1), 1
        x = steps.pointwise(steps.depthwise(x, depthwise, stride, shape.dilation), pointwise)
    return x


# ---- steps, by PyTorch and by kernels of our own


class Steps(NamedTuple):
    """`depthwise` reads what `rectified` has made of a map (N, C, H, W), for so many groups."""

    rectified: Callable[[Tensor, int], Tensor]
    depthwise: Callable[[Tensor, Tensor, int, int], Tensor]  # and weight (E * C, 1, k, k), stride, dilation
    pointwise: Callable[[Tensor, Tensor], Tensor]  # (N, E * C, H, W), (E * C, C, 1, 1)
    normalized: Callable[[Sequence[Tensor], Sequence[Tensor] | None], Tensor]  # the weighed sum of the norms of maps


def _repeated(x: Tensor, count: int) -> Tensor:
    """ReLU, (N, E * C, H, W) channels_last, which `repeat` by itself does not keep."""
    return x.relu().permute(0, 2, 3, 1).repeat(1, 1, 1, count).permute(0, 3, 1, 2) if count > 1 else x.relu()


def _grouped(x: Tensor, weight: Tensor) -> Tensor:
    return torch.conv2d(x, weight, groups=x.shape[1] // weight.shape[1])


def _normalized(maps: Sequence[Tensor], weights: Sequence[Tensor] | None) -> Tensor:
    first, *others = (F.batch_norm(map, None, None, weight, None, training=True, eps=EPS)
                      for map, weight in zip(maps, weights or [None] * len(maps), strict=True))
    return sum(others, first)


PYTORCH = Steps(_repeated, convolve, _grouped, _normalized)


@cache
def _own_steps() -> Steps:
    from models.kernels.batch_norm import normalized  # Triton, which not every machine has
    from models.kernels.depthwise import rectified_depthwise
    from models.kernels.pointwise import pointwise

    return Steps(lambda x, count: x, rectified_depthwise, pointwise,
                 lambda maps, weights: normalized(maps, weights and torch.stack(list(weights)), eps=EPS))


def _blend(maps: Sequence[Tensor], shares: Tensor) -> Tensor:
    """K maps (N, C, H, W) and shares (E, K) -> (N, E * C, H, W), the E weighed sums."""
    each = torch.eye(maps[0].shape[1], dtype=shares.dtype, device=shares.device)
    return torch.conv2d(torch.cat(list(maps), 1), torch.kron(shares, each)[:, :, None, None])
