"""Pictures of stage 2's result, which experiment.py writes beside best.json.

    accuracy_parameters.png    every trial with a result, the Pareto front of both, and plain MobileNet
    best.png                   the best network: its blocks in a row, its skips as arcs

MobileNet's parameters are known from the space. Its accuracy is that of the newest run of `classic_nas_trial.py
--baseline` by the very recipe of the trials (data, seed, every setting that is computed with); without one, none.
"""

import io
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyBboxPatch, Patch, PathPatch
from matplotlib.path import Path as Curve

from artifacts.figures import percent
from config import NOT_COMPUTED
from files import atomic_write, read_object
from guard.results import Results
from models.blocks import body_side, halvings
from models.mobilenet_space.choices import BLOCKS, SIDE, STEM, Block, blocks_of, skips
from models.mobilenet_space.space import BASELINE, check_sample, cost, count_parameters
from pictures.listing import named

STAGE = "classic_nas"  # as its trials name it in result.json
OPERATIONS = {  # name -> color, in words
    "dw3": ("#d3e4f5", "depthwise 3x3, 1x1 (MobileNet's own)"),
    "dw5": ("#a9cbea", "depthwise 5x5, 1x1"),
    "dw7": ("#7fb0dc", "depthwise 7x7, 1x1"),
    "se_dw3": ("#e6daf0", "dw3 with squeeze-and-excitation"),
    "ir2_dw3": ("#fde3c4", "inverted residual, twice the channels inside"),
    "thin_dw3": ("#fff5c2", "inverted residual, a quarter of the channels inside"),
    "res_dw3": ("#d5efd3", "dw3 added to its input"),
    "identity": ("#ffffff", "nothing"),
}
SKIP_COLORS = ("#d81b60", "#1f77b4", "#d95f02", "#2ca02c", "#7b3294")
# Inches, which are also the units of the network's axes.
BOX, HALF, GAP = 0.98, 0.42, 0.4  # width and half of the height of a block, space between two
PITCH = BOX + GAP
ARCS = (1.75, 2.55)  # heights of the arcs' control points, in turn


class Point(NamedTuple):
    """A trial with a result."""

    parameters: int
    accuracy: float  # of validation, in 0..1


def write(state: Results, trials: Path, network: Path) -> None:
    """Both pictures of an experiment of stage 2 with a best trial; ValueError if its network is of another space."""
    best = read_object(state.best.folder / "result.json")
    check_sample(best["architecture"])
    for path, figure in ((trials, trials_figure(state, best)), (network, network_figure(state, best))):
        _save(figure, path)


# ---- accuracy against parameters -----------------------------------------------------------------------------------


def trials_figure(state: Results, best: dict[str, Any]) -> Figure:
    found = points(state)
    mobilenet = count_parameters(BASELINE, best["data"]["classes"], side_of(best))
    figure = Figure(figsize=(8.5, 6), layout="constrained")
    axes = figure.add_subplot(xlabel="parameters, in millions", ylabel="validation accuracy after the last epoch, %")
    axes.set_title(f"{state.name}, experiment {state.experiment}: {len(found)} of {len(state.trials)} trials have a "
                   f"result\n{recipe_in_words(best)}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.axvline(mobilenet / 1e6, color="#555555", ls="--", label=f"plain MobileNet: {mobilenet / 1e6:.2f} million")
    _scatter(axes, found, "o", "#1f77b4", "trial", s=36)
    front = pareto(found)
    axes.plot(*_xy(front), color="#d95f02", drawstyle="steps-post", lw=1.2, zorder=2)
    _scatter(axes, front, "o", "#d95f02", "Pareto front: no trial has fewer parameters and is as good", s=36)
    top, of = Point(best["parameters"], state.best.value), best["data"].get("val_images")
    _scatter(axes, [top], "*", "#d95f02",
             f"best: {percent(top.accuracy, of)}, {top.parameters / 1e6:.2f} million", s=260)
    if base := baseline(best):
        _scatter(axes, [Point(base["parameters"], base["value"])], "D", "#555555",
                 f"plain MobileNet by the same recipe: {percent(base['value'], of)}", s=60)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure


def points(state: Results) -> list[Point]:
    """Of the trials that count; one that was refused, diverged or stopped has no accuracy to compare."""
    done = [trial for trial in state.trials if trial.state == "SUCCEEDED" and not trial.mismatch]
    files = [(trial, read_object(trial.folder / "result.json") or {}) for trial in done]
    return [Point(file["parameters"], trial.value) for trial, file in files if "parameters" in file]


def pareto(found: list[Point]) -> list[Point]:
    """Those that no other beats in one of both without losing in the other; fewest parameters first."""
    front: list[Point] = []
    for point in sorted(found, key=lambda point: (point.parameters, -point.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def baseline(best: dict[str, Any]) -> dict[str, Any] | None:
    """The result of the newest run of plain MobileNet by the recipe of `best`, among those of stage 2."""
    files = (Path(best["config"]["runs_dir"]) / STAGE).glob("*/result.json")
    newest = sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)
    results = (read_object(file) or {} for file in newest)
    return next((result for result in results if result.get("config", {}).get("baseline")
                 and not result.get("diverged") and recipe(result) == recipe(best)), None)


def side_of(result: dict[str, Any]) -> int:
    """Of its images; files of the time when all were 32x32 do not name it."""
    return result["data"].get("side", SIDE)


def recipe(result: dict[str, Any]) -> tuple[dict, dict]:
    """All that a run computes with, but its network. (The data set is known by its checksum.)"""
    data = {key: value for key, value in result["data"].items() if key not in ("name", "notes")}
    return {key: value for key, value in result["config"].items() if key not in NOT_COMPUTED}, data


def recipe_in_words(result: dict[str, Any]) -> str:
    data, config = result["data"], result["config"]
    return (f"{named(data['name'])}: {data['train_images']} training and {data['val_images']} validation images, "
            f"{config['epochs']} epochs, {config['optimizer']}, learning rate {config['lr']:g}, seed {config['seed']}")


def _xy(found: list[Point]) -> tuple[list[float], list[float]]:
    return [point.parameters / 1e6 for point in found], [100 * point.accuracy for point in found]


def _scatter(axes: Axes, found: list[Point], marker: str, color: str, label: str, s: float) -> None:
    axes.scatter(*_xy(found), s=s, marker=marker, color=color, edgecolor="white", linewidth=0.6, label=label, zorder=3)


# ---- the network ---------------------------------------------------------------------------------------------------


def network_figure(state: Results, best: dict[str, Any]) -> Figure:
    sample, classes, side = best["architecture"], best["data"]["classes"], side_of(best)
    blocks, (count, macs), plain = blocks_of(side), cost(sample, classes, side), cost(BASELINE, classes, side)
    width, floor, ceiling = _x(len(BLOCKS) + 1) + BOX + 0.3, -0.95, 0.75 * max(ARCS) + 0.35
    height = ceiling - floor + 1.5  # with the title above and the legend below
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0.8 / height, 1, (ceiling - floor) / height), xlim=(0, width), ylim=(floor, ceiling))
    axes.set_axis_off()
    figure.suptitle(
        f"Best network of {state.name}: trial {state.best.id} of experiment {state.experiment}, validation accuracy "
        f"{percent(state.best.value, best['data'].get('val_images'))}\n"
        f"{count / 1e6:.2f} million parameters (plain MobileNet: "
        f"{plain.parameters / 1e6:.2f}), {macs / 1e6:.1f} million multiply-adds an image of {side}x{side} "
        f"(plain MobileNet: {plain.macs / 1e6:.1f})", fontsize=12, x=0.4 / width, y=1 - 0.1 / height,
        ha="left", va="top")
    axes.plot([0.08, width - 0.08], [0, 0], color="#888888", lw=1.5, zorder=1)
    _draw_stem(axes, side)
    for block in blocks:
        _draw_block(axes, block, sample[block.op_label])
    end = blocks[-1].size_out
    _draw_box(axes, len(BLOCKS) + 1, ["head", "mean, linear", f"{BLOCKS[-1].c_out} to {classes}"], f"from {end}x{end}",
              "#eeeeee")
    chosen = [(block, skips(block)[sample[block.skip_label]]) for block in BLOCKS if skips(block)]
    for number, (block, source) in enumerate(chosen):
        if source is not None:
            _draw_skip(axes, block, source, SKIP_COLORS[number], ARCS[number % 2])
    figure.legend(handles=_legend(sample), loc="lower left", ncols=3, fontsize=10, frameon=False)
    return figure


def _x(place: int) -> float:
    """Left edge of a box: place 0 is the stem's."""
    return 0.4 + PITCH * place


def _draw_stem(axes: Axes, side: int) -> None:
    body, times = f"{body_side(side)}x{body_side(side)}", halvings(side)
    lines = ["stem", "conv 3x3" if times < 2 else f"{times} convs 3x3", f"3 to {STEM}"]
    _draw_box(axes, 0, lines, f"of {side}x{side}\n{body}" if times else body, "#eeeeee")


def _draw_block(axes: Axes, block: Block, operation: str) -> None:
    lines = [operation, f"{block.c_in} to {block.c_out}" if operation != "identity" else f"{block.c_out}"]
    size = block.size_out
    _draw_box(axes, block.number, [*lines, *(["stride 2"] if block.stride == 2 else [])],
              f"block {block.number}\n{size}x{size}", OPERATIONS[operation][0], dashed=operation == "identity")


def _draw_box(axes: Axes, place: int, lines: list[str], below: str, color: str, dashed: bool = False) -> None:
    axes.add_patch(FancyBboxPatch((_x(place), -HALF), BOX, 2 * HALF, boxstyle="round,pad=0,rounding_size=.08", zorder=3,
                                  facecolor=color, edgecolor="#444444", lw=1.2, ls="--" if dashed else "-"))
    for number, line in enumerate(lines):
        axes.text(_x(place) + BOX / 2, 0.24 * ((len(lines) - 1) / 2 - number), line, ha="center", va="center",
                  fontsize=9 if number else 10, weight="normal" if number else "bold", zorder=5)
    axes.text(_x(place) + BOX / 2, -HALF - 0.1, below, ha="center", va="top", fontsize=9, color="#444444")


def _draw_skip(axes: Axes, block: Block, source: int, color: str, height: float) -> None:
    """From the map behind the source's box to the merge before the block."""
    start, end = _x(source) + BOX + 0.1, _x(block.number) - 0.12
    path = Curve([(start, 0), (start, height), (end, height), (end, 0)], [Curve.MOVETO, *[Curve.CURVE4] * 3])
    axes.add_patch(PathPatch(path, facecolor="none", edgecolor=color, lw=2, zorder=2))
    axes.plot(start, 0, "o", color=color, ms=5, zorder=4)
    axes.add_patch(Circle((end, 0), 0.085, facecolor="white", edgecolor=color, lw=2, zorder=4))
    axes.text((start + end) / 2, 0.75 * height, f"+{BLOCKS[source].c_in} ch", ha="center", va="center", fontsize=9,
              color=color, zorder=5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 2})


def _legend(sample: dict[str, str]) -> list[Any]:
    used = {sample[block.op_label] for block in BLOCKS}
    handles: list[Any] = [Patch(facecolor=color, edgecolor="#444444", label=f"{name}: {words}")
                          for name, (color, words) in OPERATIONS.items() if name in used]
    return [*handles, Line2D([], [], color=SKIP_COLORS[0], marker="o", markerfacecolor="white", label=(
        "skip: a map and its channels, concatenated to the block's input, then 1x1"))]


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    with atomic_write(path, "wb") as file:
        file.write(buffer.getvalue())
