"""Tuners replayed on a table of finished trainings: how good is the pick after so many of them?

    python -m benchmarks.tuner_replay TABLE.json --replays 200

TABLE.json: {"space": NNI search space of choices, "entries": [{"sample": {...}, "accuracy": [one of each seed],
"score": {name: value}}]}. A training gives the accuracy of one seed, drawn at random. The pick is the sample with the
best accuracy seen; it is judged by the mean of all its seeds. A sample that is proposed again is trained again. One
that is not in the table costs nothing and is told as the worst accuracy; our own tuner gets the table as its limit.
"""

import argparse
import itertools
import json
import logging
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nni
import numpy as np
import torch
from nni.algorithms.hpo.evolution_tuner import EvolutionTuner as NniEvolution
from nni.algorithms.hpo.random_tuner import RandomTuner
from nni.algorithms.hpo.tpe_tuner import TpeTuner
from nni.tuner import Tuner

from benchmarks.measure import at_least, environment, publish, save
from config import run_script
from files import read_json
from nas.ranking import Choices
from nas.tuner import EvolutionTuner

BUDGETS = (5, 10, 20, 50, 100)
WITHOUT_SCORE = ("random", "TPE", "Evolution", "plain")
MISSES = 1_000  # proposals in a row that are not in the table, before a tuner counts as stuck
CURRENT: dict[str, Any] = {}  # what `score` and `limit` look up: the table, the name of the score


def main(argv: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    options.add_argument("table", type=Path)
    options.add_argument("--replays", type=at_least(1), default=200, help="of each tuner (default: %(default)s)")
    options.add_argument("--tuners", nargs="+", metavar="NAME", help=f"{', '.join(WITHOUT_SCORE)} or a score's name")
    options.add_argument("--out", type=Path, help="JSON file for the picks of all replays")
    args = options.parse_args(argv)
    return run_script(lambda: run(args))


def run(args: Any) -> None:
    logging.getLogger("nni").setLevel(logging.ERROR)
    space, entries = read_table(args.table)
    known = [*WITHOUT_SCORE, *next(iter(entries.values())).get("score", {})]
    names = args.tuners or known
    for name in names:
        if name not in known:
            raise ValueError(f"--tuners {name}: must be one of {', '.join(known)}")
    budgets = [budget for budget in BUDGETS if budget <= len(entries)] or [len(entries)]
    picks: dict[str, list[list[float]]] = {}
    for name in names:
        start = time.perf_counter()
        picks[name] = [replay(name, space, entries, budgets, number) for number in range(args.replays)]
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)

    rows = [{"tuner": name, **{str(budget): summary(column) for budget, column in zip(budgets, columns(picks[name]),
                                                                                    strict=True)}} for name in names]
    where = environment(torch.device("cpu"))
    best = max(statistics.mean(entry["accuracy"]) for entry in entries.values())
    publish("True accuracy of the pick after so many trainings", rows, where,
            f"Mean ± its standard error over {args.replays} replays on {len(entries)} samples, the best of which "
            f"has {best:.2f}. random, TPE and Evolution are NNI's; plain is our tuner without a score, the others are "
            "our tuner with that score.")
    save(args.out, args, where, budgets=budgets, picks=picks)


def read_table(path: Path) -> tuple[dict, dict[str, dict]]:
    """The space, and each entry under its sample as text."""
    table = read_json(path)
    try:
        Choices(table["space"])
        entries = {text(entry["sample"]): entry for entry in table["entries"]}
        sound = all(entry["accuracy"] and isinstance(entry.get("score", {}), dict) for entry in entries.values())
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a table of trainings: {error!r}") from None
    if not entries or not sound:
        raise ValueError(f"{path}: must have entries, each with sample, accuracy and score")
    return table["space"], entries


def text(sample: dict) -> str:
    return json.dumps(sample, sort_keys=True)


def make_tuner(name: str, space: dict, seed: int) -> Tuner:
    """NNI's Evolution takes no seed: its replays differ from run to run."""
    ours = {"limit": f"{__name__}.in_table", "seed": seed}
    tuners = {"random": lambda: RandomTuner(seed=seed), "TPE": lambda: TpeTuner("maximize", seed=seed),
              "Evolution": lambda: NniEvolution("maximize"), "plain": lambda: EvolutionTuner(**ours)}
    tuner = tuners.get(name, lambda: EvolutionTuner(score=f"{__name__}.score_in_table", **ours))()
    tuner.update_search_space(space)
    return tuner


def in_table(sample: dict) -> bool:
    return text(sample) in CURRENT["entries"]


def score_in_table(sample: dict) -> float:
    return CURRENT["entries"][text(sample)]["score"][CURRENT["score"]]


def replay(name: str, space: dict, entries: dict[str, dict], budgets: list[int], seed: int) -> list[float]:
    """True accuracy of the pick at each budget."""
    CURRENT.update(entries=entries, score=name)
    rng, found = np.random.default_rng(seed), []
    for entry, value in itertools.islice(trainings(make_tuner(name, space, seed), entries, rng), max(budgets)):
        found.append((value, statistics.mean(entry["accuracy"])))
    if not found:
        raise ValueError(f"{name}: proposes nothing that is in the table")
    return [max(found[:budget], key=lambda pair: pair[0])[1] for budget in budgets]


def trainings(tuner: Tuner, entries: dict[str, dict], rng: np.random.Generator) -> Iterator[tuple[dict, float]]:
    """One trial at a time, until the tuner has no more or finds nothing more in the table."""
    worst, misses = min(min(entry["accuracy"]) for entry in entries.values()), 0
    for number in itertools.count():
        try:
            [sample] = tuner.generate_multiple_parameters([number], st_callback=None) or [None]
        except nni.NoMoreTrialError:
            return
        if sample is None or misses == MISSES:
            return
        entry = entries.get(text(sample))
        misses = 0 if entry else misses + 1
        value = float(rng.choice(entry["accuracy"])) if entry else worst
        if entry:
            yield entry, value
        tuner.receive_trial_result(number, sample, value)
        tuner.trial_end(number, True)


def columns(rows: list[list[float]]) -> list[list[float]]:
    return [list(column) for column in zip(*rows, strict=True)]


def summary(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {error:.2f}"


if __name__ == "__main__":
    sys.exit(main())
