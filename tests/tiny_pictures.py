"""A folder of a few small pictures of one colour a class."""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image


def write(folder: Path, classes: Iterable[str] = ("cat", "dog"), train: int = 12, test: int = 3) -> Path:
    """folder/train/<class>/* and folder/test/<class>/*, all of them different."""
    for split, count in (("train", train), ("test", test)):
        for shade, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                colour = (200 * (shade % 2), 40 * shade % 256, (9 * number + count) % 256)
                Image.new("RGB", (8, 8), colour).save(folder / split / name / f"{number}.png")
    return folder
