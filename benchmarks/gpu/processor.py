"""What a computation is measured on. A CPU can do all that a GPU is asked for here, so that nothing runs on a GPU for
the first time; there waiting is nothing, and a graph is a loop."""

import os
import resource
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, TypeVar

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from artifacts.run_folder import cpu_name
from benchmarks.gpu.lines import Figure
from training.graphs import CudaGraph, Recorder

Found = TypeVar("Found")
Call = Callable[[], Any]
LONGEST = 30  # kernels that are printed


def processor(name: str) -> "Cpu":
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device = 'cuda': no CUDA device that torch can use here; allowed: cpu")
    return Cuda() if name == "cuda" else Cpu()


class Cpu:
    device = torch.device("cpu")
    recorder: Callable[[], Recorder] | None = None
    activity, kind, own_time = ProfilerActivity.CPU, DeviceType.CPU, "self_cpu_time_total"

    def __init__(self) -> None:
        self.name = cpu_name()

    def wait(self) -> None:
        """Until all that was launched is done."""

    def works(self) -> bool:
        """Whether nothing has happened to the process that spoils all that comes after it."""
        return True

    def seconds(self, call: Call, times: int) -> float:
        """Of `times` calls."""
        began = time.perf_counter()
        for _ in range(times):
            call()
        return time.perf_counter() - began

    def together(self, calls: Sequence[Call]) -> Call:
        """All calls as one, with as little as possible between them."""
        return lambda: [call() for call in calls]

    def peaks(self, call: Callable[[], Found]) -> tuple[Found, dict[str, float]]:
        """What `call` gives, and GB that it took at most: of tensors, and with all that was kept for more of them, such
        as what a graph works in. On a CPU of the process, so far.
        """
        return call(), {"peak memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}

    def kernels(self, call: Call) -> tuple[int, float]:
        """How many there are in `call`, and their seconds, one after the other; prints those that take longest."""
        self.wait()
        with profile(activities=[self.activity]) as found:
            call()
            self.wait()
        events = [event for event in found.key_averages()
                  if event.device_type == self.kind and not event.is_user_annotation]
        for event in sorted(events, key=attrgetter(self.own_time), reverse=True)[:LONGEST]:
            print(f"{getattr(event, self.own_time):9.0f} us {event.count:5d} x {event.key[:150]}")
        return sum(event.count for event in events), sum(getattr(event, self.own_time) for event in events) / 1e6

    def waits(self, call: Call) -> int:
        """How often the host waits for the device in `call`."""
        call()
        return 0

    def facts(self) -> Iterator[Figure]:
        """About the machine, not measured."""
        yield Figure("cores", os.cpu_count())


class Cuda(Cpu):
    device = torch.device("cuda")
    recorder = CudaGraph
    activity, kind, own_time = ProfilerActivity.CUDA, DeviceType.CUDA, "self_device_time_total"

    def __init__(self) -> None:
        self.name = torch.cuda.get_device_name()

    def wait(self) -> None:
        torch.cuda.synchronize()

    def works(self) -> bool:
        try:
            self.wait()
            torch.cuda.empty_cache()
        except RuntimeError:
            return False
        return True

    def seconds(self, call: Call, times: int) -> float:
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.wait()
        began.record()
        for _ in range(times):
            call()
        ended.record()
        ended.synchronize()
        return began.elapsed_time(ended) / 1000

    def together(self, calls: Sequence[Call]) -> Call:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries make ready, cuDNN chooses its algorithms
            for _ in range(3):
                calls[0]()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        return graph.replay

    def peaks(self, call: Callable[[], Found]) -> tuple[Found, dict[str, float]]:
        self.wait()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        found = call()
        self.wait()
        return found, {"peak memory": torch.cuda.max_memory_allocated() / 1e9,
                       "with what is kept": torch.cuda.max_memory_reserved() / 1e9}

    def waits(self, call: Call) -> int:
        self.wait()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                call()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("called a synchronizing" in str(warning.message) for warning in caught)

    def facts(self) -> Iterator[Figure]:
        found = torch.cuda.get_device_properties()
        yield Figure("multiprocessors", found.multi_processor_count)
        yield Figure("memory", found.total_memory / 1e9, "GB")
        yield Figure("L2 cache", found.L2_cache_size / 1e6, "MB")
        yield Figure("compute capability", float(f"{found.major}.{found.minor}"))
        yield from self.clocks(f"GPU-{found.uuid}")

    def clocks(self, uuid: str) -> Iterator[Figure]:
        """As they are now; nothing where nvidia-smi is not."""
        asked = {"clocks.sm": "MHz", "clocks.max.sm": "MHz", "clocks.mem": "MHz", "temperature.gpu": "C",
                 "power.draw": "W"}
        command = ["nvidia-smi", "-i", uuid, f"--query-gpu={','.join(asked)},driver_version",
                   "--format=csv,noheader,nounits"]
        try:
            told = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=20, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError) as error:
            yield Figure("clocks", None, note=str(error))
            return
        *values, driver = told.split(", ")
        for (name, unit), value in zip(asked.items(), values, strict=True):
            known = value.replace(".", "").isdigit()
            yield Figure(name, float(value) if known else None, unit, {"driver": driver}, note="" if known else value)


# ---- measuring


def memory(peaks: Mapping[str, float], **settings: Any) -> Iterator[Figure]:
    for name, peak in peaks.items():
        yield Figure(name, peak, "GB", settings)


class Seconds(list):
    """Of one call, of each round."""

    def figure(self, name: str, unit: str, per_second: float = 0.0, **settings: Any) -> Figure:
        """The median, in s, ms or us; or, with `per_second`, that many of a unit in a call: a rate."""
        factor = {"s": 1.0, "ms": 1e3, "us": 1e6}.get(unit)
        values = sorted(per_second / value if per_second else value * factor for value in self)
        return Figure(name, statistics.median(values), unit, settings, spread=(values[0], values[-1]))

    @property
    def median(self) -> float:
        return statistics.median(self)


@contextmanager
def fp32_as(precision: str) -> Iterator[None]:
    """What a GPU makes of float32 in convolutions and products: ieee, all of its bits, or tf32, 10 of its mantissa."""
    switches = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = precision
        yield
    finally:
        for switch, old in zip(switches, before, strict=True):
            switch.fp32_precision = old
