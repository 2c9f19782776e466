"""The edges of a supernet cell, fast: what supernet.py's plain form computes, with less arithmetic and traffic.

What is saved here:

- Batch norm has no weights of its own, so it is a mean taken off and a factor a channel. The mean is taken off by the
  bias of the pointwise convolution before it: that of its result follows from that of its input. The factor is never
  applied by itself: before a ReLU it moves into the depthwise convolution that follows, since relu(s y) = s relu(y)
  for s > 0; at the end of an edge it is multiplied with alpha, and the map is added to the node.
- The gradient of such a factor and norm is that of PyTorch's batch norm with alpha as its weight: one call, and in it
  alpha's own.
- Each convolution is taken to its end, and its gradient back to its start, while its maps are in the caches.
- No map is written that only a sum is taken of, and maps are weighed and added in place.
- ReLU, pooling and its norm depend on the source alone, not on the edge: once a source.
- Without gradients of the weights, as in a step of the alphas, the maps that only they need are not kept.

All maps are (N, C, H, W) channels_last; as a matrix (M, C), M = N * H * W, the same memory.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.darts.by_source import by_source, picked
from models.darts.depthwise import convolve, input_gradients, joined, weight_gradients
from models.darts.operations import SPACE, Shape, reducing_kernels
from models.darts.pointwise import product, rows_of

EPS = 1e-5  # of batch norm
WIDTH = 256  # numbers in a row of which sums are fast


# ---- one cell


def cannot() -> list[str]:
    """The operations without a fast form, and those whose gradients are not written here."""
    return [name for name, operation in SPACE.items() if not any(operation[1:]) or (
        operation.chain and operation.chain not in CHAINS)]


def nodes(cell: nn.Module, states: Sequence[Tensor], operations: Tensor, edges: Tensor | None) -> list[Tensor]:
    """The maps of the nodes, from the two preprocessed inputs; operations (14, O) and edges (14,) are weights."""
    return by_source(cell, states, operations, edges, _leave, Tensor.add_)


def _leave(x: Tensor, edges: nn.Module, shares: Tensor, stride: int) -> list[Tensor]:
    """All that leaves source `x` (N, C, H, W) by its E edges, a map for each; shares (E, O)."""
    relu = x.relu()
    maps = convolutions(relu, edges, shares, stride)
    which = [column for column, operation in enumerate(SPACE.values()) if operation.pool]
    others = [F.batch_norm(operation.pool(x, stride), None, None, training=True, eps=EPS)
              for operation in SPACE.values() if operation.pool]
    for column, (name, operation) in enumerate(SPACE.items()):
        if operation.skip and stride == 1:
            others, which = [*others, x], [*which, column]
        elif operation.skip:
            skips = _reduced(relu, edges.operations[name], shares[:, column])
            maps = [map.add_(skip) for map, skip in zip(maps, skips, strict=True)]
    return list(_Blends.apply(picked(shares.unbind(1), which, 1), *others, *maps))


def _reduced(relu: Tensor, parameters: Sequence[Tensor], shares: Tensor) -> Sequence[Tensor]:
    """The skip connections of stride 2 of all edges as one convolution and one norm; shares (E,)."""
    maps = F.conv2d(relu, reducing_kernels(*parameters, len(shares)), stride=2)
    norms = F.batch_norm(maps, None, None, shares.repeat_interleave(relu.shape[1]), None, training=True, eps=EPS)
    return norms.chunk(len(shares), 1)


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
    writes no map of products. That of a weight: without one CUDA gives none."""
    ones, zeros = torch.ones_like(factor), torch.zeros_like(factor)
    return torch.ops.aten.native_batch_norm_backward(
        left, right, ones, None, None, zeros, factor, True, EPS, [False, True, True])[1]


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

CHAINS = {Shape(3, 1, 2), Shape(5, 1, 2), Shape(3, 2, 1), Shape(5, 2, 1)}


def convolutions(x: Tensor, edges: nn.Module, shares: Tensor, stride: int) -> list[Tensor]:
    """The sum of the weighed chains on each edge; x (N, C, H, W) after its ReLU, shares (E, O)."""
    chains = {column: (name, operation.chain) for column, (name, operation) in enumerate(SPACE.items())
              if operation.chain}
    parameters = [parameter for name, _ in chains.values() for parameter in edges.operations[name]]
    shapes = [shape for _, shape in chains.values()]
    return list(_Convolutions.apply(x, picked(shares.unbind(1), list(chains), 1), stride, shapes, *parameters))


class _Convolutions(torch.autograd.Function):
    """parameters: of each chain, for all edges, (E * C, 1, k, k) and (E * C, C, 1, 1) in turn."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shares: Tensor, stride: int, shapes: Sequence[Shape],
                *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.stride, ctx.shapes, keep = stride, shapes, any(ctx.needs_input_grad[4:])
        units, sums, left = [], [None] * len(shares), iter(parameters)
        for column, shape in zip(shares.unbind(1), shapes, strict=True):
            of_edges = [parameter.chunk(len(shares)) for parameter in itertools.islice(left, 2 * shape.times)]
            for edge, (share, *own) in enumerate(zip(column.unbind(), *of_edges, strict=True)):
                unit = _unit(x, own[0], own[1], stride, shape.dilation, keep)
                units.append(unit)
                if shape.times == 2:
                    unit = _unit(unit.centred.relu(), own[2], own[3], 1, 1, keep, unit.inverse)
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
        for column, shape in enumerate(ctx.shapes):
            starts, found = [], []
            for edge, grad in enumerate(grads):
                chain = [next(units) for _ in range(shape.times)]
                if not (ctx.needs_input_grad[0] or ctx.needs_input_grad[4]):  # in the first cell, for the alphas
                    grad_shares[edge, column] = _dots(grad, chain[-1].centred, chain[-1].inverse)
                    continue
                start, grad_shares[edge, column], *own = _chain_gradients(chain, grad, each[edge, column])
                found.append(own)
                starts.append(start)
                if ctx.needs_input_grad[0]:
                    parts = input_gradients(start, chain[0].kernel, ctx.stride, shape.dilation)
                    grad_x = [*map(Tensor.add_, grad_x, parts), *grad_x[len(parts) :]] if grad_x else parts
            if ctx.needs_input_grad[4]:  # the first kernels' gradients are found together
                firsts = weight_gradients(x, starts, shape.kernel, shape.dilation, ctx.stride)
                grad_parameters += [torch.cat(same) for same in (firsts, *map(list, zip(*found, strict=True)))]
        grad_parameters = grad_parameters or [None] * (len(ctx.needs_input_grad) - 4)
        return joined(grad_x, x.shape) if grad_x else None, grad_shares.sum(2), None, None, *grad_parameters


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
