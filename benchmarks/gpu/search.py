"""A step of the published search (batch 64, 16 channels, 8 cells): seconds, launches, kernels, memory, by form.

Measured is what `darts_search.py` runs, the input of both halves included. A step is one of the alphas and one of the
weights; in the first epochs of a search, `frozen` of them, the alphas wait, and the step is that of the weights alone.
"""

import gc
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from benchmarks.counting import Launches
from benchmarks.gpu.lines import Figure
from benchmarks.gpu.processor import memory
from benchmarks.gpu.section import Bench
from config import DartsSearchConfig
from training.graphs import WARM
from training.search import Drawn, Search

IMAGES = 22_500  # an epoch of CIFAR-10: half of what validation leaves
FORMS = {  # form, partial channels, batch, of the recorded step's branches: as it is decided, or none
    "stored": ("stored", 1, 64, True), "stored_partial": ("stored", 4, 256, True),
    "stored_one_branch": ("stored", 1, 64, False), "plain": ("plain", 1, 64, True), "fused": ("fused", 1, 64, True)}


def measured(form: str, partial_channels: int, batch: int, branches: bool, bench: Bench) -> Iterator[Figure]:
    config = DartsSearchConfig(data=bench.data, form=form, partial_channels=partial_channels, batch_size=batch)
    config = replace(config, **bench.of({}, {"channels": 4, "layers": 3, "batch_size": 4}))
    settings = {"form": form, "partial channels": partial_channels, "batch": config.batch_size}
    for recorder in (bench.on.recorder, None)[: 2 if branches else 1]:
        searching = Search(config, bench.pictures, bench.device)
        searching.execution = searching.execution._replace(branches=branches and searching.execution.branches)
        steps = searching.steps(recorder)
        how = "captured" + ", branches" * searching.execution.branches if recorder else "eager"
        yield from one(bench, searching, steps, {**settings, "how": how})
        del searching, steps
        gc.collect()  # before the next one's memory is measured


def one(bench: Bench, searching: Search, steps: tuple[Callable, Callable], settings: dict) -> Iterator[Figure]:
    pairs = endless(searching)
    both, weights = (lambda step=step: step(*next(pairs)) for step in steps)
    yield Figure("first step", bench.on.seconds(both, 1), "s", settings)  # libraries load, cuDNN tries its algorithms
    seconds, of_weights = (bench.timed(step, times=5, warm=WARM + 2) for step in (both, weights))
    yield seconds.figure("step", "ms", **settings)
    yield of_weights.figure("step of the weights", "ms", **settings)
    frozen, epochs = searching.config.frozen, searching.config.epochs
    epoch = (frozen * of_weights.median + (1 - frozen) * seconds.median) * (IMAGES // settings["batch"])
    yield Figure(f"{epochs} epochs", epochs * epoch / 60, "minutes", settings)
    yield from memory(bench.on.peaks(both)[1], **settings)
    loss = float(both().alpha[0])
    yield Figure("loss of the alphas", loss, "", settings, ok=torch.tensor(loss).isfinite().item())
    if settings["how"] == "eager":
        with Launches(bench.device.type) as launches:
            both()
        yield Figure("launches", launches.total, "", settings)
    count, busy = bench.on.kernels(both)
    yield Figure("kernels", count, "", settings)
    yield Figure("all kernels", busy * 1e3, "ms", settings)
    yield Figure("busy", 100 * busy / seconds.median, "% of the step", settings)


def endless(searching: Search) -> Iterator[tuple[Drawn, Drawn]]:
    """What both halves draw, epoch after epoch."""
    for epoch in itertools.count():
        yield from zip(searching.halves.weights.drawn(epoch), searching.halves.alphas.drawn(epoch), strict=True)


CASES = {name: partial(measured, *how) for name, how in FORMS.items()}
TINY = ("stored", "stored_partial")
