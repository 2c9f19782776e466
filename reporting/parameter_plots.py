"""How the parameters of trials go together with their accuracy: parallel coordinates, effects, a grid of choices."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from guard.trials import Trial
from reporting.plots import BEST, COLORS, VAL


class Scale:
    """Places of a parameter's values on an axis: numbers far apart by their logarithm, names in their order."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.numeric = all(isinstance(value, int | float) for value in values)
        self.options = sorted(set(values), key=lambda value: value if self.numeric else str(value))
        low, high = (self.options[0], self.options[-1]) if self.numeric else (0, 0)
        self.log = self.numeric and low > 0 and high / low >= 20
        self.continuous = self.numeric and len(self.options) > 8

    def place(self, value: Any) -> float:
        if not self.numeric:
            return float(self.options.index(value))
        return math.log10(value) if self.log else float(value)

    def ticks(self) -> list[tuple[float, str]]:
        """(place, label): every option, or round numbers where there are many."""
        if not self.continuous:
            return [(self.place(option), f"{option:g}" if self.numeric else str(option)) for option in self.options]
        low, high = self.ends()
        places = [float(place) for place in MaxNLocator(5, integer=self.log).tick_values(low, high)]
        inside = [place for place in places if low <= place <= high]
        if self.log and len(inside) < 2:  # within a decade
            inside = [low, (low + high) / 2, high]
        return [(place, f"{10**place if self.log else place:.2g}") for place in inside]

    def ends(self) -> tuple[float, float]:
        return self.place(self.options[0]), self.place(self.options[-1])

    def share(self, place: float) -> float:
        """0 at the lowest place, 1 at the highest."""
        low, high = self.ends()
        return (place - low) / (high - low) if high > low else 0.5


def parallel_coordinates(trials: Sequence[Trial], names: Sequence[str]) -> Figure:
    """A line a trial through its parameters to its accuracy; the better, the darker. Best first in `trials`."""
    figure = Figure(figsize=(max(5.2, 1.7 * (len(names) + 1)), 3.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    scales = [Scale([trial.parameters[name] for trial in trials]) for name in names]
    metrics = [100 * trial.value for trial in trials]
    color = _colors(metrics)
    for trial in reversed(trials):  # the best on top
        ys = [scale.share(scale.place(trial.parameters[name])) for scale, name in zip(scales, names, strict=True)]
        metric = 100 * trial.value
        axes.plot(range(len(names) + 1), [*ys, float(color(metric))], color=COLORS(color(metric)),
                  lw=2.6 if trial is trials[0] else 1.1, alpha=1 if trial is trials[0] else 0.65)
    for x, (scale, name) in enumerate(zip(scales, names, strict=True)):
        _draw_axis(axes, x, name, [(scale.share(place), label) for place, label in scale.ticks()])
    end = [(i / 4, f"{color.vmin + (color.vmax - color.vmin) * i / 4:.1f}%") for i in range(5)]
    _draw_axis(axes, len(names), "validation accuracy", end)
    axes.set_xlim(-0.35, len(names) + 0.55)
    axes.set_ylim(-0.06, 1.16)
    return figure


def _colors(values: Sequence[float]) -> Normalize:
    """Where all are equal, all are the best."""
    return Normalize(min(values) - (min(values) == max(values)), max(values))


def _draw_axis(axes: Axes, x: int, name: str, ticks: Sequence[tuple[float, str]]) -> None:
    axes.plot([x, x], [0, 1], color="#333333", lw=1.2, zorder=5)
    axes.text(x, 1.09, name, ha="center", va="bottom", weight="bold")
    for y, label in ticks:
        axes.text(x + 0.04, y, label, va="center", fontsize=9, zorder=6,
                  bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8})


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


def telling(trials: Sequence[Trial], names: Sequence[str], count: int) -> list[str]:
    """The `count` parameters that explain most of the differences in accuracy, in the order of `names`."""
    return sorted(sorted(names, key=lambda name: -_explained(trials, name))[:count], key=list(names).index)


def _explained(trials: Sequence[Trial], name: str) -> float:
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


def choices_grid(trials: Sequence[Trial], parts: dict[str, Sequence[str]]) -> Figure:
    """Mean accuracy, in %, of the trials with each option of each choice, and how many they are; a grid a part.

    `parts`: title -> names of the choices, which have options in common.
    """
    options = {title: sorted({str(trial.parameters[name]) for name in names for trial in trials},
                             key=lambda option: (option != "none", option != "stem", option))
               for title, names in parts.items()}
    rows, widest = [len(found) for found in options.values()], max(map(len, parts.values()))
    figure = Figure(figsize=(1.6 + 0.85 * widest, 0.8 * len(parts) + 0.3 * sum(rows)), layout="constrained")
    panels = figure.subplots(len(parts), 1, squeeze=False, height_ratios=rows)[:, 0]
    columns = {title: [_by_option(trials, name) for name in names] for title, names in parts.items()}
    means = [fmean(values) for found in columns.values() for column in found for values in column.values()]
    color = _colors(means)
    for axes, (title, names) in zip(panels, parts.items(), strict=True):
        _draw_grid(axes, columns[title], options[title], color)
        axes.set_title(title, fontsize=10, loc="left", weight="bold")
        axes.set_xticks(range(len(names)), [name.partition("_")[0].replace("block", "block ") for name in names])
        axes.set_xlim(-0.5, widest - 0.5)
    return figure


def _by_option(trials: Sequence[Trial], name: str) -> dict[str, list[float]]:
    """Accuracies in % of the trials with each option."""
    found: dict[str, list[float]] = {}
    for trial in trials:
        found.setdefault(str(trial.parameters[name]), []).append(100 * trial.value)
    return found


def _draw_grid(axes: Axes, columns: Sequence[dict[str, list[float]]], options: Sequence[str],
               color: Normalize) -> None:
    means = [[fmean(column[option]) if option in column else math.nan for column in columns] for option in options]
    axes.imshow(means, cmap=COLORS, norm=color, aspect="auto")
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_yticks(range(len(options)), options)
    for x, column in enumerate(columns):
        for y, option in enumerate(options):
            if option in column:
                dark = color(means[y][x]) > 0.5
                axes.text(x, y, f"{means[y][x]:.1f} ({len(column[option])})", ha="center", va="center", fontsize=8,
                          color="white" if dark else "#1c2430")
