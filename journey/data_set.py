"""The data set of a pipeline: what has to be known of it before its stages are planned."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from config import DataConfig, TrainingConfig
from pictures import SIDE
from pictures.known import DATASETS
from pictures.listing import SPLIT_NAMES, unused_share
from pictures.split import parts


@dataclasses.dataclass(frozen=True)
class DataSet:
    checksum: str  # empty: the pictures were not read
    classes: tuple[str, ...]
    labels: np.ndarray  # of the training images, those of a given validation set last
    given_val: int
    lines: str  # for people
    side: int  # of the pictures as they are packed

    @property
    def images(self) -> int:
        """Of training."""
        return len(self.labels) - self.given_val


def loaded(config: DataConfig) -> DataSet:
    """The data set is packed by this, if it was not."""
    from pictures.dataset import load  # and torch: slow

    found = load(**config.data_set)
    return DataSet(found.checksum, found.classes, found.train_labels, found.given_val, found.summary(), found.side)


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
        all_data = getattr(config, "all_data", False) or config.val_size < 0
        parts(data.labels, data.given_val, train_size=config.train_size, val_size=config.val_size, seed=config.seed,
              all_data=all_data, classes=data.classes)


def changes(config: DataConfig) -> dict[str, Any]:
    """The settings of a data set that are not the defaults, but for its places."""
    return {key: value for key, value in config.data_set.items()
            if key not in ("data", "data_dir") and value != getattr(DataConfig, key)}


def to_try(data: str) -> Path:
    """Pictures to try a network on: the test set's folder, if it has one, else those of all pictures."""
    root = Path(data) if Path(data).is_dir() else Path(data).parent
    tests = [entry for entry in sorted(root.iterdir()) if SPLIT_NAMES.get(entry.name.lower()) == "test"]
    return next((entry for entry in tests if entry.is_dir() and Path(data).is_dir()), root)
