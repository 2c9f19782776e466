"""Depthwise convolution: cuDNN in channels_last, PyTorch's own kernels in NCHW, and ours, which are of ReLU and
convolution; compiled in depthwise_compiled.py.

The sizes are those of a search, where all edges of a source are one map (16 to 64 channels of 4 edges), and of a
retrain. Forward, gradient of the input, gradient of the weight; each in a CUDA graph, so that launches do not count,
and over several inputs in turn, so that the cache does not hold them.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.lines import Figure
from benchmarks.gpu.processor import Seconds
from benchmarks.gpu.section import Bench
from models.darts.depthwise import convolve
from models.kernels import usable

SEARCH = ((64, 64, 32), (64, 128, 16), (64, 256, 8))  # batch, channels, side
RETRAIN = ((96, 36, 32), (96, 72, 16))
KERNELS = ((3, 1), (5, 1), (3, 2), (5, 2))  # size, dilation
FORMS = ("cudnn channels_last", "native NCHW", OURS := "ours")
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
IN_TURN = 200e6  # bytes of all inputs and outputs: more than any cache
Operation = Callable[[Tensor, Tensor], Tensor]  # of a map and a weight


def of_search(bench: Bench) -> Iterator[Figure]:
    yield from all_of(bench, SEARCH, FORMS, KERNELS)


def of_retrain(bench: Bench) -> Iterator[Figure]:
    yield from all_of(bench, RETRAIN, FORMS, KERNELS)


def all_of(bench: Bench, sizes: Sequence[tuple[int, int, int]], forms: Sequence[str],
           kernels: Sequence[tuple[int, int]]) -> Iterator[Figure]:
    for batch, channels, side in bench.of(sizes, [(2, 4, 8)]):
        for dtype in TYPES:
            for kernel, dilation in kernels:
                for form in forms:
                    if form == OURS and not usable(torch.empty(0, device=bench.device)):
                        continue
                    settings = {"map": f"{batch}x{channels}x{side}x{side}", "kernel": kernel, "dilation": dilation,
                                "type": dtype, "form": form}
                    if bench.left() <= 0:
                        yield Figure("not run", None, "", settings, note="no time was left")
                        return
                    yield from one(bench, (batch, channels, side, side), settings)


def one(bench: Bench, shape: tuple[int, ...], settings: dict[str, Any]) -> Iterator[Figure]:
    form, dtype = settings["form"], TYPES[settings["type"]]
    operation = partial(convolve, dilation=settings["dilation"])
    if form.startswith("compiled"):
        operation = torch.compile(operation, dynamic=False)
    elif form == OURS:
        from models.kernels.depthwise import rectified_depthwise  # Triton, which not every machine has

        operation = partial(rectified_depthwise, dilation=settings["dilation"])
    weight = torch.randn(shape[1], 1, settings["kernel"], settings["kernel"], device=bench.device).to(dtype)
    before = torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark
    torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark = "native" not in form, True
    try:
        memory = torch.contiguous_format if "NCHW" in form else torch.channels_last
        yield from passes(bench, operation, maps(bench, shape, dtype, memory), weight, settings)
    finally:
        torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark = before


def maps(bench: Bench, shape: tuple[int, ...], dtype: torch.dtype, memory: torch.memory_format) -> list[Tensor]:
    """As many as it takes to have them, their results and gradients out of the cache when their turn comes again."""
    size = 3 * dtype.itemsize * torch.Size(shape).numel()
    count = bench.of(min(24, 1 + int(IN_TURN / size)), 2)
    return [torch.randn(shape, device=bench.device).to(dtype, memory_format=memory) for _ in range(count)]


def passes(bench: Bench, operation: Operation, inputs: Sequence[Tensor], weight: Tensor,
           settings: dict[str, Any]) -> Iterator[Figure]:
    """The gradients' time is that of forward and backward less that of forward."""
    def seconds(run: Callable[[Tensor], Any]) -> Seconds:
        replay = bench.on.together([partial(run, x) for x in inputs])
        return Seconds(value / len(inputs) for value in bench.timed(replay, times=5, warm=2))

    forward = seconds(torch.no_grad()(lambda x: operation(x, weight)))
    yield forward.figure("forward", "us", **settings)
    for name, of_input in (("input gradient", True), ("weight gradient", False)):
        both = seconds(partial(_gradient, operation, weight, of_input))
        yield Seconds(value - forward.median for value in both).figure(name, "us", **settings)


def _gradient(operation: Operation, weight: Tensor, of_input: bool, x: Tensor) -> Tensor:
    x, weight = x.detach().requires_grad_(of_input), weight.detach().requires_grad_(not of_input)
    y = operation(x, weight)
    return torch.autograd.grad(y, x if of_input else weight, y)[0]


CASES = {"of_search": of_search, "of_retrain": of_retrain}
