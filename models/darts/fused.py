"""The edges of a supernet cell, fast: what supernet.py's plain form computes, with less arithmetic and traffic.

What is saved here:

- Batch norm has no weights of its own, so it is a mean taken off and a factor a channel. The mean is taken off by the
  bias of the pointwise convolution before it: that of its result follows from that of its input. The factor is never
  applied by itself: before a ReLU it moves into the depthwise convolution that follows, since relu(s y) = s relu(y)
  for s > 0; at the end of an edge it is multiplied with alpha, and the map is added to the node.
- The gradient of such a factor and norm is that of PyTorch's batch norm with alpha as its weight: one call, and in it
  alpha's own.
- The gradient of a node, a slice of that of the whole cell, is made dense once for all edges that enter it.
- Each convolution is taken to its end, and its gradient back to its start, while its maps are in the caches.
- No map is written that only a sum is taken of, and maps are weighed and added in place.
- ReLU, pooling and its norm depend on the source alone, not on the edge: once a source.
- Without gradients of the weights, as in a step of the alphas, the maps that only they need are not kept.

All maps are (N, C, H, W) channels_last; as a matrix (M, C), M = N * H * W, the same memory.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.darts.depthwise import convolve, input_gradients, joined, weight_gradients
from models.darts.genotype import OPERATIONS
from models.darts.operations import shuffled
from models.darts.pointwise import product, rows_of

EPS = 1e-5  # of batch norm
WIDTH = 256  # numbers in a row of which sums are fast
MAX, AVG, SKIP, SEP3, SEP5, DIL3, DIL5 = (OPERATIONS.index(name) for name in (
    "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"))


# ---- one cell


def fused_nodes(cell: nn.Module, states: Sequence[Tensor], operations: Tensor,
                edges: Tensor | None) -> list[Tensor]:
    """The maps of the nodes, from the two preprocessed inputs; operations (14, 8) and edges (14,) are weights."""
    first = [sum(len(edges) for edges in cell.nodes[:node]) for node in range(len(cell.nodes))]
    sums, passed, found = [[] for _ in cell.nodes], [[] for _ in cell.nodes], list(states)
    rows = operations.unbind() if edges is None else (operations * edges[:, None]).unbind()
    for source in range(1 + len(cell.nodes)):
        if source >= 2:
            found.append(_finished(cell, sums[source - 2], passed[source - 2]))
        x, nodes = found[source], range(max(source - 1, 0), len(cell.nodes))
        shares = torch.stack([rows[first[node] + source] for node in nodes])  # (E, 8)
        if edges is not None:
            _pass(cell, x[:, cell.mixed :], source, [edges[first[node] + source] for node in nodes],
                  [passed[node] for node in nodes])
            x = x[:, : cell.mixed].contiguous(memory_format=torch.channels_last)
        stride = 2 if cell.reduction and source < 2 else 1
        maps = _leave(x, [cell.nodes[node][source] for node in nodes], shares, stride)
        for node, map in zip(nodes, maps, strict=True):
            sums[node].append(map)
    return [*found[2:], _finished(cell, sums[-1], passed[-1])]


def _finished(cell: nn.Module, maps: list[Tensor], passed: list[Tensor]) -> Tensor:
    total = _sum(maps)
    if total.requires_grad:  # a slice of the gradient of all nodes: once dense for all edges
        total.register_hook(_dense)
    if not passed:
        return total
    return shuffled(torch.cat([total, _sum(passed)], 1), cell.partial_channels)


def _dense(map: Tensor) -> Tensor:
    return map.contiguous(memory_format=torch.channels_last)


def _sum(maps: list[Tensor]) -> Tensor:
    return functools.reduce(Tensor.add_, maps[1:], maps[0])


def _pass(cell: nn.Module, x: Tensor, source: int, shares: Sequence[Tensor], passed: list[list[Tensor]]) -> None:
    """The channels that no operation sees, weighed, to each node."""
    x = F.max_pool2d(x, 2) if cell.reduction and source < 2 else x
    for share, maps in zip(shares, passed, strict=True):
        maps.append(share * x)


def _leave(x: Tensor, edges: Sequence[nn.Module], shares: Tensor, stride: int) -> list[Tensor]:
    """All that leaves source `x` (N, C, H, W) by `edges` (E), a map for each; shares (E, 8)."""
    relu = x.relu()
    maps = convolutions(relu, edges, shares, stride)
    pools = [F.max_pool2d(x, 3, stride, 1), F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)]
    others, which = [F.batch_norm(pool, None, None, training=True, eps=EPS) for pool in pools], [MAX, AVG]
    if stride == 1:
        others, which = [*others, x], [*which, SKIP]
    else:
        maps = [map.add_(skip) for map, skip in zip(maps, _reduced(relu, edges, shares[:, SKIP]), strict=True)]
    return list(_Blends.apply(shares[:, which], *others, *maps))


def _reduced(relu: Tensor, edges: Sequence[nn.Module], shares: Tensor) -> Sequence[Tensor]:
    """The skip connections of stride 2 of all edges as one convolution and one norm; shares (E,)."""
    maps = F.conv2d(relu, torch.cat([edge.operations[SKIP].kernel() for edge in edges]), stride=2)
    norms = F.batch_norm(maps, None, None, shares.repeat_interleave(relu.shape[1]), None, training=True, eps=EPS)
    return norms.chunk(len(edges), 1)


# ---- weighed sums


class _Blends(torch.autograd.Function):
    """shares (E, K), K maps and E totals: to each total is added, in place, the sum of the weighed maps."""

    @staticmethod
    def forward(ctx: Any, shares: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        maps, totals = maps[: shares.shape[1]], maps[shares.shape[1] :]
        ctx.save_for_backward(shares, *maps)
        ctx.mark_dirty(*totals)
        for total, row in zip(totals, shares, strict=True):
            for map, share in zip(maps, row, strict=True):
                total.addcmul_(map, share)
        return totals

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        shares, *maps = ctx.saved_tensors
        grad_maps, grad_shares = [], None
        for column, wanted in zip(shares.T, ctx.needs_input_grad[1:], strict=False):
            grad_maps.append(_weighed(grads, column) if wanted else None)
        if ctx.needs_input_grad[0]:
            flat = [rows_of(map).flatten() for map in (*maps, *grads)]
            dots = [torch.dot(grad, map) for grad in flat[len(maps) :] for map in flat[: len(maps)]]
            grad_shares = torch.stack(dots).view_as(shares)
        return grad_shares, *grad_maps, *grads


def _weighed(maps: Sequence[Tensor], shares: Tensor) -> Tensor:
    first, *others = shares
    total = maps[0] * first
    for map, share in zip(maps[1:], others, strict=True):
        total.addcmul_(map, share)
    return total


# ---- maps as matrices


def _map(rows: Tensor, like: Tensor) -> Tensor:
    """(M, C) -> (N, C, H, W) channels_last, the same memory."""
    n, _, h, w = like.shape
    return rows.view(n, h, w, -1).permute(0, 3, 1, 2)


def _mean(rows: Tensor) -> Tensor:
    """(M, C) -> (C,), of several rows as one: `mean(0)` of narrow ones takes twice as long."""
    m, c = rows.shape
    together = math.gcd(m, max(1, WIDTH // c))
    return rows.reshape(-1, together * c).sum(0).view(together, c).sum(0) / m


# ---- depthwise convolution, pointwise convolution, batch norm


class Unit(NamedTuple):
    """What norm(weight @ depthwise(x, kernel)) leaves behind for its gradient; the norm is inverse * centred."""

    kernel: Tensor  # (C_in, 1, k, k)
    weight: Tensor  # (C, C_in, 1, 1)
    rows: Tensor | None  # depthwise(x, kernel), (M, C_in); None if no gradient of the weight is wanted
    centred: Tensor  # weight @ (rows - mean(rows)), (N, C, h, w)
    inverse: Tensor  # 1 / the standard deviation of these, (C,)


def _dots(left: Tensor, right: Tensor, factor: Tensor) -> Tensor:
    """factor (C,) times the sums of left * right over all but their channels: as one of batch norm's gradients, which
    writes no map of products."""
    return torch.ops.aten.native_batch_norm_backward(
        left, right, None, None, None, torch.zeros_like(factor), factor, True, EPS, [False, True, True])[1]


def _unit(x: Tensor, kernel: Tensor, weight: Tensor, stride: int, dilation: int, keep: bool,
          factor: Tensor | None = None) -> Unit:
    """factor (C_in,) of the kernel"""
    used = kernel if factor is None else factor[:, None, None, None] * kernel
    map = convolve(x, used, stride, dilation)
    rows = rows_of(map)
    centred = torch.conv2d(map, weight, -(weight.flatten(1) @ _mean(rows)))
    inverse = (_dots(centred, centred, centred.new_ones(len(weight))) / len(rows) + EPS).rsqrt()
    return Unit(kernel, weight, rows if keep else None, centred, inverse)


def _gradients(unit: Unit, grad: Tensor, share: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Those of depthwise(x, kernel), (N, C_in, h, w), of the weight and of the share (C,); grad (N, C, h, w) is that of
    share * norm."""
    zero = torch.zeros_like(unit.inverse)
    grad, grad_share, _ = torch.ops.aten.native_batch_norm_backward(
        grad, unit.centred, share, None, None, zero, unit.inverse, True, EPS, [True, True, False])
    rows = rows_of(grad)
    grad_map = _map(rows @ unit.weight.flatten(1), grad)
    return grad_map, None if unit.rows is None else product(rows, unit.rows)[:, :, None, None], grad_share


# ---- the convolutions of all edges that leave a source

CONVOLUTIONS = {SEP3: (2, 1), SEP5: (2, 1), DIL3: (1, 2), DIL5: (1, 2)}  # number of units, dilation


def convolutions(x: Tensor, edges: Sequence[nn.Module], shares: Tensor, stride: int) -> list[Tensor]:
    """The sum of the weighed convolutions on each edge; x (N, C, H, W) after its ReLU, shares (E, 8)."""
    parameters = [parameter for which in CONVOLUTIONS for edge in edges
                  for parameter in edge.operations[which].parameters()]
    return list(_Convolutions.apply(x, shares[:, list(CONVOLUTIONS)], stride, *parameters))


class _Convolutions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shares: Tensor, stride: int, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.stride, keep = stride, any(ctx.needs_input_grad[3:])
        units, sums, left = [], [None] * len(shares), iter(parameters)
        for column, (length, dilation) in zip(shares.unbind(1), CONVOLUTIONS.values(), strict=True):
            for edge, share in enumerate(column.unbind()):
                unit = _unit(x, next(left), next(left), stride, dilation, keep)
                units.append(unit)
                if length == 2:
                    unit = _unit(unit.centred.relu(), next(left), next(left), 1, 1, keep, unit.inverse)
                    units.append(unit)
                scale = (share * unit.inverse)[:, None, None]
                sums[edge] = unit.centred * scale if sums[edge] is None else sums[edge].addcmul_(unit.centred, scale)
        ctx.save_for_backward(x, shares, *(tensor for unit in units for tensor in unit))
        return tuple(sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, shares, *saved = ctx.saved_tensors
        units = iter([Unit(*saved[first : first + len(Unit._fields)])
                      for first in range(0, len(saved), len(Unit._fields))])
        each = shares[:, :, None].expand(*shares.shape, grads[0].shape[1]).contiguous()
        grad_shares, grad_x, grad_parameters = torch.empty_like(each), [], []
        for column, (length, dilation) in enumerate(CONVOLUTIONS.values()):
            starts = []
            for edge, grad in enumerate(grads):
                chain = [next(units) for _ in range(length)]
                if not (ctx.needs_input_grad[0] or ctx.needs_input_grad[3]):  # in the first cell, for the alphas
                    grad_shares[edge, column] = _dots(grad, chain[-1].centred, chain[-1].inverse)
                    continue
                start, grad_shares[edge, column], *found = _chain_gradients(chain, grad, each[edge, column])
                grad_parameters += [None, *found]  # the first kernel's are found together
                starts.append(start)
                if ctx.needs_input_grad[0]:
                    parts = input_gradients(start, chain[0].kernel, ctx.stride, dilation)
                    grad_x = [*map(Tensor.add_, grad_x, parts), *grad_x[len(parts) :]] if grad_x else parts
            if ctx.needs_input_grad[3]:
                found = weight_gradients(x, starts, chain[0].kernel.shape[-1], dilation, ctx.stride)
                grad_parameters[-2 * length * len(grads) :: 2 * length] = found
        grad_parameters = grad_parameters or [None] * (len(ctx.needs_input_grad) - 3)
        return joined(grad_x, x.shape) if grad_x else None, grad_shares.sum(2), None, *grad_parameters


def _chain_gradients(chain: Sequence[Unit], grad: Tensor, share: Tensor) -> list[Tensor | None]:
    """Of the first depthwise convolution's result (N, C, h, w), of the share, and of all parameters but the first
    kernel, in their order."""
    last = chain[-1]
    map, weight, grad_share = _gradients(last, grad, share)
    if len(chain) == 1:
        return [map, grad_share, weight]
    first, kernel = chain[0], None
    if weight is not None:
        [kernel] = weight_gradients(first.centred.relu(), [map], last.kernel.shape[-1])
        kernel *= first.inverse[:, None, None, None]
    [grad] = input_gradients(map, last.kernel)
    torch.ops.aten.threshold_backward.grad_input(grad, first.centred, 0, grad_input=grad)
    map, first_weight, _ = _gradients(first, grad, torch.ones_like(first.inverse))
    return [map, grad_share, first_weight, kernel, weight]
