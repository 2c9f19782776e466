"""The plots of a report, each a small SVG file that is readable on a phone, on white and on black."""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, PAPER = "#1c2430", "#fefefe"  # of text and of what hides lines behind it
INKS = {key: INK for key in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")}
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
         **INKS, "axes.edgecolor": "#8a94a0", "svg.hashsalt": "report", "svg.fonttype": "path",
         "text.parse_math": False, "axes.formatter.useoffset": False}
PLAIN = {**INKS, "svg.hashsalt": "report", "svg.fonttype": "path"}
TRAIN, VAL, BEST = "#d95f02", "#0b63b0", "#b3005e"
DARK = {  # color -> what it is on a dark page; what is not here is readable on both
    INK: "#e4e8ee", PAPER: "#161b22", VAL: "#58a6f0", BEST: "#ff6fb0", "#333333": "#c3cad4", "#444444": "#c3cad4",
    "#555555": "#a3adba", "#7b3294": "#c78be0", "#0072b2": "#4aa3e0", "#1f77b4": "#4a9fe0", "#d81b60": "#f0558c",
    "#bbbbbb": "#5b6573"}
PATH, DECIMALS = re.compile(rb'(?<= d=")[^"]*'), re.compile(rb"(\.\d\d)\d+")  # a hundredth of a point is enough
SCALE = ("#e8b04a", "#d9601f", "#d0267f")  # from worst to best, each seen on white and on black
COLORS = LinearSegmentedColormap.from_list("report", SCALE)


def svg(draw: Callable[[], Figure], plain: bool = False, white: bool = False) -> bytes:
    """The figure that `draw` makes, in the style of the report, or `plain`; the same figure gives the same bytes.

    Its background is that of the page, and its colours change with a dark one; `white`: neither.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(PLAIN if plain else STYLE):
        draw().savefig(buffer, format="svg", metadata={"Date": None}, transparent=not white)
    short = PATH.sub(lambda path: DECIMALS.sub(rb"\1", b" ".join(path[0].split())), buffer.getvalue())
    return short if white else short.replace(b"</svg>", _dark().encode() + b"</svg>")


def _dark() -> str:
    rules = (f'[style*="{what}: {light}"]{{{what}:{dark}!important}}' for light, dark in DARK.items()
             for what in ("fill", "stroke"))
    return f"<style>@media screen and (prefers-color-scheme:dark){{{''.join(rules)}}}</style>"


# ---- classic NAS


Points = Sequence[tuple[float, float]]  # parameters, accuracy in 0..1


def accuracy_parameters(found: Points, front: Points, plain_parameters: int, baseline: tuple[float, float] | None,
                        best: tuple[float, float]) -> Figure:
    def xy(points: Points) -> tuple[list[float], list[float]]:
        return [point[0] / 1e6 for point in points], [100 * point[1] for point in points]

    figure = Figure(figsize=(4.6, 4.0), layout="constrained")
    axes = figure.add_subplot(xlabel="parameters, millions", ylabel="validation accuracy, %")
    axes.axvline(plain_parameters / 1e6, color="#555555", ls="--", lw=1.2, label="plain MobileNet's parameters")
    axes.scatter(*xy(found), s=26, color=VAL, alpha=0.6, linewidth=0, label="trial", zorder=3)
    axes.plot(*xy(front), color=TRAIN, marker="o", ms=5, lw=1.3, drawstyle="steps-post", label="Pareto front", zorder=4)
    axes.scatter(*xy([best]), s=190, marker="*", color=BEST, label="best", zorder=5)
    if baseline:
        axes.scatter(*xy([baseline]), s=55, marker="D", color="#333333", label="plain MobileNet, same recipe", zorder=5)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
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
