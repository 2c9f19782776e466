"""report.py: what it finds, what it says, and that the page stands alone."""

import base64
import errno
import io
import json
import random
import re
import shutil
import tempfile
import time
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

import report
from conftest import ROOT
from fake_experiment import Fake
from guard.results import Results
from guard.results_view import write_best, write_csv
from guard.trials import Trial
from models.darts.genotype import EDGES, OPERATIONS, Genotype
from models.mobilenet_space.space import BASELINE, choices, count_parameters
from pictures.dataset import Pictures
from reporting import final_test as final
from reporting.experiments import plain_mobilenet
from reporting.findings import find
from reporting.parameter_plots import Scale, telling
from reporting.sections import chosen
from reporting.web_page import anchor, packed_plotly
from reporting.words import data_name, network
from small_models import CLASSES, GENOTYPE, write

CHROMIUM = shutil.which("chromium")
VERSIONS = {"python": "3.11", "torch": "2.11"}


def result(stage="hpo", value=0.5, checksum="a" * 64, data="toy", versions=VERSIONS, val_accuracy=None, **more):
    last = {"epoch": 2, "val_loss": 1.5, "val_accuracy": value if val_accuracy is None else val_accuracy}
    config = {"model": "vgg", "epochs": 2, "seed": 7, "optimizer": "Adam", "lr": 0.01, "data_dir": "nowhere"}
    return {"schema": 1, "stage": stage, "metric": "validation accuracy after the last epoch", "value": value,
            "diverged": False, "last": last, "best": last, "parameters": 1_234_567, "config": config,
            "commit": "abc123", "data": {"name": data, "checksum": checksum, "classes": 5, "train_images": 80,
                                         "val_images": 20},
            "versions": versions, "hardware": "a toy", "wall_seconds": 61.5, "finished": "2026-01-01T00:00:00", **more}


def write_run(folder, name, told=None, epochs=2, **record):
    """A run's folder; without `told` it has not finished."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps((told or {}).get("config") or {"data": "toy", "epochs": 9, "seed": 7}))
    lines = [{"epoch": i + 1, "train_loss": 2.0 - i, "train_accuracy": 0.1 * i, "val_loss": 2.0, "val_accuracy": 0.2,
              **record} for i in range(epochs)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if told:
        (path / "result.json").write_text(json.dumps(told))
    return path


def write_experiment(folder, trials, name="hpo", **told):
    """results.csv and best.json, by the functions that experiment.py calls; the best is the first of `trials`."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    trials[0].folder = folder / f"{name}-trial"
    trials[0].folder.mkdir()
    (trials[0].folder / "result.json").write_text(json.dumps(result(name, trials[0].value, **told)))
    state = Results("abcd", name, {}, trials)
    write_csv(state, path / "results.csv")
    assert write_best(state, path / "best.json")
    shutil.rmtree(trials[0].folder)
    return state


def hpo_trials(n=6):
    rng = np.random.default_rng(0)
    return [Trial(f"t{i:03}", i, "SUCCEEDED",
                  {"lr": float(10 ** rng.uniform(-4, -1)), "model": ["vgg", "dpn92"][i % 2]},
                  round(0.9 - i / 1000, 4), [0.5], 0.0, 12.5) for i in range(n)]


def search_metrics():
    row = [1 / len(OPERATIONS)] * len(OPERATIONS)
    return {"strengths": {kind: [row] * len(EDGES) for kind in ("normal", "reduction")}, "entropy": 1.0, "skips": 0,
            "genotype": GENOTYPE}


def test_trials_are_told_with_what_so_few_pictures_can_tell(tmp_path):
    write_experiment(tmp_path / "runs", hpo_trials(2))
    text = build(tmp_path / "runs")[1]
    assert "| 1 | t000 | SUCCEEDED | 90.0% | 70 to 97 |" in text  # 18 of 20, by Wilson's score


@pytest.fixture
def full(tmp_path):
    return everything(tmp_path / "runs")


def everything(runs):
    """A bit of everything, all of one data set."""
    write_experiment(runs, hpo_trials())
    nas = [Trial(f"n{i}", i, "SUCCEEDED", {**BASELINE, "block01_op": operation}, 0.7 - i / 10, [0.5], 0.0, 5.0)
           for i, operation in enumerate(("dw5", "dw3"))]
    write_experiment(runs, nas, "classic_nas", architecture=nas[0].parameters)
    write_run(runs, "darts_search/first", result("darts_search", 0.4, genotype=GENOTYPE), **search_metrics())
    test = {"accuracy": 0.75, "loss": 0.9, "confusion": [[3, 1], [1, 3]],
            "class_accuracy": {"ant": 0.75, "<bee>": 0.75}}
    write_run(runs, "retrain/first", result("retrain", 0.8, test=test,
                                            architecture={kind: GENOTYPE[kind] for kind in ("normal", "reduction")}))
    return runs


def build(runs, *more):
    assert report.main(["--runs", str(runs), *more]) == 0
    return (runs / "report.html").read_text(), (runs / "report.md").read_text()


class Links(HTMLParser):
    """Everything that a browser would load or run."""

    def __init__(self, page):
        super().__init__()
        self.loaded, self.tags, self.alts = [], set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        self.loaded += [attrs[key] for key in ("src", "href", "srcset") if key in attrs]
        if tag == "img":
            self.alts.append(attrs["alt"])


# ---- what there is


def test_other_data_and_other_versions_are_kept_apart(tmp_path):
    write_run(tmp_path, "hpo/a", result(value=0.91))
    write_run(tmp_path, "hpo/b", result(value=0.92, checksum="b" * 64))
    write_run(tmp_path, "hpo/c", result(value=0.93, versions={"python": "3.11", "torch": "2.15"}))
    write_run(tmp_path, "hpo/d", result(value=0.90, data="elsewhere/toy"))  # the same pictures
    groups = [{run.name for run in group.runs} for group in find(tmp_path).groups.values()]
    assert sorted(groups, key=min) == [{"hpo/a", "hpo/d"}, {"hpo/b"}, {"hpo/c"}]
    _, text = build(tmp_path)
    assert "Results of different data sets or versions" in text
    parts = re.split(r"^## ", text, flags=re.M)
    [one] = [part for part in parts if "aaaaaaaaaaaa" in part and "torch 2.11)" in part.splitlines()[0]]
    assert "**91.0%**" in one and "92.0%" not in one and "93.0%" not in one


def test_an_unfinished_run_is_shown_with_the_results_of_its_data(tmp_path):
    """As long as there is no doubt which these are."""
    write_run(tmp_path, "hpo/a", result())
    write_run(tmp_path, "retrain/now", epochs=1)
    write_run(tmp_path, "retrain/else", {})
    (tmp_path / "retrain/else/config.json").write_text('{"data": "other"}')
    names = [{run.name for run in group.runs} for group in find(tmp_path).groups.values()]
    assert names == [{"hpo/a", "retrain/now"}, {"retrain/else"}]
    write_run(tmp_path, "hpo/b", result(checksum="b" * 64))
    assert {"retrain/now"} in [{run.name for run in group.runs} for group in find(tmp_path).groups.values()]


def test_broken_files_are_listed_and_the_rest_is_shown(tmp_path):
    write_run(tmp_path, "hpo/broken", result())
    (tmp_path / "hpo/broken/result.json").write_text('{"stage": "h')
    write_run(tmp_path, "hpo/halves", result(value=0.42))
    (tmp_path / "hpo/halves/metrics.jsonl").write_text('{"epoch": 1, "train_loss": 1.0}\n{"epo')
    write_run(tmp_path, "hpo/unfinished", epochs=1)
    write_run(tmp_path, "hpo/other", result())
    (tmp_path / "hpo/other/result.json").write_text("[1]")
    write_run(tmp_path, "darts_search/odd", result("darts_search", genotype={"schema": 99}))
    (tmp_path / "second").mkdir()
    (tmp_path / "second/results.csv").write_text("some,thing\n1,2\n")
    page, text = build(tmp_path)
    missing = text[text.index("## Broken or unfinished"):]
    for line in ("`hpo/broken/result.json`: not valid JSON", "`hpo/halves/metrics.jsonl`: broken after 1 epochs",
                 "`hpo/unfinished`: no result.json", "`hpo/other/result.json`: not a JSON object",
                 "`darts_search/odd`: a part is not shown", "`second/results.csv`: cannot be read (no column trial)"):
        assert line in missing
    assert "42.0%" in text and "Not finished: 1 of 9 epochs" in text and "Training: hpo/halves" in page


@pytest.fixture
def started(tmp_path, monkeypatch):
    """An experiment as experiment.py leaves it while it runs: config.yml; the rest is in NNI's folder under HOME."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "runs" / "first").mkdir(parents=True)
    config = tmp_path / "runs" / "first" / "config.yml"
    config.write_text("experimentName: hpo\n")
    fake = Fake(tmp_path / "nni-experiments" / "abc")
    fake.trial("A", 0, 0.5)
    fake.event("B", "RUNNING", 1)
    (fake.trial_folder("A") / "result.json").write_text(json.dumps(result(value=0.5)))
    fake.load()
    start = 1000 * config.stat().st_mtime
    records = {"old": {"experimentName": "hpo", "startTime": start - 1000}, "xyz": {"experimentName": "other",
               "startTime": start + 1}, "abc": {"experimentName": "hpo", "startTime": start + 2},
               "new": {"experimentName": "hpo", "startTime": start + 3000}}
    (tmp_path / "nni-experiments" / ".experiment").write_text(json.dumps(records))
    return tmp_path / "runs"


def test_an_experiment_shows_what_it_has_so_far(started):
    """It is the first one of its name that was started after config.yml was written; its files stay as they are."""
    _, text = build(started)
    assert "`first`: experiment abc goes on, or was broken off; this is what it has so far" in text
    assert "2 trials: 1 SUCCEEDED, 1 " in text and "| 1 | A | SUCCEEDED | 50.0% | 30 to 70 | 0.1 | vgg |" in text
    assert [path.name for path in (started / "first").iterdir()] == ["config.yml"]


def test_an_experiment_that_nni_does_not_know_is_told(started):
    (started.parent / "nni-experiments" / ".experiment").unlink()
    write_run(started, "hpo/x", result())
    assert "`first`: no results.csv of its latest start, and NNI knows of no experiment" in build(started)[1]


def test_what_lies_in_a_folder_of_a_pipeline_is_found(tmp_path):
    """As after `pipeline.py --runs-dir runs/small`, beside runs of the single commands."""
    write_experiment(tmp_path / "small", hpo_trials(2))
    write_run(tmp_path, "small/retrain/final", result("retrain"))
    write_run(tmp_path, "small/darts_search/search/seed1")
    write_run(tmp_path, "hpo/alone", result())
    found = find(tmp_path)
    assert [one.name for group in found.groups.values() for one in group.experiments] == ["small/hpo"]
    assert {run.name: run.stage for group in found.groups.values() for run in group.runs} == {
        "small/retrain/final": "retrain", "small/darts_search/search/seed1": "darts_search", "hpo/alone": "hpo"}
    assert report.main(["--runs", str(tmp_path), "--no-predict"]) == 0
    assert "experiment small/hpo" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_the_table_of_an_experiment_that_has_ended_counts(started):
    write_experiment(started, hpo_trials(), "first")
    _, text = build(started)
    assert "6 trials: 6 SUCCEEDED" in text and "goes on" not in text


def test_best_of_another_experiment_is_not_believed(tmp_path):
    write_experiment(tmp_path, hpo_trials())
    best = json.loads((tmp_path / "hpo/best.json").read_text())
    (tmp_path / "hpo/best.json").write_text(json.dumps({**best, "trial": "elsewhere"}))
    _, text = build(tmp_path)
    assert "`hpo`: best.json and results.csv are of different experiments" in text and "unknown data" in text


def test_the_final_network_is_not_chosen_by_its_test(tmp_path):
    write_run(tmp_path, "retrain/a", result("retrain", val_accuracy=0.6, test={"accuracy": 0.5}))
    write_run(tmp_path, "retrain/b", result("retrain", val_accuracy=0.5, test={"accuracy": 0.9}))
    [group] = find(tmp_path).groups.values()
    assert chosen(group.runs)[0].name == "retrain/a"
    for run in group.runs:
        del run.result["last"]["val_accuracy"]
    assert chosen(group.runs) == (group.runs[0], "Of 2 final trainings the newest (they have no validation pictures in "
                                                 "common).")


# ---- what it says


def test_page_and_markdown_have_all_parts_and_stand_alone(full):
    page, text = build(full)
    links = Links(page)
    assert all(link.startswith(("data:", "#")) for link in links.loaded) and not re.search(r"<script[^>]* src", page)
    assert "@import" not in page and "url(" not in page
    for part in ("Final test: retrain/first", "Training: retrain/first", "DARTS search: darts_search/first",
                 "Classic NAS: experiment classic_nas", "Hyper-parameters: experiment hpo"):
        assert f'<h3 id="{anchor(part)}">{part}</h3>' in page and f"### {part}" in text
    assert "**75.0%**: accuracy on the test pictures" in text and "weights of epoch 2" in text
    assert "toy, 80 training and 20 validation images, 2 epochs, seed 7" in text
    assert "| retrain/first | toy | aaaaaaaaaaaa | 7 | abc123 | python 3.11, torch 2.11 | a toy | 61.5 |" in text
    assert f"| n1 | SUCCEEDED | 60.0% | 39 to 78 | {count_parameters(BASELINE, 5):,} |" in text
    assert "&lt;bee&gt;" in page and "<bee>" not in page
    pictures = re.findall(r"\]\((report_pictures/[^)]+)\)", text)
    assert len(pictures) == len(set(pictures)) == len(links.alts) and all(links.alts)
    shown = [base64.b64decode(link.partition("base64,")[2]) for link in links.loaded if link.startswith("data:image")]
    assert shown == [(full / picture).read_bytes() for picture in pictures]
    for content in shown:
        ElementTree.fromstring(content)  # ParseError if a browser could not draw it


def test_the_plain_network_is_compared_only_if_its_recipe_is_the_same(tmp_path):
    base = result("classic_nas", 0.65, architecture=BASELINE)
    base["config"]["baseline"] = True
    write_run(tmp_path, "classic_nas/other", {**base, "config": {**base["config"], "epochs": 3}})
    write_run(tmp_path, "classic_nas/best", result("classic_nas", 0.7))
    [group] = find(tmp_path).groups.values()
    assert plain_mobilenet(group.runs, result("classic_nas", 0.7)) is None
    write_run(tmp_path, "classic_nas/same", base)
    [group] = find(tmp_path).groups.values()
    assert plain_mobilenet(group.runs, result("classic_nas", 0.7)) == base


def test_a_search_in_the_middle_shows_the_cells_so_far(tmp_path):
    write_run(tmp_path, "darts_search/now", epochs=1, **search_metrics())
    page, text = build(tmp_path)
    assert "Not finished: 1 of 9 epochs" in text and "cell as they are now" in text
    assert {"now-cells", "now-alphas"} <= set(re.findall(r"darts_search-(now-\w+)\.svg", text))
    assert "<li>final training: <code>python retrain.py" in page


def test_a_search_over_other_operations_is_shown_without_its_alphas(tmp_path):
    metrics = search_metrics()
    metrics["strengths"] = {kind: [[*row, 0.0] for row in rows] for kind, rows in metrics["strengths"].items()}
    write_run(tmp_path, "darts_search/nine", result("darts_search", 0.4, genotype=GENOTYPE), **metrics)
    _, text = build(tmp_path)
    assert "they weigh another number of operations than there are now" in text and "a part is not shown" not in text
    assert set(re.findall(r"darts_search-(nine-\w+)\.svg", text)) >= {"nine-cells", "nine-decision"}
    assert "nine-alphas" not in text


def test_of_several_seeds_the_chosen_one_is_drawn(tmp_path):
    cell = [*GENOTYPE["normal"][:3], [["skip_connect", 0], ["skip_connect", 1]]]
    other = Genotype.from_json(GENOTYPE | {"normal": cell}).to_json()
    first = Genotype.from_json(GENOTYPE).to_json()
    for seed, genotype in enumerate((other, first)):
        write_run(tmp_path, f"darts_search/two/seed{seed}", result("darts_search", genotype=genotype),
                  **search_metrics())
    seeds = [{"seed": seed, "value": value, "genotype": {}} for seed, value in enumerate((0.31, 0.32))]
    write_run(tmp_path, "darts_search/two", result("darts_search", genotype=first, seeds=seeds), epochs=0)
    _, text = build(tmp_path)
    assert text.count("### DARTS search") == 1 and "Training:" not in text
    assert "over time: darts_search/two/seed1," in text
    assert "| 0 | 31.0% |" in text and "| 1 | 32.0% |" in text


def test_200_trials_are_small_and_quick(tmp_path):
    """Of each of both kinds of experiment; seconds are those of the CPU, so that a busy machine does not count."""
    write_experiment(tmp_path, hpo_trials(200))
    rng = random.Random(0)
    nas = [Trial(f"n{i}", i, "SUCCEEDED", {name: rng.choice(options) for name, options in choices().items()},
                 0.7 - i / 1000, [0.5], 0.0, 5.0) for i in range(200)]
    write_experiment(tmp_path, nas, "classic_nas", architecture=nas[0].parameters)
    start = time.process_time()
    page, text = build(tmp_path)
    assert time.process_time() - start < 10 and len(page) < 5e6 and page.count("<tr>") >= 402
    assert len(page) - len(packed_plotly()) < 1.5e6  # 2 MB of plotly make the charts answer
    assert "choices that explain most of the differences" in text and "| block 01 |" in text


def test_scale():
    log, names, few = Scale([0.001, 0.1, 0.01]), Scale(["b", "a", "c"]), Scale([2, 4])
    assert log.log and log.share(log.place(0.01)) == pytest.approx(0.5) and names.share(names.place("b")) == 0.5
    assert few.ticks() == [(2.0, "2"), (4.0, "4")] and not few.log and Scale([3]).share(3) == 0.5
    many = Scale([3 * 10.0**-i for i in range(1, 10)])
    assert many.continuous and [label for _, label in many.ticks()] == ["1e-08", "1e-06", "0.0001", "0.01"]
    assert [label for _, label in Scale([i / 7 for i in range(15)]).ticks()] == ["0", "0.4", "0.8", "1.2", "1.6", "2"]


def test_the_axes_that_are_shown_are_those_that_matter():
    """One parameter makes the accuracy, one with a value for each trial explains nothing for all that."""
    rng = np.random.default_rng(0)
    trials = [Trial(str(i), i, "SUCCEEDED", {"noise": str(i % 40), "weak": i % 2, "strong": ["x", "y", "z"][i % 3],
                                             "lr": float(10 ** rng.uniform(-4, -1))}) for i in range(80)]
    for trial in trials:
        given = trial.parameters
        trial.value = (0.5 + 0.1 * "xyz".index(given["strong"]) - 0.05 * abs(np.log10(given["lr"]) + 2.5)
                       + 0.01 * rng.normal())
    assert telling(trials, ["noise", "weak", "lr", "strong"], 2) == ["lr", "strong"]
    assert telling(trials[:2], ["noise", "weak", "lr", "strong"], 2) == ["noise", "weak"]  # too few: the first


def test_words_for_a_network_and_its_data():
    assert [network("retrain", {"config": {"genotype": genotype, "layers": 8}})
            for genotype in ("DARTS_V2", "random:3", "runs/darts_search/mine/genotype.json")] == [
        "DARTS_V2, 8 cells", "DARTS random:3, 8 cells", "DARTS mine, 8 cells"]
    assert data_name({"data": "/home/somebody/my_pictures"}) == "my_pictures"  # a page is shown to others


# ---- the final test


@pytest.fixture
def pictures():
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (300, 32, 32, 4), np.uint8)
    none = np.empty(0)
    return Pictures("toy", "a" * 64, CLASSES, none, none, none, images, rng.integers(0, 5, 300))


def test_confusion_and_mistakes_are_those_of_a_plain_loop(tmp_path, pictures):
    trained = write(tmp_path / "model.pt")
    found = final.compute(tmp_path / "model.pt", pictures, "cpu")
    matrix, wrong = [[0] * 5 for _ in range(5)], []
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.25])
    with torch.no_grad():
        for i, true in enumerate(pictures.test_labels.tolist()):
            x = torch.from_numpy(pictures.test_images[i, :, :, :3]).float() / 255
            p = trained.model(((x - mean) / std).permute(2, 0, 1)[None]).softmax(1)[0]
            matrix[true][int(p.argmax())] += 1
            if int(p.argmax()) != true:
                wrong.append((float(p.max()), i))
    assert found.confusion == matrix and found.images == 300 and found.correct == sum(matrix[i][i] for i in range(5))
    best = sorted(wrong, reverse=True)[: final.MISTAKES]
    assert [m.probability for m in found.mistakes] == pytest.approx([p for p, _ in best], abs=1e-5)
    worst = found.mistakes[0]
    png = np.asarray(Image.open(io.BytesIO(base64.b64decode(worst.png))))
    assert np.array_equal(png, pictures.test_images[worst.index, :, :, :3])


def test_predictions_are_computed_once_a_model(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr("pictures.dataset.load", lambda data, data_dir, **how: pictures)
    path = write_run(tmp_path, "retrain/x", result("retrain", test={"accuracy": 0.5, "loss": 1.0}))
    write(path / "model.pt")
    [group] = find(tmp_path).groups.values()
    first = final.final_test(group.runs[0], "cpu")
    calls = []
    monkeypatch.setattr(final, "compute", lambda *args: calls.append(args) or first)
    assert final.final_test(group.runs[0], "cpu") == first and not calls
    (path / "final_test.json").write_text("{")
    assert final.final_test(group.runs[0], "cpu") == first and len(calls) == 1
    write(path / "model.pt", "classic_nas")
    final.final_test(group.runs[0], "cpu")
    assert len(calls) == 2
    _, text = build(tmp_path)
    assert f"{first.correct} of 300" in text and "The run says 50.0%" in text and "most confident of" in text


def test_another_data_set_is_not_taken_for_that_of_the_run(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr("pictures.dataset.load", lambda data, data_dir, **how: pictures)
    told = result("retrain", checksum="b" * 64, test={"accuracy": 0.5, "loss": 1.0, "confusion": [[1, 0], [0, 1]]})
    write(write_run(tmp_path, "retrain/x", told) / "model.pt")
    _, text = build(tmp_path)
    assert "Mistakes cannot be shown: the data set toy has changed since" in text and "Confusion matrix" in text
    assert "| 0 | 1 |" in text


def test_the_test_set_is_not_read_for_runs_that_have_not_read_it(tmp_path, monkeypatch):
    monkeypatch.setattr("reporting.tested.final_test", lambda *_: pytest.fail("test set read"))
    write(write_run(tmp_path, "hpo/x", result()) / "model.pt")
    build(tmp_path)


def test_cifar10_is_never_downloaded_for_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr("pictures.dataset.load", lambda *_: pytest.fail("loaded"))
    write(write_run(tmp_path, "retrain/x", result("retrain", data="cifar10", test={"accuracy": 0.5})) / "model.pt")
    assert "Mistakes cannot be shown: cifar10 is not in nowhere" in build(tmp_path)[1]


# ---- mistakes of the user


def test_mistakes_are_told_in_one_line(tmp_path, capsys):
    (tmp_path / "runs" / "hpo").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    runs = str(tmp_path / "runs")
    for argv, words in ((["--runs", runs], "no results here; these make some: python experiment.py"),
                        (["--runs", str(tmp_path / "none")], "no such folder"),
                        (["--runs", runs, "--out", "x.pdf"], "must end in .html")):
        assert report.main(argv) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    write_run(tmp_path / "runs", "hpo/x", result())
    assert report.main(["--runs", runs, "--out", str(tmp_path / "file" / "x.html")]) == 2
    error = capsys.readouterr().err
    assert "file" in error and error.count("\n") == 1 and "Traceback" not in error


# ---- docs


def test_pictures_of_the_docs_are_drawn_by_the_code(tmp_path):
    from docs import pictures

    assert pictures.main([str(tmp_path)]) == 0
    linked = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (ROOT / "docs" / "how-it-works.md").read_text())
    assert sorted(linked) == sorted(path.name for path in tmp_path.iterdir())
    for name in linked:
        for folder in (tmp_path, ROOT / "docs"):
            assert ElementTree.parse(folder / name).getroot().tag.endswith("svg")


# ---- in a browser


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_page_in_a_browser(full, tmp_path, width):
    from playwright.sync_api import sync_playwright

    build(full)
    errors, requests = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"file://{full / 'report.html'}")
        page.screenshot(path=tmp_path / f"report-{width}.png", full_page=True)
        sizes = page.evaluate("[...document.images].map(image => image.naturalWidth)")
        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        narrow = page.evaluate("[...document.querySelectorAll('main > *')].filter(e => e.getBoundingClientRect().right "
                               "> window.innerWidth).length")
        heading = page.inner_text("h1")
        browser.close()
    assert not errors and [url for url in requests if not url.startswith("data:")] == [f"file://{full}/report.html"]
    assert len(sizes) > 8 and all(sizes) and overflow <= 0 and not narrow and heading.startswith("Results")


def test_the_report_of_a_folder_that_can_only_be_read_is_whole(tmp_path, pictures, monkeypatch, capsys):
    """By an error of our own, as root may write everywhere."""
    monkeypatch.setattr("pictures.dataset.load", lambda data, data_dir, **how: pictures)
    runs, out = tmp_path / "runs", tmp_path / "out"
    path = write_run(runs, "retrain/x", result("retrain", test={"accuracy": 0.5, "loss": 1.0}))
    write(path / "model.pt")
    make = tempfile.mkstemp

    def read_only(dir, **how):
        if Path(dir).is_relative_to(runs):
            raise OSError(errno.EROFS, "Read-only file system", f"{dir}/.{how['prefix']}")
        return make(dir=dir, **how)

    monkeypatch.setattr("tempfile.mkstemp", read_only)
    assert report.main(["--runs", str(runs), "--out", str(out / "page.html")]) == 0
    text = (out / "page.md").read_text()
    assert "Confusion matrix" in text and "most confident of" in text and "Mistakes cannot be shown" not in text
    assert "predictions of retrain/x are not kept: Read-only file system" in capsys.readouterr().out
    assert not (path / "final_test.json").exists()
    assert report.main(["--runs", str(runs)]) == 2  # where the page itself would go
    assert capsys.readouterr().err == (f"error: Read-only file system: {runs}/report.html: no file can be written to "
                                       f"{runs}\n")


@pytest.mark.parametrize(("kept", "words"), [
    (1, "broken after 1 epochs (no epoch 2)"), (2, "broken after 2 epochs (result.json tells of 3)")])
def test_epochs_that_are_lost_from_the_records_are_told(tmp_path, kept, words):
    path = write_run(tmp_path, "retrain/x", {**result("retrain"), "last": {"epoch": 3}}, epochs=3)
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("".join(lines[:kept] + (lines[2:] if kept == 1 else [])))
    assert any(words in problem for problem in find(tmp_path).problems), find(tmp_path).problems
