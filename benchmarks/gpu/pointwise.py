"""The pointwise convolutions of all edges that leave a source: in groups, or otherwise.

The map (N, E * C, H, W) is E groups of C channels, each with a weight of its own. That is a convolution with E groups;
one of all channels, whose weight has blocks on its diagonal and zeros elsewhere, E times the arithmetic; or E matrix
products, by PyTorch or by a kernel of our own. Measured as depthwise.py does.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.gpu.depthwise import SEARCH, TYPES, maps, passes
from benchmarks.gpu.lines import Figure
from benchmarks.gpu.section import Bench
from models.kernels import usable

EDGES = 4


def grouped(x: Tensor, weight: Tensor) -> Tensor:
    """weight (E, C, C): of each edge, output by input channels."""
    return torch.conv2d(x, weight.flatten(0, 1)[:, :, None, None], groups=len(weight))


def block_diagonal(x: Tensor, weight: Tensor) -> Tensor:
    return torch.conv2d(x, torch.block_diag(*weight.unbind())[:, :, None, None])


def batched(x: Tensor, weight: Tensor) -> Tensor:
    """By `bmm`: an edge's rows lie E * C apart."""
    n, _, h, w = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(n * h * w, len(weight), -1).transpose(0, 1)  # (E, M, C)
    return torch.bmm(rows, weight.mT).transpose(0, 1).reshape(n, h, w, -1).permute(0, 3, 1, 2)


def summed(x: Tensor, weight: Tensor) -> Tensor:
    """By `einsum`."""
    n, _, h, w = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(n * h * w, len(weight), -1)  # (M, E, C)
    return torch.einsum("mec,eoc->meo", rows, weight).reshape(n, h, w, -1).permute(0, 3, 1, 2)


def ours(x: Tensor, weight: Tensor) -> Tensor:
    from models.kernels.pointwise import pointwise  # Triton, which not every machine has

    return pointwise(x, weight.flatten(0, 1)[:, :, None, None])


FORMS = {"grouped": grouped, "block-diagonal": block_diagonal, "bmm": batched, "einsum": summed, "ours": ours}


def pointwise(bench: Bench) -> Iterator[Figure]:
    torch.backends.cudnn.benchmark = True
    for shape in ((n, c, side, side) for n, c, side in bench.of(SEARCH, [(2, 8, 8)])):
        for dtype in TYPES:
            c = shape[1] // EDGES
            weight = torch.randn(EDGES, c, c, device=bench.device).to(TYPES[dtype])
            inputs = maps(bench, shape, TYPES[dtype], torch.channels_last)
            for form, operation in FORMS.items():
                if operation is ours and not (usable(weight) and dtype == "fp32"):
                    continue
                settings = {"map": "x".join(map(str, shape)), "groups": EDGES, "type": dtype, "form": form}
                yield from passes(bench, operation, inputs, weight, settings)


CASES = {"pointwise": pointwise}
