"""The pictures of stage 2: what they show is true, nothing in them overlaps, and experiment.py writes them."""

import itertools
import json
import os
import random
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from PIL import Image

import experiment
from fake_experiment import Fake
from files import read_object
from models.mobilenet_space.choices import BLOCKS, skips
from models.mobilenet_space.space import BASELINE, choices, count_macs, count_parameters
from reporting import handing_on, nas_plots
from reporting.nas_plots import Point

DATA = {"name": "a/cifar10", "checksum": "c", "classes": 10, "train_images": 200, "val_images": 100}
CONFIG = {"lr": 0.01, "optimizer": "Adam", "epochs": 3, "seed": 0, "runs_dir": "runs", "baseline": False, "arch": "",
          "max_params": 3217226}


def sample(seed: int) -> dict[str, str]:
    rng = random.Random(seed)
    return {label: rng.choice(values) for label, values in choices().items()}


def result(network: dict[str, str], value: float, **changes: object) -> dict:
    return {"schema": 1, "stage": "classic_nas", "value": value, "parameters": count_parameters(network),
            "architecture": network, "data": DATA, "config": CONFIG, "diverged": False, **changes}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Five trials with a result, one refused, one diverged, one failed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    fake = Fake(tmp_path / "abc")
    for number in range(8):
        told = result(sample(number), (number + 1) / 10)
        told |= {5: {"refused": "max_params"}, 6: {"diverged": True}}.get(number, {})
        name = f"T{number}"
        fake.event(name, "RUNNING", number, told["architecture"])
        fake.metric(name, number, told["value"])
        fake.event(name, "FAILED" if number == 7 else "SUCCEEDED")
        (fake.trial_folder(name) / "result.json").write_text(json.dumps(told))
    return fake


def figures(fake: Fake) -> tuple[Figure, Figure]:
    """Both, drawn."""
    state = fake.load()
    best = read_object(state.best.folder / "result.json")
    found = nas_plots.trials_figure(state, best), nas_plots.network_figure(state, best)
    for figure in found:
        FigureCanvasAgg(figure).draw()
    return found


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def baseline(name: str, value: float, time: int, data: dict = DATA, **config: object) -> None:
    folder = Path("runs") / "classic_nas" / name
    folder.mkdir(parents=True)
    told = result(BASELINE, value, config={**CONFIG, "baseline": True, "name": name, **config}, data=data)
    (folder / "result.json").write_text(json.dumps(told))
    os.utime(folder / "result.json", (time, time))


# ---- accuracy against parameters


def test_points_are_the_trials_that_count(fake: Fake) -> None:
    found = nas_plots.points(fake.load())
    assert found == [Point(count_parameters(sample(number)), (number + 1) / 10) for number in range(5)]


def test_pareto_front_is_what_nobody_beats() -> None:
    rng = random.Random(0)
    found = [Point(count := rng.randrange(20), min(rng.randrange(20), count) / 20) for _ in range(60)]
    beaten = {point for point, other in itertools.permutations(found, 2) if other != point
              and other.parameters <= point.parameters and other.accuracy >= point.accuracy}
    front = nas_plots.pareto(found)
    assert set(front) == set(found) - beaten and front == sorted(front) and len(front) == len(set(front)) > 3


def test_trials_are_shown_where_they_are(fake: Fake) -> None:
    figure, _ = figures(fake)
    [axes] = figure.axes
    shown = axes.collections[0].get_offsets().tolist()
    assert shown == [pytest.approx((point.parameters / 1e6, 100 * point.accuracy))
                     for point in nas_plots.points(fake.load())]
    assert axes.lines[0].get_xdata() == pytest.approx([3.217226] * 2)
    assert "millions" in axes.get_xlabel() and "%" in axes.get_ylabel()
    title = axes.get_title()
    assert "abc" in title and "5 of 8 trials" in title and "cifar10: 200 training and 100 validation images" in title
    assert any(text.startswith("best: 50.0%") for text in legend(figure))


def test_mobilenet_has_no_accuracy_without_a_run_by_the_same_recipe(fake: Fake) -> None:
    baseline("other-lr", 0.9, 9, lr=0.5)
    baseline("other-seed", 0.9, 9, seed=1)
    baseline("other-data", 0.9, 9, data={**DATA, "checksum": "d"})
    baseline("no-baseline", 0.9, 9, baseline=False)
    (Path("runs") / "classic_nas" / "broken").mkdir()
    (Path("runs") / "classic_nas" / "broken" / "result.json").write_text("{")
    assert not any("same recipe" in text for text in legend(figures(fake)[0]))


def test_newest_run_of_mobilenet_by_the_same_recipe_is_marked(fake: Fake) -> None:
    baseline("old", 0.31, 1)
    baseline("new", 0.35, 2, max_params=0, data={**DATA, "name": "elsewhere/cifar10"})
    baseline("other", 0.9, 3, epochs=30)
    figure, _ = figures(fake)
    assert "plain MobileNet by the same recipe: 35.0%" in legend(figure)
    assert figure.axes[0].collections[-1].get_offsets().tolist() == [pytest.approx([3.217226, 35.0])]


# ---- the network


def network(fake: Fake, architecture: dict[str, str], **data: int) -> Figure:
    state = fake.load()
    figure = nas_plots.network_figure(state, result(architecture, 0.5, data=DATA | data))
    FigureCanvasAgg(figure).draw()
    return figure


LONGEST = {label: "thin_dw3" if label.endswith("op") else values[-1] for label, values in choices().items()}


@pytest.mark.parametrize(("architecture", "data"), [
    *((each, {}) for each in [BASELINE, LONGEST, *map(sample, range(6))]),
    *((LONGEST, {"side": side}) for side in (48, 128, 224))])
def test_network_is_drawn_whole_and_nothing_overlaps(fake: Fake, architecture: dict[str, str],
                                                     data: dict[str, int]) -> None:
    figure = network(fake, architecture, **data)
    [axes] = figure.axes
    texts = [text for text in [*axes.texts, *figure.texts, *figure.legends[0].get_texts()] if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert all(figure.bbox.contains(*box.min) and figure.bbox.contains(*box.max) for box in boxes)
    for (text, box), (other, other_box) in itertools.combinations(zip(texts, boxes, strict=True), 2):
        assert not box.overlaps(other_box), (text.get_text(), other.get_text())
    frames = [patch.get_window_extent() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    for box in boxes:  # inside of one block, or of none
        assert sum(box.overlaps(frame) for frame in frames) <= 1
        assert all(frame.x0 < box.x0 and box.x1 < frame.x1 for frame in frames if box.overlaps(frame))
    assert len(frames) == 15
    shown = [text.get_text() for text in axes.texts if text.get_weight() == "bold"]
    assert shown == ["stem", *(architecture[block.op_label] for block in BLOCKS), "head"]
    assert all(any(text.startswith(f"{name}:") for text in legend(figure)) for name in shown[1:-1])


@pytest.mark.parametrize(("side", "stem", "sizes"), [
    (32, ["conv 3x3", "32x32"], [32, 16, 16, 8, 8, 4, 4, 4, 4, 4, 4, 2, 2]),
    (48, ["conv 3x3", "of 48x48\n24x24"], [24, 12, 12, 6, 6, 3, 3, 3, 3, 3, 3, 2, 2]),
    (224, ["3 convs 3x3", "of 224x224\n28x28"], [28, 14, 14, 7, 7, 4, 4, 4, 4, 4, 4, 2, 2])])
def test_the_sizes_are_those_of_the_images(fake: Fake, side: int, stem: list[str], sizes: list[int]) -> None:
    figure = network(fake, BASELINE, side=side)
    [axes] = figure.axes
    shown = [text.get_text() for text in axes.texts]
    assert all(text in shown for text in [*stem, "from 2x2"])
    assert [text for text in shown if text.startswith("block")] == [
        f"block {number}\n{size}x{size}" for number, size in enumerate(sizes, 1)]
    title = figure.get_suptitle()
    assert f"{count_macs(BASELINE, 10, side) / 1e6:.1f} million multiply-adds an image of {side}x{side} (" in title
    assert f"{count_parameters(BASELINE, 10, side) / 1e6:.2f} million parameters" in title
    state, best = fake.load(), result(BASELINE, 0.5, data=DATA | {"side": side})
    [line] = [line for line in nas_plots.trials_figure(state, best).axes[0].lines if "plain" in str(line.get_label())]
    assert line.get_xdata()[0] == count_parameters(BASELINE, 10, side) / 1e6


def test_an_arc_goes_from_its_map_to_its_block(fake: Fake) -> None:
    for architecture in map(sample, range(5)):
        [axes] = network(fake, architecture).axes
        expected = {(source, block.number) for block in BLOCKS if skips(block)
                    and (source := skips(block)[architecture[block.skip_label]]) is not None}
        lefts = [patch.get_x() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
        arcs = [patch.get_path().vertices for patch in axes.patches if isinstance(patch, PathPatch)]
        found = {(sum(left < arc[0][0] for left in lefts) - 1, sum(left < arc[-1][0] for left in lefts))
                 for arc in arcs}
        assert found == expected and len(arcs) == len(expected)


def test_every_operation_is_explained() -> None:
    assert nas_plots.OPERATIONS.keys() == {name for values in choices().values() for name in values if "_dw" in name
                                           or name[:2] == "dw" or name == "identity"}


# ---- by the command


def test_the_command_writes_both(fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    fake.load()
    experiment.main(["results", str(fake.folder), "--out", "out"])
    assert "wrote out/accuracy_parameters.png and out/best.png" in capsys.readouterr().out
    for name in handing_on.PICTURES:
        with Image.open(tmp_path / "out" / name) as image:
            assert image.format == "PNG" and image.width > 900 and len(image.convert("L").getcolors()) > 20


def test_an_experiment_of_another_stage_has_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither new ones nor those of an earlier experiment."""
    monkeypatch.setenv("HOME", str(tmp_path))
    fake = Fake(tmp_path / "abc")
    fake.trial("A", 0, 0.5)
    (fake.trial_folder("A") / "result.json").write_text('{"stage": "hpo"}')
    fake.load()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "best.png").write_text("old")
    assert experiment.main(["results", str(fake.folder), "--out", str(tmp_path / "out")]) == 0
    assert not list((tmp_path / "out").glob("*.png"))


def test_a_network_of_another_space_is_told(fake: Fake, capsys: pytest.CaptureFixture) -> None:
    fake.load()
    told = {**result(sample(4), 0.5), "architecture": {**sample(4), "block01_op": "dw9"}}
    (fake.trial_folder("T4") / "result.json").write_text(json.dumps(told))
    experiment.main(["results", str(fake.folder), "--out", "out"])
    assert "note: no pictures: block01_op = 'dw9'" in capsys.readouterr().out
    assert Path("out/best.json").exists()
