"""How long this machine takes for an image of a training, by a few steps of each kind."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from config import DartsSearchConfig
from models import build_model
from models.darts.genotype_files import load_genotype
from models.darts.network import DartsNetwork
from models.darts.supernet import Supernet
from training.bilevel import Batch, architecture_step, first_order, weight_step
from training.execution import of_search
from training.hardware import pick_device, pick_dtype, prepare
from training.loop import train_step

STEPS, SECONDS = 2, 1.0  # of each kind that are timed at least
BATCH = 32
MEASURED = ("quicknet", "resnet18", "mobilenet", "cells", "supernet")


def seconds_an_image(classes: int, side: int, search: DartsSearchConfig, channels: int,
                     layers: int) -> dict[str, float]:
    """Of MEASURED: networks of the zoo; `cells`, a network of `channels` and `layers` cells; `supernet`, both levels of
    `search`, an image of either half. Input is not included; precision and device are as a training would take them."""
    device = pick_device("auto")
    prepare(device)
    batch = Batch(torch.randn(BATCH, 3, side, side, device=device).to(memory_format=torch.channels_last),
                  torch.arange(BATCH, device=device) % classes)
    networks = {name: build_model(name, classes, side) for name in MEASURED[:3]}
    networks["cells"] = DartsNetwork(load_genotype("DARTS_V2"), 3, channels, classes, layers, 3, side=side)
    found = {name: _timed(_training(model, batch)) / BATCH for name, model in networks.items()}
    return found | {"supernet": _timed(_search(search, classes, side, batch)) / (2 * BATCH)}


def _training(model: nn.Module, batch: Batch) -> Callable[[], Any]:
    device = batch.labels.device
    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer, dtype = torch.optim.SGD(model.parameters(), 1e-3, 0.9), pick_dtype("auto", device, model)
    return lambda: train_step(model, optimizer, *batch, dtype=dtype, label_smoothing=0.1, clip=0.0)[0].item()


def _search(config: DartsSearchConfig, classes: int, side: int, batch: Batch) -> Callable[[], Any]:
    device = batch.labels.device
    model = Supernet(3, config.channels, classes, config.layers, form=of_search(config, device, 1).form,
                     partial_channels=config.partial_channels, recompute=config.recompute, side=side)
    model = model.to(device, memory_format=torch.channels_last).train()
    weights, alphas = torch.optim.SGD(model.weights(), 1e-3, 0.9), torch.optim.Adam(model.alphas(), 1e-3)

    def step() -> float:
        architecture_step(model, alphas, partial(first_order, model, batch), 0.0)
        return weight_step(model, weights, batch, config.clip).loss.item()

    return step


def _timed(step: Callable[[], Any]) -> float:
    """Seconds of a step, the median of some after a first one."""
    step()
    taken: list[float] = []
    while len(taken) < STEPS or sum(taken) < SECONDS:
        started = time.perf_counter()
        step()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)
