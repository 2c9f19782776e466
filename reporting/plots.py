"""The plots of a report, each a small SVG file that is readable on a phone."""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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
