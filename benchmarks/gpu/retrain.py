"""Training of DARTS_V2 (36 channels, 20 cells, batch 96) as `retrain.py` does it: a step of `fit`, input included.

As it is, recorded as a CUDA graph, compiled, and both. A compilation takes minutes, so it comes last.
"""

from collections.abc import Iterator
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


def retrain(graph: bool, compile: bool, bench: Bench) -> Iterator[Figure]:
    batch, channels, layers, steps, count = bench.of((96, 36, 20, 20, 5), (4, 4, 3, 1, 2))
    batches = our_batches(bench.pictures, bench.device, steps * batch, batch, cutout=16)
    config = RetrainConfig(genotype="DARTS_V2", epochs=count, batch_size=batch, graph=graph, compile=compile)
    set_seed(0)
    model = DartsNetwork(load_genotype(config.genotype), 3, channels, len(bench.pictures.classes), layers,
                         auxiliary=True).to(bench.device)
    settings = {**how(model, config), "batch": batch}
    seconds, peaks = bench.on.peaks(partial(
        epochs, model, batches, config, auxiliary=config.auxiliary, drop_path=config.drop_path))
    yield seconds.figure("step", "ms", **settings)
    yield seconds.figure("training", "images/s", batch, **settings)
    yield Figure(f"{EPOCHS} epochs", seconds.median * (IMAGES // batch) * EPOCHS / 3600, "hours", settings)
    yield from memory(peaks, **settings)


CASES = {"captured": partial(retrain, True, False), "eager": partial(retrain, False, False),
         "compiled_captured": partial(retrain, True, True), "compiled": partial(retrain, False, True)}
