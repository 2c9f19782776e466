"""Training of DARTS_V2 (36 channels, 20 cells, batch 96) as `retrain.py` does it: a step of `fit`, input included.

Recorded as a CUDA graph, with what leaves a cell's inputs as its branches or without, as it is, compiled, and both. A
compilation takes minutes, so it comes last.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from benchmarks.gpu.lines import Figure
from benchmarks.gpu.processor import memory
from benchmarks.gpu.section import Bench
from benchmarks.gpu.zoo import epochs, how
from benchmarks.rivals import our_batches
from config import RetrainConfig
from models.darts.genotype_files import load_genotype
from models.darts.network import DartsNetwork
from training.loop import set_seed

IMAGES, EPOCHS = 50_000, 600  # of the published retrain
SEEN = 5  # steps whose kernels are counted; a profile of many takes long


def retrain(graph: bool, compile: bool, branches: bool, bench: Bench) -> Iterator[Figure]:
    batch, channels, layers, steps, count = bench.of((96, 36, 20, 20, 5), (4, 4, 3, 1, 2))
    batches = our_batches(bench.pictures, bench.device, steps * batch, batch, cutout=16)
    config = RetrainConfig(genotype="DARTS_V2", epochs=count, batch_size=batch, graph=graph, compile=compile,
                           branches=branches)
    set_seed(0)
    model = DartsNetwork(load_genotype(config.genotype), 3, channels, len(bench.pictures.classes), layers,
                         auxiliary=True).to(bench.device)
    settings = {**how(model, config), "batch": batch}
    train = partial(epochs, model, batches=batches, settings=config, auxiliary=config.auxiliary,
                    drop_path=config.drop_path)
    seconds, peaks = bench.on.peaks(train)
    yield seconds.figure("step", "ms", **settings)
    yield seconds.figure("training", "images/s", batch, **settings)
    yield Figure(f"{EPOCHS} epochs", seconds.median * (IMAGES // batch) * EPOCHS / 3600, "hours", settings)
    yield from memory(peaks, **settings)
    if graph and not compile:
        few = our_batches(bench.pictures, bench.device, SEEN * batch, batch, cutout=16)
        kernels, busy = bench.on.kernels(partial(train, batches=few, settings=replace(config, epochs=1)))
        yield Figure("kernels a step", kernels / SEEN, "", settings)
        yield Figure("all kernels", busy / SEEN * 1e3, "ms", settings)


CASES = {name: partial(retrain, *how) for name, how in {  # graph, compiled, branches
    "captured": (True, False, True), "one_branch": (True, False, False), "eager": (False, False, True),
    "compiled_captured": (True, True, True), "compiled": (False, True, True)}.items()}
