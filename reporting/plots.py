"""The plots of a report, each a small SVG file that is readable on a phone."""

import io
import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import matplotlib
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from guard.results import Trial

STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
         "text.color": "#1c2430", "axes.labelcolor": "#1c2430", "xtick.color": "#1c2430", "ytick.color": "#1c2430",
         "axes.edgecolor": "#8a94a0", "svg.hashsalt": "report", "svg.fonttype": "path"}
TRAIN, VAL, BEST = "#d95f02", "#0b63b0", "#b3005e"
PATH, DECIMALS = re.compile(rb'(?<= d=")[^"]*'), re.compile(rb"(\.\d\d)\d+")  # a hundredth of a point is enough
COLORS = colormaps["viridis_r"]
NUMBERS = 20  # classes up to which a confusion matrix has numbers and names


def svg(draw: Callable[[], Figure], plain: bool = False) -> bytes:
    """The figure that `draw` makes, in the style of the report, or `plain`; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({key: value for key, value in STYLE.items() if not plain or key.startswith("svg.")}):
        draw().savefig(buffer, format="svg", metadata={"Date": None})
    return PATH.sub(lambda path: DECIMALS.sub(rb"\1", b" ".join(path[0].split())), buffer.getvalue())


# ---- hyper-parameters


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
        """(place, label): every option, or some numbers of many."""
        if not self.continuous:
            return [(self.place(option), f"{option:g}" if self.numeric else str(option)) for option in self.options]
        low, high = self.place(self.options[0]), self.place(self.options[-1])
        places = [low + (high - low) * i / 4 for i in range(5)]
        return [(place, f"{10**place if self.log else place:.2g}") for place in places]

    def share(self, value: Any) -> float:
        """0 at the lowest place, 1 at the highest."""
        places = [self.place(option) for option in (self.options[0], self.options[-1])]
        return (self.place(value) - places[0]) / (places[1] - places[0]) if places[0] != places[1] else 0.5


def parallel_coordinates(trials: Sequence[Trial], names: Sequence[str]) -> Figure:
    """A line a trial through its parameters to its accuracy; the better, the darker. Best first in `trials`."""
    figure = Figure(figsize=(max(5.2, 1.7 * (len(names) + 1)), 3.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    scales = [Scale([trial.parameters[name] for trial in trials]) for name in names]
    metrics = [100 * trial.value for trial in trials]
    color = Normalize(min(metrics), max(metrics) if max(metrics) > min(metrics) else min(metrics) + 1)
    for trial in reversed(trials):  # the best on top
        ys = [scale.share(trial.parameters[name]) for scale, name in zip(scales, names, strict=True)]
        metric = 100 * trial.value
        axes.plot(range(len(names) + 1), [*ys, float(color(metric))], color=COLORS(color(metric)),
                  lw=2.6 if trial is trials[0] else 1.1, alpha=1 if trial is trials[0] else 0.65)
    for x, (scale, name) in enumerate(zip(scales, names, strict=True)):
        ticks = [(0.5 if len(scale.options) == 1 else share, label)
                 for (_, label), share in zip(scale.ticks(), _shares(scale), strict=True)]
        _draw_axis(axes, x, name, ticks)
    end = [(i / 4, f"{color.vmin + (color.vmax - color.vmin) * i / 4:.1f}%") for i in range(5)]
    _draw_axis(axes, len(names), "validation accuracy", end)
    axes.set_xlim(-0.35, len(names) + 0.55)
    axes.set_ylim(-0.06, 1.16)
    return figure


def _shares(scale: Scale) -> list[float]:
    places = [place for place, _ in scale.ticks()]
    width = (places[-1] - places[0]) or 1
    return [(place - places[0]) / width for place in places]


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


# ---- classic NAS


Points = Sequence[tuple[float, float]]  # parameters, accuracy in 0..1


def accuracy_parameters(found: Points, front: Points, plain_parameters: int, baseline: tuple[float, float] | None,
                        best: tuple[float, float]) -> Figure:
    def xy(points: Points) -> tuple[list[float], list[float]]:
        return [point[0] / 1e6 for point in points], [100 * point[1] for point in points]

    figure = Figure(figsize=(6, 4.4), layout="constrained")
    axes = figure.add_subplot(xlabel="parameters, millions", ylabel="validation accuracy, %")
    axes.axvline(plain_parameters / 1e6, color="#555555", ls="--", lw=1.2, label="plain MobileNet's parameters")
    axes.scatter(*xy(found), s=26, color=VAL, alpha=0.6, linewidth=0, label="trial", zorder=3)
    axes.plot(*xy(front), color=TRAIN, marker="o", ms=5, lw=1.3, drawstyle="steps-post", label="Pareto front", zorder=4)
    axes.scatter(*xy([best]), s=190, marker="*", color=BEST, label="best", zorder=5)
    if baseline:
        axes.scatter(*xy([baseline]), s=55, marker="D", color="#333333", label="plain MobileNet, same recipe", zorder=5)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


# ---- training


def curves(records: Sequence[dict[str, Any]], quantity: str) -> Figure:
    """`quantity`, loss or accuracy, of training and validation (and of the alphas' half) over the epochs."""
    factor = 100 if quantity == "accuracy" else 1
    figure = Figure(figsize=(4.2, 3.0), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel=quantity + (", %" if factor == 100 else ""))
    for part, color, label in (("train", TRAIN, "training"), ("alpha", "#7b3294", "alphas' half"),
                               ("val", VAL, "validation"), ("test", "#333333", "test")):
        points = [(record["epoch"], factor * record[f"{part}_{quantity}"]) for record in records
                  if isinstance(record.get(f"{part}_{quantity}"), int | float)]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, label=label, lw=1.8,
                      marker="o" if len(points) < 3 else "")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def decision(records: Sequence[dict[str, Any]]) -> Figure:
    """How decided the alphas are, and how many skip connections the normal cell would have."""
    figure = Figure(figsize=(4.2, 3.0), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="entropy of the alphas", ylim=(0, 1.05))
    epochs = [record["epoch"] for record in records]
    marker = "o" if len(epochs) < 3 else ""
    axes.plot(epochs, [record["entropy"] for record in records], color=VAL, lw=1.8, marker=marker, label="entropy")
    right = axes.twinx()
    right.plot(epochs, [record["skips"] for record in records], color=TRAIN, lw=1.8, marker=marker,
               drawstyle="steps-mid", label="skips")
    right.set(ylabel="skip connections", ylim=(-0.2, 8.2))
    right.spines["right"].set_visible(True)
    right.grid(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Row: the true class; column: the predicted one; colour: share of the row."""
    small = len(classes) <= NUMBERS
    side = 2.0 + 0.42 * len(classes) if small else 6.5
    figure = Figure(figsize=(side + 0.3, side), layout="constrained")
    axes = figure.add_subplot(xlabel="predicted", ylabel="true")
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(False)
    if small:
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), classes)
        for i, row in enumerate(matrix):
            for j, count in enumerate(row):
                if count:
                    axes.text(j, i, str(count), ha="center", va="center", fontsize=8,
                              color="white" if shares[i][j] > 0.5 else "#1c2430")
    return figure
