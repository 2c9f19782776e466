"""How the parameters of trials go together with their accuracy: parallel coordinates, effects, a grid of choices."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median

from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from guard.trials import Trial
from reporting.blocks import Cell, Heat
from reporting.plots import BEST, COLORS, PAPER, VAL
from reporting.scale import Scale

SIDE_BY_SIDE = 5  # options whose names fit beside each other; with more every other one is a line lower


def parallel_coordinates(trials: Sequence[Trial], names: Sequence[str]) -> Figure:
    """A line a trial from axis to axis, down to its accuracy; thick: the best, which is first in `trials`."""
    figure = Figure(figsize=(4.6, 0.78 * (len(names) + 1) + 0.2))
    axes = figure.add_axes((0.07, 0, 0.86, 1), xlim=(0, 1), ylim=(-len(names) - 0.7, 0.55))
    axes.set_axis_off()
    scales = [Scale([trial.parameters[name] for trial in trials]) for name in names]
    color = _colors([100 * trial.value for trial in trials])
    for trial in reversed(trials):  # the best on top
        xs = [scale.share(scale.place(trial.parameters[name])) for scale, name in zip(scales, names, strict=True)]
        metric = float(color(100 * trial.value))
        axes.plot([*xs, metric], [-row for row in range(len(names) + 1)], color=COLORS(metric),
                  lw=2.6 if trial is trials[0] else 1.1, alpha=1 if trial is trials[0] else 0.65)
    for row, (scale, name) in enumerate(zip(scales, names, strict=True)):
        _draw_axis(axes, -row, name, [(scale.share(place), label) for place, label in scale.ticks()])
    end = [(i / 4, f"{color.vmin + (color.vmax - color.vmin) * i / 4:.1f}%") for i in range(5)]
    _draw_axis(axes, -len(names), "validation accuracy", end)
    return figure


def _colors(values: Sequence[float]) -> Normalize:
    """Where all are equal, all are the best."""
    return Normalize(min(values) - (min(values) == max(values)), max(values))


def _draw_axis(axes: Axes, y: float, name: str, ticks: Sequence[tuple[float, str]]) -> None:
    back = {"facecolor": PAPER, "alpha": 0.85, "edgecolor": "none", "pad": 0.8}
    axes.plot([0, 1], [y, y], color="#555555", lw=1.2, zorder=5)
    axes.text(-0.05, y + 0.2, name, weight="bold", fontsize=9, va="bottom", zorder=6, bbox=back)
    for number, (x, label) in enumerate(ticks):
        axes.plot([x, x], [y - 0.05, y + 0.05], color="#555555", lw=1.2, zorder=5)
        lower = 0.2 if len(ticks) > SIDE_BY_SIDE and number % 2 else 0
        axes.text(x, y - 0.1 - lower, label, ha="center", va="top", fontsize=8, zorder=6, bbox=back)


def effect(trials: Sequence[Trial], name: str) -> Figure:
    """Accuracy against one parameter, every trial a point; for a few values the median of each, too."""
    scale = Scale([trial.parameters[name] for trial in trials])
    figure = Figure(figsize=(4.2, 3.0), layout="constrained")
    axes = figure.add_subplot(xlabel=name + (", logarithmic" if scale.log else ""), ylabel="validation accuracy, %")
    axes.scatter([scale.place(trial.parameters[name]) for trial in trials], [100 * trial.value for trial in trials],
                 s=24, color=VAL, alpha=0.55, linewidth=0, zorder=3)
    ticks = scale.ticks()
    axes.set_xticks([place for place, _ in ticks], [label for _, label in ticks],
                    rotation=30 if len(ticks) > 4 and not scale.numeric else 0,
                    ha="right" if len(ticks) > 4 and not scale.numeric else "center")
    if not scale.continuous:
        step = min((b - a for (a, _), (b, _) in pairwise(ticks)), default=1)
        for option, (place, _) in zip(scale.options, ticks, strict=True):
            middle = median(100 * trial.value for trial in trials if trial.parameters[name] == option)
            axes.plot([place - step / 4, place + step / 4], [middle] * 2, color=BEST, lw=2.2, zorder=4)
        axes.set_xlim(ticks[0][0] - step / 2, ticks[-1][0] + step / 2)
    return figure


def varied(trials: Sequence[Trial], names: Sequence[str]) -> list[str]:
    """The parameters that were not the same in all trials: nothing can be said of the others."""
    return [name for name in names if len({str(trial.parameters[name]) for trial in trials}) > 1]


def telling(trials: Sequence[Trial], names: Sequence[str], count: int) -> list[str]:
    """The `count` parameters that explain most of the differences in accuracy, in the order of `names`; none that was
    the same in all trials."""
    best = sorted(varied(trials, names), key=lambda name: -explained(trials, name))[:count]
    return sorted(best, key=list(names).index)


def explained(trials: Sequence[Trial], name: str) -> float:
    """Share of the variance of the accuracy that lies between the values of `name` (many numbers: between quarters).

    Adjusted as in the analysis of variance, else a parameter of many values would seem to explain more.
    """
    scale = Scale([trial.parameters[name] for trial in trials])
    groups: dict[float, list[float]] = {}
    for trial in trials:
        place = scale.place(trial.parameters[name])
        key = min(int(4 * scale.share(place)), 3) if scale.continuous else place
        groups.setdefault(key, []).append(trial.value)
    free, total = len(trials) - len(groups), _squares([trial.value for trial in trials])
    if free < 1 or not total:
        return 0.0
    return 1 - sum(map(_squares, groups.values())) / free / (total / (len(trials) - 1))


def _squares(values: Sequence[float]) -> float:
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values)


def choices_grid(trials: Sequence[Trial], names: Sequence[str], corner: str) -> Heat:
    """Mean accuracy, in %, of the trials with each option of each choice, and below it how many they are.

    A row for each of the choices `names`, which have options in common; the better, the darker.
    """
    found = {name: _by_option(trials, name) for name in names}
    options = sorted({option for column in found.values() for option in column},
                     key=lambda option: (option != "none", option != "stem", option))
    color = _colors([fmean(values) for column in found.values() for values in column.values()])

    def cell(values: Sequence[float]) -> Cell:
        return Cell(f"{fmean(values):.1f}\n({len(values)})", 0.05 + 0.75 * float(color(fmean(values))))

    return Heat(corner, options, [
        (name.partition("_")[0].replace("block", "block "),
         [cell(column[option]) if option in column else None for option in options]) for name, column in found.items()])


def _by_option(trials: Sequence[Trial], name: str) -> dict[str, list[float]]:
    """Accuracies in % of the trials with each option."""
    found: dict[str, list[float]] = {}
    for trial in trials:
        found.setdefault(str(trial.parameters[name]), []).append(100 * trial.value)
    return found
