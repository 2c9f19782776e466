"""The blocks of experiments: hyper-parameters and classic NAS."""

from collections import Counter
from typing import Any

from artifacts.figures import UNKNOWN, counted, duration, percent, span
from guard.trials import Trial
from reporting import charts, parameter_plots, plots
from reporting.blocks import Block, Details, Gallery, Heading, Picture, Table, Text
from reporting.findings import Experiment, Run
from reporting.words import by_validation, millions, recipe, slug, val_images, value

NAS_LABEL = "block01_op"  # what only the space of stage 2 has
TIME = "time of its process"
AXES = 6  # parameters that a parallel plot can show


def is_nas(experiment: Experiment) -> bool:
    return NAS_LABEL in experiment.names


def experiment_blocks(experiment: Experiment, runs: list[Run]) -> list[Block]:
    kind = "Classic NAS" if is_nas(experiment) else "Hyper-parameters"
    blocks: list[Block] = [Heading(3, f"{kind}: experiment {experiment.name}"), *_summary(experiment)]
    folded: list[Block] = []
    if not experiment.done:
        blocks.append(Text("No trial has completed yet.", "note"))
    elif is_nas(experiment):
        blocks += _nas_pictures(experiment, runs)
        folded += _choices(experiment)
    else:
        shown, folded = _hyper_parameter_pictures(experiment)
        blocks += shown
    return [*blocks, Details(f"Details of experiment {experiment.name}: {'what went together, and ' if folded else ''}"
                             f"all {len(experiment.state.trials)} trials", [*folded, _trials(experiment)])]


def _summary(experiment: Experiment) -> list[Block]:
    counts = Counter(trial.state for trial in experiment.state.trials)
    states = ", ".join(f"{n} {state}" for state, n in counts.items())
    line = f"{counted(len(experiment.state.trials), 'trial')}: {states}."
    result = (experiment.best or {}).get("result")
    if not isinstance(result, dict):
        return [Text(line)]
    best, last = experiment.best, result.get("last") or {}
    pairs = ", ".join(f"{name} {value(item)}" for name, item in (best["parameters"] or {}).items())
    return [Text(f"{line} The best is trial {best['trial']}: "
                 f"{percent(best['value'], val_images(result))} "
                 f"{result.get('metric', 'of its metric')} (epoch {last.get('epoch', UNKNOWN)})"
                 + ("" if is_nas(experiment) else f", with {pairs}") + _chance(best["value"], result)),
            Text(f"Its data and recipe: {recipe(result)}. All trials of an experiment share them, but for what the "
                 "tuner sets. Each was trained once: small differences may be chance.",
                 "note")]


def _chance(score: float, result: dict[str, Any]) -> str:
    """How much the pictures that a trial is judged by can tell apart."""
    sure = by_validation({**result, "value": score})
    return f"{sure}. Trials inside of that are not told apart, and the best of many is flattered." if sure else "."


# ---- hyper-parameters


def _hyper_parameter_pictures(experiment: Experiment) -> tuple[list[Block], list[Block]]:
    """What is shown, and what is folded away."""
    trials, names = whole(experiment)
    if len(trials) < 2 or not names:
        return [Text("Fewer than two trials have completed: there is nothing to compare.", "note")], []
    base, about, differ = slug(experiment.name), _about(experiment, trials), parameter_plots.varied(trials, names)
    effects = [Picture(f"{base}-effect-{slug(name)}.svg",
                       plots.svg(lambda name=name: parameter_plots.effect(trials, name)),
                       f"Validation accuracy against {name}",
                       f"{name}: {about}; bars are medians, where there are few values.",
                       chart=charts.effect(trials, name)) for name in differ]
    return _compared(experiment, trials, names), [Gallery(effects)] if effects else []


def whole(experiment: Experiment) -> tuple[list[Trial], list[str]]:
    """The completed trials of which all parameters are known, best first, and the parameters' names."""
    trials = [trial for trial in experiment.done if all(name in (trial.parameters or {}) for name in experiment.names)]
    return trials, experiment.names


def _about(experiment: Experiment, trials: list[Trial]) -> str:
    return f"{len(trials)} completed trials of experiment {experiment.name}, validation accuracy after the last epoch"


def _compared(experiment: Experiment, trials: list[Trial], names: list[str]) -> list[Block]:
    """The parameters that differ, as parallel coordinates; of the others nothing can be said."""
    differ = parameter_plots.varied(trials, names)
    same = [f"{name} ({value(trials[0].parameters[name])})" for name in names if name not in differ]
    blocks: list[Block] = [Text(f"The same in all {len(trials)} completed trials, so that these say nothing of "
                                f"{'it' if len(same) == 1 else 'them'}: {', '.join(same)}.", "note")] if same else []
    if not differ:
        return blocks
    shown = parameter_plots.telling(trials, names, AXES)
    picture = Picture(f"{slug(experiment.name)}-parallel.svg",
                      plots.svg(lambda: parameter_plots.parallel_coordinates(trials, shown)),
                      f"Parallel coordinates of {', '.join(shown)} and validation accuracy",
                      f"{_about(experiment, trials)}. The redder, the better; thick: the best.{_why(trials, differ)}",
                      440, chart=charts.parallel(trials, shown))
    return [picture, *blocks]


def _why(trials: list[Trial], differ: list[str]) -> str:
    """Why these axes, if there are more parameters."""
    if len(differ) <= AXES:
        return ""
    if len(trials) < 2 * len(differ):
        return f" {AXES} of {len(differ)} choices that differ; {len(trials)} trials are too few to tell which matter."
    return f" The {AXES} of {len(differ)} choices that explain most of the differences."


# ---- classic NAS


def _choices(experiment: Experiment) -> list[Block]:
    """Of classic NAS: which choices go together with a high accuracy."""
    trials, names = whole(experiment)
    if len(trials) < 2:
        return []
    differ = parameter_plots.varied(trials, names)
    grids = [parameter_plots.choices_grid(trials, part, corner)
             for corner, ending in (("operation of each block", "_op"), ("skip into a block, from", "_skip"))
             if (part := [name for name in differ if name.endswith(ending)])]
    about = Text("Mean validation accuracy, in %, of the trials with each option, and how many they are: "
                 f"{_about(experiment, trials)}. A tuner does not draw at random: what it liked has many trials.",
                 "note")
    return [*_compared(experiment, trials, names), *([*grids, about] if grids else [])]


def _nas_pictures(experiment: Experiment, runs: list[Run]) -> list[Block]:
    from models.mobilenet_space.space import BASELINE, check_sample, count_parameters
    from reporting import nas_plots  # slow: torch comes with it
    from reporting.nas_portrait import portrait

    result = (experiment.best or {}).get("result")
    if not isinstance(result, dict):
        return [Text("No best.json: data set and classes are unknown, hence the sizes of the networks too.", "note")]
    base, classes, side = slug(experiment.name), result["data"]["classes"], nas_plots.side_of(result)
    trials, _ = whole(experiment)
    found = [nas_plots.Point(count_parameters(trial.parameters, classes, side), trial.value) for trial in trials]
    front, baseline = nas_plots.pareto(found), plain_mobilenet(runs, result)
    compared = (baseline["parameters"], baseline["value"]) if baseline else None
    plain = count_parameters(BASELINE, classes, side)
    of = val_images(result)
    beside = (f"plain MobileNet by the same recipe: {percent(baseline['value'], of)} with {millions(plain)} parameters"
              if baseline else "no run of plain MobileNet by the very same recipe is here (`python "
                               "classic_nas_trial.py --baseline` with the options of the trials makes one)")
    check_sample(result["architecture"])
    return [Picture(f"{base}-accuracy-parameters.svg",
                    plots.svg(lambda: plots.accuracy_parameters(found, front, plain, compared, found[0])),
                    "Validation accuracy against parameters, a point a trial, with the Pareto front",
                    f"{len(found)} completed trials of experiment {experiment.name}, {recipe(result)}; {beside}.", 450,
                    chart=charts.accuracy_parameters(trials, [point.parameters for point in found], front, plain,
                                                     compared)),
            Picture(f"{base}-network.svg", plots.svg(lambda: portrait(result["architecture"], classes, side),
                                                     plain=True),
                    "The best network: its blocks from top to bottom, its skips as arcs",
                    f"The best network found, {millions(result.get('parameters'))} parameters (plain MobileNet: "
                    f"{millions(plain)}). {_operations(result['architecture'])} Arcs: a map is concatenated to the "
                    "input of a later block.", 440)]


def _operations(sample: dict[str, str]) -> str:
    """What the names of those in a network mean."""
    from reporting.nas_plots import OPERATIONS

    used = {choice for name, choice in sample.items() if name.endswith("_op")}
    return "; ".join(f"{name}: {words}" for name, (_, words) in OPERATIONS.items() if name in used) + "."


def plain_mobilenet(runs: list[Run], result: dict[str, Any]) -> dict[str, Any] | None:
    """The newest run of it by the very recipe of `result`: nothing else can be compared."""
    from reporting.nas_plots import recipe as computed_with

    return next((run.result for run in runs if run.result and run.config.get("baseline")
                 and not run.result.get("diverged") and computed_with(run.result) == computed_with(result)), None)


def _trials(experiment: Experiment) -> Table:
    """All trials; of classic NAS without the many choices, which results.csv has."""
    names = [] if is_nas(experiment) else experiment.names
    result = (experiment.best or {}).get("result") or {}
    data = result.get("data") or {}
    sizes, of = is_nas(experiment) and data.get("classes"), data.get("val_images")
    judged = ["validation accuracy", *(["95% interval"] if of else [])]
    header = ["#", "trial", "state", *judged, *names, *(["parameters"] if sizes else []), TIME, "note"]
    rows = []
    for rank, trial in enumerate(experiment.state.trials, 1):
        given = trial.parameters or {}
        rows.append([str(rank), trial.id, trial.state + (" (contradicts itself)" if trial.mismatch else ""),
                     percent(trial.value, of) if trial.value is not None else "",
                     *([span(trial.value * of, of) if trial.value is not None else ""] if of else []),
                     *(value(given.get(n, "")) for n in names),
                     *([_size(trial, result)] if sizes else []),
                     "" if trial.seconds is None else duration(trial.seconds), trial.note[:80]])
    numbers = ("#", *judged, "parameters", TIME)
    return Table(header, rows, tuple(place for place, name in enumerate(header) if name in numbers))


def _size(trial: Trial, result: dict[str, Any]) -> str:
    from models.mobilenet_space.space import count_parameters
    from reporting.nas_plots import side_of

    if not trial.parameters:
        return ""
    return f"{count_parameters(trial.parameters, result['data']['classes'], side_of(result)):,}"


