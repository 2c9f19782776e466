"""The pictures: every edge is there, no label meets another one or a line, and files are whole."""

import itertools
from xml.etree import ElementTree

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch
from matplotlib.transforms import Bbox
from PIL import Image

import models.darts.genotype
from models.darts.genotype import CHOSEN, EDGES, N_NODES, OPERATIONS, Genotype, discretize
from models.darts.genotype_files import load_genotype
from reporting import darts_drawing

LONGEST = max(CHOSEN, key=len)
NAMES = ["DARTS_V1", "DARTS_V2", "PC_DARTS", *(f"random:{seed}" for seed in range(2))]


def drawn(figure):
    FigureCanvasAgg(figure).draw()
    return figure


def extents(artists):
    return [artist.get_window_extent() for artist in artists]


@pytest.mark.parametrize("name", NAMES)
def test_no_label_meets_anything(name):
    assert_no_label_meets_anything(load_genotype(name))


def assert_no_label_meets_anything(genotype):
    figure = drawn(darts_drawing.cells_figure(genotype))
    page = figure.bbox
    for axes in figure.axes:
        texts = [text for text in axes.texts if text.get_text()]
        boxes = extents(texts)
        assert len(texts) == 1 + 2 + N_NODES + 2 * N_NODES + 1  # title, inputs, nodes, operations, output
        assert all(page.contains(*box.min) and page.contains(*box.max) for box in boxes)
        for (text, box), (other, other_box) in itertools.combinations(zip(texts, boxes, strict=True), 2):
            assert not box.overlaps(other_box), (text.get_text(), other.get_text())
        frames = [patch.get_window_extent() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
        for text, box in zip(texts, boxes, strict=True):
            if text.get_gid() == "operation":
                [frame] = [frame for frame in frames if frame.overlaps(box)]
                assert frame.contains(*box.min) and frame.contains(*box.max), text.get_text()
        for line in axes.lines:  # an edge may end inside of its own box, hidden behind it
            (x0, y0), (x1, y1) = axes.transData.transform([line.get_xydata()[0], line.get_xydata()[-1]])
            hit = [frame for frame in frames if Bbox([[min(x0, x1), y0], [max(x0, x1) + 1, y1 + 1]]).overlaps(frame)]
            assert len(hit) <= 1 and all(frame.x0 < x1 < frame.x1 and y0 == y1 for frame in hit), line


@pytest.mark.parametrize("name", NAMES)
def test_every_edge_is_drawn_from_its_source_to_its_node(name):
    genotype = load_genotype(name)
    figure = darts_drawing.cells_figure(genotype)
    for axes, cell in zip(figure.axes, (genotype.normal, genotype.reduction), strict=True):
        rows = [text for text in axes.texts if text.get_gid() == "operation"]
        rows.sort(key=lambda text: -text.get_position()[1])
        assert [text.get_text() for text in rows] == [edge.operation for pair in cell for edge in pair]
        for text, edge in zip(rows, [edge for pair in cell for edge in pair], strict=True):
            y, color = text.get_position()[1], darts_drawing.STATE_COLORS[edge.source]
            [line] = [line for line in axes.lines if list(line.get_ydata()) == [y, y]]
            assert line.get_xdata()[0] == darts_drawing.STATE_X[edge.source] and to_hex(line.get_color()) == color
            [trunk] = [line for line in axes.lines if list(line.get_xdata()) == [line.get_xdata()[0]] * 2
                       and line.get_xdata()[0] == darts_drawing.STATE_X[edge.source]]
            assert trunk.get_ydata()[1] <= y < trunk.get_ydata()[0]  # the line below the source reaches the edge


def test_png_and_svg_are_whole_and_the_same_each_time(tmp_path):
    genotype = load_genotype("PC_DARTS")
    for suffix in ("png", "svg"):
        for number in (1, 2):
            darts_drawing.draw_cells(genotype, tmp_path / f"{number}.{suffix}")
        assert (tmp_path / f"1.{suffix}").read_bytes() == (tmp_path / f"2.{suffix}").read_bytes()
    with Image.open(tmp_path / "1.png") as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 1000 and picture.height > 800
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 10  # something is on it
    words = "".join(ElementTree.parse(tmp_path / "1.svg").getroot().itertext())
    assert words.count("sep_conv_3x3") == sum(edge.operation == "sep_conv_3x3" for cell in
                                              (genotype.normal, genotype.reduction) for pair in cell for edge in pair)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.png", "1.svg", "2.png", "2.svg"]


@pytest.mark.parametrize("name", ["cells.jpg", "cells", "cells.PNG2"])
def test_another_suffix_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.png or \.svg"):
        darts_drawing.draw_cells(load_genotype("DARTS_V1"), tmp_path / name)
    assert not list(tmp_path.iterdir())


# ---- alphas


def history(epochs):
    """Weights that tell edge, operation and epoch apart."""
    return [{kind: [[(1 + edge + 14 * operation + 112 * epoch + 1000 * (kind == "reduction")) / 3000
                     for operation in range(len(darts_drawing.OPERATIONS))] for edge in range(14)]
             for kind in ("normal", "reduction")}
            for epoch in range(epochs)]


def panels(figure):
    """{(kind, title): axes} of the visible ones."""
    return {(part.get_suptitle().split()[0], axes.get_title()): axes
            for part in figure.subfigs for axes in part.axes if axes.axison}


@pytest.mark.parametrize("epochs", [1, 7])
def test_every_alpha_is_plotted(epochs):
    values = history(epochs)
    found = panels(drawn(darts_drawing.alphas_figure(values)))
    assert len(found) == 2 * len(EDGES)
    for kind in ("normal", "reduction"):
        for edge, (node, source) in enumerate(EDGES):
            origin = ["$c_{k-2}$", "$c_{k-1}$"][source] if source < 2 else f"node {source - 2}"
            axes = found[kind, f"{origin} to node {node}"]
            assert [line.get_label() for line in axes.lines] == list(OPERATIONS)
            for operation, line in enumerate(axes.lines):
                assert list(line.get_xdata()) == list(range(1, epochs + 1))
                assert list(line.get_ydata()) == [epoch[kind][edge][operation] for epoch in values]
                low, high = axes.get_ylim()
                assert 0 <= low <= min(line.get_ydata()) and max(line.get_ydata()) < high  # nothing cut off


def test_lines_that_are_close_have_an_axis_on_which_they_differ():
    """Of an undecided search; one that has decided is shown from 0."""
    close = [{kind: [[0.12 + 0.001 * operation + 0.0001 * epoch for operation in range(len(OPERATIONS))]] * len(EDGES)
              for kind in ("normal", "reduction")} for epoch in range(3)]
    for axes in panels(drawn(darts_drawing.alphas_figure(close))).values():
        low, high = axes.get_ylim()
        ends = [line.get_ydata()[-1] for line in axes.lines]
        assert low < 0.12 < max(ends) < high and (max(ends) - min(ends)) / (high - low) > 0.7
    ylabels = {axes.get_ylabel() for axes in panels(darts_drawing.alphas_figure(close)).values()}
    assert "weight, axis not from 0" in ylabels
    decided = [{kind: [[0.9, *[0.1 / 7] * (len(OPERATIONS) - 1)]] * len(EDGES) for kind in ("normal", "reduction")}]
    assert {axes.get_ylim()[0] for axes in panels(darts_drawing.alphas_figure(decided)).values()} == {0}


def test_the_edges_of_the_genotype_are_framed():
    values = history(3)
    genotype = discretize(values[-1]["normal"], values[-1]["reduction"])
    found = panels(darts_drawing.alphas_figure(values, genotype))
    bold = {key for key, axes in found.items() if axes.spines["left"].get_linewidth() > 2}
    assert bold == {(kind, f"{['$c_{k-2}$', '$c_{k-1}$', 'node 0', 'node 1', 'node 2'][edge.source]} to node {node}")
                    for kind in ("normal", "reduction") for node, pair in enumerate(getattr(genotype, kind))
                    for edge in pair}
    plain = panels(darts_drawing.alphas_figure(values))
    assert not any(axes.spines["left"].get_linewidth() > 2 for axes in plain.values())


def test_the_legend_hides_no_panel():
    assert_the_legend_hides_no_panel(drawn(darts_drawing.alphas_figure(history(2), load_genotype("DARTS_V2"))))


def assert_the_legend_hides_no_panel(figure):
    for part in figure.subfigs:
        [legend] = part.legends
        box = legend.get_window_extent()
        assert figure.bbox.contains(*box.min) and figure.bbox.contains(*box.max)
        assert not any(box.overlaps(axes.get_tightbbox()) for axes in part.axes if axes.axison)


def test_the_plot_of_a_search_is_a_file(tmp_path):
    darts_drawing.plot_alphas(history(5), tmp_path / "alphas.png", load_genotype("DARTS_V1"))
    with Image.open(tmp_path / "alphas.png") as picture:
        picture.load()
        assert picture.format == "PNG"


def test_no_epoch_is_no_plot(tmp_path):
    with pytest.raises(ValueError, match="no epoch"):
        darts_drawing.plot_alphas([], tmp_path / "alphas.png")


def test_the_widest_label_fits():
    cell = [[(LONGEST, node), (LONGEST, node + 1)] for node in range(N_NODES)]
    figure = drawn(darts_drawing.cells_figure(Genotype(cell, cell)))
    widths = [text.get_window_extent().width / figure.dpi for axes in figure.axes for text in axes.texts
              if text.get_gid() == "operation"]
    assert max(widths) < darts_drawing.BOX_WIDTH - 0.05


# ---- other spaces

LONG = "mean_of_all_rows_and_columns_7x7"


@pytest.fixture(params=[("none",), (*OPERATIONS, "sep_conv_7x7"), (*OPERATIONS, "W" * 24, LONG),
                        ("none", *(f"grouped_conv_{n}x{n}" for n in range(1, 60, 2)))], ids=len)
def space(request, monkeypatch):
    """Other operations than those of today, by their names: none, some, long ones, many."""
    monkeypatch.setattr(darts_drawing, "OPERATIONS", request.param)
    monkeypatch.setattr(models.darts.genotype, "CHOSEN", request.param)
    return request.param


def test_the_cells_of_any_operations(space):
    names = [space[-1 - number % len(space)] for number in range(8)]
    cell = [[(names[2 * node], node), (names[2 * node + 1], node + 1)] for node in range(N_NODES)]
    assert_no_label_meets_anything(Genotype(cell, cell))


def test_the_alphas_of_any_operations(space):
    figure = drawn(darts_drawing.alphas_figure(history(2)))
    assert_the_legend_hides_no_panel(figure)
    for axes in panels(figure).values():
        assert [line.get_label() for line in axes.lines] == list(space)
        assert len({(to_hex(line.get_color()), line.get_linestyle()) for line in axes.lines}) == len(space)


def test_the_colors_of_known_operations_stay(space):
    [axes, *_] = panels(darts_drawing.alphas_figure(history(1))).values()
    for line in axes.lines:
        own = darts_drawing.OPERATION_COLORS.get(line.get_label())
        assert (line.get_linestyle() == "-.") == (own is None) and own in (None, to_hex(line.get_color()))


def test_weights_of_another_space_are_refused(monkeypatch):
    values = history(2)
    assert darts_drawing.fits(values)
    monkeypatch.setattr(darts_drawing, "OPERATIONS", (*OPERATIONS, "sep_conv_7x7"))
    with pytest.raises(ValueError, match=r"not weights of the 9 operations none, .*, sep_conv_7x7"):
        darts_drawing.alphas_figure(values)
