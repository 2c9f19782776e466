"""Small pictures for tests, each another one."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pictures.dataset import Pictures

NUMBERS = itertools.count()


def make(path: Path, like: int | None = None) -> Path:
    """A picture of 9x8 pixels that no other call makes; the same for the same `like`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng([next(NUMBERS), 1] if like is None else [like, 2])
    pixels = generator.integers(0, 256, (8, 9, 3), np.uint8)
    Image.fromarray(pixels).save(path, "png")
    return path


def make_classes(folder: Path, **sizes: int) -> Path:
    """`folder`/<class>/<number>.png, so many of each class."""
    for name, size in sizes.items():
        for number in range(size):
            make(folder / name / f"{number}.png")
    return folder


def left_out(pictures: Pictures) -> dict:
    """What was left out or set aside; how the others were brought to one size, and notes, are no part of it."""
    return {key: count for key, count in pictures.counts.items() if key not in ("side", "fit", "notes")}


def sizes(pictures) -> tuple[list[int], list[int], int]:
    """Of the classes in training, with a given validation set, and test; and that of the validation set."""
    return np.bincount(pictures.train_labels).tolist(), np.bincount(pictures.test_labels).tolist(), pictures.given_val


def refused(call) -> str:
    with pytest.raises(ValueError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def packed(cache_dir):
    """What a data_dir holds besides locks."""
    return [path for path in cache_dir.glob("cache/*") if path.suffix != ".lock"]
