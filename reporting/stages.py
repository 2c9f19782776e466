"""The blocks of each stage: hyper-parameters, classic NAS, DARTS search, trainings."""

from collections import Counter
from typing import Any

from guard.trials import Trial
from models.darts.genotype import Genotype
from reporting import parameter_plots, plots
from reporting.blocks import Block, Gallery, Heading, Picture, Table, Text
from reporting.darts_drawing import alphas_figure, cells_figure, fits
from reporting.findings import Experiment, Run, tests
from reporting.words import UNKNOWN, data_name, duration, millions, network, percent, recipe, slug, value

NAS_LABEL = "block01_op"  # what only the space of stage 2 has
AXES = 6  # parameters that a parallel plot can show


def is_nas(experiment: Experiment) -> bool:
    return NAS_LABEL in experiment.names


# ---- experiments


def experiment_blocks(experiment: Experiment, runs: list[Run]) -> list[Block]:
    kind = "Classic NAS" if is_nas(experiment) else "Hyper-parameters"
    blocks: list[Block] = [Heading(3, f"{kind}: experiment {experiment.name}"), *_summary(experiment)]
    if not experiment.done:
        blocks.append(Text("No trial has completed yet.", "note"))
    elif is_nas(experiment):
        blocks += [*_nas_pictures(experiment, runs), *_choices(experiment)]
    else:
        blocks += _hyper_parameter_pictures(experiment)
    return [*blocks, _trials(experiment)]


def _summary(experiment: Experiment) -> list[Block]:
    counts = Counter(trial.state for trial in experiment.state.trials)
    line = f"{len(experiment.state.trials)} trials: " + ", ".join(f"{n} {state}" for state, n in counts.items()) + "."
    result = (experiment.best or {}).get("result")
    if not isinstance(result, dict):
        return [Text(line)]
    best, last = experiment.best, result.get("last") or {}
    pairs = ", ".join(f"{name} {value(item)}" for name, item in (best["parameters"] or {}).items())
    return [Text(f"{line} The best is trial {best['trial']}: {percent(best['value'])} "
                 f"{result.get('metric', 'of its metric')} (epoch {last.get('epoch', UNKNOWN)})"
                 + ("." if is_nas(experiment) else f", with {pairs}.")),
            Text(f"Its data and recipe: {recipe(result)}. All trials of an experiment share them, but for what the "
                 "tuner sets. Each was trained once: small differences may be chance.",
                 "note")]


def _hyper_parameter_pictures(experiment: Experiment) -> list[Block]:
    trials, names = _whole(experiment)
    if len(trials) < 2 or not names:
        return [Text("Fewer than two trials have completed: there is nothing to compare.", "note")]
    base, about = slug(experiment.name), _about(experiment, trials)
    return [_parallel(experiment, trials, names),
            Gallery([Picture(f"{base}-effect-{slug(name)}.svg",
                             plots.svg(lambda name=name: parameter_plots.effect(trials, name)),
                             f"Validation accuracy against {name}",
                             f"{name}: {about}; bars are medians, where there are few values.") for name in names])]


def _whole(experiment: Experiment) -> tuple[list[Trial], list[str]]:
    """The completed trials of which all parameters are known, best first, and the parameters' names."""
    trials = [trial for trial in experiment.done if all(name in (trial.parameters or {}) for name in experiment.names)]
    return trials, experiment.names


def _about(experiment: Experiment, trials: list[Trial]) -> str:
    return f"{len(trials)} completed trials of experiment {experiment.name}, validation accuracy after the last epoch"


def _parallel(experiment: Experiment, trials: list[Trial], names: list[str]) -> Picture:
    shown = parameter_plots.telling(trials, names, AXES)
    few = f" The {AXES} of {len(names)} choices that explain most of the differences." if len(names) > AXES else ""
    return Picture(f"{slug(experiment.name)}-parallel.svg",
                   plots.svg(lambda: parameter_plots.parallel_coordinates(trials, shown)),
                   f"Parallel coordinates of {', '.join(shown)} and validation accuracy",
                   f"{_about(experiment, trials)}. The darker, the better; thick: the best.{few}",
                   140 * (len(shown) + 1))


def _choices(experiment: Experiment) -> list[Block]:
    """Of classic NAS: which choices go together with a high accuracy."""
    trials, names = _whole(experiment)
    if len(trials) < 2:
        return []
    parts = {title: [name for name in names if name.endswith(ending)]
             for title, ending in (("operation of each block", "_op"), ("skip into a block, from", "_skip"))}
    return [_parallel(experiment, trials, names),
            Picture(f"{slug(experiment.name)}-choices.svg",
                    plots.svg(lambda: parameter_plots.choices_grid(trials, parts)),
                    "Mean validation accuracy with each option of each choice",
                    "Mean validation accuracy, in %, of the trials with each option, and how many they are: "
                    f"{_about(experiment, trials)}. A tuner does not draw at random: what it liked has many trials.",
                    900)]


def _nas_pictures(experiment: Experiment, runs: list[Run]) -> list[Block]:
    from models.mobilenet_space.space import BASELINE, count_parameters
    from reporting import nas_plots  # slow: torch comes with it

    result = (experiment.best or {}).get("result")
    if not isinstance(result, dict):
        return [Text("No best.json: data set and classes are unknown, hence the sizes of the networks too.", "note")]
    base, classes = slug(experiment.name), result["data"]["classes"]
    trials, _ = _whole(experiment)
    found = [nas_plots.Point(count_parameters(trial.parameters, classes), trial.value) for trial in trials]
    baseline = plain_mobilenet(runs, result)
    plain = count_parameters(BASELINE, classes)
    beside = (f"plain MobileNet by the same recipe: {percent(baseline['value'])} with {millions(plain)} parameters"
              if baseline else "no run of plain MobileNet by the very same recipe is here (`python "
                               "classic_nas_trial.py --baseline` with the options of the trials makes one)")
    return [Picture(f"{base}-accuracy-parameters.svg",
                    plots.svg(lambda: plots.accuracy_parameters(
                        found, nas_plots.pareto(found), plain,
                        (baseline["parameters"], baseline["value"]) if baseline else None, found[0])),
                    "Validation accuracy against parameters, a point a trial, with the Pareto front",
                    f"{len(found)} completed trials of experiment {experiment.name}, {recipe(result)}; {beside}.", 480),
            Picture(f"{base}-network.svg",
                    plots.svg(lambda: nas_plots.network_figure(experiment.state, result), plain=True),
                    "The best network: its blocks in a row, its skips as arcs",
                    f"The best network found, {millions(result.get('parameters'))} parameters. Scroll to the side.",
                    1500)]


def plain_mobilenet(runs: list[Run], result: dict[str, Any]) -> dict[str, Any] | None:
    """The newest run of it by the very recipe of `result`: nothing else can be compared."""
    from reporting.nas_plots import recipe as computed_with

    return next((run.result for run in runs if run.result and run.config.get("baseline")
                 and not run.result.get("diverged") and computed_with(run.result) == computed_with(result)), None)


def _trials(experiment: Experiment) -> Table:
    """All trials; of classic NAS without the many choices, which results.csv has."""
    names = [] if is_nas(experiment) else experiment.names
    classes = (((experiment.best or {}).get("result") or {}).get("data") or {}).get("classes")
    sizes = is_nas(experiment) and classes
    header = ["#", "trial", "state", "validation accuracy", *names, *(["parameters"] if sizes else []), "time", "note"]
    rows = []
    for rank, trial in enumerate(experiment.state.trials, 1):
        given = trial.parameters or {}
        rows.append([str(rank), trial.id, trial.state + (" (contradicts itself)" if trial.mismatch else ""),
                     percent(trial.value) if trial.value is not None else "", *(value(given.get(n, "")) for n in names),
                     *([_size(trial, classes)] if sizes else []),
                     "" if trial.seconds is None else duration(trial.seconds), trial.note[:80]])
    return Table(header, rows, (0, 3, *((len(names) + 4,) if sizes else ()), len(header) - 2))


def _size(trial: Trial, classes: int) -> str:
    from models.mobilenet_space.space import count_parameters

    return f"{count_parameters(trial.parameters, classes):,}" if trial.parameters else ""


# ---- DARTS search


def search_blocks(run: Run, runs: list[Run]) -> list[Block]:
    """One search, or several seeds of one: then the pictures are of the chosen seed."""
    result, shown = run.result or {}, run
    blocks: list[Block] = [Heading(3, f"DARTS search: {run.name}")]
    if result.get("seeds"):
        chosen = [one for one in runs if one.name.startswith(f"{run.name}/seed")
                  and (one.result or {}).get("genotype") == result.get("genotype")]
        shown = chosen[0] if chosen else run
        rows = [[str(seed["seed"]), percent(seed["value"])] for seed in result["seeds"]]
        blocks.append(Table(["seed", result.get("metric", "value")], rows, (0, 1)))
    told = result.get("genotype") or (shown.metrics[-1].get("genotype") if shown.metrics else None)
    if run.result:
        blocks.append(Text(f"{percent(result.get('value'))} {result.get('metric', '')}. {_search_recipe(run)}"))
    else:
        blocks.append(Text(f"Not finished: {run.epochs} of {run.config.get('epochs', '?')} epochs, "
                           f"{data_name(run.config)}, seed {run.config.get('seed', '?')}.", "warning"))
    if not told:
        return [*blocks, Text("No epoch has ended yet.", "note")]
    genotype, base = Genotype.from_json(told), slug(run.name)
    when = "found" if run.result else "as they are now"
    blocks.append(_cells(genotype, base, f"The normal and the reduction cell {when}."))
    history = [record for record in shown.metrics if "strengths" in record]
    if history:
        about = f"{shown.name}, {len(history)} epochs, seed {shown.config.get('seed', UNKNOWN)}"
        strengths = [record["strengths"] for record in history]
        blocks.append(Picture(
            f"{base}-alphas.svg", plots.svg(lambda: alphas_figure(strengths, genotype), plain=True),
            "The weight of each operation on each edge over the epochs", f"Alphas after softmax over time: {about}.",
            900) if fits(strengths) else Text("The alphas are not drawn: they weigh another number of operations than "
                                              "there are now.", "note"))
        blocks.append(Gallery([*_curves(shown, base), Picture(
            f"{base}-decision.svg", plots.svg(lambda: plots.decision(history)),
            "Entropy of the alphas and number of skip connections over the epochs",
            f"{about}. Entropy 1 is undecided; many skip connections are the sign of a collapsed search.")]))
    return blocks


def _search_recipe(run: Run) -> str:
    config = run.config
    order = (f"partial channels 1/{config['partial_channels']}" if config.get("partial_channels", 1) > 1
             else f"order {config.get('order', UNKNOWN)}")
    return (f"Data and recipe: {recipe(run.result)}, {order}, {config.get('layers', UNKNOWN)} cells, "
            f"{config.get('channels', UNKNOWN)} channels; {duration(run.result.get('wall_seconds'))}.")


# ---- trainings


def training_blocks(run: Run, runs: list[Run]) -> list[Block]:
    """Figures and curves of one network's training; its cells, if they are not those of a search in `runs`."""
    blocks: list[Block] = [Heading(3, f"Training: {run.name}")]
    if not run.result:
        blocks.append(Text(f"Not finished: {run.epochs} of {run.config.get('epochs', '?')} epochs, "
                           f"{data_name(run.config)}, seed {run.config.get('seed', '?')}.", "warning"))
    else:
        blocks += [Text(f"{network(run.stage, run.result)}. {recipe(run.result)}; "
                        f"{duration(run.result.get('wall_seconds'))}."), _figures(run.result)]
        if run.result.get("diverged"):
            blocks.append(Text("This training diverged: its loss is not finite.", "warning"))
    if pictures := _curves(run, slug(run.name)):
        blocks.append(Gallery(pictures))
    cells = (run.result or {}).get("architecture") or {}
    if "normal" in cells:
        genotype = Genotype(cells["normal"], cells["reduction"])
        if any((one.result or {}).get("genotype") == genotype.to_json() for one in runs):
            return blocks
        blocks.append(_cells(genotype, slug(run.name), f"The cells of this network, {network(run.stage, run.result)}."))
    return blocks


def _cells(genotype: Genotype, base: str, caption: str) -> Picture:
    return Picture(f"{base}-cells.svg", plots.svg(lambda: cells_figure(genotype), plain=True),
                   "The normal and the reduction cell as graphs", caption, 900)


def _figures(result: dict[str, Any]) -> Table:
    rows = []
    for name, key in (("last epoch", "last"), ("epoch that was best on validation", "best"), ("final test", "test")):
        record = result.get(key)
        if isinstance(record, dict):
            split = "test" if key == "test" else "validation" if "val_accuracy" in record else "training"
            of = {"test": "", "validation": "val_", "training": "train_"}[split]
            accuracy, loss = (record.get(of + what) for what in ("accuracy", "loss"))
            rows.append([name, str(record.get("epoch", "the last" if key == "test" else "")), split, percent(accuracy),
                         f"{loss:.4f}" if isinstance(loss, int | float) else UNKNOWN])
    return Table(["figures", "epoch", "pictures", "accuracy", "loss"], rows, (1, 3, 4))


def _curves(run: Run, base: str) -> list[Picture]:
    """Accuracy and loss of training and validation over the epochs, as far as they were recorded."""
    about = f"{run.name}, {data_name(run.config)}, seed {run.config.get('seed', UNKNOWN)}"
    return [Picture(f"{base}-{quantity}.svg", plots.svg(lambda quantity=quantity: plots.curves(run.metrics, quantity)),
                    f"{quantity} over the epochs", f"{quantity.capitalize()}: {about}.")
            for quantity in ("accuracy", "loss")
            if any(f"{part}_{quantity}" in record for record in run.metrics for part in ("train", "val"))]


def is_search(run: Run) -> bool:
    return run.stage == "darts_search"


def is_seed_of_search(run: Run, runs: list[Run]) -> bool:
    parent = run.name.rpartition("/")[0]
    return is_search(run) and any(one.name == parent for one in runs)


def is_final(run: Run) -> bool:
    """A training that ends with the test set, or will."""
    return tests(run) is not None or run.stage == "retrain"
