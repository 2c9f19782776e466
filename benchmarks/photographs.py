"""Folders of crops of photographs, as small data sets whose pictures are larger than 32 pixels.

The photographs are those that scikit-image, scikit-learn and matplotlib ship; each is a class. Crops for training come
from the upper two thirds of a photograph, those of the test from below, so that no pixel is in both.
"""

import random
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

TEXTURES = ("brick.png", "grass.png", "gravel.png", "coffee.png")
MATERIALS = ("brick.png", "grass.png", "gravel.png", "chelsea.png", "moon.png", "ihc.png")  # all made grey
SCENES = ("china.jpg", "flower.jpg", "grace_hopper.jpg", "astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg",
          "retina.jpg")


def find(names: Iterable[str], folders: Iterable[Path]) -> dict[str, Path]:
    """Class name -> photograph; ValueError names one that no folder has."""
    found = {}
    for name in names:
        places = [folder / name for folder in folders if (folder / name).exists()]
        if not places:
            raise ValueError(f"{name}: in none of the folders of photographs")
        found[Path(name).stem] = places[0]
    return found


def crops(photographs: Mapping[str, Path], out: Path, train: int, test: int, size: int, mode: str = "RGB",
          aspect: float = 1.0) -> None:
    """So many crops a class, as out/train/<class>/* and out/test/<class>/*, of about `size` pixels.

    `aspect` above 1: of any proportions up to that, wide or high.
    """
    draw = random.Random(0)
    for name, path in photographs.items():
        image = Image.open(path).convert(mode)
        border = image.height * 2 // 3
        for split, count, top, bottom in (("train", train, 0, border), ("test", test, border, image.height)):
            (out / split / name).mkdir(parents=True)
            for number in range(count):
                stretch = aspect ** draw.uniform(-0.5, 0.5)
                width, height = min(round(size * stretch), image.width), min(round(size / stretch), bottom - top)
                left, upper = draw.randint(0, image.width - width), draw.randint(top, bottom - height)
                image.crop((left, upper, left + width, upper + height)).save(out / split / name / f"{number}.png")
