"""What the page is for those whom it is shown to: words, names, pictures of their own; and what it is made of."""

import base64
import gzip
import io
import json
import math
import re

import numpy as np
import pytest
from PIL import Image
from test_report import build, hpo_trials, result, write_experiment, write_run

from artifacts import figures
from guard.results import Results
from guard.trials import Trial
from models import BASELINES, MODELS
from models.darts.genotype import EDGES, OPERATIONS
from models.mobilenet_space.space import BASELINE, count_parameters
from pictures.dataset import load
from reporting import data_section, experiments, markdown, parameter_plots, photographs, tested, web_page, words
from reporting.blocks import Bullets, Cell, Details, Facts, Gallery, Heading, Heat, Picture, Table, Text
from reporting.final_test import FinalTest
from reporting.findings import Experiment, Origin, find
from small_models import CLASSES, GENOTYPE, write

ODD = ("cost $5$ $x_1$", "花と鳥", "<b>bold</b> & co", "a|b")
ORIGIN = Origin("toy", "a" * 64, "")


# ---- in words


@pytest.mark.parametrize(("right", "of"), [(58, 60), (3, 7), (9_731, 10_000), (1, 2)])
def test_the_ends_of_an_interval_are_as_far_from_the_share_as_chance_goes(right, of):
    """What defines Wilson's: a share p0 is inside if |p - p0| <= z sqrt(p0 (1 - p0) / n)."""
    for end in figures.interval(right, of):
        assert abs(right / of - end) == pytest.approx(figures.Z * math.sqrt(end * (1 - end) / of))


def test_intervals_in_words():
    assert figures.right_of(58, 60, "test pictures") == "58 of 60 test pictures right (96.7%, 95% interval 89 to 99)"
    assert figures.span(0, 10) == "0 to 28" and figures.span(10, 10) == "72 to 100"
    assert figures.span(9731, 10_000) == "97.0 to 97.6"
    assert figures.span(0.8 * figures.FEW, figures.FEW) == "67 to 89", "why fewer validation pictures are few"


def test_a_share_has_the_digits_that_its_pictures_can_tell():
    assert figures.percent(26 / 32, 32) == figures.percent(26 / 32) == "81.2%"
    assert figures.percent(0.91375, 1600) == "91.38%"
    assert figures.with_error(0.5, 0.1443, 12) == "50.0% ± 14.4" and figures.percent(None, 5) == "not told"
    assert figures.accuracy(0.75, 32) == "75.0% (24 of 32 pictures, 95% interval 58 to 87)"
    assert [figures.counted(n, "run") for n in (0, 1, 2000)] == ["0 runs", "1 run", "2,000 runs"]


def test_the_answer_comes_first_and_checksums_last(tmp_path):
    test = {"accuracy": 58 / 60, "loss": 0.1, "images": 60}
    write_run(tmp_path, "retrain/x", result("retrain", data="some/where/Holidays", test=test))
    page, text = build(tmp_path)
    assert text.startswith("# Results: Holidays\n\n**58 of 60 test pictures right (96.7%, 95% interval 89 to 99).**")
    assert "The network: VGG-19, a plain stack of 16 convolutions, with 1.23 million parameters" in text
    assert "of computing for all" not in text, "which would be the only training's once more"
    assert "Wilson" in text and page.index("58 of 60") < page.index("<nav")
    for told in ("aaaaaaaaaaaa", "torch 2.11"):
        assert told in text and text.index(told) > text.index("## Where the figures come from")
    assert "some/where" not in page + text


def test_every_network_has_plain_words():
    assert words.NETWORKS.keys() == {*MODELS, *BASELINES}
    for given, expected in (({"genotype": "runs/a/genotype.json", "layers": 8}, "8 cells, found by a search (DARTS)"),
                            ({"genotype": "DARTS_V2", "layers": 20}, "20 cells, published as DARTS_V2"),
                            ({"genotype": "random:3", "layers": 6}, "6 cells, drawn at random"),
                            ({"model": "new"}, "new"), ({"baseline": True}, "MobileNet, small")):
        assert expected in words.network_in_words("retrain", {"config": given})
    assert "chosen by a search" in words.network_in_words("x", {"config": {}, "architecture": BASELINE})


def test_before_the_test_the_headline_says_so(tmp_path):
    write_run(tmp_path, "hpo/x", result(value=0.85))
    assert ("**Not tested yet. The best so far has 85.0% of its validation pictures right (95% interval 64 to 95, by "
            "20 pictures): VGG-19") in build(tmp_path)[1]


def search(folder, entropy, metric="validation accuracy of the supernet after the last epoch"):
    row = [1 / len(OPERATIONS)] * len(OPERATIONS)
    strengths = {kind: [row] * len(EDGES) for kind in ("normal", "reduction")}
    write_run(folder, "darts_search/x", result("darts_search", 0.4, genotype=GENOTYPE) | {"metric": metric},
              strengths=strengths, entropy=entropy, skips=0, genotype=GENOTYPE)
    return build(folder)[1]


@pytest.mark.parametrize(("entropy", "said"), [(0.999, "nearly undecided"), (0.9, "leaning"), (0.6, "mostly decided"),
                                               (0.1, "are decided")])
def test_the_entropy_of_the_alphas_is_said_in_words(tmp_path, entropy, said):
    text = search(tmp_path, entropy)
    assert said in text and f"(entropy {entropy:.3f} of at most 1)" in text


def test_the_accuracy_of_a_supernet_is_told_from_that_of_its_network(tmp_path):
    text = search(tmp_path, 0.5)
    assert "the mixture of all operations" in text and "after the last epoch (95% interval 22 to 61, by 20 pict" in text
    assert "the mixture of all operations" not in search(tmp_path, 0.5, "validation accuracy of the network found")


# ---- what cannot matter


def test_a_parameter_of_one_value_is_never_telling(tmp_path):
    trials = hpo_trials()
    for trial in trials:
        trial.parameters = {**trial.parameters, "optimizer": "Adam"}
    names = ["lr", "model", "optimizer"]
    assert parameter_plots.telling(trials, names, 3) == ["lr", "model"] == parameter_plots.varied(trials, names)
    write_experiment(tmp_path, trials)
    page, text = build(tmp_path)
    assert "The same in all 6 completed trials, so that these say nothing of it: optimizer (Adam)." in text
    assert "effect-lr" in text and "effect-optimizer" not in text and "of lr, model and validation accuracy" in page


def test_a_choice_of_classic_nas_that_never_changed_cannot_matter(tmp_path):
    nas = [Trial(f"n{i}", i, "SUCCEEDED", {**BASELINE, "block01_op": operation}, 0.7 - i / 10, [0.5], 0.0, 5.0)
           for i, operation in enumerate(("dw5", "dw3", "dw7"))]
    write_experiment(tmp_path, nas, "classic_nas", architecture=nas[0].parameters)
    _, text = build(tmp_path)
    assert "Parallel coordinates of block01_op and validation accuracy" in text
    assert "| block 01 |" in text and "| block 02 |" not in text and "explain most" not in text
    assert "these say nothing of them: block02_op (dw3), block03_op" in text


def test_a_network_for_larger_pictures_is_drawn_and_counted_as_such(tmp_path):
    nas = [Trial(f"n{i}", i, "SUCCEEDED", {**BASELINE, "block01_op": operation}, 0.7 - i / 10, [0.5], 0.0, 5.0)
           for i, operation in enumerate(("dw5", "dw3"))]
    write_experiment(tmp_path, nas, "classic_nas", architecture=nas[0].parameters)
    best = json.loads((tmp_path / "classic_nas/best.json").read_text())
    best["result"]["data"]["side"] = 128
    (tmp_path / "classic_nas/best.json").write_text(json.dumps(best))
    _, text = build(tmp_path)
    drawing = (tmp_path / "report_pictures/classic_nas-network.svg").read_text()
    assert "<!-- of 128x128: 3 to 32 channels, 32x32 -->" in drawing
    assert f"| n1 | SUCCEEDED | 60.0% | 39 to 78 | {count_parameters(BASELINE, 5, 128):,} |" in text
    assert count_parameters(BASELINE, 5, 128) != count_parameters(BASELINE, 5)


def test_few_trials_do_not_tell_which_of_many_choices_matter():
    nas = [Trial(f"n{i}", i, "SUCCEEDED", {name: f"{i}" if name.endswith("op") else value for name, value in
                                           BASELINE.items()}, 0.7 - i / 10, [0.5], 0.0, 5.0) for i in range(4)]
    experiment = Experiment("nas", Results("abcd", "nas", {}, nas), list(BASELINE), None)
    [picture, _] = experiments._compared(experiment, nas, experiment.names)
    assert "6 of 13 choices that differ; 4 trials are too few to tell which matter." in picture.caption


def test_few_validation_pictures_are_told(tmp_path):
    write_experiment(tmp_path, hpo_trials())
    write_run(tmp_path, "retrain/x", result("retrain", 0.5))
    _, text = build(tmp_path)
    assert "model vgg (95% interval 70 to 97, by 20 pictures). Trials inside of that are not told apart," in text
    assert "| last epoch | 2 | validation | 50.0% | 30 to 70% |" in text


# ---- which classes


def wrong_once(classes):
    """Ten pictures a class, of which one is taken for the next class."""
    n = len(classes)
    return FinalTest(list(classes), [[9 if i == j else int(j == (i + 1) % n) for j in range(n)] for i in range(n)], [])


def test_names_are_shown_as_they_are(tmp_path):
    run = make_tested(tmp_path, wrong_once(ODD))
    page, text = build(tmp_path)
    assert run.name == "retrain/x" and text.isascii() is False
    for name, html, plain in ((ODD[0], "cost $5$ $x_1$", r"cost \$5\$ \$x_1\$"), (ODD[1], "花と鳥", "花と鳥"),
                              (ODD[2], "&lt;b&gt;bold&lt;/b&gt; &amp; co", "&lt;b>bold&lt;/b> & co"),
                              (ODD[3], "a|b", r"a\|b")):
        assert f'<th scope="row">{html}</th>' in page and f'<span>{html}</span>' in page, name
        assert f"{chr(92)}\\" not in text
        assert f"| {plain} | 9 |" in text or f"| {plain} |  |" in text or f"| {plain} | 1 |" in text, name
    assert "<b>" not in page and "<b>" not in text


def make_tested(folder, found):
    test = {"accuracy": 0.9, "loss": 1.0, "confusion": found.confusion,
            "class_accuracy": dict.fromkeys(found.classes, 0.9)}
    write_run(folder, "retrain/x", result("retrain", test=test))
    [group] = find(folder).groups.values()
    return group.runs[0]


def test_a_hundred_classes_are_told_by_the_pairs_that_are_confused(tmp_path):
    found = wrong_once([f"class {i}" for i in range(100)])
    found.confusion[7][9], found.confusion[7][7] = 5, 4
    run = make_tested(tmp_path, found)
    blocks = tested.test_blocks(run, found, "")
    assert not any(isinstance(block, Heat) for block in blocks)
    [pairs, classes] = [block for block in blocks if isinstance(block, Table)]
    assert "matrix of 100 classes is too large to read" in str(blocks)
    assert pairs.rows[0] == ["class 7", "class 9", "5", "50%"] and len(pairs.rows) == tested.PAIRS
    assert len(classes.rows) == tested.MANY and classes.rows[0][:2] == ["class 7", "40.0%"]


def test_two_classes_make_a_small_matrix(tmp_path):
    found = wrong_once(("ant", "bee"))
    [matrix] = [block for block in tested.test_blocks(make_tested(tmp_path, found), found, "")
                if isinstance(block, Heat)]
    assert matrix.rows == [("ant", [Cell("9", 0.9), Cell("1", 0.15, "wrong")]),
                           ("bee", [Cell("1", 0.15, "wrong"), Cell("9", 0.9)])]
    assert ".heat table { width: auto;" in build(tmp_path)[0]


def test_a_matrix_that_fits_no_telephone_has_its_pairs_beside_it(tmp_path):
    run = make_tested(tmp_path, found := wrong_once([f"class {i}" for i in range(20)]))
    [matrix] = [block for block in tested.test_blocks(run, found, "") if isinstance(block, Heat)]
    assert len(matrix.rows) == 20 == len(matrix.narrow.rows) and matrix.narrow.rows[0][2:] == ["1", "10%"]
    page = web_page.page("T", [matrix])
    assert '<figure class="heat wide">' in page and page.count('<div class="narrow">') == 1


def test_what_results_tell_of_balance_and_recall_is_shown(tmp_path):
    test = {"accuracy": 0.9, "images": 10, "balanced_accuracy": 0.8125, "recall": {"ant": 1.0, "bee": 0.6},
            "confusion": [[5, 0], [2, 3]]}
    told = result("retrain", test=test)
    told["data"] |= {"broken": 2, "not_pictures": 1, "duplicates": 0, "two_classes": 1,
                     "two_classes_files": [["ant/\udcff.png", "bee/<b>.png"]]}
    write_run(tmp_path, "retrain/x", told)
    page, text = build(tmp_path)
    assert "the mean of the classes' own: 81.2%" in text and "| bee | 60.0% | 23 to 88% | 3 | 5 |" in text
    assert "\n> - 1 picture is in two classes" in text
    assert "\n> - left out: 2 pictures that cannot be used\n" in text and "\n\n- 1 file is no picture\n" in text
    assert '<ul class="warning"><li>1 picture is in' in page
    assert r"(ant/\xff.png = bee/&lt;b&gt;.png)" in page


# ---- pictures of the user


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of wide pictures, 80x40, and names that need care."""
    root = tmp_path_factory.mktemp("own") / "My photos"
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 3)):
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (40, 80, 3), np.uint8) + np.uint8(40 * label)
                Image.fromarray(pixels).save(root / split / name / f"$5$ 花 <{i}> {name}.png")
    return root


def with_model(runs, folder, data_dir, **config):
    pictures = load(str(folder), data_dir, image_size="32", fit=config.get("fit", "stretch"))
    told = result("retrain", data=str(folder), checksum=pictures.checksum,
                  test={"accuracy": 0.2, "loss": 1.0, "images": 15})
    told["data"] |= pictures.counts
    told["config"] |= {"data": str(folder), "data_dir": str(data_dir), "crop_padding": 4, "flip": "auto", "cutout": 8,
                       "image_size": "32", "fit": "stretch", **config}
    write(write_run(runs, "retrain/x", told) / "model.pt")
    return pictures


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_mistakes_are_the_users_own_files(tmp_path, folder, fit):
    """In their own shape, or as far as the network saw them."""
    with_model(tmp_path / "runs", folder, tmp_path, fit=fit)
    page, text = build(tmp_path / "runs")
    [group] = find(tmp_path / "runs").groups.values()
    found = tested.read(group.runs[0], True, "cpu")[0]
    assert len(found.mistakes) > 2 and "LayerCAM" in text
    for mistake in found.mistakes:
        name = mistake.file.removeprefix(f"{folder}/")
        assert name.startswith(f"test/{CLASSES[mistake.true]}/")  # the order of files is that of the cache
        assert f"`{name}`: {CLASSES[mistake.true]} taken for" in text and f"`{chr(92)}" not in text
        picture = Image.open(tmp_path / f"runs/report_pictures/retrain-x-mistake-{mistake.index}.jpg")
        height = photographs.LARGEST // (2 if fit == "stretch" else 1)
        assert picture.size == (2 * photographs.LARGEST + 4, height)  # and once more with its heat map
        seen = Image.open(mistake.file).crop((0, 0, 80, 40) if fit == "stretch" else (20, 0, 60, 40))
        own = np.asarray(seen.resize((240, height)), float)
        assert np.abs(np.asarray(picture.crop((0, 0, 240, height)), float) - own).mean() < 25
    assert "each brought to 32x32 pixels" in text and ("of its largest square" in text) == (fit == "crop")
    assert "$5$ 花 &lt;" in page and str(folder.parent) not in page + text


def test_a_data_set_with_a_name_is_shown_from_the_cache_enlarged():
    small = np.random.default_rng(0).integers(0, 256, (32, 32, 4), np.uint8)
    large = photographs.picture("", small, 96)
    assert large.size == (96, 96) and np.array_equal(np.asarray(large)[::3, ::3], small[:, :, :3])


def test_a_turned_photograph_is_shown_upright(tmp_path):
    image = Image.new("RGB", (60, 30), "red")
    exif = image.getexif()
    exif[photographs.ORIENTATION] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert photographs.picture(str(tmp_path / "turned.jpg"), np.empty(0), 100).size == (50, 100)


def test_a_picture_that_was_not_stretched_is_shown_as_the_network_saw_it(tmp_path):
    image = Image.new("RGB", (60, 30), "red")
    image.paste("blue", (15, 0, 45, 30))
    image.save(tmp_path / "wide.png")
    cropped = photographs.picture(str(tmp_path / "wide.png"), np.empty(0), 60, fit="crop")
    assert cropped.size == (60, 60) and cropped.getcolors() == [(3600, (0, 0, 255))]
    assert photographs.preprocessing({"fit": "crop", "grey_range": None, "classes": 2}) == {"fit": "crop"}


def test_a_file_that_has_gone_is_shown_as_the_cache_has_it(tmp_path):
    cached = np.full((32, 32, 3), 77, np.uint8)
    assert photographs.picture(str(tmp_path / "gone.png"), cached, 64).getcolors() == [(64 * 64, (77, 77, 77))]
    (tmp_path / "broken.png").write_text("no picture")
    assert photographs.picture(str(tmp_path / "broken.png"), cached, 64).size == (64, 64)


def test_the_heat_is_where_it_was_found():
    heat = np.zeros((32, 32))
    heat[:16] = 1
    pair = np.asarray(photographs.with_heat(Image.new("RGB", (64, 32), "grey"), heat), int)
    above, below = pair[4, 100], pair[28, 100]
    assert pair.shape == (32, 132, 3) and above[0] > above[2] and below[2] > below[0] - 20
    assert np.array_equal(pair[4, 10], pair[28, 10])


def test_classes_and_augmentation_are_shown_without_the_test_pictures(tmp_path, folder):
    pictures = load(str(folder), tmp_path)

    class Guarded:
        """The data set without its test part: AttributeError if that is read."""

        name, classes = pictures.name, pictures.classes
        train_images, train_labels, train_moments = (pictures.train_images, pictures.train_labels,
                                                     pictures.train_moments)
        side, paths, counts = pictures.side, staticmethod(pictures.paths), pictures.counts

    config = {"crop_padding": 4, "flip": "on", "cutout": 8, "seed": 1}
    origin = Origin(str(folder), pictures.checksum, "")
    assert [p.caption for p in data_section._faces(Guarded, origin)[0].pictures] == list(CLASSES)
    [sizes] = data_section._sizes(Guarded, None)
    assert sizes.rows[0] == ["ant", "4", "20.0%", ""] and sizes.bars == (1, [1.0] * 5)
    [sheet] = data_section._augmented(Guarded, origin, config)
    assert "by up to 4 pixels (beside it the mean colour), mirrored, a square of 8 pixels blanked" in sheet.caption
    image = np.asarray(Image.open(io.BytesIO(sheet.content)))[::2, ::2]
    assert image.shape == (5 * 34 - 2, 9 * 34 - 2, 3)
    for row, i in enumerate(photographs.one_of_each(pictures)):
        line = image[34 * row : 34 * row + 32]
        assert np.array_equal(line[:, :32], pictures.train_images[i, :, :, :3])
        assert len({line[:, 34 * k : 34 * k + 32].tobytes() for k in range(9)}) > 5  # others than the first, and more
    assert data_section._augmented(Guarded, origin, {}) == []  # an older version, which does not tell
    [none] = data_section._augmented(Guarded, origin, {"crop_padding": 0, "flip": "off", "cutout": 0})
    assert "No picture was changed" in none.text
    quick = {**config, "cutout": 0, "alternate": True, "crop_border": "reflect"}  # each setting shows
    for shift, told in ((0, ": mirrored in every other epoch."), (4, "(beside it its mirror image), mirrored")):
        [sheet] = data_section._augmented(Guarded, origin, {**quick, "crop_padding": shift})
        first = np.asarray(Image.open(io.BytesIO(sheet.content)))[:64:2, ::2]
        own, *others = [first[:, 34 * k : 34 * k + 32] for k in range(9)]
        assert told in sheet.caption and all({*map(tuple, other.reshape(-1, 3))} <= {*map(tuple, own.reshape(-1, 3))}
                                             for other in others)  # no other colour beside it
        assert shift or [np.array_equal(other, own) for other in others] in ([True, False] * 4, [False, True] * 4)


def test_grey_of_many_bits_is_shown_as_the_network_sees_it(tmp_path):
    """12 bits in a file of 16 would be black by the usual range."""
    for name in CLASSES[:2]:
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(4):
            values = np.full((40, 40), 3000 + i, np.uint16)
            values[0, :2] = 0, 4000
            Image.fromarray(values).save(tmp_path / "set" / name / f"{i}.tif")
    pictures = load(str(tmp_path / "set"), tmp_path, image_size="32")
    for face in data_section._faces(pictures, Origin("set", pictures.checksum, ""))[0].pictures:
        assert 160 < np.asarray(Image.open(io.BytesIO(face.content))).mean() < 220


def test_a_folder_that_has_gone_is_told(tmp_path):
    [heading, counts, note] = data_section.data_blocks(ORIGIN, result(), {}, None)
    assert heading.text == "The pictures: toy" and "80 pictures to train on" in counts.text
    assert note.text.startswith("The pictures cannot be shown: data = 'toy': no such folder")


# ---- the page itself


CHART = {"data": [{"x": ["</script><script>alert(1)"]}], "layout": {}, "least": 0}
PICTURE = Picture("a.svg", b"<svg/>", "alt", "caption", 100, Table(["h"], [["cell"]]), CHART)
EVERYTHING = [
    Text("first", "lead"), Heading(2, "Head"), Text("a `code`"), Facts([("1", "one")]), Bullets(["x"]),
    Table(["a", "b"], [["1", "2"]], (1,), (1, [0.25])),
    Heat("corner", ["c"], [("r", [Cell("7", 0.9, "wrong")])], "why"),
    Details("More", [PICTURE, Heading(3, "Inner"), Gallery([PICTURE._replace(name="b.svg")], "photographs")])]


def test_all_blocks_are_written_in_both_forms(tmp_path):
    page = web_page.page("Title", EVERYTHING)
    assert page.index("first") < page.index("<nav") < page.index('<h2 id="head">')
    assert '<td class="wrong deep" style="--shade: 0.90">7</td>' in page and 'style="--bar: 25.0%"' in page
    assert "<details><summary>More</summary>" in page and '<div class="narrow">' in page
    assert '<td data-of="h">cell</td>' in page
    markdown.write("Title", EVERYTHING, tmp_path / "x.md", tmp_path / "x_pictures")
    text = (tmp_path / "x.md").read_text()
    assert "**first**" in text and "| corner | c |\n| --- | ---: |\n| r | 7 |\n\n*why*" in text
    assert "**More**\n\n![alt](x_pictures/a.svg)" in text and "### Inner" in text
    assert (tmp_path / "x_pictures/b.svg").read_bytes() == b"<svg/>"


def test_a_chart_stands_beside_its_picture_and_cannot_end_its_script():
    page = web_page.page("Title", EVERYTHING)
    charts = re.findall(r'<script type="application/json">(.*?)</script>', page)
    assert [json.loads(chart) for chart in charts] == [CHART, CHART]
    assert page.count('<img src="data:image/svg+xml') == 2 and "alert(1)</script>" not in page


def test_plotly_is_embedded_once_packed_and_only_where_there_are_charts(monkeypatch):
    page, plain = web_page.page("T", EVERYTHING), web_page.page("T", [Text("no chart")])
    [packed] = re.findall(r'<script type="text/plain" id="plotly">([^<]*)</script>', page)
    script = gzip.decompress(base64.b64decode(packed)).decode()
    assert "plotly.js v" in script[:200] and len(packed) < 2.5e6 < len(script) and len(page) < 6e6
    assert 'id="plotly"' not in plain and "beforeprint" in plain
    monkeypatch.setattr(web_page, "find_spec", lambda name: None)  # not installed: the pictures stay
    assert 'id="plotly"' not in web_page.page("T", EVERYTHING)


def test_drawings_change_with_a_dark_page_and_have_no_background(tmp_path):
    from docs.pictures import edges_figure
    from reporting.plots import DARK, INK, svg

    dark, white = svg(edges_figure), svg(edges_figure, plain=True, white=True)
    assert b"prefers-color-scheme:dark" in dark and f"fill: {INK}" in dark.decode() and INK in DARK
    assert b"fill: #ffffff" not in dark and b"prefers-color-scheme" not in white and b"fill: #ffffff" in white


def test_dollars_in_drawings_are_dollars():
    """As values of a parameter: an odd number of them would be a broken formula for matplotlib."""
    from reporting.plots import svg

    trials = [Trial(str(i), i, "SUCCEEDED", {"a$b": ["$x", "$y$"][i % 2]}, 0.5 + i / 10) for i in range(4)]
    for draw in (lambda: parameter_plots.parallel_coordinates(trials, ["a$b"]),
                 lambda: parameter_plots.effect(trials, "a$b")):
        assert b"<!-- $y$ -->" in svg(draw)
