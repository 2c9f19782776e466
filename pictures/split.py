"""Stratified, seeded, disjoint splits, as indices. Every class is in each of them."""

from collections.abc import Sequence

import numpy as np


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random order of all indices in which every stretch holds the classes in their proportions (to within one).

    Each image gets a random rank within its class; images are sorted by rank over class size.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffled[np.argsort(rank[shuffled], kind="stable")]


def validation_size(images: int, classes: int) -> int:
    """Images that are set aside where nobody says how many: a tenth, at least one a class."""
    return max(images // 10, classes)


def parts(labels: np.ndarray, given_val: int, *, train_size: int, val_size: int, seed: int, all_data: bool = False,
          classes: Sequence[str] = (), held_out: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
    """Indices into the training data, for training and for validation, if any; sizes as in TrainingConfig.

    `all_data`, or a val_size of -1: no validation; what is held out is not trained on even then. The last `given_val`
    images are a validation set that was given: that it is, and nothing is split off the others.
    `classes`: names for messages.
    """
    own, all_data = len(labels) - given_val, all_data or val_size < 0
    if given_val:
        return (everything(labels[:own], train_size, seed),
                own + everything(labels[own:], 0 if all_data else val_size, seed, "val_size"))
    if all_data and not held_out:
        return everything(labels, train_size, seed), None
    train, val = split(labels, train_size, 0 if all_data else val_size, seed, classes, held_out)
    return train, None if all_data else val


def split(labels: np.ndarray, train_size: int, val_size: int, seed: int, classes: Sequence[str] = (),
          held_out: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint, stratified indices (train, validation) into the training data; sizes as in TrainingConfig.

    The first of the stratified order are held out, and the first of these are validation: with one seed and one number
    held out none of the trainings sees a picture that another one is judged by, whatever their sizes. Where that would
    leave a class out of either part, its first image goes to validation and its last one to training.
    """
    n, least = len(labels), len(np.unique(labels))
    _assert_pairs(labels, classes)
    for key, size in (("held_out", held_out), ("val_size", val_size), ("train_size", train_size)):
        if size and size < least:
            raise ValueError(f"{key} = {size}: must be at least {least}, one image a class")
    if held_out and val_size > held_out:
        raise ValueError(f"val_size = {val_size}: must be at most held_out = {held_out}")
    key, aside = ("held_out", held_out) if held_out else ("val_size", val_size or validation_size(n, least))
    kept = train_size or n - aside
    if kept < least:
        raise ValueError(f"{key} = {aside}: must leave {least} of {n} images for training, one a class")
    if aside + kept > n:
        told = val_size or held_out
        raise ValueError(f"train_size = {train_size} and {key} = {aside}: at most {n} together" if told else
                         f"train_size = {train_size}: at most {n - aside} of {n}, validation takes {aside}")
    order = stratified_order(labels, seed)
    free = order[~_firsts(labels[order[::-1]])[::-1]]  # the last one of each class is for training
    val = free[_begin(labels[free], aside)]
    rest = order[~np.isin(order, val)]
    return rest[_begin(labels[rest], kept)], val[_begin(labels[val], val_size)] if held_out and val_size else val


def everything(labels: np.ndarray, train_size: int, seed: int, key: str = "train_size") -> np.ndarray:
    """Stratified indices of all training data, or of `train_size` of them, without validation. `key`: for messages."""
    if train_size > len(labels):
        raise ValueError(f"{key} = {train_size}: at most {len(labels)}, as many as there are")
    order = stratified_order(labels, seed)
    if not train_size or train_size < len(np.unique(labels)):
        return order[: train_size or len(labels)]
    return order[_begin(labels[order], train_size)]


def _begin(labels: np.ndarray, size: int) -> np.ndarray:
    """Which are the first `size` of an order, if all classes are among them; else each class's first and the next."""
    chosen = _firsts(labels)
    chosen[np.flatnonzero(~chosen)[: size - chosen.sum()]] = True
    return chosen


def _firsts(labels: np.ndarray) -> np.ndarray:
    """Which are the first of their class."""
    first = np.zeros(len(labels), bool)
    first[np.unique(labels, return_index=True)[1]] = True
    return first


def _assert_pairs(labels: np.ndarray, classes: Sequence[str]) -> None:
    """ValueError names the classes that have not one image for training and one for validation."""
    found, counts = np.unique(labels, return_counts=True)
    if small := [classes[label] if classes else str(label) for label in found[counts < 2]]:
        raise ValueError(f"classes too small, by 1 picture each: {', '.join(map(repr, small))}; besides its test "
                         "pictures a class needs 1 to train on and 1 for validation")
