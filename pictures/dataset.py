"""A data set: opened from its packed cache, and batches of it.

A data set is decoded once into a memory-mapped cache and from then on is a tensor that lives where the model is.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from pictures import SIDE
from pictures.augmentation import Augmentation, Draws, Normalization, words
from pictures.cache import Pictures, open_cache, pack
from pictures.contents import Read
from pictures.known import DATASETS, mirrored_in, read_known
from pictures.listing import TEST_SHARE, unused_share
from pictures.own import listed, place_name, read, side_of
from pictures.split import parts

PLAIN = 256  # images a batch at most, where none is augmented

# ---- from a data set to the packed cache


def load(data: str, data_dir: str | os.PathLike, test_share: float = TEST_SHARE, skip_broken: bool = False,
         drop_duplicates: bool = False, image_size: str = "auto", fit: str = "pad") -> Pictures:
    """Open data set `data` (cifar10, digits, a folder or a table), packing it first if there is no whole cache of it.

    Safe when several processes start at once: one packs, the others wait. Raises ValueError with one line that
    names the files or folders at fault, OSError if `data_dir` cannot be written or the download fails. The settings
    are those of DataConfig.
    """
    source = _source(data, Path(data_dir), test_share, skip_broken, drop_duplicates, image_size, fit)
    cache = Path(data_dir) / "cache" / (source.key + ("-no-duplicates" if drop_duplicates else ""))
    pictures = open_cache(cache, data)
    if pictures is None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{cache}.lock"):
            pictures = open_cache(cache, data)  # another process may have packed it while we waited
            if pictures is None:
                pack(cache, source.read(), drop_duplicates, earlier_side(cache, image_size), source.duplicates)
                pictures = open_cache(cache, data)
                assert pictures is not None, cache
    counts = {**source.counts, **pictures.counts, **({"notes": list(source.notes)} if source.notes else {})}
    twice = any(key.startswith(("duplicates", "two_classes")) for key in counts)
    listed = (f"{source.duplicates} lists all that are there twice",) if twice and source.duplicates else ()
    return dataclasses.replace(pictures, counts=counts, notes=(*source.notes, *listed), root=source.root)


def earlier_side(cache: Path, image_size: str) -> dict[str, int]:
    """`earlier_side`: of the same folder or table, last packed with other pictures, where another one is chosen now."""
    key = re.compile(r"(?P<place>.+)-(?P<fingerprint>[0-9a-f]{16})-(?P<side>\d+)-(pad|crop|stretch)(-|$)")
    now = key.match(cache.name)
    if image_size != "auto" or not now:
        return {}
    others = [found for path in sorted(cache.parent.glob(f"{now['place']}-*/meta.json"), key=os.path.getmtime)
              if (found := key.match(path.parent.name)) and found["fingerprint"] != now["fingerprint"]]
    return {"earlier_side": int(others[-1]["side"])} if others and others[-1]["side"] != now["side"] else {}


class _Source(NamedTuple):
    key: str  # the name of its cache
    read: Callable[[], Read]
    counts: dict[str, Any]
    notes: tuple[str, ...] = ()
    root: str = ""
    duplicates: Path | None = None  # where its files are listed that are there twice


def _source(data: str, data_dir: Path, test_share: float, skip_broken: bool, drop_duplicates: bool, image_size: str,
            fit: str) -> _Source:
    """What is known of a data set before it is read."""
    if data in DATASETS:
        side = SIDE if image_size == "auto" else int(image_size)
        return _Source(f"{data}-{side}" if side != SIDE else data, lambda: Read(*read_known(data, data_dir, side)),
                       {"side": side} if side != SIDE else {}, unused_share(test_share))
    found = listed(data, data_dir, test_share, skip_broken, drop_duplicates)
    side, why = side_of(found, image_size)
    key = f"{place_name(data)}-{found.fingerprint()}-{side}-{fit}" + ("-skip-broken" if skip_broken else "")
    counts = {"side": side, "fit": fit} | found.counts()
    broken, twice = (data_dir / f"{place_name(data)}-{what}" for what in ("broken.txt", "duplicates.csv"))
    notes = tuple(filter(None, (why, *found.notes)))
    return _Source(key, lambda: read(found, side, fit, skip_broken, broken), counts, notes, found.root, twice)


# ---- batches


class Batches:
    """Ready batches of one split: x (B, 3, S, S) float32 channels_last, normalised, and y (B,), on the device.

    `batches.epoch(e, start)` depends on the seed and e alone, so that a run can go on from any batch of any epoch.
    With an augmentation the images come shuffled and a last, smaller batch is left out (one shape for all steps);
    without one they come in order and complete. `share`: the part of every batch that is wanted.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, index: np.ndarray, normalization: Normalization,
                 batch_size: int, augmentation: Augmentation | None = None, seed: int = 0,
                 share: slice = slice(None)) -> None:
        self.pixels, self.labels, self.normalization = pixels, labels, normalization
        self.index = torch.from_numpy(index).to(pixels.device)
        self.batch_size = min(batch_size, len(index))
        self.augmentation, self.seed, self.share = augmentation, seed, share
        generator = torch.Generator(pixels.device).manual_seed(seed * 100_003 + 100_002)  # of no epoch
        self.flipped = torch.randint(2, (len(pixels),), generator=generator, device=pixels.device)  # in epoch 0

    @property
    def images(self) -> int:
        """Images an epoch."""
        return len(self) * self.batch_size if self.augmentation else len(self.index)

    def __len__(self) -> int:
        """Batches an epoch."""
        n = len(self.index)
        return n // self.batch_size if self.augmentation else -(-n // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.ready(*drawn) for drawn in self.drawn(epoch, start))

    def drawn(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Draws | None]]:
        """What `ready` makes the same batches of: the numbers of their images, and the random choices."""
        generator = torch.Generator(self.pixels.device).manual_seed(self.seed * 100_003 + epoch)
        index = self.index
        if self.augmentation:
            index = index[torch.randperm(len(index), generator=generator, device=index.device)]
        for number, picked in enumerate(index.split(self.batch_size)[: len(self)]):
            draws = self.augmentation.draw(len(picked), generator) if self.augmentation else None
            if self.augmentation and self.augmentation.flip and self.augmentation.alternate:
                draws = draws._replace(flip=(self.flipped[picked] + epoch) % 2)
            if number >= start:
                yield picked[self.share], draws and draws.part(self.share)

    def ready(self, picked: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """One batch, by the same launches whatever was drawn."""
        fill = self.normalization.fill
        batch = self.augmentation(self.pixels, picked, draws, fill) if draws else self.pixels[picked]
        return self.normalization(batch), self.labels[picked]

    def plain(self, images: int) -> Iterator[Tensor]:
        """x alone of the first `images` of the split, which lie in stratified order, as they are, in even batches."""
        index = self.index[:images]
        for picked in index.tensor_split(-(-len(index) // PLAIN)):
            yield self.normalization(self.pixels[picked])


class Loaders(NamedTuple):
    """Training and validation batches over one copy of the training images."""

    train: Batches
    val: Batches | None


def training_batches(pictures: Pictures, device: torch.device, *, train_size: int, val_size: int, batch_size: int,
                     crop_padding: int, flip: str, cutout: int, seed: int, augment: str = "basic",
                     all_data: bool = False, share: slice = slice(None), alternate: bool = False,
                     crop_border: str = "mean", held_out: int = 0) -> Loaders:
    """Split the training images and make their loaders; the arguments are settings of TrainingConfig and RetrainConfig.

    With `all_data` none are set aside for validation, but for what is held out; a validation set that was given is one
    anyhow. `share`: the part of each training batch for this process.
    """
    train, val = parts(pictures.train_labels, pictures.given_val, train_size=train_size, val_size=val_size, seed=seed,
                       all_data=all_data, classes=pictures.classes, held_out=held_out)
    pixels = words(torch.from_numpy(pictures.train_images)).to(device)
    labels = torch.from_numpy(pictures.train_labels).to(device)
    normalization = Normalization.of(pictures.train_moments[train], device, pictures.side)
    change = augmentation(pictures, crop_padding=crop_padding, flip=flip, cutout=cutout, augment=augment,
                          alternate=alternate, crop_border=crop_border)
    return Loaders(Batches(pixels, labels, train, normalization, batch_size, change, seed, share),
                   None if val is None else Batches(pixels, labels, val, normalization, max(batch_size, PLAIN)))


def augmentation(pictures: Pictures, *, crop_padding: int, flip: str, cutout: int, augment: str = "basic",
                 alternate: bool = False, crop_border: str = "mean") -> Augmentation:
    """That of a training with these settings."""
    mirrored = flip == "on" or (flip == "auto" and mirrored_in(pictures.name))
    crop_padding, cutout = (round(pixels_of_32 * pictures.side / SIDE) for pixels_of_32 in (crop_padding, cutout))
    return Augmentation(crop_padding, mirrored, cutout, augment, pictures.side, alternate,
                        reflect=crop_border == "reflect")


def final_batches(pictures: Pictures, normalization: Normalization, batch_size: int) -> Batches:
    """The test images, in order; to be read once, when all choices are made."""
    device = normalization.mean.device
    pixels, labels = words(torch.from_numpy(pictures.test_images)), torch.from_numpy(pictures.test_labels)
    return Batches(pixels.to(device), labels.to(device), np.arange(len(labels)), normalization, max(batch_size, PLAIN))
