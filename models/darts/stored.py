"""The edges of a supernet cell, in few launches: what supernet.py's plain form computes, all edges of a source at once.

The E edges that leave a source are E groups of channels of one map (N, E * C, H, W): one depthwise convolution over all
of them, one pointwise convolution with E groups, one batch norm. What weighs an operation on an edge, the softmax of
alpha, is the weight of its last norm. ReLU and pooling depend on the source alone: once a source; what has no norm of
its own edge, pools and the skip connection, is weighed and summed for all edges by one pointwise convolution. The map
is split into edges at the very end.

On a GPU a step of the search is bound by launches, some thousand of small kernels, and not by arithmetic.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.darts.by_source import by_source, picked
from models.darts.depthwise import convolve
from models.darts.operations import SPACE, Shape, reducing_kernels

EPS = 1e-5  # of batch norm


def cannot() -> list[str]:
    """The operations that are declared without a fast form."""
    return [name for name, operation in SPACE.items() if not any(operation[1:])]


def nodes(cell: nn.Module, states: Sequence[Tensor], operations: Tensor, edges: Tensor | None) -> list[Tensor]:
    """The maps of the nodes, from the two preprocessed inputs; operations (14, O) and edges (14,) are weights."""
    return by_source(cell, states, operations, edges, leave, torch.add)


def leave(x: Tensor, edges: nn.Module, shares: Tensor, stride: int) -> Sequence[Tensor]:
    """All that leaves source `x` (N, C, H, W) by its E edges, a map for each; shares (E, O)."""
    relu, (count, c) = x.relu(), (len(shares), x.shape[1])
    # (N, E * C, H, W) channels_last, which `repeat` by itself does not keep; (E * C,) of each operation
    wide = relu.permute(0, 2, 3, 1).repeat(1, 1, 1, count).permute(0, 3, 1, 2)
    weights = shares.T.repeat_interleave(c, 1).unbind()
    maps, blended, columns, pools = [], [], [], []
    for column, (name, operation) in enumerate(SPACE.items()):
        parameters = edges.operations[name]
        if operation.chain:
            maps.append(_chain(wide, parameters, count, operation.chain, stride, weights[column]))
        elif operation.pool:
            pools.append(operation.pool(x, stride))
            columns.append(column)
        elif operation.skip and stride == 2:
            maps.append(_norm(torch.conv2d(relu, reducing_kernels(*parameters, count), stride=2), weights[column]))
        elif operation.skip:
            blended.append((column, x))
    if pools:
        blended = [*zip(columns, _norm(torch.cat(pools, 1)).chunk(len(pools), 1), strict=True), *blended]
    if blended:
        columns, sources = zip(*blended, strict=True)
        maps.append(_blend(sources, picked(shares.unbind(1), columns, 1)))
    return sum(maps[1:], maps[0]).chunk(count, 1)


def _chain(x: Tensor, parameters: Sequence[Tensor], count: int, shape: Shape, stride: int, weight: Tensor) -> Tensor:
    """x (N, E * C, H, W) after its ReLU, parameters (E * C, 1, k, k) and (E * C, C, 1, 1) in turn, weight (E * C,)."""
    for number in range(shape.times):
        depthwise, pointwise = parameters[2 * number : 2 * number + 2]
        if number:
            x, stride = _norm(x).relu_(), 1
        x = torch.conv2d(convolve(x, depthwise, stride, shape.dilation), pointwise, groups=count)
    return _norm(x, weight)


def _norm(x: Tensor, weight: Tensor | None = None) -> Tensor:
    return F.batch_norm(x, None, None, weight, None, training=True, eps=EPS)


def _blend(maps: Sequence[Tensor], shares: Tensor) -> Tensor:
    """K maps (N, C, H, W) and shares (E, K) -> (N, E * C, H, W), the E weighed sums."""
    each = torch.eye(maps[0].shape[1], dtype=shares.dtype, device=shares.device)
    return torch.conv2d(torch.cat(list(maps), 1), torch.kron(shares, each)[:, :, None, None])
