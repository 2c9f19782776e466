"""Training of the eight networks as `hpo_trial.py` does it: images a second of `fit`, input and augmentation included.

An epoch of some steps, several times; the first, in which everything makes ready, does not count.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import nn

from benchmarks.gpu.lines import Figure
from benchmarks.gpu.processor import Seconds, memory
from benchmarks.gpu.section import Bench
from benchmarks.rivals import our_batches
from config import HpoConfig
from models import MODELS, build_model
from pictures.dataset import Batches
from training.execution import of_training
from training.loop import fit, set_seed

CUTOUT, FEW = 8, ("mobilenet", "shufflenetg2")  # networks of a tiny run


def how(model: nn.Module, settings: Any) -> dict[str, str]:
    """What `fit` takes here, as settings of a figure."""
    execution = of_training(settings, model, processes=1)
    found = ["compiled"] * execution.compiled + ["captured" + ", branches" * execution.branches] * execution.captured
    return {"how": " and ".join(found) or "eager", "type": execution.precision}


def epochs(model: nn.Module, batches: Batches, settings: Any, **more: Any) -> Seconds:
    """Seconds a step, of each epoch but the first."""
    found = fit(model, batches, None, settings, identity={}, **more).history[1:]
    return Seconds(record["seconds"] / len(batches) for record in found)


def networks(batch: int, graph: bool, bench: Bench) -> Iterator[Figure]:
    batch, steps, count = bench.of((batch, 2560 // batch + 15, 4), (8, 1, 2))
    batches = our_batches(bench.pictures, bench.device, steps * batch, batch, CUTOUT)
    for name in bench.of(tuple(MODELS), FEW):
        if bench.left() <= 0:
            yield Figure("not run", None, "", {"network": name, "batch": batch}, note="no time was left")
            continue
        set_seed(0)
        model = build_model(name, len(bench.pictures.classes)).to(bench.device)
        config = HpoConfig(model=name, epochs=count, batch_size=batch, graph=graph)
        settings = {"network": name, "batch": batch, **how(model, config)}
        seconds, peaks = bench.on.peaks(partial(epochs, model, batches, config))
        yield seconds.figure("training", "images/s", batch, **settings)
        yield from memory(peaks, **settings)


CASES = {"batch_512": partial(networks, 512, True), "batch_128": partial(networks, 128, True),
         "batch_128_eager": partial(networks, 128, False)}
