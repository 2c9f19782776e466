"""Launches of a step of the published search in each form, counted on the meta device: no GPU is needed, and none used.

The meta device has no foreach operations of its own: what an optimizer and the clipping launch for all parameters at
once on a GPU is counted for each by itself, here under `of parameters`.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.counting import Launches
from benchmarks.gpu.lines import Figure
from benchmarks.gpu.search import FORMS
from benchmarks.gpu.section import Bench
from models.darts.supernet import Supernet
from training.bilevel import Batch, architecture_step, first_order, weight_step

META = torch.device("meta")
ALLOWED = 12_000  # of the stored form, as published
OF_PARAMETERS = ("linalg_vector_norm", "mul_", "add_")


def of_step(form: str, partial_channels: int, batch: int, channels: int = 16, layers: int = 8) -> Counter[str]:
    """By operation, of one step of the alphas and one of the weights, first order."""
    with META:
        model = Supernet(3, channels, 10, layers, form=form, partial_channels=partial_channels)
        images = torch.empty(batch, 3, 32, 32).to(memory_format=torch.channels_last)
        data = Batch(images, torch.empty(batch, dtype=torch.int64))
    model.to(memory_format=torch.channels_last)
    weights = torch.optim.SGD(model.weights(), 0.025, 0.9, weight_decay=3e-4)
    alphas = torch.optim.Adam(model.alphas(), 3e-4, (0.5, 0.999), weight_decay=1e-3)
    with Launches("meta") as launches:
        architecture_step(model, alphas, partial(first_order, model, data), decay=0.0)
        weight_step(model, weights, data, clip=5.0)
    return launches.of


def counted(form: str, partial_channels: int, batch: int, bench: Bench) -> Iterator[Figure]:
    found = of_step(form, partial_channels, batch, **bench.of({}, {"channels": 4, "layers": 3}))
    settings = {"form": form, "partial channels": partial_channels}
    asked = form == "stored" and partial_channels == 1
    yield Figure("launches", found.total(), "", settings, ok=found.total() <= ALLOWED if asked else None,
                 note=f"at most {ALLOWED}" if asked else "")
    for name, count in found.most_common(12):
        yield Figure(name, count, "", settings)


CASES = {name: partial(counted, *how[:-1]) for name, how in FORMS.items() if how[-1]}
TINY = ("stored", "stored_partial")
