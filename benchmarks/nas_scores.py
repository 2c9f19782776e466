"""The free scores of nas/scores.py: candidates a second, and how much of NASWOT's ranks its speed costs.

Random networks of stage 2's space, no larger than MobileNet, each scored once a round, nothing cached but the initial
weights. The rival is NASWOT as one would write it: the network built anew for each candidate, images of 32x32.
Spearman's rho compares ours with the rival, and the rival with itself at another seed.
"""

import random
import sys
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.measure import at_least, environment, parser, publish, ratio, save, spread, take_turns
from config import run_script
from models.mobilenet_space.space import build, choices, no_larger_than_mobilenet
from nas import scores as nas_scores

RIVAL = "plain naswot"


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, rounds=5, data=False)
    options.add_argument("--candidates", type=at_least(2), default=40, help="networks a round")
    options.add_argument("--threads", type=at_least(1), default=1, help="of torch")
    args = options.parse_args(argv)
    return run_script(lambda: run(args))


def run(args: Any) -> None:
    torch.set_num_threads(args.threads)
    where, samples = environment(torch.device("cpu")), candidates(args.candidates)
    scores = {RIVAL: plain_naswot, "naswot": fresh(nas_scores._naswot), "synflow": fresh(nas_scores._synflow),
              "macs": nas_scores.macs, "average": average}
    nas_scores.average(samples[0])  # its reference, once a process
    speeds = take_turns({name: side(score, samples) for name, score in scores.items()}, args.rounds,
                        torch.device("cpu"))
    publish("Free scores of untrained networks", [
        {"score": name, "candidates/s": spread(values), "faster than the rival by": ratio(speeds, name, RIVAL)}
        for name, values in speeds.items()], where,
        f"Median (smallest to largest) of {args.rounds} rounds of {args.candidates} networks; batch "
        f"{nas_scores.BATCH}; {args.threads} thread(s).")

    ours, rival, again = ([score(sample) for sample in samples]
                          for score in (nas_scores.naswot, plain_naswot, lambda sample: plain_naswot(sample, seed=1)))
    rows = [{"NASWOT against the rival": "ours", "Spearman's rho": f"{rho(ours, rival):.4f}"},
            {"NASWOT against the rival": "the rival, another seed", "Spearman's rho": f"{rho(again, rival):.4f}"}]
    publish("Ranks", rows, where, f"{args.candidates} networks.")
    save(args.out, args, where, candidates_per_second=speeds, naswot={"ours": ours, "rival": rival, "again": again})


def candidates(count: int) -> list[dict[str, str]]:
    rng, found = random.Random(0), []
    while len(found) < count:
        sample = {label: rng.choice(values) for label, values in choices().items()}
        if no_larger_than_mobilenet(sample):
            found.append(sample)
    return found


def side(score: Callable[[dict], float], samples: list[dict]) -> Callable[[], int]:
    def scored() -> int:
        for sample in samples:
            score(sample)
        return len(samples)

    return scored


def fresh(score: Any) -> Callable[[dict], float]:
    """A cached score of a frozen sample, without its cache."""
    return lambda sample: score.__wrapped__(nas_scores.freeze(sample))


def average(sample: dict) -> float:
    nas_scores._naswot.cache_clear()
    nas_scores._synflow.cache_clear()
    return nas_scores.average(sample)


def plain_naswot(sample: dict, seed: int = 0) -> float:
    torch.manual_seed(seed)
    images = torch.randn(nas_scores.BATCH, 3, nas_scores.SIDE, nas_scores.SIDE)
    model, images = (each.to(memory_format=torch.channels_last) for each in (build(sample, nas_scores.CLASSES), images))
    return nas_scores.naswot_of(model, images)


def rho(one: list[float], other: list[float]) -> float:
    """Spearman's rank correlation; no two values are equal."""
    ranks = torch.tensor([one, other]).argsort().argsort().double()
    return torch.corrcoef(ranks)[0, 1].item()


if __name__ == "__main__":
    sys.exit(main())
