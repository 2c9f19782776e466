"""Draws the pictures of how-it-works.md, from the code that they are about: python -m docs.pictures"""

import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from files import atomic_write
from models.darts.genotype import EDGES, N_NODES
from models.darts.genotype_files import load_genotype
from models.darts.network import DartsNetwork
from models.mobilenet_space.choices import BLOCKS, STEM, operations, skips
from reporting.darts_drawing import cells_figure
from reporting.nas_plots import OPERATIONS, SKIP_COLORS
from reporting.plots import svg

LAYERS, CHANNELS = 20, 36  # of the published networks


def main(argv: list[str] | None = None) -> int:
    folder = Path((argv or sys.argv[1:] or [str(Path(__file__).parent)])[0])
    genotype = load_genotype("DARTS_V2")
    for name, draw in (("darts_v2.svg", lambda: cells_figure(genotype)), ("edges.svg", edges_figure),
                       ("network.svg", network_figure), ("mobilenet_space.svg", space_figure)):
        with atomic_write(folder / name, "wb") as file:
            file.write(svg(draw, plain=True, white=True))
        print(folder / name)
    return 0


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure whose units are inches."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return figure, axes


def box(axes: Axes, place: tuple[float, float], size: tuple[float, float], color: str, text: str = "") -> None:
    axes.add_patch(FancyBboxPatch(place, *size, boxstyle="round,pad=0,rounding_size=.05", facecolor=color,
                                  edgecolor="#444444", lw=1, zorder=3))
    axes.text(place[0] + size[0] / 2, place[1] + size[1] / 2, text, ha="center", va="center", fontsize=8, zorder=4)


# ---- DARTS


def edges_figure() -> Figure:
    """The 14 edges of a cell: a column for each node, a row for each source that it may take."""
    names = ["cell before the last", "cell before", *(f"node {i}" for i in range(N_NODES - 1))]
    figure, axes = canvas(1.6 + 1.25 * N_NODES, 0.5 + 0.42 * len(names))
    for source, name in enumerate(names):
        axes.text(1.5, 0.42 * (len(names) - source) - 0.12, f"from {name}", ha="right", va="center", fontsize=8)
    for node in range(N_NODES):
        axes.text(2.12 + 1.25 * node, 0.42 * len(names) + 0.25, f"to node {node}", ha="center", fontsize=9,
                  weight="bold")
    for number, (node, source) in enumerate(EDGES):
        box(axes, (1.6 + 1.25 * node, 0.42 * (len(names) - source) - 0.27), (1.05, 0.3), "#d3e4f5",
            f"alpha[{number}]")
    return figure


def network_figure() -> Figure:
    """The stack of cells of a DartsNetwork: width of each by the size of its map, height by its channels."""
    network = DartsNetwork(load_genotype("DARTS_V2"), 3, CHANNELS, 10, LAYERS)
    cells = [("stem", network.stem[0].out_channels, "#eeeeee")]
    for number, cell in enumerate(network.cells):
        reduction = number in (LAYERS // 3, 2 * LAYERS // 3)
        cells.append((str(number), cell.channels_out, "#fde3c4" if reduction else "#d3e4f5"))
    figure, axes = canvas(10.4, 2.7)
    for place, (name, channels, color) in enumerate(cells):
        height = 1.5 * channels / cells[-1][1]
        box(axes, (0.3 + 0.45 * place, 1.3 - height / 2), (0.36, height), color, "" if name == "stem" else name)
        axes.text(0.48 + 0.45 * place, 0.42, f"{channels}", ha="center", fontsize=8)
    axes.text(0.48, 1.55, "stem", ha="center", fontsize=8)
    axes.text(0.3, 0.12, "channels out of each; orange: reduction cells, which halve the map's side and double the "
                         "channels; then the mean over the map, and a linear classifier", fontsize=8, color="#444444")
    return figure


# ---- classic NAS


def space_figure() -> Figure:
    """Which operation each block may have, and where skips may come from."""
    figure, axes = canvas(12.2, 5.0)
    left, width, row = 1.1, 0.84, 0.32
    for block in BLOCKS:
        x = left + width * (block.number - 1)
        size = block.size_out
        axes.text(x + width / 2, 3.3, f"block {block.number}\n{block.c_in} to {block.c_out}\n{size}x{size}",
                  ha="center", va="center", fontsize=8)
        for index, (name, (color, _)) in enumerate(OPERATIONS.items()):
            if name in operations(block):
                box(axes, (x + 0.05, 2.65 - row * index), (width - 0.1, row - 0.07), color, name)
    axes.text(0.1, 3.3, f"stem\n3 to {STEM}", va="center", fontsize=8)
    axes.text(0.1, 2.8, "one of:", va="center", fontsize=8)
    for number, block in enumerate(block for block in BLOCKS if skips(block)):
        end = left + width * (block.number - 1)
        for source in filter(lambda source: source is not None, skips(block).values()):
            start = left + width * source
            axes.annotate("", (end, 3.62), (start, 3.62), arrowprops={
                "arrowstyle": "-|>", "color": SKIP_COLORS[number], "lw": 1.4,
                "connectionstyle": f"arc3,rad=-{0.2 + 0.09 * (block.number - source):.2f}"})
    axes.text(0.1, 4.75, "skips: at most one of up to three into each of five blocks, concatenated to its input",
              fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(main())
