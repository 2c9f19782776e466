"""Stratified, seeded, disjoint splits, as indices."""

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


def split(labels: np.ndarray, train_size: int, val_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint, stratified indices (train, validation) into the training data; sizes as in TrainingConfig."""
    n, classes = len(labels), len(np.unique(labels))
    val_size = val_size or n // 10
    train_size = train_size or n - val_size
    for key, size in (("val_size", val_size), ("train_size", train_size)):
        if size < classes:
            raise ValueError(f"{key} = {size}: must be at least {classes}, one image a class")
    if val_size + train_size > n:
        raise ValueError(f"train_size = {train_size} and val_size = {val_size}: at most {n} together")
    order = stratified_order(labels, seed)
    return order[val_size : val_size + train_size], order[:val_size]


def everything(labels: np.ndarray, train_size: int, seed: int) -> np.ndarray:
    """Stratified indices of all training data, or of `train_size` of them, without validation."""
    if train_size > len(labels):
        raise ValueError(f"train_size = {train_size}: at most {len(labels)}, as many as there are")
    return stratified_order(labels, seed)[: train_size or len(labels)]
