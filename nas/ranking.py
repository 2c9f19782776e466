"""Samples of a space of choices, and which of them to train next: what the tuner of stage 2 needs to know of them.

A free score may be worth much or nothing, and nobody knows before: so its weight is learned, by Bayes' rule, from how
well it told the results so far. Scores and results enter as ranks alone, so that no unit and no outlier matters.
"""

import itertools
import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any

import numpy as np

TRUST = 0.5  # correlation of score and result that is expected before there are results, and its uncertainty
NOISE = 0.2  # variance of results that training again would show; all results together have 1
CURIOSITY = 0.5  # standard deviations that a candidate is credited with

Key = tuple[int, ...]  # a sample: the index of the option taken of each choice


class Choices:
    """An NNI search space of flat choices; ValueError names an entry that is something else."""

    def __init__(self, space: Any) -> None:
        if not isinstance(space, dict) or not space:
            raise ValueError("search space: must be names with {_type: choice, _value: [...]}")
        for name, spec in space.items():
            flat = isinstance(spec, dict) and spec.get("_type") == "choice" and isinstance(spec.get("_value"), list)
            if not flat or not spec["_value"] or any(isinstance(o, dict) and "_name" in o for o in spec["_value"]):
                raise ValueError(f"search space '{name}': {spec!r}: must be a flat choice, not empty")
        self.options: dict[str, list] = {name: spec["_value"] for name, spec in space.items()}
        self.sizes = [len(values) for values in self.options.values()]
        self.count = math.prod(self.sizes)

    def sample(self, key: Key) -> dict:
        return {name: values[i] for (name, values), i in zip(self.options.items(), key, strict=True)}

    def key(self, sample: Any) -> Key | None:
        """The inverse of `sample`; none for what is no sample of this space."""
        if not isinstance(sample, dict) or sample.keys() != self.options.keys():
            return None
        places = [next((i for i, option in enumerate(values) if _same(option, sample[name])), None)
                  for name, values in self.options.items()]
        return None if None in places else tuple(places)

    def all(self) -> Iterator[Key]:
        return itertools.product(*map(range, self.sizes))

    def random(self, rng: np.random.Generator) -> Key:
        return tuple(rng.integers(self.sizes).tolist())

    def mutated(self, key: Key, rng: np.random.Generator) -> Key:
        """With one choice drawn anew, half of the time two or more, a quarter of the time three or more, and so on."""
        values = list(key)
        for place in rng.permutation(len(key))[: rng.geometric(0.5)]:
            values[place] = int(rng.integers(self.sizes[place]))
        return tuple(values)


def _same(option: Any, value: Any) -> bool:
    """JSON has one kind of number, but True is not 1."""
    return option == value and isinstance(option, bool) == isinstance(value, bool)


def normal_ranks(values: list[float | None]) -> np.ndarray:
    """Each value's rank as the quantile of a normal distribution; equal values share one, none is in the middle."""
    known = np.sort([value for value in values if value is not None])
    numbers = [0.0 if value is None else value for value in values]
    shares = (known.searchsorted(numbers, "left") + known.searchsorted(numbers, "right")) / 2 / max(len(known), 1)
    quantile = NormalDist().inv_cdf
    return np.array([0.0 if value is None else quantile(share) for value, share in zip(values, shares, strict=True)])


def expect(known: np.ndarray, z_known: np.ndarray, y: np.ndarray, pool: np.ndarray, z: np.ndarray) -> np.ndarray:
    """What each candidate of the pool promises: its expected result plus CURIOSITY standard deviations of it.

    A Gaussian process: a result is the score z times its trust, a number that is TRUST ± TRUST before there are
    results, plus a part that is alike for samples with like options. The known samples without a result, at the end
    of `known`, do not change what is expected, only how much there is to learn near them.
    """
    covariance = kernel(known, z_known, known, z_known) + NOISE * np.eye(len(known))
    across, n = kernel(pool, z, known, z_known), len(y)
    mean = TRUST * z + across[:, :n] @ np.linalg.solve(covariance[:n, :n], y - TRUST * z_known[:n])
    variance = 1 + (TRUST * z) ** 2 - np.einsum("ij,ji->i", across, np.linalg.solve(covariance, across.T))
    return mean + CURIOSITY * np.sqrt(np.maximum(variance, 0))


def kernel(a: np.ndarray, z_a: np.ndarray, b: np.ndarray, z_b: np.ndarray) -> np.ndarray:
    """Half of the likeness of two samples is the share of equal options (ridge regression), half falls off faster."""
    equal = (a[:, None] == b[None]).mean(2)
    return (equal + np.exp(4 * (equal - 1))) / 2 + TRUST**2 * np.outer(z_a, z_b)
