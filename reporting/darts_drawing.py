"""Pictures of a search: both cells of a genotype as graphs, and the alphas over the epochs.

A cell is drawn as a staircase: the states c_{k-2}, c_{k-1}, 0, 1, 2, 3 step down from left to right. Below each state
runs a line in its colour; from there an edge goes right, in a row of its own, through its operation to its node. So
no two labels, and no label and line, ever meet. To the right every node goes to the output, c_k.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator

from files import atomic_write
from models.darts.genotype import EDGES, N_NODES, OPERATIONS, Genotype, Pair

STATES = ("$c_{k-2}$", "$c_{k-1}$", *map(str, range(N_NODES)))  # by source number
STATE_COLORS = ("#444444", "#d81b60", "#1f77b4", "#2ca02c", "#d95f02", "#7b3294")
FAMILY_COLORS = {"max": "#fde3c4", "avg": "#fde3c4", "skip": "#d5efd3", "sep": "#d3e4f5", "dil": "#e6daf0"}
OTHER_FAMILY = "#f2efe6"
OPERATION_COLORS = {"none": "#999999", "max_pool_3x3": "#e69f00", "avg_pool_3x3": "#f0c75e", "skip_connect": "#009e73",
                    "sep_conv_3x3": "#0072b2", "sep_conv_5x5": "#56b4e9", "dil_conv_3x3": "#7b3294",
                    "dil_conv_5x5": "#cc79a7"}
GOLDEN = (5**0.5 - 1) / 2  # of the circle of hues: steps of it never come close to an earlier one
# Inches, which are also the units of a cell's axes.
RADIUS, BOX_WIDTH, BOX_HEIGHT, ROW, STEP = 0.22, 1.12, 0.26, 0.4, 2.0
STATE_X = (0.4, 1.1, *(1.1 + STEP * (node + 1) for node in range(N_NODES)))
OUTPUT_X = STATE_X[-1] + 1.0
WIDTH, HEIGHT = OUTPUT_X + 0.6, (2 * N_NODES + 1) * ROW + 1.0


def draw_cells(genotype: Genotype, path: str | Path) -> None:
    """Both cells, one above the other, as PNG or SVG by the suffix of `path`."""
    _save(cells_figure(genotype), path)


def cells_figure(genotype: Genotype) -> Figure:
    figure = Figure(figsize=(WIDTH, 2 * HEIGHT))
    for index, (title, cell) in enumerate((("normal cell", genotype.normal), ("reduction cell", genotype.reduction))):
        axes = figure.add_axes((0, 0.5 * (1 - index), 1, 0.5), xlim=(0, WIDTH), ylim=(-HEIGHT + 0.8, 0.8))
        axes.set_axis_off()
        axes.text(0.18, 0.55, title, fontsize=13, weight="bold", va="center")
        _draw_cell(axes, cell)
    return figure


def _state_y(source: int) -> float:
    return 0.0 if source < 2 else -ROW * (2 * (source - 2) + 1.5)


def _edge_y(node: int, position: int) -> float:
    """Each edge has a row of its own: `position` 0 a bit above its node, 1 a bit below."""
    return -ROW * (2 * node + 1 + position)


def _draw_cell(axes: Axes, cell: Sequence[Pair]) -> None:
    lowest: dict[int, float] = {}  # how far down the line below each state goes
    for node, pair in enumerate(cell):
        for position, edge in enumerate(pair):
            y = _edge_y(node, position)
            _draw_edge(axes, edge.operation, edge.source, node, y)
            lowest[edge.source] = min(y, lowest.get(edge.source, 0.0))
    for source, y in lowest.items():
        axes.plot([STATE_X[source]] * 2, [_state_y(source), y], color=STATE_COLORS[source], lw=1.8, zorder=1,
                  solid_capstyle="round")
    for source, (name, x, color) in enumerate(zip(STATES, STATE_X, STATE_COLORS, strict=True)):
        y = _state_y(source)
        axes.add_patch(Circle((x, y), RADIUS, facecolor="white", edgecolor=color, lw=2, zorder=4))
        axes.text(x, y, name, ha="center", va="center", fontsize=8 if source < 2 else 11, color="black", zorder=5)
        if source >= 2:
            _draw_arrow(axes, (x + RADIUS, y), (OUTPUT_X - 0.16, y), "#bbbbbb")
    top, bottom = _state_y(2) + 0.3, _state_y(len(STATES) - 1) - 0.3
    axes.add_patch(FancyBboxPatch((OUTPUT_X - 0.14, bottom), 0.5, top - bottom, boxstyle="round,pad=0,rounding_size=.1",
                                  facecolor="#f2f2f2", edgecolor="#555555", lw=1.5, zorder=4))
    axes.text(OUTPUT_X + 0.11, (top + bottom) / 2, "$c_k$", ha="center", va="center", fontsize=11, color="black",
              zorder=5)


def _draw_edge(axes: Axes, operation: str, source: int, node: int, y: float) -> None:
    color, x = STATE_COLORS[source], STATE_X[node + 2]
    right = x - RADIUS - 0.3  # of the box
    axes.plot([STATE_X[source], right - BOX_WIDTH / 2], [y, y], color=color, lw=1.8, zorder=1)
    axes.plot(STATE_X[source], y, "o", color=color, ms=4, zorder=2)
    above = y > _state_y(node + 2)
    _draw_arrow(axes, (right, y), (x - RADIUS * 0.9, _state_y(node + 2) + (0.1 if above else -0.1)), color)
    axes.add_patch(FancyBboxPatch((right - BOX_WIDTH, y - BOX_HEIGHT / 2), BOX_WIDTH, BOX_HEIGHT, lw=1.2, zorder=3,
                                  boxstyle="round,pad=0,rounding_size=.06", edgecolor=color,
                                  facecolor=FAMILY_COLORS.get(operation.split("_")[0], OTHER_FAMILY)))
    axes.text(right - BOX_WIDTH / 2, y, operation, ha="center", va="center", zorder=5, gid="operation", color="black",
              fontsize=9 * min(1, (BOX_WIDTH - 0.15) / width(operation, 9)))


def width(text: str, size: float) -> float:
    """Of a text in points, in inches."""
    return TextPath((0, 0), text, size=size).get_extents().width / 72


def _draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    style = {"arrowstyle": "-|>", "color": color, "lw": 1.5, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=style, zorder=2)


# ---- alphas


History = Sequence[Mapping[str, Sequence[Sequence[float]]]]  # an epoch: {"normal": 14 x O, "reduction": 14 x O}


def plot_alphas(history: History, path: str | Path, genotype: Genotype | None = None) -> None:
    """Softmaxed alphas over the epochs, a panel for each edge; panels of edges that `genotype` keeps are framed."""
    _save(alphas_figure(history, genotype), path)


def fits(history: History) -> bool:
    """Whether there is a weight for each operation of the space, which may have changed since."""
    return all(len(row) == len(OPERATIONS) for row in history[0]["normal"])


def alphas_figure(history: History, genotype: Genotype | None = None) -> Figure:
    if not history:
        raise ValueError("there is no epoch to plot")
    if not fits(history):
        raise ValueError(f"these are not weights of the {len(OPERATIONS)} operations {', '.join(OPERATIONS)}")
    figure = Figure(figsize=(13, 15), layout="constrained")
    for part, kind in zip(figure.subfigures(2, 1), ("normal", "reduction"), strict=True):
        part.suptitle(f"{kind} cell", weight="bold")
        panels = part.subplots(N_NODES, N_NODES + 1, sharex=True, sharey=True)
        bottom, top = _range([value for epoch in history for row in epoch[kind] for value in row])
        panels[0, 0].set_ylim(bottom, top)
        panels[0, 0].yaxis.get_major_formatter().set_useOffset(False)
        panels[0, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
        kept = {(node, edge.source) for node, pair in enumerate(getattr(genotype, kind, ())) for edge in pair}
        for edge, place in enumerate(EDGES):
            _plot_edge(panels[place], [epoch[kind][edge] for epoch in history], place, place in kept)
        for node in range(N_NODES):
            panels[node, 0].set_ylabel("weight" if bottom == 0 else "weight, axis not from 0")
            for source in range(node + 2, N_NODES + 1):
                panels[node, source].set_axis_off()
        for axes in panels[-1]:
            axes.set_xlabel("epoch")
        part.legend(handles=panels[0, 0].lines, loc="upper right", fontsize=11 * legend_scale(), ncols=2,
                    title="bold frame: an edge of the genotype" if kept else None, bbox_to_anchor=(0.98, 0.93))
    return figure


def _range(weights: Sequence[float]) -> tuple[float, float]:
    """Of the axis of all panels: from 0, unless all weights are so close that their lines would be one."""
    low, high = min(weights), max(weights)
    if low < high / 2:
        return 0, 1.05 * high
    margin = 0.08 * (high - low) or 0.1 * high
    return low - margin, high + margin


def legend_scale() -> float:
    """At most 1: in two columns of 12 names of 1.6 inches the legend has room where there are no panels."""
    return min(1, 12 / math.ceil(len(OPERATIONS) / 2), 1.6 / max(width(name, 11) for name in OPERATIONS))


def _style(name: str) -> dict[str, Any]:
    """Of the line of an operation; those that have no color of their own are dash-dotted."""
    if name in OPERATION_COLORS:
        return {"color": OPERATION_COLORS[name], "ls": "--" if name == "none" else "-"}
    number = [other for other in OPERATIONS if other not in OPERATION_COLORS].index(name)
    return {"color": hsv_to_rgb((number * GOLDEN % 1, 0.85, 0.6)), "ls": "-."}


def _plot_edge(axes: Axes, rows: Sequence[Sequence[float]], place: tuple[int, int], kept: bool) -> None:
    node, source = place
    epochs = range(1, len(rows) + 1)
    for index, name in enumerate(OPERATIONS):
        axes.plot(epochs, [row[index] for row in rows], label=name, lw=1.6, marker="o" if len(rows) == 1 else "",
                  **_style(name))
    origin = STATES[source] if source < 2 else f"node {STATES[source]}"
    axes.set_title(f"{origin} to node {node}", fontsize=10, weight="bold" if kept else "normal")
    axes.grid(alpha=0.3)
    for spine in axes.spines.values():
        spine.set(linewidth=2.5 if kept else 0.8, color="black" if kept else "#aaaaaa")


def _save(figure: Figure, path: str | Path) -> None:
    suffix = Path(path).suffix
    if suffix not in (".png", ".svg"):
        raise ValueError(f"{path}: a picture must end in .png or .svg")
    buffer = io.BytesIO()
    metadata = {"Date": None} if suffix == ".svg" else {}  # with the salt: the same picture is the same file
    with matplotlib.rc_context({"svg.hashsalt": "darts", "svg.fonttype": "none"}):
        figure.savefig(buffer, format=suffix[1:], dpi=150, metadata=metadata)
    with atomic_write(path, "wb") as file:
        file.write(buffer.getvalue())
