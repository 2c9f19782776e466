"""The chains of a discrete cell that leave one source, as one: what the nodes of network.py compute, in few launches.

E chains of one shape that read one source are E groups of channels of one map (N, E * C, H, W): one depthwise
convolution, one pointwise convolution with E groups, one batch norm, which goes on with ReLU or with drop path. Their
weights are laid end to end once a cell, and the gradients apart again; parameters and buffers stay those of modules.

A training step of DARTS_V2 on a GPU is bound by the number of its kernels. There these are kernels of our own, and a
graph runs what leaves the two inputs of a cell side by side.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.blocks import BatchNorm2d
from models.darts.depthwise import as_autocast, convolve
from models.darts.operations import Chain, DropPath
from models.kernels import channels_last, usable
from models.kernels.branches import side_by_side

FASTER_BY_CUDNN = {torch.bfloat16}  # depthwise convolutions without dilation; docs/results.md


class Edge(NamedTuple):
    node: int
    place: int  # among the edges of the node
    source: int
    chain: Chain
    drop_path: DropPath


Bundle = Sequence[Edge]  # of one source, and of chains of one shape


def bundles(nodes: Iterable[nn.Module]) -> list[Bundle]:
    """Of all edges of a cell that are chains."""
    found: dict[Any, list[Edge]] = defaultdict(list)
    for number, node in enumerate(nodes):
        for place, (edge, source) in enumerate(zip(node.edges, node.sources, strict=True)):
            if isinstance(edge, nn.Sequential) and isinstance(edge[0], Chain):
                first = edge[0][1]
                shape = len(edge[0]), first.kernel_size, first.stride, first.dilation
                found[source, shape].append(Edge(number, place, source, *edge))
    return list(found.values())


def possible(of_cell: Sequence[Bundle], x: Tensor) -> bool:
    """Whether this is a step of training that the kernels can take."""
    norms = [norm for bundle in of_cell for edge in bundle for _, _, norm in edge.chain.steps()]
    return bool(norms) and usable(x) and all(
        isinstance(norm, BatchNorm2d) and norm.training and norm.affine and norm.track_running_stats and
        norm.momentum is not None for norm in norms)  # of several processes they are others, over all of them


def node_maps(nodes: Sequence[nn.Module], of_cell: Sequence[Bundle], states: Sequence[Tensor]) -> list[Tensor]:
    """The maps of the nodes, from the two preprocessed inputs."""
    found, maps, [x] = list(states), {}, as_autocast(states[0])
    weights = _Weights(of_cell, x.dtype)
    for number, node in enumerate(nodes):
        new = {0, 1} if number == 0 else {number + 1}
        leaving = [place for place, bundle in enumerate(of_cell) if bundle[0].source in new]
        parts = [partial(_leave, found[of_cell[place][0].source], of_cell[place], weights.steps[place])
                 for place in leaving]
        read = [*found[-len(new):], *(tensor for place in leaving for step in weights.steps[place] for tensor in step)]
        for place, left in zip(leaving, side_by_side(parts, *read), strict=True):
            maps |= {(edge.node, edge.place): map for edge, map in zip(of_cell[place], left, strict=True)}
        first, *others = (maps[number, place] if (number, place) in maps else edge(found[source])
                          for place, (edge, source) in enumerate(zip(node.edges, node.sources, strict=True)))
        found.append(sum(others, first))
        if found[-1].requires_grad:  # a slice of the gradient of all nodes: once dense for all edges
            found[-1].register_hook(channels_last)
    weights.give_back()
    return found[2:]


class Step(NamedTuple):
    """Of a bundle: a fourth of its chains' layers, all edges' end to end."""

    depthwise: Tensor  # (E * C, 1, k, k)
    pointwise: Tensor  # (E * C, C, 1, 1)
    scale: Tensor  # this and the others (E * C,)
    bias: Tensor
    mean: Tensor
    variance: Tensor


def _leave(x: Tensor, bundle: Bundle, steps: Sequence[Step]) -> tuple[Tensor, ...]:
    """(N, C, H, W) -> E maps (N, C, H / stride, W / stride)"""
    from models.kernels.batch_norm import normalized, normalized_apart  # Triton, which not every machine has
    from models.kernels.copies import rectified_copies
    from models.kernels.depthwise import rectified_depthwise
    from models.kernels.pointwise import pointwise_with_parts

    [x] = as_autocast(x)
    for number, (step, (convolution, _, norm)) in enumerate(zip(steps, bundle[0].chain.steps(), strict=True)):
        stride, dilation = convolution.stride[0], convolution.dilation[0]
        if dilation == 1 and x.dtype in FASTER_BY_CUDNN:
            x = convolve(x if number else rectified_copies(x, len(bundle)), step.depthwise, stride)
        else:
            x = rectified_depthwise(x, step.depthwise, stride, dilation)
        x, parts = pointwise_with_parts(x, step.pointwise)
        how = {"eps": norm.eps, "running": (step.mean, step.variance), "momentum": norm.momentum, "parts": parts}
        if number + 1 < len(steps):
            x = normalized([x], step.scale[None], step.bias, rectified=True, **how)
    return normalized_apart(x, len(bundle), step.scale, step.bias, kept=_kept(bundle, len(x)), **how)


def _kept(bundle: Bundle, samples: int) -> Tensor | None:
    """(N, E): 0 where drop path drops a sample's map of an edge."""
    drop_path = bundle[0].drop_path
    if not drop_path.active:
        return None
    keep = drop_path.keep.flatten()
    return torch.bernoulli(keep.expand(samples, len(bundle))).div_(keep)


# ---- weights and statistics, end to end and apart again


class _Weights:
    """`steps` of each bundle."""

    def __init__(self, of_cell: Sequence[Bundle], dtype: torch.dtype) -> None:
        # Of each bundle and step, of each kind of layer, those of all edges.
        layers = [list(zip(*step, strict=True)) for bundle in of_cell
                  for step in zip(*(edge.chain.steps() for edge in bundle), strict=True)]
        norms = [norms for _, _, norms in layers]
        self.counters = [norm.num_batches_tracked for each in norms for norm in each]
        self.buffers = [[getattr(norm, name) for norm in each] for each in norms
                        for name in ("running_mean", "running_var")]
        kernels = _end_to_end([[layer.weight for layer in each] for step in layers for each in step[:2]], dtype)
        affine = _end_to_end([[getattr(norm, name) for norm in each] for each in norms for name in ("weight", "bias")])
        self.running = _end_to_end(self.buffers)
        pairs = ([of[number : number + 2] for number in range(0, len(of), 2)] for of in (kernels, affine, self.running))
        found = iter([Step(*(tensor for pair in step for tensor in pair)) for step in zip(*pairs, strict=True)])
        self.steps = [[next(found) for _ in bundle[0].chain.steps()] for bundle in of_cell]

    @torch.no_grad()
    def give_back(self) -> None:
        """The statistics of this step."""
        torch._foreach_copy_([buffer for each in self.buffers for buffer in each],
                             [piece for wide, each in zip(self.running, self.buffers, strict=True)
                              for piece in _pieces(wide, each)])
        torch._foreach_add_(self.counters, 1)


def _end_to_end(groups: Sequence[Sequence[Tensor]], dtype: torch.dtype | None = None) -> tuple[Tensor, ...]:
    """The tensors of each group, of one shape, as one, along the first dimension; in `dtype`."""
    return _EndToEnd.apply(dtype or groups[0][0].dtype, [len(group) for group in groups],
                           *(tensor for group in groups for tensor in group))


class _EndToEnd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, counts: Sequence[int], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*tensors)
        ctx.counts = counts
        groups = _grouped(tensors, counts)
        found = tuple(torch.empty((len(group) * len(group[0]), *group[0].shape[1:]), dtype=dtype,
                                  device=group[0].device) for group in groups)
        torch._foreach_copy_([piece for wide, group in zip(found, groups, strict=True)
                              for piece in _pieces(wide, group)], list(tensors))
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        found = [torch.empty_like(tensor) for tensor in tensors]
        torch._foreach_copy_(found, [piece for grad, group in zip(grads, _grouped(tensors, ctx.counts), strict=True)
                                     for piece in _pieces(grad.contiguous(), group)])
        return None, None, *found


def _grouped(tensors: Sequence[Tensor], counts: Sequence[int]) -> list[Sequence[Tensor]]:
    ends = list(accumulate(counts))
    return [tensors[end - count : end] for end, count in zip(ends, counts, strict=True)]


def _pieces(wide: Tensor, group: Sequence[Tensor]) -> list[Tensor]:
    """Of `wide`, with the strides of the group's own tensors: PyTorch copies them all at once then. A kernel of one
    channel, or of one pixel, lies in memory in one order, whatever its strides are called."""
    return [wide.as_strided(tensor.shape, tensor.stride(), wide.storage_offset() + number * tensor.numel())
            for number, tensor in enumerate(group)]
