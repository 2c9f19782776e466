"""The edges of a supernet cell, fast: what darts_supernet.py's plain form computes, without most of its memory traffic.

A supernet is bound by memory: each operation is cheap, and its feature maps are written and read again by pointwise
convolution, batch norm, weighing and summing. What is saved here:

- The statistics that batch norm needs of W d, a pointwise convolution of a map d, follow from the mean m and the
  covariance S of d: mean W m, variance diag(W S W^T). So convolution and norm are one matrix product with W scaled by
  row, and only its result is written; the gradient is two products, with the incoming gradient and with d.
- Norm and alpha belong to the same scale, so the sum over all operations that enter a node is a chain of products that
  add to one map. No operation's own output exists.
- ReLU, pooling and its norm depend on the source alone, not on the edge: once a source.
- Dilated convolutions work on the four grids of every other pixel, where they are not dilated (darts_depthwise.py).

All maps are (N, C, H, W) channels_last; as a matrix (M, C), M = N * H * W, the same memory.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .darts_depthwise import convolve, depthwise, every_other, spread, weight_gradients, woven
from .darts_genotype import OPERATIONS

if TYPE_CHECKING:
    from .darts_supernet import SupernetCell

EPS = 1e-5  # of batch norm
MAX, AVG, SKIP, SEP3, SEP5, DIL3, DIL5 = (OPERATIONS.index(name) for name in (
    "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"))


# ---- one cell


class Term(NamedTuple):
    """A part of a node's sum: share * norm(weight @ map)."""

    map: Tensor  # (N, C_in, H, W)
    weight: Tensor  # (C, C_in)
    share: Tensor  # ()


class Inbox:
    """What enters a node."""

    def __init__(self) -> None:
        self.maps: list[Tensor] = []  # whole
        self.terms: list[Term] = []  # to be convolved and normalised
        self.grids: list[Term] = []  # the same, on the grids of every other pixel
        self.reduced: list[Term] = []  # the same, of twice as many channels

    def sum(self) -> Tensor:
        total = sum(self.maps[1:], self.maps[0])
        for terms in filter(None, (self.terms, self.reduced)):
            total = total + weighted_sum(terms)
        return total + woven(weighted_sum(self.grids)) if self.grids else total


def fused_nodes(cell: "SupernetCell", states: Sequence[Tensor], operations: Tensor,
                edges: Tensor | None) -> list[Tensor]:
    """The maps of the nodes, from the two preprocessed inputs; operations (14, 8) and edges (14,) are weights."""
    first = [sum(len(edges) for edges in cell.nodes[:node]) for node in range(len(cell.nodes))]
    inboxes, passed, found = [Inbox() for _ in cell.nodes], [[] for _ in cell.nodes], list(states)
    for source in range(1 + len(cell.nodes)):
        if source >= 2:
            found.append(_finished(cell, inboxes[source - 2], passed[source - 2]))
        x, nodes = found[source], range(max(source - 1, 0), len(cell.nodes))
        index = torch.tensor([first[node] + source for node in nodes], device=x.device)
        shares = operations[index]  # (E, 8)
        if edges is not None:
            shares = shares * edges[index, None]
            _pass(cell, x[:, cell.mixed :], source, edges[index], [passed[node] for node in nodes])
            x = x[:, : cell.mixed].contiguous(memory_format=torch.channels_last)
        _leave(x, [cell.nodes[node][source] for node in nodes], shares, [inboxes[node] for node in nodes],
               2 if cell.reduction and source < 2 else 1)
    return [*found[2:], _finished(cell, inboxes[-1], passed[-1])]


def _finished(cell: "SupernetCell", inbox: Inbox, passed: list[Tensor]) -> Tensor:
    if not passed:
        return inbox.sum()
    from .darts_supernet import shuffled

    return shuffled(torch.cat([inbox.sum(), sum(passed[1:], passed[0])], 1), cell.partial_channels)


def _pass(cell: "SupernetCell", x: Tensor, source: int, shares: Tensor, passed: list[list[Tensor]]) -> None:
    """The channels that no operation sees, weighed, to each node."""
    x = F.max_pool2d(x, 2) if cell.reduction and source < 2 else x
    for share, maps in zip(shares, passed, strict=True):
        maps.append(share * x)


def _leave(x: Tensor, edges: Sequence[nn.Module], shares: Tensor, inboxes: Sequence[Inbox], stride: int) -> None:
    """All that leaves source `x` (N, C, H, W) by `edges` (E) into the inboxes of their nodes; shares (E, 8)."""
    relu = x.relu()
    _separable(relu, edges, shares, inboxes, stride)
    _dilated(relu, edges, shares, inboxes, stride)
    pools = [F.max_pool2d(x, 3, stride, 1), F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)]
    maps, which = [F.batch_norm(pool, None, None, training=True, eps=EPS) for pool in pools], [MAX, AVG]
    if stride == 1:
        maps, which = [*maps, x], [*which, SKIP]
    else:
        halves = torch.cat([relu[:, :, ::2, ::2], relu[:, :, 1::2, 1::2]], 1)
        for edge, share, inbox in zip(edges, shares[:, SKIP], inboxes, strict=True):
            skip = edge.operations[SKIP]
            inbox.reduced.append(Term(halves, torch.block_diag(_matrix(skip.even), _matrix(skip.odd)), share))
    for inbox, map in zip(inboxes, blends(shares[:, which], maps), strict=True):
        inbox.maps.append(map)


def _separable(relu: Tensor, edges: Sequence[nn.Module], shares: Tensor, inboxes: Sequence[Inbox], stride: int) -> None:
    convs = [edge.operations[which] for which in (SEP3, SEP5) for edge in edges]
    n = len(edges)
    maps = [*fan(relu, [conv[1].weight for conv in convs[:n]], stride),
            *fan(relu, [conv[1].weight for conv in convs[n:]], stride)]
    maps = normalized_relu(torch.stack([_matrix(conv[2]) for conv in convs]), maps)
    shares = shares[:, [SEP3, SEP5]].T.reshape(-1)
    for map, conv, share, inbox in zip(maps, convs, shares, [*inboxes, *inboxes], strict=True):
        inbox.terms.append(Term(depthwise(map, conv[5].weight), _matrix(conv[6]), share))


def _dilated(relu: Tensor, edges: Sequence[nn.Module], shares: Tensor, inboxes: Sequence[Inbox], stride: int) -> None:
    """At stride 2 only one of the four grids is used, and the result is the whole map."""
    grid = every_other(relu) if stride == 1 else relu[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)
    for which in (DIL3, DIL5):
        convs = [edge.operations[which] for edge in edges]
        maps = fan(grid, [conv[1].weight for conv in convs])
        for map, conv, share, inbox in zip(maps, convs, shares[:, which], inboxes, strict=True):
            (inbox.grids if stride == 1 else inbox.terms).append(Term(map, _matrix(conv[2]), share))


def _matrix(conv: nn.Module) -> Tensor:
    """The (C, C_in) of a pointwise convolution."""
    return conv.weight.flatten(1)


# ---- maps as matrices


def _rows(map: Tensor) -> Tensor:
    """(N, C, H, W) channels_last -> (M, C), the same memory."""
    return map.permute(0, 2, 3, 1).reshape(-1, map.shape[1])


def _map(rows: Tensor, like: Tensor) -> Tensor:
    """(M, C) -> (N, C, H, W) channels_last, the same memory."""
    n, _, h, w = like.shape
    return rows.view(n, h, w, -1).permute(0, 3, 1, 2)


def fan(x: Tensor, weights: Sequence[Tensor], stride: int = 1) -> tuple[Tensor, ...]:
    """Depthwise convolutions of one map with many kernels (C, 1, k, k), one result each."""
    return _Fan.apply(x, stride, *weights)


class _Fan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, *weights)
        ctx.stride = stride
        return tuple(convolve(x, weight, stride) for weight in weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        if ctx.stride > 1:
            grads = [spread(grad, ctx.stride, x.shape) for grad in grads]
        grad_x, grad_weights = None, [None] * len(weights)
        if ctx.needs_input_grad[0]:
            parts = (convolve(grad, weight.flip(2, 3)) for grad, weight in zip(grads, weights, strict=True))
            grad_x = functools.reduce(Tensor.add_, parts)
        if ctx.needs_input_grad[2]:
            grad_weights = weight_gradients(x, grads, weights[0].shape[-1])
        return grad_x, None, *grad_weights


def blends(shares: Tensor, maps: Sequence[Tensor]) -> Sequence[Tensor]:
    """shares (E, K) of K maps -> E sums."""
    flat = torch.stack([_rows(map).flatten() for map in maps])  # (K, M * C)
    return [_map(total, maps[0]) for total in (shares @ flat).unbind()]


# ---- pointwise convolution and batch norm as one product


PARTS = 8  # a product over many rows is split among the cores only as a batch of products


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left.T @ right of matrices (M, .) with many rows."""
    if len(left) % PARTS:
        return left.T @ right
    return torch.bmm(left.unflatten(0, (PARTS, -1)).mT, right.unflatten(0, (PARTS, -1))).sum(0)


def _totals(maps: Sequence[Tensor]) -> Tensor:
    """Sums over the rows of K matrices (M, C) -> (K, C); a product with ones takes a third of the time of `sum`."""
    ones = maps[0].new_ones(1, len(maps[0]))
    return torch.cat([ones @ map for map in maps])


class Statistics(NamedTuple):
    """Of K maps d (M, C_in) and the norms of weight @ d, weight (K, C, C_in)."""

    mean: Tensor  # of d, (K, C_in)
    spread: Tensor  # weight @ covariance of d, (K, C, C_in)
    inverse: Tensor  # 1 / standard deviation of weight @ d, (K, C)


def _statistics(maps: Sequence[Tensor], weight: Tensor) -> Statistics:
    mean = _totals(maps) / len(maps[0])
    square = torch.stack([_product(map, map) for map in maps]) / len(maps[0])
    covariance = square - mean[:, :, None] * mean[:, None, :]
    spread = weight @ covariance
    variance = (spread * weight).sum(-1).clamp_min(0)  # rounding may bring it below
    return Statistics(mean, spread, (variance + EPS).rsqrt())


def _normalized(map: Tensor, matrix: Tensor, mean: Tensor) -> Tensor:
    """(map - mean) @ matrix.T"""
    return torch.addmm(-(matrix @ mean), map, matrix.T)


class _Gradient(NamedTuple):
    share: Tensor  # (K,)
    weight: Tensor  # (K, C, C_in)
    constant: Tensor  # (K, C_in), and
    grad_matrix: Tensor  # (K, C, C_in), and
    map_matrix: Tensor  # (K, C_in, C_in): gradient of a map = constant + grad @ grad_matrix - map @ map_matrix


def _gradient(product: Tensor, total: Tensor, weight: Tensor, share: Tensor, stats: Statistics, m: int) -> _Gradient:
    """Of share * norm(weight @ map), from product = grad.T @ map (K, C, C_in) and total = grad.sum(0) (K, C).

    Batch norm's gradient, with y = weight @ map and z its norm: share / std * (grad - mean(grad) - z mean(grad * z)).
    """
    centred = (product * weight).sum(-1) - total * (weight @ stats.mean[..., None]).squeeze(-1)  # grad * (y - mean)
    along = stats.inverse * centred  # sum of grad * z
    scale = share[:, None, None] * stats.inverse[..., None]  # (K, C, 1)
    grad_matrix = scale * weight
    pull = stats.inverse * along / m
    map_matrix = weight.mT @ (scale * pull[..., None] * weight)
    constant = (stats.mean[:, None] @ map_matrix - total[:, None] @ grad_matrix / m).squeeze(1)
    grad_weight = scale * (product - total[..., None] * stats.mean[:, None] - (m * pull)[..., None] * stats.spread)
    return _Gradient(along.sum(-1), grad_weight, constant, grad_matrix, map_matrix)


def _map_gradient(grad: Tensor, map: Tensor, constant: Tensor, grad_matrix: Tensor, map_matrix: Tensor) -> Tensor:
    """constant + grad @ grad_matrix - map @ map_matrix, (M, C_in)"""
    result = constant.repeat(len(grad), 1)
    return result.addmm_(grad, grad_matrix).addmm_(map, map_matrix, alpha=-1)


def weighted_sum(terms: Sequence[Term]) -> Tensor:
    """The sum of share * norm(weight @ map) over all terms."""
    maps, weights, shares = zip(*terms, strict=True)
    return _WeightedSum.apply(torch.stack(shares), torch.stack(weights), *maps)


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, share: Tensor, weight: Tensor, *maps: Tensor) -> Tensor:
        rows = [_rows(map) for map in maps]
        stats = _statistics(rows, weight)
        matrices = (share[:, None] * stats.inverse)[..., None] * weight
        total = -(matrices @ stats.mean[..., None]).sum(0).squeeze(-1).expand(len(rows[0]), -1)
        for first, (map, matrix) in enumerate(zip(rows, matrices, strict=True)):
            total = total.addmm_(map, matrix.T) if first else torch.addmm(total, map, matrix.T)
        ctx.save_for_backward(share, weight, *stats, *maps)
        return _map(total, maps[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        share, weight, mean, spread, inverse, *maps = ctx.saved_tensors
        g, rows = _rows(grad), [_rows(map) for map in maps]
        product = torch.stack([_product(g, map) for map in rows])
        total = _totals([g]).expand(len(maps), -1)
        found = _gradient(product, total, weight, share, Statistics(mean, spread, inverse), len(g))
        grads = [_map(_map_gradient(g, map, *parts), maps[0]) for map, *parts in zip(rows, *found[2:], strict=True)]
        return found.share, found.weight, *grads


def normalized_relu(weight: Tensor, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """relu(norm(weight @ map)) of K maps, weight (K, C, C_in)."""
    return _NormalizedRelu.apply(weight, *maps)


class _NormalizedRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        rows = [_rows(map) for map in maps]
        stats = _statistics(rows, weight)
        matrices = stats.inverse[..., None] * weight
        results = [_map(_normalized(map, matrix, mean).relu_(), maps[0])
                   for map, matrix, mean in zip(rows, matrices, stats.mean, strict=True)]
        ctx.save_for_backward(weight, *stats, *maps, *results)
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        weight, mean, spread, inverse, *saved = ctx.saved_tensors
        maps, results = saved[: len(weight)], saved[len(weight) :]
        gs = [_rows(torch.ops.aten.threshold_backward(grad, result, 0))
              for grad, result in zip(grads, results, strict=True)]
        rows = [_rows(map) for map in maps]
        product = torch.stack([_product(g, map) for g, map in zip(gs, rows, strict=True)])
        total = _totals(gs)
        ones = torch.ones_like(total[:, 0])
        found = _gradient(product, total, weight, ones, Statistics(mean, spread, inverse), len(rows[0]))
        found_maps = [_map(_map_gradient(g, map, *parts), maps[0])
                      for g, map, *parts in zip(gs, rows, *found[2:], strict=True)]
        return found.weight, *found_maps
