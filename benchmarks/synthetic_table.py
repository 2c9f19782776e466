"""A made-up table for tuner_replay.py, with as good a score as one likes: what is a score worth to the tuner?

    python -m benchmarks.synthetic_table --trust 0.8 --out table.json
    python -m benchmarks.tuner_replay table.json --tuners random made_up

Six choices of five options, all 15 625 samples. Quality is the sum of an effect of each option and of smaller ones of
each pair; accuracy grows with it ever more slowly, as real ones do, and every seed adds noise. The score is --trust
times the quality; the rest of it is mostly effects of options that have nothing to do with quality, so that it misleads
in the same way again and again, a smaller part chance.
"""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np

from config import run_script
from files import write_json

CHOICES, OPTIONS, SEEDS = 6, 5, 3
PAIRS = 0.35  # size of the pairs' effects, where that of the options is 1
BEST, WIDTH, NOISE = 94.5, 2.2, 0.25  # percent: what accuracy approaches, how it falls off, one seed from another
CHANCE = 0.25  # share of chance in what of the score is not quality


def main(argv: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    options.add_argument("--trust", type=float, default=0.8, help="correlation of score and quality, 0 to 1")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, required=True)
    args = options.parse_args(argv)
    return run_script(lambda: run(args.trust, args.seed, args.out))


def run(trust: float, seed: int, out: Path) -> None:
    if not 0 <= trust <= 1:
        raise ValueError(f"--trust {trust}: must be from 0 to 1")
    rng = np.random.default_rng(seed)
    samples = np.array(list(itertools.product(range(OPTIONS), repeat=CHOICES)))
    quality = standard(effects(samples, rng) + PAIRS * pair_effects(samples, rng))
    other = np.sqrt(1 - CHANCE) * standard(effects(samples, rng)) + np.sqrt(CHANCE) * rng.normal(size=len(samples))
    score = trust * quality + np.sqrt(1 - trust**2) * other
    accuracy = BEST - WIDTH * np.logaddexp(0, 1.6 * (1.5 - quality))
    trained = accuracy[:, None] + NOISE * rng.normal(size=(len(samples), SEEDS))
    entries = [{"sample": {f"choice{i}": int(option) for i, option in enumerate(sample)},
                "accuracy": values.round(3).tolist(), "score": {"made_up": float(one)}}
               for sample, values, one in zip(samples, trained, score, strict=True)]
    space = {f"choice{i}": {"_type": "choice", "_value": list(range(OPTIONS))} for i in range(CHOICES)}
    write_json(out, {"space": space, "entries": entries})
    ranks = [values.argsort().argsort() for values in (score, trained.mean(1))]
    print(f"{out}: best accuracy {trained.mean(1).max():.2f}%, Spearman correlation of score and mean accuracy "
          f"{np.corrcoef(ranks)[0, 1]:.2f}")


def standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def effects(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of the options; samples (N, CHOICES) -> (N,)."""
    return rng.normal(size=(CHOICES, OPTIONS))[np.arange(CHOICES), samples].sum(1)


def pair_effects(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    table = rng.normal(size=(CHOICES, OPTIONS, CHOICES, OPTIONS))
    return sum(table[i, samples[:, i], j, samples[:, j]] for i, j in itertools.combinations(range(CHOICES), 2))


if __name__ == "__main__":
    sys.exit(main())
