"""Training of the eight networks as `hpo_trial.py` does it: images a second of `fit`, input and augmentation included.

An epoch of some steps, several times; the first, in which everything makes ready, does not count.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.lines import Figure
from benchmarks.gpu.processor import Seconds, memory
from benchmarks.gpu.section import Bench
from benchmarks.rivals import our_batches
from config import HpoConfig
from models import MODELS, build_model
from pictures.dataset import Batches
from training.hardware import pick_dtype
from training.loop import fit, set_seed

CUTOUT, FEW = 8, ("mobilenet", "shufflenetg2")  # networks of a tiny run


def epochs(model: nn.Module, batches: Batches, settings: Any, **how: Any) -> Seconds:
    """Seconds a step, of each epoch but the first."""
    found = fit(model, batches, None, settings, identity={}, **how).history[1:]
    return Seconds(record["seconds"] / len(batches) for record in found)


def networks(batch: int, bench: Bench) -> Iterator[Figure]:
    batch, steps, count = bench.of((batch, 2560 // batch + 15, 4), (8, 1, 2))
    batches = our_batches(bench.pictures, bench.device, steps * batch, batch, CUTOUT)
    for name in bench.of(tuple(MODELS), FEW):
        if bench.left() <= 0:
            yield Figure("not run", None, "", {"network": name, "batch": batch}, note="no time was left")
            continue
        set_seed(0)
        model = build_model(name, len(bench.pictures.classes)).to(bench.device)
        dtype = str(pick_dtype("auto", bench.device, model)).removeprefix("torch.")
        settings = {"network": name, "batch": batch, "type": dtype}
        taken: list[Seconds] = []
        peaks = bench.on.peaks(lambda model=model, name=name, taken=taken: taken.append(epochs(
            model, batches, HpoConfig(model=name, epochs=count, batch_size=batch))))
        yield taken[0].figure("training", "images/s", batch, **settings)
        yield from memory(peaks, **settings)
        del model
        torch.compiler.reset()


CASES = {f"batch_{batch}": partial(networks, batch) for batch in (512, 128)}
