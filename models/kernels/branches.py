"""Parts of a computation that do not need each other, side by side on a GPU while a CUDA graph is recorded: most
kernels of a search keep only a part of the GPU busy. The graph keeps what has to wait for what, the gradients' too."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor


class Branches:
    """with branches.next(): ..., some times, then join(what they gave); all start from `source`."""

    allowed = True  # what one of them still needs is not given away before the graph ends: a third more memory

    def __init__(self, source: Tensor) -> None:
        self.source, self.used = source, []
        self.recorded = self.allowed and source.is_cuda and torch.cuda.is_current_stream_capturing()

    @contextmanager
    def next(self) -> Iterator[None]:
        if not self.recorded:
            yield
            return
        stream = _stream(len(self.used))
        stream.wait_stream(torch.cuda.current_stream())
        self.source.record_stream(stream)  # its memory is not given away before the branch has read it
        self.used.append(stream)
        with torch.cuda.stream(stream):
            yield

    def join(self, found: Iterable[Tensor]) -> None:
        for stream in self.used:
            torch.cuda.current_stream().wait_stream(stream)
        if self.used:
            for tensor in found:
                tensor.record_stream(torch.cuda.current_stream())


@cache
def _stream(number: int) -> torch.cuda.Stream:
    return torch.cuda.Stream()
