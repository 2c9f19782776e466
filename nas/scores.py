"""Free scores of untrained networks: from a sample of MobileNetSpace to a number, higher is better, nothing trained.

    macs      multiply-adds of one image of 32x32
    naswot    Mellor et al., 2021, arXiv:2006.04647: how differently 32 inputs switch the ReLUs on and off
    synflow   Tanaka et al., 2020, arXiv:2006.05467: how much signal the weights let through, their signs aside
    average   mean of the ranks of these three among some random samples

Each is a function of the sample alone: fixed seeds, cached, on the CPU; torch's own random state is left as it was.

To be quick, the initial weights of each choice are drawn once and for all, by PyTorch's own initialisation, and every
network that makes the choice gets them: drawing them anew takes as long as NASWOT itself. Candidates then differ by
what they are, and not by luck, too. For the same reason NASWOT looks at images of 16x16: a third of the time of 32x32,
and ranks that agree with its ranks (Spearman 0.999) about as those of two seeds do: benchmarks/nas_scores.py.
And whatever the size of a search's pictures, the networks are those for 32x32: what another size changes, the stem,
is the same in all of them, and their ranks stay (tests/nas/test_scores.py).
"""

import bisect
import functools
import json
import math
import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

BATCH, NASWOT_SIDE, SIDE = 32, 16, 32
CLASSES = 10
REFERENCE = 40  # random samples that `average` ranks among
SEED = 0


def macs(sample: dict) -> float:
    from models.mobilenet_space.space import count_macs

    return float(count_macs(sample))


def naswot(sample: dict) -> float:
    return _naswot(freeze(sample))


def synflow(sample: dict) -> float:
    return _synflow(freeze(sample))


def average(sample: dict) -> float:
    """Between 0 and 1: the share of the reference that is lower, averaged over the three scores."""
    return sum(share(score(sample), reference(score)) for score in (macs, naswot, synflow)) / 3


# ---- from a sample to a network ------------------------------------------------------------------------------------


def freeze(sample: dict) -> str:
    """A key for the cache."""
    return json.dumps(sample, sort_keys=True)


@functools.lru_cache(maxsize=10_000)
def _naswot(frozen: str) -> float:
    return naswot_of(_build(frozen), _images(NASWOT_SIDE))


@functools.cache
def _images(side: int) -> Tensor:
    """(BATCH, 3, side, side) of noise"""
    images = torch.randn(BATCH, 3, side, side, generator=torch.Generator().manual_seed(SEED))
    return images.to(memory_format=torch.channels_last)  # faster


@functools.lru_cache(maxsize=10_000)
def _synflow(frozen: str) -> float:
    return synflow_of(_build(frozen), (3, SIDE, SIDE))


def _build(frozen: str) -> nn.Module:
    """The network of build(sample, CLASSES), put together of parts that it shares with other networks."""
    from models.mobilenet_space.choices import BLOCKS, NoSkip, skips
    from models.mobilenet_space.space import SampledMobileNet, check_sample

    sample = json.loads(frozen)
    check_sample(sample)
    merges = [_part(block.skip_label, sample[block.skip_label]) if skips(block) else NoSkip() for block in BLOCKS]
    layers = [_part(block.op_label, sample[block.op_label]) for block in BLOCKS]
    return SampledMobileNet(_part("stem"), merges, layers, _part("head"))


@functools.cache
def _part(label: str, choice: str = "") -> nn.Module:
    """A module with its own initial weights; all of the space together take 130 MB."""
    from models.mobilenet_space.choices import BLOCKS, OPERATIONS, build_skip, skips
    from models.mobilenet_space.space import ends

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED + zlib.crc32(f"{label} {choice}".encode()))  # not CUDA's too
        if label in ("stem", "head"):
            part = ends(CLASSES)[label]
        else:
            block = next(block for block in BLOCKS if label in (block.op_label, block.skip_label))
            is_skip = label == block.skip_label
            part = build_skip(block, skips(block)[choice]) if is_skip else OPERATIONS[choice].build(block)
    return part.to(memory_format=torch.channels_last)


@functools.cache
def reference(score: Callable[[dict], float]) -> list[float]:
    """The score of each of some random samples, sorted."""
    from models.mobilenet_space.space import search_space

    rng, space = random.Random(SEED), search_space()
    samples = [{name: rng.choice(spec["_value"]) for name, spec in space.items()} for _ in range(REFERENCE)]
    return sorted(score(sample) for sample in samples)


def share(value: float, values: list[float]) -> float:
    """The share of sorted `values` that is lower; those that are equal count half."""
    return (bisect.bisect_left(values, value) + bisect.bisect_right(values, value)) / 2 / len(values)


# ---- NASWOT --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def naswot_of(model: nn.Module, images: Tensor) -> float:
    """log |det K|, K[i, j] = how many units of all ReLU modules are equally on or off for the images i and j.

    Of N units, i switches on A[i, i], and A[i, j] are on for both, so that N - A[i, i] - A[j, j] + 2 A[i, j] are equal:
    one product of 0/1 matrices a layer. Batch norm normalises with the statistics of these images, as it does in the
    first step of training. Images that cannot be told apart give -infinity.
    """
    both, units = torch.zeros(len(images), len(images), dtype=torch.float64), 0

    def add(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal units
        on = (output.permute(0, 2, 3, 1) if output.ndim == 4 else output).flatten(1).sign()  # no copy if channels_last
        both.add_(on @ on.T)  # whole numbers below 2**24: exact
        units += on.shape[1]

    hooks = [module.register_forward_hook(add) for module in model.modules() if isinstance(module, nn.ReLU | nn.ReLU6)]
    try:
        with modes_of(model, batch_statistics=True):
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    one = both.diagonal()
    return torch.linalg.slogdet(units - one[:, None] - one + 2 * both).logabsdet.item()


@contextmanager
def modes_of(model: nn.Module, batch_statistics: bool) -> Iterator[None]:
    """In eval mode, batch norm apart if told so; modes and running statistics are given back."""
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        for module in modes:
            module.training = batch_statistics and isinstance(module, nn.modules.batchnorm._BatchNorm)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for buffer, before in buffers:
            buffer.copy_(before)


# ---- synflow -------------------------------------------------------------------------------------------------------


def synflow_of(model: nn.Module, shape: tuple[int, ...]) -> float:
    """log of the sum over all weights w of |w| dR/d|w|, R = sum of the outputs of the network of the |w| on ones.

    In float64 where float32 is too small, as it is for networks of 100 layers. Batch norm is in eval mode: then it is
    the identity at initialisation, while batch statistics would take away the magnitudes that are measured here.
    """
    flow = _flow(model, shape, torch.float32)
    return flow if math.isfinite(flow) else _flow(model, shape, torch.float64)


def _flow(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> float:
    weights = {name: weight.detach().to(dtype).abs().requires_grad_() for name, weight in model.named_parameters()}
    buffers = {name: buffer.to(dtype) for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    with modes_of(model, batch_statistics=False), torch.enable_grad():
        total = functional_call(model, {**weights, **buffers}, torch.ones(1, *shape, dtype=dtype)).sum()
        gradients = torch.autograd.grad(total, list(weights.values()), materialize_grads=True)
    parts = [torch.dot(weight.detach().flatten(), gradient.flatten()).double()
             for weight, gradient in zip(weights.values(), gradients, strict=True)]
    return torch.stack(parts).sum().log().item()
