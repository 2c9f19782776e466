"""How far a computation on the device is from the same one in float64 on the CPU."""

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from benchmarks.gpu.lines import Figure
from benchmarks.gpu.section import Bench
from models.kernels import CHOICE

Compute = Callable[[nn.Module, Tensor, Tensor], Sequence[Tensor]]  # model, images, labels -> what is compared
SMALL = 1e-3  # of the length of all: shorter parts are compared with that


def error(found: Iterable[Tensor], expected: Iterable[Tensor]) -> float:
    """|found - expected| / |expected|, of all tensors as one vector; NaN stays NaN."""
    ours, theirs = (torch.cat([tensor.detach().double().cpu().flatten() for tensor in side])
                    for side in (found, expected))
    return float((ours - theirs).norm() / theirs.norm())


def worst(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest error of a single tensor, so that a small one is not lost among large ones."""
    floor = SMALL * torch.stack([tensor.double().norm() for tensor in expected]).norm().cpu()
    lengths = [(float((ours.detach().double().cpu() - theirs.cpu()).norm()), float(theirs.norm()))
               for ours, theirs in zip(found, expected, strict=True)]
    return max((gap / max(length, float(floor)) for gap, length in lengths), key=lambda value: (value != value, value))


def check(name: str, value: float, tolerance: float, **settings: Any) -> Figure:
    """ok, or not; NaN is not."""
    return Figure(name, value, "", settings, ok=value <= tolerance, note=f"at most {tolerance:g}")


def random_batch(size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, 32, 32, generator=generator, dtype=torch.float64)
    return images, torch.randint(10, (size,), generator=generator)


def expectation(model: nn.Module, compute: Compute, size: int) -> Sequence[Tensor]:
    """In float64 on the CPU, of a copy of `model`."""
    return compute(copy.deepcopy(model).double(), *random_batch(size))


def on_device(bench: Bench, model: nn.Module, compute: Compute, size: int,
              dtype: torch.dtype = torch.float32) -> Sequence[Tensor]:
    """On the device, of a copy of `model`, channels_last as everything there."""
    images, labels = random_batch(size)
    ours = copy.deepcopy(model).to(bench.device, dtype, memory_format=torch.channels_last)
    return compute(ours, images.to(bench.device, dtype, memory_format=torch.channels_last), labels.to(bench.device))


class Smooth(TorchFunctionMode):
    """SiLU in place of ReLU, mean in place of maximum. A network with kinks has, at a few of a million numbers, another
    side of them in float32 than in float64; its gradients then differ by a hundredth, and nothing is wrong.
    """

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name, settings = getattr(function, "__name__", ""), kwargs or {}
        if name in ("relu", "relu_"):
            return F.silu(args[0])
        if name == "max_pool2d":
            stride, padding = (args[2:4] + (settings.get("stride"), settings.get("padding", 0))[len(args[2:4]) :])
            return F.avg_pool2d(args[0].contiguous(), args[1], stride, padding)  # see models.blocks.avg_pool
        return function(*args, **settings)


@contextmanager
def smooth() -> Iterator[None]:
    """By PyTorch's operations alone: ReLU is written into kernels of our own, which are compared in float64 then."""
    with mock.patch.dict(os.environ, {CHOICE: "0"}), Smooth():
        yield


ACTIVATIONS: dict[str, Callable[[], AbstractContextManager]] = {"relu": nullcontext, "smooth": smooth}


def loss_and_gradients(found: Sequence[Tensor], expected: Sequence[Tensor], loss: float, gradients: float,
                       **settings: Any) -> Iterator[Figure]:
    """The two are a loss and its gradients; their tolerances."""
    yield check("loss", error(found[:1], expected[:1]), loss, **settings)
    yield check("gradients", error(found[1:], expected[1:]), gradients, **settings)
    yield check("worst gradient", worst(found[1:], expected[1:]), 10 * gradients, **settings)
