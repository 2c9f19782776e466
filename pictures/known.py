"""The data sets that have a name. Another one: a function that reads it, and a line in DATASETS."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pictures import SIDE
from pictures.split import stratified_order

Split = tuple[np.ndarray, np.ndarray]  # images (N, 32, 32, 4) uint8 with an empty fourth channel, labels (N,)


@dataclass(frozen=True)
class Known:
    """What is known of a data set before it is read."""

    read: Callable[[Path], tuple[list[str], Split, Split]]  # data_dir -> class names, training data, test data
    images: int  # of training
    classes: int
    licence: str
    mirrored: bool = True  # whether a mirrored picture is one of its class still


def _read_cifar10(data_dir: Path) -> tuple[list[str], Split, Split]:
    from torchvision.datasets import CIFAR10  # slow to import, and needed only to pack

    try:
        train, test = (CIFAR10(data_dir, train=train, download=True) for train in (True, False))
    except RuntimeError as error:  # a checksum that does not match
        raise ValueError(f"data = cifar10: {error}") from None
    except OSError as error:
        raise OSError(f"data = cifar10: the download failed ({error}); offline, put cifar-10-python.tar.gz into "
                      f"{data_dir} or give a folder of pictures as data") from None
    return train.classes, *((four_channels(part.data), np.array(part.targets)) for part in (train, test))


def _read_digits(data_dir: Path) -> tuple[list[str], Split, Split]:
    """scikit-learn's 1797 scanned digits of 8x8 pixels, enlarged; every fifth or so is held out for the test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = [Image.fromarray((image * (255 / 16)).astype(np.uint8)) for image in digits.images]
    rgb = [image.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB") for image in grey]
    images, labels = four_channels(np.stack([np.asarray(image) for image in rgb])), digits.target
    order = stratified_order(labels, seed=0)
    test, train = np.sort(order[:360]), np.sort(order[360:])
    return [str(name) for name in digits.target_names], (images[train], labels[train]), (images[test], labels[test])


def four_channels(images: np.ndarray) -> np.ndarray:
    """(N, 32, 32, 3) -> (N, 32, 32, 4): one 32-bit word a pixel."""
    return np.pad(images, ((0, 0), (0, 0), (0, 0), (0, 1)))


DATASETS: dict[str, Known] = {
    "cifar10": Known(
        _read_cifar10, images=50_000, classes=10,
        licence="CIFAR-10 (Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images). Its authors state "
                "no licence; the pictures were collected from the web. Whether a use is allowed is for the user to "
                "find out."),
    "digits": Known(
        _read_digits, images=1_437, classes=10, mirrored=False,
        licence="Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998, UCI Machine Learning "
                "Repository), in the copy that scikit-learn ships; CC BY 4.0: name the source."),
}


def read_known(name: str, data_dir: Path, side: int) -> tuple[list[str], Split, Split]:
    """Class names, training and test data of an entry of DATASETS, whose pictures are enlarged if `side` is not 32."""
    classes, *splits = DATASETS[name].read(data_dir)
    return classes, *((resized(images, side), labels) for images, labels in splits)


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """(N, 32, 32, 4) -> (N, side, side, 4) uint8."""
    if images.shape[1] == side:
        return images
    found = np.zeros((len(images), side, side, 4), np.uint8)
    for image, place in zip(images, found, strict=True):
        place[..., :3] = Image.fromarray(image[..., :3]).resize((side, side), Image.Resampling.LANCZOS)
    return found


def mirrored_in(name: str) -> bool:
    """Whether pictures of a data set, known or not, may be mirrored."""
    return name not in DATASETS or DATASETS[name].mirrored
