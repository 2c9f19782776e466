"""Each kernel of our own on the device, alone, against PyTorch's operations in float64 on the CPU."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu.errors import check, error
from benchmarks.gpu.lines import Figure
from benchmarks.gpu.processor import fp32_as
from benchmarks.gpu.section import Bench
from models.darts.operations import shuffled
from models.kernels import lacking

TOLERANCES = {"fp32": 1e-5, "bf16": 1e-2, "tf32": 5e-3}  # of values and gradients
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "tf32": torch.float32}


def compared(bench: Bench, ours: Callable[..., Tensor], theirs: Callable[..., Tensor], inputs: Sequence[Tensor],
             types: Sequence[str], **settings: object) -> Iterator[Figure]:
    """Values and gradients; `inputs` in float64, maps before weights, which stay in fp32."""
    exact = [tensor.requires_grad_() for tensor in inputs]
    expected = theirs(*exact)
    slope = torch.randn_like(expected)
    wanted = [expected, *torch.autograd.grad(expected, exact, slope)]
    for kind in types:
        mine = [on(bench, tensor, TYPES[kind] if tensor.ndim == 4 and len(tensor) < 16 else torch.float32)
                for tensor in inputs]
        with fp32_as("tf32" if kind == "tf32" else "ieee"):
            y = ours(*mine)
            found = [y, *torch.autograd.grad(y, mine, on(bench, slope, y.dtype))]
        for name, one, other in zip(("values", *(f"gradient {n}" for n in range(len(mine)))), found, wanted,
                                    strict=True):
            yield check(name, error([one], [other]), TOLERANCES[kind], type=kind, **settings)


def on(bench: Bench, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    memory = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
    return tensor.detach().to(bench.device, dtype, memory_format=memory).requires_grad_()


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def depthwise(bench: Bench) -> Iterator[Figure]:
    from models.kernels.depthwise import rectified_depthwise

    for c, groups, kernel, stride, dilation in ((16, 4, 3, 1, 1), (16, 3, 5, 2, 1), (36, 1, 3, 1, 2), (8, 4, 5, 2, 2)):
        def plain(x: Tensor, w: Tensor, groups: int = groups, kernel: int = kernel, stride: int = stride,
                  dilation: int = dilation) -> Tensor:
            return torch.conv2d(x.relu().repeat(1, groups, 1, 1), w, None, stride, dilation * (kernel // 2), dilation,
                                len(w))

        yield from compared(bench, partial(rectified_depthwise, stride=stride, dilation=dilation), plain,
                            [random(4, c, 16, 16), random(groups * c, 1, kernel, kernel)], ("fp32", "bf16"),
                            channels=c, groups=groups, kernel=kernel, stride=stride, dilation=dilation)


def pointwise(bench: Bench) -> Iterator[Figure]:
    from models.kernels.pointwise import pointwise

    for c, groups in ((8, 4), (16, 3), (64, 2), (36, 3), (144, 3)):
        yield from compared(bench, lambda x, weight: pointwise(x, weight.to(x.dtype)),
                            partial(torch.conv2d, groups=groups),
                            [random(4, groups * c, 16, 16), random(groups * c, c, 1, 1)], ("fp32", "tf32", "bf16"),
                            channels=c, groups=groups)


def norms(bench: Bench) -> Iterator[Figure]:
    from models.kernels.batch_norm import normalized

    for c, count in ((16, 1), (32, 5)):
        def plain(*inputs: Tensor) -> Tensor:
            *maps, weights = inputs
            return sum(F.batch_norm(x, None, None, weight, None, training=True)
                       for x, weight in zip(maps, weights, strict=True))

        yield from compared(bench, lambda *inputs: normalized(inputs[:-1], inputs[-1]), plain,
                            [*(random(4, c, 16, 16) + 3 for _ in range(count)), random(count, c)], ("fp32", "bf16"),
                            channels=c, maps=count)


def pools(bench: Bench) -> Iterator[Figure]:
    from models.kernels.pooling import avg_pool, max_pool

    for stride in (1, 2):
        x = random(4, 16, 16, 16)
        yield from compared(bench, lambda x, stride=stride: avg_pool(x, 3, stride, False),
                            lambda x, stride=stride: F.avg_pool2d(x, 3, stride, 1, count_include_pad=False), [x],
                            ("fp32", "bf16"), pool="average", stride=stride)
        yield from compared(bench, lambda x, stride=stride: max_pool(x, 3, stride),
                            lambda x, stride=stride: F.max_pool2d(x, 3, stride, 1), [x], ("fp32",), pool="maximum",
                            stride=stride)


def copies(bench: Bench) -> Iterator[Figure]:
    from models.kernels.copies import joined, rectified_copies

    for c in (16, 36):
        yield from compared(bench, lambda *maps: joined(maps), lambda *maps: torch.cat(maps, 1),
                            [random(4, c, 16, 16) for _ in range(4)], ("fp32", "bf16"), joined=4, channels=c)
        yield from compared(bench, partial(rectified_copies, count=3), lambda x: x.relu().repeat(1, 3, 1, 1),
                            [random(4, c, 16, 16)], ("fp32", "bf16"), copies=3, channels=c)


def passing(bench: Bench) -> Iterator[Figure]:
    from models.kernels.passing import interleaved

    for mixed in (4, 16):
        def plain(total: Tensor, first: Tensor, second: Tensor, shares: Tensor, mixed: int = mixed) -> Tensor:
            by = shares[0] * first[:, mixed:] + shares[1] * second[:, mixed:]
            return shuffled(torch.cat([total, by], 1), 4)

        yield from compared(bench, lambda total, first, second, shares: interleaved(total, shares, first, second),
                            plain, [random(4, mixed, 16, 16), *(random(4, 4 * mixed, 16, 16) for _ in range(2)),
                                    random(2)], ("fp32",), passing_by=3 * mixed)


def kernels(bench: Bench) -> Iterator[Figure]:
    """All of them; on a CPU, which has none, nothing."""
    why = lacking(bench.device) if bench.device.type == "cuda" else "of a CPU"
    if why:
        yield Figure("kernels of our own", 0, "", {"why": why})
        return
    for of in (depthwise, pointwise, norms, pools, copies, passing):
        yield from of(bench)


CASES = {"kernels": kernels}
