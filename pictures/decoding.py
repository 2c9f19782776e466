"""Decoding many picture files ahead of their use, in worker processes.

Needs neither torch nor the network, so that a worker starts in a fraction of a second.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np

from pictures import reading
from pictures.grey import Values
from pictures.preprocess import GreyRange
from pictures.reading import read_with_values

CHUNK = 32  # pictures a task: small enough to spread a batch of large photographs over all workers
AHEAD = 4  # batches that are decoded, or being decoded, before they are asked for


class Decoded(NamedTuple):
    """A batch of pictures, less those that could not be decoded."""

    paths: list[str]
    images: np.ndarray  # (N, side, side, 4) uint8 with an empty fourth channel, as in the packed cache
    broken: list[str]  # a line a picture: its path and what is wrong
    values: list[tuple[str, Values]]  # paths and values of those with grey of more than 8 bits


def decode(paths: list[str], side: int, fit: str = "stretch",
           grey_range: GreyRange | None = None) -> Decoded:
    images, good, broken, values = np.zeros((len(paths), side, side, 4), np.uint8), [], [], []
    for path in paths:
        try:
            images[len(good), :, :, :3], deep = read_with_values(path, side, fit, grey_range)
            good.append(path)
            values += [(path, deep)] if deep else []
        except ValueError as error:
            broken.append(" ".join(str(error).split()))
    return Decoded(good, images[: len(good)], broken, values)


class Decoder:
    """Worker processes that decode batches ahead of their use; memory does not grow with the number of pictures.

    with Decoder(side=32) as decoder:
        for batch in decoder.batches(paths, batch_size=256): ...

    Processes and not threads: most of the decoding of a small picture is Python, of which only one thread runs at once.
    """

    def __init__(self, side: int, workers: int = 0, fit: str = "stretch",
                 grey_range: GreyRange | None = None) -> None:
        """workers = 0: one a core, less the one that feeds the network; never more than fit into the memory.

        `how`, what the pictures become, may be set anew before they are asked for: processes start before it is known.
        """
        self.how = {"side": side, "fit": fit, "grey_range": grey_range}
        self.workers = min(workers or max(1, (os.cpu_count() or 1) - 1), reading.most_workers())
        context = multiprocessing.get_context("spawn")  # not forked: that is unsafe once torch has started its threads
        self.pool = ProcessPoolExecutor(self.workers, context, _start_worker, (context.Lock(),))
        self.pool.submit(os.getpid)  # the first worker starts now, while this process imports torch

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def batches(self, paths: Iterable[str], batch_size: int) -> Iterator[Decoded]:
        """Batches of `batch_size` paths, in their order; a batch of which nothing could be decoded is empty."""
        paths, pending = iter(paths), deque()
        try:
            while batch := list(itertools.islice(paths, batch_size)):
                pending.append([self.pool.submit(decode, batch[start : start + CHUNK], **self.how)
                                for start in range(0, len(batch), CHUNK)])
                if len(pending) > AHEAD:
                    yield _join([task.result() for task in pending.popleft()])
            while pending:
                yield _join([task.result() for task in pending.popleft()])
        except BrokenProcessPool:
            raise OSError("a process that decodes pictures has died; was there too little memory?") from None


def _join(parts: list[Decoded]) -> Decoded:
    return Decoded([path for part in parts for path in part.paths], np.concatenate([part.images for part in parts]),
                   *(list(itertools.chain.from_iterable(lists)) for lists in
                     zip(*((part.broken, part.values) for part in parts), strict=True)))


def _start_worker(turn: contextlib.AbstractContextManager) -> None:
    """Ctrl-C is the parent's to handle; a killed parent must not leave workers behind."""
    reading.turn = turn
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
