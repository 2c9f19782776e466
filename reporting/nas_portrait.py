"""The best network of classic NAS from top to bottom, narrow enough for a telephone; nas_plots has it lying, as a file.

A row a block: its operation, what it does to channels and map, and at the left the skips, as arcs from the map that
they take to the block that they are concatenated to.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve

from models.blocks import body_side
from models.mobilenet_space.choices import BLOCKS, STEM, Block, blocks_of, skips
from reporting.nas_plots import OPERATIONS, SKIP_COLORS

# Inches, which are also the units of the axes.
ROW, BOX, HEIGHT, LEFT, WIDTH = 0.46, 0.95, 0.34, 0.85, 4.4
REACH = 0.15  # how much further left the arc of a skip goes for each block that it passes


def portrait(sample: dict[str, str], classes: int, side: int) -> Figure:
    """The network of a sample that `check_sample` has seen, for images of side x side."""
    height = ROW * (len(BLOCKS) + 2)
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(-height + ROW / 2, ROW / 2))
    axes.set_axis_off()
    axes.plot([LEFT + BOX / 2] * 2, [0, -ROW * (len(BLOCKS) + 1)], color="#8a94a0", lw=1.5, zorder=1)
    body = body_side(side)
    _draw_box(axes, 0, "stem", f"of {side}x{side}: 3 to {STEM} channels, {body}x{body}", "#eeeeee")
    for block in blocks_of(side):
        operation = sample[block.op_label]
        _draw_box(axes, block.number, operation, _about(block, operation), OPERATIONS[operation][0],
                  dashed=operation == "identity")
    _draw_box(axes, len(BLOCKS) + 1, "head", f"mean over the map, {BLOCKS[-1].c_out} to {classes} classes", "#eeeeee")
    chosen = [(block, skips(block)[sample[block.skip_label]]) for block in BLOCKS if skips(block)]
    for (block, source), color in zip(chosen, SKIP_COLORS, strict=False):
        if source is not None:
            _draw_skip(axes, source, block.number, color)
    return figure


def _about(block: Block, operation: str) -> str:
    size = block.size_out
    channels = f"{block.c_out} channels" if operation == "identity" else f"{block.c_in} to {block.c_out} channels"
    return f"block {block.number}: {channels}, {size}x{size}"


def _draw_box(axes: Axes, place: int, name: str, about: str, color: str, dashed: bool = False) -> None:
    y = -ROW * place
    axes.add_patch(FancyBboxPatch((LEFT, y - HEIGHT / 2), BOX, HEIGHT, boxstyle="round,pad=0,rounding_size=.06",
                                  facecolor=color, edgecolor="#8a94a0", lw=1.2, ls="--" if dashed else "-", zorder=3))
    axes.text(LEFT + BOX / 2, y, name, ha="center", va="center", fontsize=9.5, color="black", weight="bold", zorder=4)
    axes.text(LEFT + BOX + 0.12, y, about, va="center", fontsize=8)


def _draw_skip(axes: Axes, source: int, block: int, color: str) -> None:
    """From below the box of the map to above the box of the block."""
    start, end = -ROW * source - ROW / 2, -ROW * block + HEIGHT / 2 - 0.06
    out = LEFT - 0.15 - REACH * min(block - source, 6)
    edge = LEFT + BOX / 2
    path = Curve([(edge, start), (LEFT - 0.1, start), (out, start), (out, (start + end) / 2), (out, end),
                  (LEFT - 0.1, end), (LEFT, end)],
                 [Curve.MOVETO, Curve.LINETO, Curve.CURVE3, Curve.CURVE3, Curve.CURVE3, Curve.CURVE3, Curve.LINETO])
    axes.add_patch(PathPatch(path, facecolor="none", edgecolor=color, lw=2, zorder=2))
    axes.plot(edge, start, "o", color=color, ms=5, zorder=2)
    axes.annotate("", (LEFT + 0.02, end), (LEFT - 0.12, end), zorder=2,
                  arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.5, "shrinkA": 0, "shrinkB": 0})
