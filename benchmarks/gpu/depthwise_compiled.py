"""Depthwise convolution as torch.compile makes it: of two sizes and two kernels alone, since a compilation takes
seconds, and last."""

from collections.abc import Iterator

from benchmarks.gpu.depthwise import KERNELS, RETRAIN, SEARCH, all_of
from benchmarks.gpu.lines import Figure
from benchmarks.gpu.section import Bench


def compiled(bench: Bench) -> Iterator[Figure]:
    yield from all_of(bench, (SEARCH[0], RETRAIN[0]), ("compiled channels_last",), (KERNELS[0], KERNELS[3]))


CASES = {"compiled": compiled}
