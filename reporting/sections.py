"""The report as blocks: for each origin its headline, the final test and the stages; then what is missing or broken,
and where everything comes from."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reporting import plots, stages
from reporting.blocks import Block, Bullets, Facts, Gallery, Heading, Picture, Table, Text
from reporting.final_test import FinalTest, final_test
from reporting.findings import Findings, Group, Origin, Run, tests
from reporting.words import UNKNOWN, duration, millions, network, percent, recipe, slug

COMMANDS = {
    "hyper-parameters": "python experiment.py run config_hpo.yml",
    "classic NAS": "python experiment.py run config_classic_nas.yml",
    "DARTS search": "python darts_search.py",
    "final training": "python retrain.py --genotype runs/darts_search/NAME/genotype.json",
}
SINGLE_RUNS = 6  # whose curves are drawn; the provenance has all
MANY = 30  # classes of which only the worst are listed


def report_blocks(findings: Findings, predict: bool, device: str) -> list[Block]:
    problems, blocks = findings.problems, []
    if len(findings.groups) > 1:
        blocks.append(Text("Results of different data sets or versions, and runs of which these are not known yet, "
                           "have a part of this page each; they are not compared.", "warning"))
    for origin, group in findings.groups.items():
        blocks += [Heading(2, str(origin)), *_group_blocks(origin, group, problems, predict, device)]
    missing = [f"No {stage} yet: `{command}`" for stage, command in COMMANDS.items()
               if stage not in _stages_there(findings)]
    blocks += [Heading(2, "Missing or broken"), Bullets([*problems, *missing] or ["Nothing."])]
    return [*blocks, Heading(2, "Where the figures come from"), *_provenance(findings)]


def _stages_there(findings: Findings) -> set[str]:
    found = set()
    for group in findings.groups.values():
        found |= {"classic NAS" if stages.is_nas(one) else "hyper-parameters" for one in group.experiments}
        found |= {"DARTS search" for run in group.runs if stages.is_search(run)}
        found |= {"final training" for run in group.runs if stages.is_final(run)}
    return found


def _group_blocks(origin: Origin, group: Group, problems: list[str], predict: bool, device: str) -> list[Block]:
    """What one broken result breaks is told and left out, the rest is shown."""
    blocks: list[Block] = []

    def add(name: str, make: Callable[[], list[Block]]) -> None:
        try:
            blocks.extend(make())
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            problems.append(f"`{name}`: a part is not shown, its files are not as expected "
                            f"({type(error).__name__}: {' '.join(str(error).split())[:120]})")

    add("headline", lambda: headline(group))
    commits = sorted({str((run.result or {}).get("commit")) for run in group.runs if run.result})
    if len(commits) > 1:
        blocks.append(Text(f"These results come from {len(commits)} states of the code, commits {', '.join(commits)}: "
                           "compare them with care.", "note"))
    for run in filter(tests, group.runs):
        add(run.name, lambda run=run: test_blocks(run, predict, device))
    for run in filter(stages.is_final, group.runs):
        add(run.name, lambda run=run: stages.training_blocks(run, group.runs))
    for run in group.runs:
        if stages.is_search(run) and not stages.is_seed_of_search(run, group.runs):
            add(run.name, lambda run=run: stages.search_blocks(run, group.runs))
    for experiment in sorted(group.experiments, key=stages.is_nas, reverse=True):
        add(experiment.name, lambda experiment=experiment: stages.experiment_blocks(experiment, group.runs))
    single = [run for run in group.runs if not stages.is_final(run) and not stages.is_search(run)]
    for run in single[:SINGLE_RUNS]:
        add(run.name, lambda run=run: stages.training_blocks(run, group.runs))
    if len(single) > SINGLE_RUNS:
        blocks.append(Text(f"Curves of the {SINGLE_RUNS} newest single trainings; {len(single) - SINGLE_RUNS} more are "
                           "in the last table.", "note"))
    return blocks


# ---- headline


def headline(group: Group) -> list[Block]:
    """The network to take, and what it is worth."""
    tested = [run for run in group.runs if tests(run) and not run.result.get("diverged")]
    if tested:
        run, rule = chosen(tested)
        result, test = run.result, tests(run)
        epoch = (result.get("last") or {}).get("epoch", result["config"].get("epochs", UNKNOWN))
        return [Facts([(percent(test["accuracy"]), "accuracy on the test pictures, read once at the end"),
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
    return [Facts([(percent(score), "best validation accuracy so far; the final test is still to come"),
                   (network(str(result.get("stage")), result), "network"),
                   (millions(result.get("parameters")), "parameters"),
                   *_times(result, group)]),
            Text(f"{name}: {recipe(result)}; epoch {(result.get('last') or {}).get('epoch', UNKNOWN)}. The stages may "
                 "differ in epochs and validation pictures: see each of them.")]


def _times(result: dict[str, Any], group: Group) -> list[tuple[str, str]]:
    """Of the best network's training, and of all that was computed on the way to it."""
    trials = [trial.seconds or 0 for experiment in group.experiments for trial in experiment.state.trials]
    runs = [(run.result or {}).get("wall_seconds") or 0 for run in group.runs
            if not stages.is_seed_of_search(run, group.runs)]
    return [(duration(result.get("wall_seconds")), "of training"),
            (duration(sum(trials) + sum(runs)), "of computing for all results of this part")]


def chosen(tested: list[Run]) -> tuple[Run, str]:
    """By validation where all have seen the same pictures of it, else the newest; never by the test."""
    if len(tested) == 1:
        return tested[0], "It is the only finished one of the final trainings."
    splits = {tuple((run.result["data"] | run.config).get(key) for key in ("train_images", "val_images", "seed"))
              for run in tested}
    scores = [(run.result.get("last") or {}).get("val_accuracy") for run in tested]
    if len(splits) == 1 and None not in scores:
        best = max(range(len(tested)), key=lambda i: scores[i])
        return tested[best], f"Of {len(tested)} final trainings the one with the best validation accuracy."
    return tested[0], f"Of {len(tested)} final trainings the newest (they have no validation pictures in common)."


# ---- final test


def test_blocks(run: Run, predict: bool, device: str) -> list[Block]:
    result, test = run.result, tests(run)
    blocks: list[Block] = [Heading(3, f"Final test: {run.name}")]
    found, why = None, "told not to"
    if predict:
        try:
            found = final_test(run, device)
        except (ValueError, OSError) as error:
            why = " ".join(str(error).split())
    if found is None:
        blocks.append(Text(f"Mistakes cannot be shown: {why}.", "note"))
        if "confusion" not in test:
            return blocks
        classes = list(test.get("class_accuracy") or map(str, range(len(test["confusion"]))))
        found = FinalTest(classes, test["confusion"], [])
    elif abs(found.correct / found.images - test["accuracy"]) > 0.5 / found.images:
        blocks.append(Text(
            f"The run says {percent(test['accuracy'])}; model.pt, read again here in fp32, {found.correct} of "
            f"{found.images}, {percent(found.correct / found.images)}.", "warning"))
    about = f"{recipe(result)}; {found.correct} of {found.images} test pictures are right"
    base = slug(run.name)
    blocks += [Picture(f"{base}-confusion.svg", plots.svg(lambda: plots.confusion(found.confusion, found.classes)),
                       "Confusion matrix of the test pictures", f"Row: true class, column: prediction. {about}.",
                       420 if len(found.classes) > 5 else 0),
               *_per_class(found)]
    if found.mistakes:
        blocks += [Text(f"The {len(found.mistakes)} most confident of {found.images - found.correct} mistakes:"),
                   Gallery([_mistake(mistake, found, base) for mistake in found.mistakes], small=True)]
    return blocks


def _per_class(found: FinalTest) -> list[Block]:
    rows = [(row[i] / max(sum(row), 1), found.classes[i], row[i], sum(row)) for i, row in enumerate(found.confusion)]
    worst = sorted(rows)[:MANY]
    note = [Text(f"The {MANY} weakest of {len(rows)} classes:", "note")] if len(rows) > MANY else []
    return [*note, Table(["class", "test accuracy", "right", "pictures"],
                         [[name, percent(share), str(right), str(count)] for share, name, right, count in worst],
                         (1, 2, 3))]


def _mistake(mistake: Any, found: FinalTest, base: str) -> Picture:
    true, predicted = found.classes[mistake.true], found.classes[mistake.predicted]
    return Picture(f"{base}-mistake-{mistake.index}.png", base64.b64decode(mistake.png),
                   f"test picture {mistake.index}, {true} taken for {predicted}",
                   f"{true} taken for {predicted} ({mistake.probability:.1%}); test picture {mistake.index}")


# ---- provenance


def _provenance(findings: Findings) -> list[Block]:
    rows = []
    for origin, group in findings.groups.items():
        results = [(f"{one.name}, trial {one.best['trial']}", one.best["result"]) for one in group.experiments
                   if one.best and isinstance(one.best.get("result"), dict)]
        results += [(run.name, run.result or {"config": run.config}) for run in group.runs]
        rows += [_row(name, origin, result) for name, result in results]
    return [Table(["result", "data set", "checksum", "seed", "commit", "versions", "hardware", "seconds", "finished"],
                  rows, (3, 7)),
            Text("Checksum: the first 12 digits of the sha256 of all pixels and labels. Commit: + means changed since. "
                 "Of an experiment its best trial is listed; results.csv has them all.", "note")]


def _row(name: str, origin: Origin, result: dict[str, Any]) -> list[str]:
    seconds = result.get("wall_seconds")
    return [name, Path(origin.data).name, origin.checksum[:12], str((result.get("config") or {}).get("seed", "")),
            str(result.get("commit", "")), origin.versions, str(result.get("hardware", "")),
            f"{seconds:,.1f}" if isinstance(seconds, int | float) else "", str(result.get("finished", "not finished"))]


def stage_count(findings: Findings) -> tuple[int, int]:
    """(experiments, runs)"""
    return (sum(len(group.experiments) for group in findings.groups.values()),
            sum(len(group.runs) for group in findings.groups.values()))
