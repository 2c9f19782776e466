"""A step of the search on the device, in all forms, against the plain form in float64 on the CPU; and the step as a
CUDA graph repeats it against the step as it is."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.gpu.errors import ACTIVATIONS, check, error, expectation, loss_and_gradients, on_device, smooth
from benchmarks.gpu.lines import Figure
from benchmarks.gpu.processor import fp32_as
from benchmarks.gpu.search import endless
from benchmarks.gpu.section import Bench
from config import DartsSearchConfig
from models.darts.supernet import Supernet
from training import bilevel
from training.bilevel import Batch, Gradients, first_order, gradients, second_order
from training.graphs import set_rate
from training.loop import set_seed
from training.search import Search

BATCH, RATE = 4, 0.025
TOLERANCES = {  # of loss and gradients; computed as, activation
    ("float64", "relu"): (1e-9, 1e-7), ("ieee", "relu"): (1e-4, 2e-2), ("tf32", "relu"): (1e-2, 0.4),
    ("ieee", "smooth"): (1e-5, 1e-3), ("tf32", "smooth"): (1e-2, 0.2)}


def supernet(bench: Bench, partial_channels: int) -> Supernet:
    set_seed(0)
    channels, layers = bench.of((8, 4), (4, 3))
    return Supernet(3, channels, 10, layers, form="plain", partial_channels=partial_channels)


def in_form(form: str, model: Supernet) -> Supernet:
    model.form = form
    return model


def both_levels(model: Supernet, images: Tensor, labels: Tensor) -> Sequence[Tensor]:
    """Loss, gradients of the alphas, gradients of the weights."""
    alphas, weights = first_order(model, Batch(images, labels)), gradients(model, Batch(images, labels),
                                                                           model.weights())
    return [alphas.loss, *alphas.grads, *weights.grads]


def first(form: str, partial_channels: int, bench: Bench) -> Iterator[Figure]:
    model = supernet(bench, partial_channels)
    alphas = 1 + len(model.alphas())
    expected = {}
    for activation in ("smooth", "relu"):
        with ACTIVATIONS[activation]():
            expected[activation] = expectation(in_form("plain", model), both_levels, BATCH)
    for (precision, activation), tolerances in TOLERANCES.items():
        if form == "fused" and activation == "smooth":  # the gradient of ReLU is written into it
            continue
        dtype = torch.float64 if precision == "float64" else torch.float32
        with ACTIVATIONS[activation](), fp32_as("tf32" if precision == "tf32" else "ieee"):
            found = on_device(bench, in_form(form, model), both_levels, BATCH, dtype)
        theirs = expected[activation]
        settings = {"form": form, "partial channels": partial_channels, "computed as": precision,
                    "activation": activation}
        yield from loss_and_gradients(found[:alphas], theirs[:alphas], *tolerances, of="alphas", **settings)
        yield check("gradients", error(found[alphas:], theirs[alphas:]), tolerances[1], of="weights", **settings)


# ---- the second order


def second(form: str, bench: Bench) -> Iterator[Figure]:
    """The Hessian's part is a difference of two gradients that hardly differ: what it is worth in float32, and whether
    it survives where convolutions compute in TF32."""
    model = supernet(bench, 1)
    with smooth():
        expected = expectation(in_form("plain", model), parts_of_second_order, BATCH)
    for precision in ("ieee", "tf32"):
        with smooth(), fp32_as(precision):
            found = on_device(bench, in_form(form, model), parts_of_second_order, BATCH)
        settings = {"order": 2, "form": form, "fp32 as": precision, "activation": "smooth"}
        for name, ours, theirs in zip(("direct part", "Hessian part"), found, expected, strict=True):
            yield check(name, error([ours], [theirs]), {"ieee": 2e-2, "tf32": 0.2}[precision], **settings)


def parts_of_second_order(model: Supernet, images: Tensor, labels: Tensor) -> Sequence[Tensor]:
    """dL_val(w', alpha)/dalpha and d2L_train(w, alpha)/dalpha dw v, of which second_order gives the first less lr times
    the second."""
    train, val = (Batch(*half) for half in zip(images.chunk(2), labels.chunk(2), strict=True))
    optimizer = torch.optim.SGD(model.weights(), RATE, 0.9, weight_decay=3e-4)
    with noted() as calls:
        found = second_order(model, train, val, optimizer)
    direct = [calls[1].grads[: len(model.alphas())], found.grads]  # the second call is that on w'
    direct, whole = (torch.cat([grad.flatten() for grad in grads]) for grads in direct)
    return [direct, (direct - whole) / RATE]


@contextmanager
def noted() -> Iterator[list[Gradients]]:
    """What bilevel's `gradients` gives, call by call."""
    calls: list[Gradients] = []

    def noting(*args: Any, **settings: Any) -> Gradients:
        calls.append(gradients(*args, **settings))
        return calls[-1]

    with mock.patch.object(bilevel, "gradients", noting):
        yield calls


# ---- recorded steps


def recorded(partial_channels: int, bench: Bench) -> Iterator[Figure]:
    """What ten steps change, in float64; and losses in float32.

    Differences grow a thousandfold and more over such steps. What a recorded step keeps in float32 tensors, its rates,
    are powers of two, so that both ways begin with the same."""
    settings = {"partial channels": partial_channels, "steps": steps_of(bench)}
    changes = [after_steps(bench, partial_channels, recorder, torch.float64)[0]
               for recorder in (bench.on.recorder, None)]
    yield check("change of all parameters", error(*changes), 1e-5, type="float64", **settings)
    losses = [after_steps(bench, partial_channels, recorder, torch.float32)[1]
              for recorder in (bench.on.recorder, None)]
    yield check("losses", error(*losses), 1e-2, type="float32", **settings)


def steps_of(bench: Bench) -> int:
    return bench.of(10, 2)


def after_steps(bench: Bench, partial_channels: int, recorder: Any,
                dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """What has become of each parameter, and the losses of both levels."""
    channels, layers, batch = bench.of((16, 8, 32), (4, 3, 4))
    searching = Search(DartsSearchConfig(
        data=bench.data, channels=channels, layers=layers, batch_size=batch, partial_channels=partial_channels,
        form="stored", beta_decay=5.0, alpha_lr=2.0**-11), bench.pictures, bench.device)
    searching.model.to(dtype)
    for half in searching.halves[:2]:
        half.ready = partial(typed, half.ready, dtype)
    step, _ = searching.steps(recorder)
    before, losses = [p.detach().clone() for p in searching.model.parameters()], []
    for number, pair in enumerate(itertools.islice(endless(searching), steps_of(bench))):
        set_rate(searching.weights, 2.0 ** -(5 + number % 3))
        searching.decay.fill_(number)
        losses += [hits[0].clone() for hits in step(*pair)]
    return [now.detach() - then for now, then in zip(searching.model.parameters(), before, strict=True)], losses


def typed(ready: Any, dtype: torch.dtype, *drawn: Any) -> tuple[Tensor, Tensor]:
    images, labels = ready(*drawn)
    return images.to(dtype), labels


CASES: dict[str, Any] = {
    "search_stored": partial(first, "stored", 1), "search_recorded": partial(recorded, 1),
    "search_partial": partial(first, "stored", 4), "search_recorded_partial": partial(recorded, 4),
    "search_second_order": partial(second, "stored"), "search_plain": partial(first, "plain", 1),
    "search_fused": partial(first, "fused", 1)}
TINY = ("search_stored", "search_fused", "search_second_order", "search_recorded")
