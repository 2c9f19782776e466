"""A data set as it was read, before it is packed."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from pictures.preprocess import GreyRange


class Refused(ValueError):
    """A data set that is not to be used as it is: why, a line each."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = list(lines)
        super().__init__("; ".join(self.lines))


class Read(NamedTuple):
    """Of a split: images (N, S, S, 4) uint8, labels (N,)."""

    classes: list[str]
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    given_val: int = 0  # so many of the training images, the last, are a validation set that was given
    broken: int = 0  # pictures that could not be read, and are not among these
    train_paths: Sequence[str] = ()  # below one root; none where there are no files
    test_paths: Sequence[str] = ()
    grey_range: GreyRange = MappingProxyType({})  # of values of more than 8 bits, found in the training pictures
    grey_unlike: Sequence[str] = ()  # what is told of other pictures that do not keep to it
    refused: str = ""  # why it is not to be packed: what is to be said of broken pictures


def compact(images: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Those images that are kept, moved to the front of the same memory; a copy would double it."""
    if kept.all():
        return images
    for to, number in enumerate(np.flatnonzero(kept)):
        images[to] = images[number]
    return images[: kept.sum()]
