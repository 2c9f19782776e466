"""A training step and the input pipeline on the device against float64, or the CPU, and what the host waits for.

float32 as IEEE has it, so that an error is one; bf16, which trainings take, is held to its own few digits. The networks
as they are (relu), and with the smooth functions in place of their kinks (errors.py), which shows small errors.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.gpu.errors import ACTIVATIONS, check, error, expectation, loss_and_gradients, on_device
from benchmarks.gpu.lines import Figure
from benchmarks.gpu.processor import fp32_as
from benchmarks.gpu.section import Bench
from benchmarks.gpu.zoo import FEW
from models import MODELS, build_model
from models.darts.genotype_files import load_genotype
from models.darts.network import DartsNetwork
from pictures import autoaugment
from pictures.augmentation import Augmentation, Draws, Normalization
from training.loop import build_optimizer, set_seed, train_step

BATCH = 4
TOLERANCES = {  # of loss, which is a float32, and gradients; type, activation
    ("float64", "relu"): (1e-6, 1e-6), ("fp32", "smooth"): (1e-5, 1e-3), ("fp32", "relu"): (1e-4, 0.2)}
TYPES = {"float64": torch.float64, "fp32": torch.float32}


def a_step(dtype: torch.dtype, model: nn.Module, images: Tensor, labels: Tensor) -> Sequence[Tensor]:
    """Loss and all gradients of a training step, before its optimizer, which may overwrite them."""
    optimizer, grads = build_optimizer(model.train(), "SGD", 0.1, 5e-4, 0.9), []
    optimizer.register_step_pre_hook(lambda *_: grads.extend(p.grad.clone() for p in model.parameters()))
    loss, _ = train_step(model, optimizer, images, labels, lr=0.1, dtype=dtype, label_smoothing=0.1, clip=0.0,
                         auxiliary=0.4)
    return [loss, *grads]


def network(name: str, bench: Bench) -> Iterator[Figure]:
    set_seed(0)
    yield from compared(bench, build_model(name, 10), name)


def retrained(bench: Bench) -> Iterator[Figure]:
    """DARTS_V2 with its auxiliary head."""
    set_seed(0)
    channels, layers = bench.of((16, 8), (4, 3))
    yield from compared(bench, DartsNetwork(load_genotype("DARTS_V2"), 3, channels, 10, layers, auxiliary=True),
                        f"DARTS_V2 of {channels} channels and {layers} cells")


def compared(bench: Bench, model: nn.Module, name: str) -> Iterator[Figure]:
    exact = partial(a_step, torch.float32)  # in which autocast is off
    for (dtype, activation), tolerances in TOLERANCES.items():
        with ACTIVATIONS[activation](), fp32_as("ieee"):
            expected, found = expectation(model, exact, BATCH), on_device(bench, model, exact, BATCH, TYPES[dtype])
        yield from loss_and_gradients(found, expected, *tolerances, network=name, type=dtype, activation=activation)
    found = on_device(bench, model, partial(a_step, torch.bfloat16), BATCH)
    yield check("loss", error(found[:1], expected[:1]), 5e-2, network=name, type="bf16")


def augmentation(policy: str, bench: Bench) -> Iterator[Figure]:
    """For given draws, bitwise; normalised, to a rounding."""
    augment = Augmentation(crop_padding=4, flip=True, cutout=16, policy=policy)
    pixels = torch.randint(2**24, (512, 32, 32), dtype=torch.int32)
    index, draws = torch.randint(len(pixels), (bench.of(4096, 64),)), None
    draws = augment.draw(len(index), torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.49, 0.48, 0.45]), torch.tensor([0.25, 0.24, 0.26])
    found = []
    for device in (torch.device("cpu"), bench.device):
        normalization = Normalization(mean.to(device), std.to(device))
        words = augment(pixels.to(device), index.to(device), moved(draws, device), normalization.fill)
        found.append((words.cpu(), normalization(words).cpu()))
    (expected, exact), (words, normalised) = found
    yield check("pixels that differ", int((words != expected).sum()), 0, policy=policy, images=len(index))
    yield check("normalised", float((normalised - exact).abs().max()), 1e-5, policy=policy, images=len(index))


def moved(draws: Draws, device: torch.device) -> Draws:
    *rows, policy = draws
    return Draws(*(row.to(device) for row in rows), policy and autoaugment.Drawn(*(row.to(device) for row in policy)))


CASES = {**{name: partial(network, name) for name in MODELS}, "retrain": retrained,
         **{policy: partial(augmentation, policy) for policy in ("basic", "autoaugment")}}
TINY = (*FEW, "retrain", "basic", "autoaugment")
