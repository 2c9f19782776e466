"""Parts of a computation that do not need each other, side by side on a GPU while a CUDA graph is recorded: most
kernels of DARTS keep only a part of the GPU busy. The graph keeps what has to wait for what, the gradients' too.

Memory: what is made on one stream and read on another must not be given away in between. Here it is marked for what the
parts read and give, by autograd for the gradients that it hands on; the gradients of weights, made on a branch, are not
marked, and need not be as long as nothing else is made there before the step ends.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

Found = TypeVar("Found", Tensor, tuple[Tensor, ...])

allowed = False  # what a branch still needs is not given away before the graph ends: a third more memory


def side_by_side(parts: Sequence[Callable[[], Found]], *sources: Tensor) -> list[Found]:
    """What the parts give, tensors or tuples of them, which read `sources` and nothing else that a graph makes; one
    after another, unless a graph is being recorded and branches are `allowed`."""
    if torch.compiler.is_compiling() or not (allowed and sources[0].is_cuda and
                                             torch.cuda.is_current_stream_capturing()):
        return [part() for part in parts]
    before, found, streams = torch.cuda.current_stream(), [], [_stream(number) for number in range(len(parts))]
    for part, stream in zip(parts, streams, strict=True):
        stream.wait_stream(before)
        for source in sources:
            source.record_stream(stream)  # its memory is not given away before the branch has read it
        with torch.cuda.stream(stream):
            found.append(part())
    for result, stream in zip(found, streams, strict=True):
        before.wait_stream(stream)
        for tensor in result if isinstance(result, tuple) else [result]:
            tensor.record_stream(before)
    return found


@cache
def _stream(number: int) -> torch.cuda.Stream:
    return torch.cuda.Stream()
