"""The report as blocks: for each origin its headline, the final test, the pictures and the stages; then what is broken
or was not run, and where everything comes from."""

import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from artifacts.figures import UNKNOWN, duration, percent, right_of
from pictures.listing import named
from pictures.summary import cautions
from reporting import experiments, stages
from reporting.blocks import Block, Bullets, Details, Facts, Heading, Table, Text
from reporting.data_section import data_blocks
from reporting.final_test import FinalTest
from reporting.findings import Findings, Group, Origin, Run, exported, tests
from reporting.leaderboard import board_blocks, chosen_by
from reporting.tested import read, test_blocks, told
from reporting.words import (
    by_validation,
    data_options,
    data_title,
    millions,
    network,
    network_in_words,
    recipe,
    val_images,
)

COMMANDS = {  # by which a stage is run
    "hyper-parameters": "python experiment.py run config_hpo.yml",
    "classic NAS": "python experiment.py run config_classic_nas.yml",
    "DARTS search": "python darts_search.py",
    "final training": "python retrain.py --genotype runs/darts_search/NAME/genotype.json",
}
TRIALS = {  # as in these files, for any data
    "hyper-parameters": "python hpo_trial.py --epochs 30",
    "classic NAS": "python classic_nas_trial.py --epochs 30 --max-params 3217226",
}
SINGLE_RUNS = 6  # whose curves are drawn; the provenance has all


def page_title(findings: Findings) -> str:
    names = sorted({data_title(origin.data) for origin in findings.groups})
    return f"Results: {', '.join(names)}"


def report_blocks(findings: Findings, predict: bool, device: str) -> list[Block]:
    """Of one data set and version the answer comes first, before all headings."""
    problems, blocks = findings.problems, []
    titles = _titles(list(findings.groups))
    if len(findings.groups) > 1:
        blocks.append(Text("Results of different data sets or versions, and runs of which these are not known yet, "
                           "have a part of this page each; they are not compared.", "warning"))
    for origin, group in findings.groups.items():
        answer, rest = _group_blocks(origin, group, problems, predict, device)
        heading = Heading(2, titles[origin])
        blocks += [*answer, heading, *rest] if len(findings.groups) == 1 else [heading, *answer, *rest]
    blocks += [Heading(2, "Broken or unfinished results"),
               Bullets(problems or ["No result is broken or unfinished."]), *_not_run(findings)]
    return [*blocks, Heading(2, "Where the figures come from"), *_provenance(findings)]


def _not_run(findings: Findings) -> list[Block]:
    """Stages of which there is no result, be it on purpose, and how to run them on the same pictures."""
    left = [stage for stage in COMMANDS if stage not in _stages_there(findings)]
    origin, group = next(iter(findings.groups.items()))
    options = data_options(origin.data, group.runs[0].config if group.runs else {})
    commands = {stage: f"{COMMANDS[stage]} --set {shlex.quote(f'trialCommand={TRIALS[stage]} {options}')}"
                if stage in TRIALS else f"{COMMANDS[stage]} {options}" for stage in left}
    return [Text("Stages that were not run, and what runs them:"),
            Bullets([f"{stage}: `{command}`" for stage, command in commands.items()])] if left else []


def _titles(origins: list[Origin]) -> dict[Origin, str]:
    """The data sets' names, with checksums and versions only where these tell results apart."""
    count = Counter(data_title(origin.data) for origin in origins)
    if len(origins) == 1:
        return {origins[0]: "How good it is, and how it was found"}
    return {origin: name if count[name := data_title(origin.data)] == 1 else str(origin) for origin in origins}


def _stages_there(findings: Findings) -> set[str]:
    found = set()
    for group in findings.groups.values():
        found |= {"classic NAS" if experiments.is_nas(one) else "hyper-parameters" for one in group.experiments}
        found |= {"DARTS search" for run in group.runs if stages.is_search(run)}
        found |= {"final training" for run in group.runs if stages.is_final(run)}
    return found


def _group_blocks(origin: Origin, group: Group, problems: list[str], predict: bool,
                  device: str) -> tuple[list[Block], list[Block]]:
    """The answer, and the rest. What one broken result breaks is told and left out."""
    answer: list[Block] = []
    blocks: list[Block] = []
    boards = group.boards.values()

    def add(name: str, make: Callable[[], list[Block]], to: list[Block] = blocks) -> None:
        try:
            to.extend(make())
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            problems.append(f"`{name}`: a part is not shown, its files are not as expected "
                            f"({type(error).__name__}: {' '.join(str(error).split())[:120]})")

    tested = {run.name: read(run, predict, device) for run in group.runs if tests(run)}
    add("headline", lambda: headline(group), answer)
    for board in boards:
        add("leaderboard", lambda board=board: board_blocks(board), answer)
    commits = sorted({str((run.result or {}).get("commit")) for run in group.runs if run.result})
    if len(commits) > 1:
        blocks.append(Text(f"These results come from {len(commits)} states of the code, commits {', '.join(commits)}: "
                           "compare them with care.", "note"))
    for run in filter(tests, group.runs):
        add(run.name, lambda run=run: test_blocks(run, *tested[run.name]))
    add("pictures", lambda: _data(origin, group, tested))
    for run in filter(stages.is_final, group.runs):
        add(run.name, lambda run=run: stages.training_blocks(run, group.runs))
    for run in group.runs:
        if stages.is_search(run) and not stages.is_seed_of_search(run, group.runs):
            add(run.name, lambda run=run: stages.search_blocks(run, group.runs))
    for experiment in sorted(group.experiments, key=experiments.is_nas, reverse=True):
        add(experiment.name, lambda experiment=experiment: experiments.experiment_blocks(experiment, group.runs))
    single = [run for run in group.runs if not stages.is_final(run) and not stages.is_search(run)]
    folded: list[Block] = []
    for run in single[:SINGLE_RUNS]:
        add(run.name, lambda run=run: stages.training_blocks(run, group.runs), folded)
    if folded:
        blocks.append(Details(f"Single trainings: {len(single[:SINGLE_RUNS])}", folded))
    if len(single) > SINGLE_RUNS:
        blocks.append(Text(f"Curves of the {SINGLE_RUNS} newest single trainings; {len(single) - SINGLE_RUNS} more are "
                           "in the last table.", "note"))
    return answer, blocks


def _data(origin: Origin, group: Group, tested: dict[str, tuple[FinalTest | None, str]]) -> list[Block]:
    """The data set as the chosen training saw it; if there is none, as the newest run, or an experiment's best."""
    final = [run for run in group.runs if tests(run) and not run.result.get("diverged")]
    if final:
        run, _ = chosen(final, group.boards)
        return data_blocks(origin, run.result, run.config, tested[run.name][0] or told(run))
    results = [run.result for run in group.runs if run.result]
    results += [one.best["result"] for one in group.experiments if one.best and one.best.get("result")]
    return data_blocks(origin, results[0], results[0]["config"], None) if results else []


# ---- headline


def headline(group: Group) -> list[Block]:
    """The network to take, and what it is worth."""
    tested = [run for run in group.runs if tests(run) and not run.result.get("diverged")]
    if tested:
        run, rule = chosen(tested, group.boards)
        result, test = run.result, tests(run)
        epoch = (result.get("last") or {}).get("epoch", result["config"].get("epochs", UNKNOWN))
        return [*_lead(test, run), Facts([
            (percent(test["accuracy"], _images(test)), "accuracy on the test pictures, read once at the end"),
            (network(run.stage, result), "network"), (millions(result.get("parameters")), "parameters"),
            *_times(result, group)]),
            Text(f"`{run.name}`: {recipe(result)}; weights of epoch {epoch}. {rule}")]
    best = [(one.best["value"], f"Experiment `{one.name}`, trial {one.best['trial']}", one.best["result"])
            for one in group.experiments if one.best and isinstance(one.best.get("result"), dict)]
    best += [(run.result["value"], f"`{run.name}`", run.result) for run in group.runs
             if run.result and "parameters" in run.result and not run.result.get("diverged")
             and str(run.result.get("metric")).startswith("validation")]
    if not best:
        return [Text("No network has been trained to its end yet.", "note")]
    score, name, result = max(best, key=lambda item: item[0])
    return [Text(_so_far(score, result), "lead"), *_cautions(result),
            Facts([(percent(score, val_images(result)),
                    "best validation accuracy so far; the final test is still to come"),
                   (network(str(result.get("stage")), result), "network"),
                   (millions(result.get("parameters")), "parameters"),
                   *_times(result, group)]),
            Text(f"{name}: {recipe(result)}; epoch {(result.get('last') or {}).get('epoch', UNKNOWN)}. The stages may "
                 "differ in epochs and validation pictures: see each of them.")]


def _lead(test: dict[str, Any], run: Run) -> list[Block]:
    """In a person's words: how many are right, how sure that is, and of which network."""
    of = _images(test)
    right = (right_of(round(test["accuracy"] * of), of, "test pictures") if of
             else f"{percent(test['accuracy'])} of the test pictures right")
    return [Text(f"{right}.", "lead"), *_cautions(run.result),
            Text(f"The network: {network_in_words(run.stage, run.result)}, with "
                 f"{millions(run.result.get('parameters'))} parameters. None of these pictures was seen before the end."
                 + (" The interval, by Wilson's score, is where the share would lie for many more pictures of the same "
                    "kind, in 19 of 20 such tests." if of else ""))]


def _images(test: dict[str, Any]) -> int:
    """So many were tested with; 0: not told."""
    return test.get("images") or sum(map(sum, test.get("confusion") or []))


def _cautions(result: dict[str, Any]) -> list[Block]:
    return [Text(f"Caution: {line}.", "warning") for line in cautions(result["data"])]


def _so_far(score: float, result: dict[str, Any]) -> str:
    sure = by_validation({**result, "value": score})
    return (f"Not tested yet. The best so far has {percent(score, val_images(result))} of its validation pictures "
            f"right{sure}: {network_in_words(str(result.get('stage')), result)}.")


def _times(result: dict[str, Any], group: Group) -> list[tuple[str, str]]:
    """Of the best network's training, and of all that was computed on the way to it."""
    trials = [trial.seconds or 0 for experiment in group.experiments for trial in experiment.state.trials]
    runs = [(run.result or {}).get("wall_seconds") or 0 for run in group.runs
            if not stages.is_seed_of_search(run, group.runs)]
    own, whole = (duration(seconds) for seconds in (result.get("wall_seconds"), sum(trials) + sum(runs)))
    more = [(whole, "of computing for all results of this part")] if len(trials) + len(runs) > 1 else []
    return [(own, "of training"), *more]


def chosen(tested: list[Run], boards: Mapping[str, dict[str, Any]] = MappingProxyType({})) -> tuple[Run, str]:
    """By a leaderboard; without one by validation where all have seen the same pictures of it, else the newest; never
    by the test."""
    for run in tested:
        for name, board in boards.items():
            if run.name == exported(name, board):
                return run, chosen_by(board)
    if len(tested) == 1:
        return tested[0], "It is the only finished one of the final trainings."
    splits = {tuple((run.result["data"] | run.config).get(key) for key in ("train_images", "val_images", "seed"))
              for run in tested}
    scores = [(run.result.get("last") or {}).get("val_accuracy") for run in tested]
    if len(splits) == 1 and None not in scores:
        best = max(range(len(tested)), key=lambda i: scores[i])
        return tested[best], f"Of {len(tested)} final trainings the one with the best validation accuracy."
    return tested[0], f"Of {len(tested)} final trainings the newest (they have no validation pictures in common)."


# ---- provenance


def _provenance(findings: Findings) -> list[Block]:
    rows = []
    for origin, group in findings.groups.items():
        results = [(f"{one.name}, trial {one.best['trial']}", one.best["result"]) for one in group.experiments
                   if one.best and isinstance(one.best.get("result"), dict)]
        results += [(run.name, run.result or {"config": run.config}) for run in group.runs]
        rows += [_row(name, origin, result) for name, result in results]
    return [Table(["result", "data set", "checksum", "seed", "commit", "versions", "hardware",
                   "seconds of training", "finished"], rows, (3, 7)),
            Text("Checksum: the first 12 digits of the sha256 of all pixels and labels. Commit: + means changed since. "
                 "Seconds: without the start of its process, which the times in the tables of trials contain. Of an "
                 "experiment its best trial is listed; results.csv has them all.", "note")]


def _row(name: str, origin: Origin, result: dict[str, Any]) -> list[str]:
    seconds = result.get("wall_seconds")
    return [name, named(origin.data), origin.checksum[:12], str((result.get("config") or {}).get("seed", "")),
            str(result.get("commit", "")), origin.versions, str(result.get("hardware", "")),
            f"{seconds:,.1f}" if isinstance(seconds, int | float) else "", str(result.get("finished", "not finished"))]


def stage_count(findings: Findings) -> tuple[int, int]:
    """(experiments, runs)"""
    return (sum(len(group.experiments) for group in findings.groups.values()),
            sum(len(group.runs) for group in findings.groups.values()))
