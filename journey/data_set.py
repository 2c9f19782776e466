"""The data set of a pipeline: what has to be known of it before its stages are planned."""

import csv
import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from config import DataConfig, TrainingConfig
from files import atomic_write
from pictures import SIDE
from pictures.known import DATASETS
from pictures.listing import shown, unused_share
from pictures.split import parts, validation_size


@dataclasses.dataclass(frozen=True)
class DataSet:
    checksum: str  # empty: the pictures were not read
    classes: tuple[str, ...]
    labels: np.ndarray  # of the training images, those of a given validation set last
    given_val: int
    lines: str  # for people
    side: int  # of the pictures as they are packed
    test: int = 0  # pictures

    @property
    def images(self) -> int:
        """Of training."""
        return len(self.labels) - self.given_val


def loaded(config: DataConfig) -> DataSet:
    """The data set is packed by this, if it was not."""
    from pictures.dataset import load  # and torch: slow

    found = load(**config.data_set)
    aside = found.given_val or validation_size(len(found.train_labels), len(found.classes))
    return DataSet(found.checksum, found.classes, found.train_labels, found.given_val, found.summary(aside), found.side,
                   found.test_size)


def known(config: DataConfig) -> DataSet:
    """One of DATASETS, without reading or downloading it."""
    facts = DATASETS[config.data]
    told = f"{facts.classes} classes, {facts.images} pictures for training"
    return DataSet("", tuple(map(str, range(facts.classes))), np.arange(facts.images) % facts.classes, 0,
                   "\n  ".join([told, *unused_share(config.test_share)]),
                   SIDE if config.image_size == "auto" else int(config.image_size))


def assert_splits(data: DataSet, trainings: Iterable[TrainingConfig]) -> None:
    """ValueError if the pictures are too few for what a stage will take of them."""
    for config in trainings:
        parts(data.labels, data.given_val, train_size=config.train_size, val_size=config.val_size, seed=config.seed,
              all_data=getattr(config, "all_data", False), classes=data.classes, held_out=config.held_out)


def changes(config: DataConfig) -> dict[str, Any]:
    """The settings of a data set that are not the defaults, but for its places."""
    return {key: value for key, value in config.data_set.items()
            if key not in ("data", "data_dir") and value != getattr(DataConfig, key)}


def write_test_pictures(data_set: Mapping[str, Any], table: Path) -> bool:
    """A table of the test pictures and their classes, which predict.py takes; false if these are no files.

    `data_set`: the arguments of pictures.dataset.load.
    """
    from pictures.dataset import load

    try:
        pictures = load(**data_set)
    except (ValueError, OSError):  # what was trained on has changed since
        return False
    rows = [(os.path.abspath(path), pictures.classes[label])
            for path, label in zip(pictures.paths("test"), pictures.test_labels, strict=False)]
    if not rows or any(path != shown(path) for path, _ in rows):  # a name that is no Unicode cannot be in a table
        return False
    with atomic_write(table) as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "label"), *rows])
    return True
