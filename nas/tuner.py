"""A tuner for NNI that trains little: regularised evolution whose candidates are ranked before any is trained.

    tuner:
      codeDirectory: .
      className: nas.tuner.EvolutionTuner
      classArgs: {optimize_mode: maximize, score: nas.scores.naswot, seed: 1}

Evolution is that of Real et al., 2019, arXiv:1802.01548: a child is a mutated winner of a tournament, and the oldest of
the population dies. With a score, many candidates are scored for each one that is trained (random samples at first,
then children too), and nas/ranking.py ranks them by what the score and the results so far say together.

NNI 3.0 names a trial's parameters wrongly when it ends (several at once), but rightly when it reports. So a result
counts whatever the end says. NNI calls `load_checkpoint` on resume, before it gives the search space, and
`save_checkpoint` never: the tuner does that itself after every event.
"""

import contextlib
import functools
import importlib
import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nni
import numpy as np
from nni.tuner import Tuner
from nni.utils import extract_scalar_reward

from files import read_json, write_json
from guard.moved import renamed
from guard.tuners import never_begun
from nas.ranking import Choices, Key, expect, normal_ranks

DRAWS = 10_000  # random samples without an allowed new one before a space counts as used up
ENUMERABLE = 20_000  # a space so small is enumerated before that is said
ATTEMPTS = 100  # children, or samples to score, without a new or sound one
FIRST = 200  # candidates scored before the first trial; 20 a second are a slow score
TELL_EVERY = 25  # of them, so that nobody takes the wait for a hang; experiment.py shows it
POOL = 1_000  # candidates that are kept for later generations, the newest
RANDOM_EVERY = 5  # one trial in five is drawn at random, should score and results mislead
log = logging.getLogger(__name__)


class EvolutionTuner(Tuner):
    """Tuner of NNI for search spaces of flat choices.

    score: dotted path of a function (sample: dict) -> float, higher is better; none: plain evolution
    limit: dotted path of a function (sample: dict) -> bool; only samples for which it is true are tried
    population: how many of the latest results can be parents
    tournament: how many of them compete to become one
    candidates: how many are scored for each one that is trained, after the first 200
    """

    def __init__(self, optimize_mode: str = "maximize", score: str | None = None, limit: str | None = None,
                 seed: int = 0, population: int = 20, tournament: int = 5, candidates: int = 20) -> None:
        if optimize_mode not in ("maximize", "minimize"):
            raise ValueError(f"optimize_mode {optimize_mode!r}: must be maximize or minimize")
        numbers = {"population": population, "tournament": tournament, "candidates": candidates, "seed": seed}
        for name, value in numbers.items():
            if not isinstance(value, int) or value < (name != "seed"):
                raise ValueError(f"{name} {value!r}: must be a whole number, at least {int(name != 'seed')}")
        self.sign = 1.0 if optimize_mode == "maximize" else -1.0
        self.score, self.limit = score, limit
        self.population, self.tournament, self.candidates = population, tournament, candidates
        self.space: dict | None = None
        self.rng = np.random.default_rng(seed)
        self.seen: dict[Key, None] = {}  # every sample that was proposed or imported, in order
        self.running: dict[int, Key] = {}  # parameter id -> sample without a result
        self.lost: list[Key] = []  # proposed, but not begun when NNI was stopped: proposed again
        self.failed: set[int] = set()  # ids among them whose trial is said to have failed
        self.results: list[tuple[Key, float]] = []  # higher is better, whatever the optimize_mode
        self.jobs: list[str] = []  # NNI's ids of the trials with a result
        self.scores: dict[Key, float | None] = {}  # none: the score function failed
        self.lock = threading.RLock()  # NNI tells of results and of ends in different threads

    # ---- what NNI calls --------------------------------------------------------------------------------------------

    def update_search_space(self, search_space: dict) -> None:
        choices = Choices(search_space)
        if self.space not in (None, search_space):
            raise ValueError("the search space is not the one that this experiment began with: start a new experiment")
        self.space, self.choices = search_space, choices
        if not self.seen:
            self._random()  # a limit that nothing meets is told now

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict:
        with self.lock:
            if self.lost:
                key = self.lost.pop(0)
                self.running = {number: other for number, other in self.running.items() if other != key}
            else:
                key = self._ranked() if self.score else self._evolved()
            self.seen[key] = None
            self.running[parameter_id] = key
            self.failed.discard(parameter_id)  # ids begin anew when NNI resumes
            self.save_checkpoint()
            return self.choices.sample(key)

    def receive_trial_result(self, parameter_id: int, parameters: dict, value: Any, **kwargs: Any) -> None:
        with self.lock:
            if parameter_id not in self.running:
                return log.warning("a second or unknown result, parameter id %s: ignored", parameter_id)
            self._record(self.running.pop(parameter_id), value, kwargs.get("trial_job_id"))
            self.save_checkpoint()

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        """A failed trial gets no result; should one come yet, NNI had named the wrong trial."""
        with self.lock:
            if not success and parameter_id in self.running:
                self.failed.add(parameter_id)
                self.save_checkpoint()

    def import_data(self, data: list[dict]) -> None:
        """On resume NNI repeats all results, with parameters that may be another trial's: known trials are skipped."""
        with self.lock:
            known = {key for key, _ in self.results}
            for entry in data:
                key, job = self.choices.key(entry["parameter"]), entry.get("trialJobId")
                if key is None:
                    log.warning("imported result ignored, not in the search space: %s", entry["parameter"])
                elif key not in known and (job is None or job not in self.jobs):
                    self.seen[key] = None
                    self.running = {number: other for number, other in self.running.items() if other != key}
                    self._record(key, entry["value"], job)
                    known.add(key)
            self.save_checkpoint()

    # ---- state -----------------------------------------------------------------------------------------------------

    def save_checkpoint(self) -> None:
        if (folder := self.get_checkpoint_path()) is None:
            return
        state = {"space": self.space, "score": self.score, "rng": self.rng.bit_generator.state,
                 "seen": list(self.seen), "running": list(self.running.items()), "failed": sorted(self.failed),
                 "results": self.results, "jobs": self.jobs, "scores": list(self.scores.items())}
        try:
            write_json(Path(folder) / "evolution_tuner.json", state)
        except OSError as error:  # a full disk must not end the search
            log.error("the tuner's state is not saved: %s", error)

    def load_checkpoint(self) -> None:
        """Trials that ran when NNI stopped are run again by NNI, which imports their results under no trial's id."""
        file = Path(self.get_checkpoint_path() or ".") / "evolution_tuner.json"
        if not file.is_file():
            return log.warning("no state to resume from in %s: NNI's own results are imported", file.parent)
        state = read_json(file)
        self.space, self.rng.bit_generator.state = state["space"], state["rng"]
        self.seen = dict.fromkeys(map(tuple, state["seen"]))
        self.running = {number: tuple(key) for number, key in state["running"]}
        self.results = [(tuple(key), value) for key, value in state["results"]]
        self.failed, self.jobs = set(state["failed"]), state["jobs"]
        choices, known = Choices(self.space), {key for key, _ in self.results}
        samples = [choices.sample(key) for key in self.seen if key not in known]
        self.lost = [choices.key(sample) for sample in never_begun(file.parent, samples)]
        if renamed(state["score"]) == renamed(self.score):
            self.scores = {tuple(key): score for key, score in state["scores"]}

    def _record(self, key: Key, value: Any, job: str | None) -> None:
        reward = extract_scalar_reward(value)
        if job is not None:
            self.jobs.append(job)
        if math.isfinite(reward):
            self.results.append((key, self.sign * reward))
        else:
            log.warning("result %s counts as a failed trial", reward)

    def _is_new(self, key: Key) -> bool:
        if key in self.seen or self.scores.get(key, 0.0) is None:
            return False
        return self.limit is None or bool(load(self.limit)(self.choices.sample(key)))

    def _random(self) -> Key:
        """Uniform among the new samples that are allowed."""
        for _ in range(DRAWS):
            key = self.choices.random(self.rng)
            if self._is_new(key):
                return key
        small = self.choices.count <= ENUMERABLE
        left = [key for key in self.choices.all() if self._is_new(key)] if small else []
        if left:
            return left[self.rng.integers(len(left))]
        if self.seen or self.scores:
            raise nni.NoMoreTrialError("every allowed sample has been tried")
        tried = "no sample of the space" if small else f"none of {DRAWS} random samples"
        raise ValueError(f"limit {self.limit}: {tried} is allowed")

    def _evolved(self) -> Key:
        """A new child of a tournament's winner; random samples until there is a population."""
        if len(self.seen) < self.population or not self.results:
            return self._random()
        return self._child() or self._random()

    def _child(self) -> Key | None:
        for _ in range(ATTEMPTS):
            alive = self.results[-self.population :]
            picked = self.rng.choice(len(alive), min(self.tournament, len(alive)), replace=False)
            child = self.choices.mutated(max((alive[i] for i in picked), key=lambda result: result[1])[0], self.rng)
            if self._is_new(child):
                return child
        return None

    # ---- ranking before training -----------------------------------------------------------------------------------

    def _ranked(self) -> Key:
        """The most promising candidate of all that are scored and not trained, or one in five at random."""
        with contextlib.suppress(nni.NoMoreTrialError):
            for number in range(count := self.candidates if self.scores else max(FIRST, self.candidates)):
                if number and number % TELL_EVERY == 0:
                    log.info("scored %d of %d candidates", number, count)
                self._score((self.results and number % 2 and self._child()) or self._random())
        if all(score is None for score in self.scores.values()):
            raise ValueError(f"score {self.score}: fails for every sample, see the log")
        pool = [key for key, score in self.scores.items() if score is not None and key not in self.seen][-POOL:]
        if not pool:
            raise nni.NoMoreTrialError("every allowed sample with a score has been tried")
        kept = {*pool, *self.seen}
        self.scores = {key: score for key, score in self.scores.items() if score is None or key in kept}
        if len(self.seen) % RANDOM_EVERY == RANDOM_EVERY - 1 and (key := self._scored_random()):
            return key
        return pool[int(np.argmax(self._promise(pool)))]

    def _scored_random(self) -> Key | None:
        with contextlib.suppress(nni.NoMoreTrialError):
            for _ in range(ATTEMPTS):
                if self._score(key := self._random()) is not None:
                    return key
        return None

    def _score(self, key: Key) -> float | None:
        """Cached; none if the function fails, which is logged and counted."""
        if key in self.scores:
            return self.scores[key]
        function, sample = load(self.score), self.choices.sample(key)
        try:
            value = float(function(sample))
            reason = "" if math.isfinite(value) else f"is {value}"
        except Exception as error:  # whatever it is, the search goes on
            reason = f"{type(error).__name__}: {error}"
        self.scores[key] = None if reason else value
        if reason:
            log.warning("score dropped, %d so far: %s for %s", list(self.scores.values()).count(None), reason, sample)
        return self.scores[key]

    def _promise(self, pool: list[Key]) -> np.ndarray:
        waiting = [key for number, key in self.running.items() if number not in self.failed]
        known = [key for key, _ in self.results] + waiting
        z = normal_ranks([self._score(key) for key in pool + known])
        y = normal_ranks([value for _, value in self.results])
        options = np.array(pool + known)
        return expect(options[len(pool) :], z[len(pool) :], y, options[: len(pool)], z[: len(pool)])


@functools.cache
def load(path: str) -> Callable[[dict], Any]:
    """The function that a dotted path names."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: no such function ({error})") from None
