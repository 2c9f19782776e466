"""Our tuner of stage 2 alone, by the calls that NNI makes; at the end two whole experiments."""

import itertools
import json
import logging
import math
import os
import random
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nni
import numpy as np
import pytest
import yaml

from benchmarks import tuner_replay
from config import ClassicNasConfig, command_line
from nas import tuner as nas_tuner
from nas.ranking import NOISE, TRUST, expect, kernel, normal_ranks
from nas.tuner import EvolutionTuner
from test_experiment import TESTS, Site, read_csv, site  # noqa: F401

SPACE = {f"c{i}": {"_type": "choice", "_value": ["a", "b", "c", "d"]} for i in range(6)}
SMALL = {"x": {"_type": "choice", "_value": [1, 2, 3]}, "y": {"_type": "choice", "_value": [True, "z"]}}
ME = __name__


def worth(sample: dict) -> float:
    """How many options are a, with pairs that matter more."""
    hits = [sample[f"c{i}"] == "a" for i in range(6)]
    return sum(hits) + 0.5 * sum(a and b for a, b in itertools.pairwise(hits))


def useless(sample: dict) -> float:
    return random.Random(json.dumps(sample)).random()


def broken(sample: dict) -> float:
    raise RuntimeError("broken score")


def half_broken(sample: dict) -> float:
    if sample["c0"] == "a":
        raise RuntimeError("broken score")
    return math.nan if sample["c0"] == "b" else worth(sample)


def no_b(sample: dict) -> bool:
    return "b" not in sample.values()


def nothing(sample: dict) -> bool:
    return False


def only_one(sample: dict) -> bool:
    return sample == {"x": 2, "y": "z"}


def make(space: dict = SPACE, **args: object) -> EvolutionTuner:
    tuner = EvolutionTuner(**args)
    tuner.update_search_space(space)
    return tuner


def drive(tuner: EvolutionTuner, count: int, first: int = 0, value: Callable[[dict], float] = worth) -> list[dict]:
    """One trial after another."""
    samples = []
    for number in range(first, first + count):
        samples.append(tuner.generate_parameters(number))
        tuner.receive_trial_result(number, samples[-1], value(samples[-1]), trial_job_id=f"job{number}")
        tuner.trial_end(number, True)
    return samples


def text(sample: dict) -> str:
    return json.dumps(sample)


BOTH = pytest.mark.parametrize("score", [None, f"{ME}.worth"])


# ---- what it proposes


@BOTH
def test_same_seed_same_samples(score: str | None) -> None:
    one, two, other = (drive(make(score=score, seed=seed), 30) for seed in (1, 1, 2))
    assert one == two != other


@BOTH
def test_no_sample_twice_until_the_space_is_used_up(score: str | None) -> None:
    tuner = make({f"c{i}": SPACE["c0"] for i in range(3)}, score=score and f"{ME}.useless", population=5)
    samples = drive(tuner, 64, value=useless)
    assert len(set(map(text, samples))) == 64
    with pytest.raises(nni.NoMoreTrialError):
        tuner.generate_parameters(64)
    assert tuner.generate_multiple_parameters([64, 65], st_callback=None) == []


def test_random_part_is_uniform() -> None:
    """Chi-square of the options of each choice, and of the whole sample of a small space; 24 cells at most."""
    first = [make(SMALL, seed=seed).generate_parameters(0) for seed in range(600)]
    counts = Counter(map(text, first))
    assert len(counts) == 6 and sum((n - 100) ** 2 / 100 for n in counts.values()) < 20.5  # 5 degrees, p = 0.001
    tuner = make(population=400)
    drawn = Counter(item for sample in drive(tuner, 400) for item in sample.items())
    assert sum((n - 100) ** 2 / 100 for n in drawn.values()) < 42.3  # 18 degrees


def test_random_part_is_uniform_with_a_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fifth trial, whatever the score says: c0 is a as often as b, c or d."""
    monkeypatch.setattr(EvolutionTuner, "_promise", lambda self, pool: np.zeros(len(pool)))  # slow
    tuner = make(score=f"{ME}.worth", candidates=1)
    drawn = Counter(sample["c0"] for number, sample in enumerate(drive(tuner, 1000)) if number % 5 == 4)
    assert sum((drawn[option] - 50) ** 2 / 50 for option in "abcd") < 16.3  # 3 degrees, p = 0.001


def test_last_of_an_uneven_limit_is_found() -> None:
    tuner = make(SMALL, limit=f"{ME}.only_one")
    assert tuner.generate_parameters(0) == {"x": 2, "y": "z"}
    with pytest.raises(nni.NoMoreTrialError):
        tuner.generate_parameters(1)


@BOTH
def test_limit(score: str | None) -> None:
    assert all(map(no_b, drive(make(score=score, limit=f"{ME}.no_b"), 60)))


@pytest.mark.parametrize(("space", "words"), [
    (SMALL, "no sample of the space is allowed"),
    ({f"c{i}": SPACE["c0"] for i in range(20)}, "none of 10000 random samples is allowed")])
def test_limit_that_nothing_meets(space: dict, words: str) -> None:
    with pytest.raises(ValueError, match=f"^limit {ME}.nothing: {words}$"):
        make(space, limit=f"{ME}.nothing")


# ---- results


@BOTH
def test_out_of_order_and_lost(score: str | None) -> None:
    """Eight at once, the results in any order, one in six never."""
    tuner, rng, flying = make(score=score, population=10), random.Random(0), {}
    for number in range(80):
        flying[number] = tuner.generate_parameters(number)
        if len(flying) == 8:
            done = rng.choice(list(flying))
            sample = flying.pop(done)
            if rng.random() > 1 / 6:
                tuner.receive_trial_result(done, sample, worth(sample))
            tuner.trial_end(done, rng.random() > 0.2)
    assert len(tuner.seen) == 80
    assert all(value == worth(tuner.choices.sample(key)) for key, value in tuner.results)


def test_mixed_up_ids() -> None:
    """NNI 3.0: the end of a trial names another, which reports later; both results count, at once and truly."""
    tuner = make()
    one, two = tuner.generate_parameters(0), tuner.generate_parameters(1)
    tuner.receive_trial_result(1, two, 2.0)
    tuner.trial_end(0, False)
    tuner.receive_trial_result(0, one, 1.0)
    tuner.trial_end(1, False)
    assert [(tuner.choices.sample(key), value) for key, value in tuner.results] == [(two, 2.0), (one, 1.0)]
    assert not tuner.running


def test_second_unknown_and_infinite_results(caplog: pytest.LogCaptureFixture) -> None:
    tuner = make()
    for number in range(3):
        tuner.generate_parameters(number)
    for number, value in ((0, {"default": 1.0, "more": 2}), (0, 5.0), (77, 5.0), (1, math.nan), (2, math.inf)):
        tuner.receive_trial_result(number, {}, value)
    assert [value for _, value in tuner.results] == [1.0]
    assert "ignored" in caplog.text and "counts as a failed trial" in caplog.text


@BOTH
def test_all_trials_fail(score: str | None) -> None:
    tuner = make(score=score, population=4)
    for number in range(30):
        tuner.generate_parameters(number)
        tuner.trial_end(number, False)
    assert not tuner.results and len(tuner.seen) == 30


def test_minimize_is_maximize_of_the_negative() -> None:
    up = drive(make(score=f"{ME}.worth"), 30)
    assert up == drive(make(score=f"{ME}.worth", optimize_mode="minimize"), 30, value=lambda sample: -worth(sample))


def test_population_ages() -> None:
    tuner = make(population=3, tournament=3)
    drive(tuner, 3, value=lambda sample: 9.0)
    drive(tuner, 3, 3, value=lambda sample: 1.0)
    old = {key for key, value in tuner.results if value == 9.0}
    tuner.choices.mutated = lambda key, rng: key if key not in old else pytest.fail("a dead sample has a child")
    assert tuner._child() is None  # the copies of the living are not new


# ---- scores


def test_first_proposals_have_high_scores() -> None:
    tuner = make(score=f"{ME}.worth")
    first = [worth(tuner.generate_parameters(number)) for number in range(4)]
    assert min(first) > statistics.quantiles([s for s in tuner.scores.values()], n=20)[-1] - 1e-9


def test_failing_scores_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    tuner = make(score=f"{ME}.half_broken")
    samples = drive(tuner, 40)
    assert {sample["c0"] for sample in samples} == {"c", "d"}
    dropped = sum(score is None for score in tuner.scores.values())
    assert f"score dropped, {dropped} so far" in caplog.text
    assert "RuntimeError: broken score" in caplog.text and "is nan" in caplog.text


def test_the_wait_before_the_first_trial_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Of 200 candidates; later ones are few, and told no more."""
    caplog.set_level(logging.INFO)
    tuner = make(score=f"{ME}.worth", candidates=20)
    tuner.generate_parameters(0)
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"scored {number} of 200 candidates" for number in range(25, 200, 25)]
    tuner.generate_parameters(1)
    assert len(caplog.records) == len(told)


@pytest.mark.parametrize("space", [SPACE, SMALL])
def test_score_that_always_fails(space: dict) -> None:
    with pytest.raises(ValueError, match=rf"^score {ME}\.broken: fails for every sample"):
        make(space, score=f"{ME}.broken").generate_parameters(0)


@pytest.mark.parametrize("path", ["nosuch.module.f", "math.nosuch", "plain"])
def test_unknown_function(path: str) -> None:
    with pytest.raises(ValueError, match=f"^{path}: no such function"):
        make(score=path).generate_parameters(0)
    with pytest.raises(ValueError, match=f"^{path}: no such function"):
        make(limit=path)


@pytest.mark.parametrize("args", [{"optimize_mode": "max"}, {"population": 0}, {"tournament": 1.5}, {"candidates": "9"},
                                  {"seed": -1}])
def test_bad_class_args(args: dict) -> None:
    [name] = args
    with pytest.raises(ValueError, match=name):
        EvolutionTuner(**args)


@pytest.mark.parametrize("space", [{}, [], {"lr": {"_type": "uniform", "_value": [0, 1]}}, {"lr": 3},
                                   {"lr": {"_type": "choice", "_value": []}},
                                   {"lr": {"_type": "choice", "_value": [{"_name": "x"}]}}])
def test_bad_search_space(space: object) -> None:
    with pytest.raises(ValueError, match="lr" if space else "search space") as caught:
        make(space)
    assert "\n" not in str(caught.value)


# ---- state


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NNI_CHECKPOINT_DIRECTORY", str(tmp_path))
    return tmp_path


def resumed(space: dict = SPACE, **args: object) -> EvolutionTuner:
    """As NNI does it: the state first, then the space."""
    tuner = EvolutionTuner(**args)
    tuner.load_checkpoint()
    tuner.update_search_space(space)
    return tuner


@BOTH
@pytest.mark.parametrize("stop", [1, 3, 17, 30])
def test_same_future_as_without_a_stop(folder: Path, score: str | None, stop: int) -> None:
    args = {"score": score, "seed": 5, "population": 10}
    whole, stopped = make(**args), make(**args)
    expected = drive(whole, 40)
    assert drive(stopped, stop) == expected[:stop]
    waiting = stopped.generate_parameters(stop)
    tuner = resumed(**args)
    tuner.receive_trial_result(stop, waiting, worth(waiting))
    assert [waiting, *drive(tuner, 39 - stop, stop + 1)] == expected[stop:]


def test_import_after_resume_counts_nothing_twice(folder: Path) -> None:
    before = make()
    samples = drive(before, 5)
    waiting = before.generate_parameters(5)
    tuner = resumed()
    mixed_up = [{"parameter": samples[number - 1], "value": 0.5, "trialJobId": f"job{number}"} for number in range(5)]
    tuner.import_data(mixed_up)
    assert tuner.results == before.results
    tuner.import_data([{"parameter": waiting, "value": {"default": 7.0}}])  # NNI ran it again
    assert tuner.results[5:] == [(tuner.choices.key(waiting), 7.0)] and not tuner.running
    assert text(tuner.generate_parameters(0)) not in map(text, [*samples, waiting])  # ids begin anew


def test_import_without_a_state(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    tuner = resumed(score=f"{ME}.worth")
    sample = {f"c{i}": "a" for i in range(6)}
    tuner.import_data([{"parameter": sample, "value": 1.0}, {"parameter": {"z": 1}, "value": 2.0},
                       {"parameter": {**sample, "c0": "q"}, "value": 2.0}])
    assert [value for _, value in tuner.results] == [1.0]
    assert "no state to resume from" in caplog.text and "not in the search space" in caplog.text
    assert all(other != sample for other in drive(tuner, 20))


def test_another_search_space_is_refused(folder: Path) -> None:
    tuner = make()
    drive(tuner, 2)
    for refused in (tuner.update_search_space, lambda space: resumed(space)):
        with pytest.raises(ValueError, match=r"^the search space is not the one that this experiment began with"):
            refused(SMALL)


def test_scores_of_another_score_are_not_used(folder: Path) -> None:
    drive(make(score=f"{ME}.worth"), 2)
    assert resumed(score=f"{ME}.worth").scores and not resumed(score=f"{ME}.useless").scores


def test_full_disk_does_not_end_the_search(folder: Path, monkeypatch: pytest.MonkeyPatch,
                                           caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(nas_tuner, "write_json", lambda path, state: os.stat("/nosuch"))
    drive(make(), 2)
    assert "the tuner's state is not saved" in caplog.text


# ---- ranking


def test_normal_ranks() -> None:
    ranks = normal_ranks([3.0, None, -1e9, 3.0, 1e9])
    assert ranks[1] == 0 and ranks[0] == ranks[3] == pytest.approx(0) and ranks[2] == -ranks[4] < -1


def test_without_results_the_score_ranks() -> None:
    pool, empty = np.array([[0, 1], [1, 1], [1, 0]]), np.empty((0, 2), int)
    assert expect(empty, np.zeros(0), np.zeros(0), pool, np.array([0.0, 2.0, 1.0])).argmax() == 1


def test_expectation_is_that_of_the_joint_distribution() -> None:
    """Mean and variance by conditioning the joint normal distribution, one candidate at a time."""
    rng = np.random.default_rng(0)
    known, pool, z, z_pool, y = (rng.integers(3, size=(6, 4)), rng.integers(3, size=(3, 4)), rng.normal(size=6),
                                 rng.normal(size=3), rng.normal(size=5))
    found = expect(known, z, y, pool, z_pool)
    for i in range(3):
        points, scores = np.vstack([known, pool[i : i + 1]]), np.append(z, z_pool[i])
        joint = kernel(points, scores, points, scores) + np.diag([NOISE] * 6 + [0.0])
        mean = TRUST * z_pool[i] + joint[6, :5] @ np.linalg.inv(joint[:5, :5]) @ (y - TRUST * z[:5])
        variance = 1 / np.linalg.inv(joint)[6, 6]
        assert found[i] == pytest.approx(mean + 0.5 * math.sqrt(variance))


# ---- is it any good: the best of some trainings, mean of 15 seeds


def best_of(count: int, seeds: int = 15, **args: object) -> float:
    return statistics.mean(max(map(worth, drive(make(seed=seed, **args), count))) for seed in range(seeds))


def test_better_than_random_and_never_worse_than_plain(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    plain, chance = best_of(30, population=10), best_of(30, population=1000)
    assert best_of(30, score=f"{ME}.useless") > plain - 0.1
    assert plain > chance
    assert best_of(10, score=f"{ME}.worth") >= best_of(100, population=1000)


def test_replay_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Every tuner; half of the space is not in the table; the accuracies of a sample differ by seed."""
    space = {f"c{i}": SPACE["c0"] for i in range(3)}
    samples = [dict(zip(space, values, strict=True)) for values in itertools.product("ab", "abcd", "abcd")]
    entries = [{"sample": sample, "accuracy": [i, i + 4], "score": {"right": i, "wrong": -i}}
               for i, sample in enumerate(samples)]
    (tmp_path / "table.json").write_text(json.dumps({"space": space, "entries": entries}))
    monkeypatch.chdir(tmp_path)
    assert tuner_replay.main(["table.json", "--replays", "2", "--out", "picks.json"]) == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in rows[0]] == ["tuner", "5", "10", "20"]
    assert [row[0].strip() for row in rows[2:]] == ["random", "TPE", "Evolution", "plain", "right", "wrong"]
    picks = json.loads(Path("picks.json").read_text(encoding="utf-8"))["picks"]
    assert min(picks["right"][0]) >= 31
    assert all(2 <= pick <= 33 for rows in picks.values() for row in rows for pick in row)
    assert tuner_replay.main(["table.json", "--tuners", "nosuch"]) == 2
    Path("table.json").write_text("{}", encoding="utf-8")
    assert tuner_replay.main(["table.json"]) == 2


# ---- the shipped experiments


@pytest.mark.parametrize("file", ["config_classic_nas.yml", "journey/config_demo_nas.yml"])
def test_shipped_experiments_name_what_there_is(file: str) -> None:
    config = yaml.safe_load((TESTS.parent / file).read_text())
    assert ((TESTS.parent / file).parent / config["tuner"]["codeDirectory"]).resolve() == TESTS.parent
    tuner = EvolutionTuner(**config["tuner"]["classArgs"])
    tuner.update_search_space(json.loads(((TESTS.parent / file).parent / config["searchSpaceFile"]).read_text()))
    mobilenet = {label: values[0] for label, values in tuner.choices.options.items()}
    assert math.isfinite(nas_tuner.load(tuner.score)(mobilenet)) and nas_tuner.load(tuner.limit)(mobilenet)
    command = config["trialCommand"].split()
    script, settings = command[1], command_line(ClassicNasConfig, command[2:], "")
    assert script == "classic_nas_trial.py" and settings["max_params"] == 3217226


# ---- in NNI


def tuner_of(**args: object) -> dict:
    return {"className": "nas.tuner.EvolutionTuner", "codeDirectory": str(TESTS.parent),
            "classArgs": {"optimize_mode": "maximize", "seed": 1, **args}}


def rows_of(site: Site) -> list[dict]:  # noqa: F811
    return read_csv(site.folder / "runs" / "toy" / "results.csv")


@pytest.mark.slow
def test_whole_experiment(site: Site) -> None:  # noqa: F811
    """Two trials at once, one fails, and a score that is the same for all."""
    config = site.config("--crash-after 1", tuner=tuner_of(score="builtins.len", candidates=3), trialConcurrency=2,
                         searchSpace={"x": {"_type": "choice", "_value": [1, 2, 3, 4]}}, maxTrialNumber=4)
    code, output = site.run("run", config)
    assert (code, "4 trials: 3 SUCCEEDED, 1 FAILED" in output) == (1, True), output


@pytest.mark.slow
def test_stopped_and_resumed(site: Site) -> None:  # noqa: F811
    """The state of the stopped one is the beginning of the resumed one's; no sample is trained twice."""
    config = site.config("--sleep 0.5", tuner=tuner_of(population=3), maxTrialNumber=6)
    process = site.start("run", config)
    found = site.await_running()
    state = found.folder / "checkpoint" / "evolution_tuner.json"
    while not json.loads(state.read_text())["results"]:
        assert process.poll() is None
    assert site.run("stop", found.id)[0] == 0
    process.communicate(timeout=60)
    before = json.loads(state.read_text())
    code, output = site.run("resume", found.id)
    after = json.loads(state.read_text())
    assert code == 0, output
    assert after["seen"][: len(before["seen"])] == before["seen"]
    assert after["results"][: len(before["results"])] == before["results"]
    assert len({row["run.x"] for row in rows_of(site)}) == len(after["results"]) == 6


@pytest.mark.slow
def test_a_limit_that_nothing_meets_is_said_at_once(site: Site) -> None:  # noqa: F811
    code, output = site.run("run", site.config(tuner=tuner_of(limit="builtins.callable")))
    assert code == 1 and "ValueError: limit builtins.callable: no sample of the space is allowed" in output, output
    assert not rows_of(site), output
