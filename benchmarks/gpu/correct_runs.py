"""Whole trainings on the device: against float64 on the CPU, recorded against as they are, stopped and resumed; and how
often a step makes the host wait, which should be never."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import torch
from torch import Tensor, nn

import darts_search
import hpo_trial
from benchmarks.gpu.errors import Smooth, check, error, random_batch
from benchmarks.gpu.lines import Figure
from benchmarks.gpu.processor import fp32_as
from benchmarks.gpu.search import endless
from benchmarks.gpu.section import Bench
from config import DartsSearchConfig, HpoConfig
from models import build_model
from models.darts.genotype_files import load_genotype
from models.darts.network import DartsNetwork
from pictures.dataset import training_batches
from training import loop
from training.average import Average
from training.graphs import WARM, set_rate
from training.hardware import pick_dtype
from training.loop import build_optimizer, fit, set_seed, train_step
from training.reporter import Reporter
from training.search import Search

# ---- fit


class Fixed:
    """A loader that gives the same batches in each epoch."""

    def __init__(self, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.batches, self.images = batches, sum(len(labels) for _, labels in batches)

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches[start:])


def fitted(bench: Bench) -> Iterator[Figure]:
    """Eight steps with schedule, clipping and averaged weights; what they change."""
    set_seed(0)
    model, cpu = build_model(bench.of("resnet18", "shufflenetg2"), 10), torch.device("cpu")
    with fp32_as("ieee"), Smooth():
        expected = changes(model, cpu, torch.float64, graph=False)
        yield check("change of the averaged weights", error(changes(model, bench.device, torch.float32, graph=False),
                                                           expected), 1e-2, type="fp32", how="eager")
        for graph in (False, True):
            found = changes(model, bench.device, torch.float64, graph)
            how = "captured" if graph and bench.on.recorder else "eager"
            yield check("change of the averaged weights", error(found, expected), 1e-4, type="float64", how=how)


def fitted_cells(bench: Bench) -> Iterator[Figure]:
    """The same of DARTS_V2, its kinks included, by kernels of our own, recorded with branches."""
    set_seed(0)
    channels, layers = bench.of((16, 8), (4, 3))
    model = DartsNetwork(load_genotype("DARTS_V2"), 3, channels, 10, layers)
    expected = changes(model, torch.device("cpu"), torch.float64, graph=False)
    for graph in (False, True):
        found = changes(model, bench.device, torch.float64, graph)
        how = "captured, branches" if graph and bench.on.recorder else "eager"
        yield check("change of the averaged weights", error(found, expected), 1e-4, type="float64", how=how,
                    network=f"DARTS_V2 of {channels} channels and {layers} cells")


def changes(model: nn.Module, device: torch.device, dtype: torch.dtype, graph: bool) -> list[Tensor]:
    """With rates that are the same as float32, which recorded steps have them in: differences grow."""
    ours = copy.deepcopy(model).to(device, dtype)
    images, labels = random_batch(8)
    batches = [(x.to(device, dtype, memory_format=torch.channels_last), y.to(device))
               for x, y in zip(images.split(4), labels.split(4), strict=True)]
    settings = SimpleNamespace(optimizer="SGD", lr=0.02, weight_decay=5e-4, momentum=0.9, epochs=4, warmup=0.2,
                               label_smoothing=0.1, clip=2.0, ema=0.5, precision="fp32", compile=False, graph=graph,
                               branches=True, seed=0)
    with mock.patch.object(loop, "set_rate", lambda optimizer, rate: set_rate(optimizer, float(torch.tensor(rate)))):
        fit(ours, Fixed(batches), None, settings, identity={})
    return [now.detach().cpu().double() - before.detach()
            for now, before in zip(ours.parameters(), model.parameters(), strict=True)]


# ---- stop and resume


class Stopped(Exception):
    """In the middle of a run."""


def resumed(command: ModuleType, words: str, bench: Bench) -> Iterator[Figure]:
    """Against the same run without a stop."""
    argv = [*words.split(), *bench.of("--train-size 512 --batch-size 32", "--train-size 64 --batch-size 16").split(),
            "--data", bench.data, "--data-dir", bench.data_dir, "--device", bench.device.type, "--val-size", "32",
            "--epochs", "3", "--checkpoint-minutes", "1e-9", "--runs-dir", str(bench.folder / command.__name__)]
    with deterministic():
        completed(command, [*argv, "--name", "whole"])
        stopped_in_the_second_epoch(command, [*argv, "--name", "stopped"])
        completed(command, [*argv, "--name", "stopped", "--resume"])
    whole, stopped = (weights(bench.folder / command.__name__, name) for name in ("whole", "stopped"))
    yield check("weights", error(stopped, whole), 1e-2, command=command.__name__)


@contextmanager
def deterministic() -> Iterator[None]:
    """By algorithms of cuDNN that give the same twice."""
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = False


def stopped_in_the_second_epoch(command: ModuleType, argv: Sequence[str]) -> None:
    seen: list[float] = []

    def stop(reporter: Reporter, metric: float) -> None:
        seen.append(metric)
        if len(seen) == 2:
            raise Stopped

    with suppress(Stopped), mock.patch.object(Reporter, "epoch", stop):
        completed(command, argv)


def completed(command: ModuleType, argv: Sequence[str]) -> None:
    if code := command.main(list(argv)):
        raise RuntimeError(f"{command.__name__}: exit code {code}")


def weights(runs: Path, name: str) -> list[Tensor]:
    [checkpoint] = runs.glob(f"*/{name}/checkpoint.pt")
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)["model"]
    return [tensor for tensor in saved.values() if tensor.is_floating_point()]


# ---- waiting


def waits_of_training(bench: Bench) -> Iterator[Figure]:
    """Input with AutoAugment, network, clipping, optimizer, average."""
    config = HpoConfig(data=bench.data, batch_size=bench.of(128, 8))
    batches, _ = training_batches(
        bench.pictures, bench.device, train_size=8 * config.batch_size, val_size=64, batch_size=config.batch_size,
        crop_padding=4, flip="on", cutout=8, seed=0, augment="autoaugment")
    model = build_model("resnet18", 10).to(bench.device, memory_format=torch.channels_last).train()
    for name in ("Adam", "SGD"):
        optimizer, average = build_optimizer(model, name, 0.001, 5e-4, 0.9), Average(model, 0.99)
        step = partial(train_step, model, optimizer, lr=0.001, dtype=pick_dtype("auto", bench.device, model),
                       label_smoothing=0.1, clip=5.0)
        drawn = iter(batches.drawn(0))

        def one(drawn: Iterator = drawn, step: Callable = step, average: Average = average) -> None:
            step(*batches.ready(*next(drawn)))
            average.update()

        yield from waited(bench, one, step="training", optimizer=name)


def waits_of_search(bench: Bench) -> Iterator[Figure]:
    """As it is, and as a graph repeats it."""
    config = DartsSearchConfig(data=bench.data, channels=4, layers=3, batch_size=8, form="stored")
    for recorder in (None, bench.on.recorder):
        searching = Search(config, bench.pictures, bench.device)
        (step, _), pairs = searching.steps(recorder), endless(searching)
        yield from waited(bench, lambda step=step, pairs=pairs: step(*next(pairs)), step="search",
                          how="captured" if recorder else "eager")


def waited(bench: Bench, one: Callable[[], object], **settings: str) -> Iterator[Figure]:
    for _ in range(WARM + 1):
        one()
    yield check("waits", bench.on.waits(one), 0, **settings)


CASES = {
    "fit": fitted, "fit_cells": fitted_cells,
    "resumed_training": partial(resumed, hpo_trial, "--model shufflenetg2 --precision fp32 --ema 0.9"),
    "resumed_search": partial(resumed, darts_search, "--channels 4 --layers 3"),
    "waits_of_training": waits_of_training, "waits_of_search": waits_of_search}
