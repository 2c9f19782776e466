"""What the machine can do at best, to hold everything else against: memory, matrix products, launches; and what it is.

Random numbers, since zeros can be faster; a large copy counts the bytes that are read and those that are written.
"""

import time
from collections.abc import Iterator

import torch

from benchmarks.gpu.lines import Figure
from benchmarks.gpu.processor import fp32_as
from benchmarks.gpu.section import Bench

PRODUCTS = {"bf16": (torch.bfloat16, "ieee"), "tf32": (torch.float32, "tf32"), "fp32": (torch.float32, "ieee")}


def machine(bench: Bench) -> Iterator[Figure]:
    yield from bench.on.facts()


def copy(bench: Bench) -> Iterator[Figure]:
    size = bench.of(2**30, 2**20)  # bytes
    source = torch.randint(256, (size,), dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    seconds = bench.timed(lambda: target.copy_(source), times=10, warm=3)
    yield seconds.figure("copy", "GB/s", 2 * size / 1e9, bytes=size)


def products(bench: Bench) -> Iterator[Figure]:
    for name, (dtype, precision) in PRODUCTS.items():
        side = bench.of(8192 if dtype == torch.bfloat16 else 4096, 64)
        left, right = (torch.randn(side, side, device=bench.device).to(dtype) for _ in range(2))
        with fp32_as(precision):
            seconds = bench.timed(lambda left=left, right=right: left @ right, times=5, warm=3)
        yield seconds.figure("matrix product", "TFLOP/s", 2 * side**3 / 1e12, type=name, side=side)


def launches(bench: Bench) -> Iterator[Figure]:
    """Of the smallest kernel there is, one by one from Python and as nodes of a CUDA graph: a step of n launches takes
    at least n times as long."""
    x, count = torch.zeros(1, device=bench.device), bench.of(1000, 10)
    calls = [lambda: x.add_(1)] * count
    for how, call in (("from Python", lambda: [one() for one in calls]), ("in a graph", bench.on.together(calls))):
        seconds = bench.timed(call, times=3, warm=2)
        yield type(seconds)(value / count for value in seconds).figure("launch", "us", how=how)


def pictures(bench: Bench) -> Iterator[Figure]:
    """Opening the data set; the first time it is packed."""
    began = time.perf_counter()
    found = bench.pictures
    yield Figure("pictures ready", time.perf_counter() - began, "s",
                 {"data": found.name, "training images": len(found.train_labels)})


CASES = {"machine": machine, "copy": copy, "products": products, "launches": launches, "pictures": pictures}
