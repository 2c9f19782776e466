"""Anybody's picture files: decoding one, and decoding many ahead of their use in worker processes.

Needs neither torch nor the network, so that a worker starts in a fraction of a second.
"""

import itertools
import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

CHUNK = 32  # pictures a task: small enough to spread a batch of large photographs over all workers
AHEAD = 4  # batches that are decoded, or being decoded, before they are asked for


def read_picture(path: str, side: int) -> np.ndarray:
    """(side, side, 3) uint8; any format and size that Pillow reads. ValueError with one line if it does not.

    Turned as its EXIF data say; of an animation the first picture; what is transparent becomes white.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * side, 2 * side))  # lets a large JPEG be decoded at a fraction of its size
            image = _rgb(ImageOps.exif_transpose(image))
            if image.size != (side, side):
                image = image.resize((side, side), Image.Resampling.LANCZOS)
            return np.asarray(image)
    except UnidentifiedImageError:
        raise ValueError(f"{path}: not a picture that Pillow can read") from None
    except Exception as error:  # the decoders of a broken file raise what they like
        raise ValueError(f"{path}: broken picture ({error})") from None


def _rgb(image: Image.Image) -> Image.Image:
    """Pillow's own conversion cuts 16 bits off at 255, and shows the colours behind what is transparent."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("grey values of 32 bits, whose range is not known")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


class Decoded(NamedTuple):
    """A batch of pictures, less those that could not be decoded."""

    paths: list[str]
    images: np.ndarray  # (N, side, side, 4) uint8 with an empty fourth channel, as in the packed cache
    broken: list[str]  # a line a picture: its path and what is wrong


def decode(paths: list[str], side: int) -> Decoded:
    images, good, broken = np.zeros((len(paths), side, side, 4), np.uint8), [], []
    for path in paths:
        try:
            images[len(good), :, :, :3] = read_picture(path, side)
            good.append(path)
        except ValueError as error:
            broken.append(" ".join(str(error).split()))
    return Decoded(good, images[: len(good)], broken)


class Decoder:
    """Worker processes that decode batches ahead of their use; memory does not grow with the number of pictures.

    with Decoder(side=32) as decoder:
        for batch in decoder.batches(paths, batch_size=256): ...

    Processes and not threads: most of the decoding of a small picture is Python, of which only one thread runs at once.
    """

    def __init__(self, side: int, workers: int = 0) -> None:
        """workers = 0: one a core, less the one that feeds the network."""
        self.side, self.workers = side, workers or max(1, (os.cpu_count() or 1) - 1)
        # Not forked: that is unsafe once torch has started its threads.
        self.pool = ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"), _start_worker)
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
                pending.append([self.pool.submit(decode, batch[start : start + CHUNK], self.side)
                                for start in range(0, len(batch), CHUNK)])
                if len(pending) > AHEAD:
                    yield _join([task.result() for task in pending.popleft()])
            while pending:
                yield _join([task.result() for task in pending.popleft()])
        except BrokenProcessPool:
            raise OSError("a process that decodes pictures has died; was there too little memory?") from None


def _join(parts: list[Decoded]) -> Decoded:
    return Decoded([path for part in parts for path in part.paths], np.concatenate([part.images for part in parts]),
                   [line for part in parts for line in part.broken])


def _start_worker() -> None:
    """Ctrl-C is the parent's to handle; a killed parent must not leave workers behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # Pillow refuses what is twice as large
    parent = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
