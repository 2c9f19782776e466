"""NNI's web UI of a real experiment, as a person sees it in a browser."""

import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml

from conftest import ROOT
from guard import processes
from guard.registry import Experiment

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")]

TINY = "--data digits --train-size 64 --val-size 32 --batch-size 32 --epochs 2"


@contextlib.contextmanager
def run_experiment(folder, config, *arguments):
    """A demo experiment with tiny trials, run to its end by experiment.py with its web UI left up: (url, best.json)."""
    (folder / "home").mkdir()
    command, capture = [sys.executable, "experiment.py"], {"capture_output": True, "text": True, "timeout": 300}
    environment = {**os.environ, "HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "run", config, "--keep-ui", "--out", str(folder / "out"), *arguments],
                          cwd=ROOT, env=environment, **capture)
    url = re.search(r"http://127\.0\.0\.1:\d+", done.stdout)
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        yield url[0], json.loads((folder / "out" / "best.json").read_text())
    finally:
        stopped = subprocess.run([*command, "stop", "latest"], cwd=ROOT, env=environment, **capture)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    left = [one.info["cmdline"] for one in psutil.process_iter(["cmdline"])]
    assert not [words for words in left if str(folder) in " ".join(words or [])], "something of it still runs"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, digits_dir):
    trial = f"trialCommand=python hpo_trial.py {TINY} --data-dir {digits_dir}"
    with run_experiment(tmp_path_factory.mktemp("hpo"), "journey/config_demo.yml", "--set", trial,
                        "--set", "maxTrialNumber=3") as found:
        yield found


@pytest.fixture(scope="module")
def nas_experiment(tmp_path_factory, digits_dir):
    """With our own tuner, by the quickest score."""
    trial = f"trialCommand=python classic_nas_trial.py {TINY} --data-dir {digits_dir} --max-params 3217226"
    tuner = yaml.safe_load((ROOT / "journey/config_demo_nas.yml").read_text())["tuner"]
    tuner["codeDirectory"] = str(ROOT)
    tuner["classArgs"]["score"] = "nas.scores.macs"
    with run_experiment(tmp_path_factory.mktemp("nas"), "journey/config_demo_nas.yml", "--set", trial,
                        "--set", f"tuner={json.dumps(tuner)}", "--set", "maxTrialNumber=2") as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
                 "--disable-sync", "--no-first-run"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page that cannot reach anything but this machine (NNI's fonts are elsewhere) and must not throw."""
    page, errors = browser.new_page(viewport={"width": 1400, "height": 1000}), []
    page.route(lambda address: not address.startswith("http://127.0.0.1:"), lambda route: route.abort())
    page.on("pageerror", lambda error: errors.append(error))
    yield page
    page.close()
    assert not errors


def test_overview_shows_name_status_and_best_metric(page, experiment, tmp_path):
    url, best = experiment
    page.goto(f"{url}/oview")
    page.get_by_text("Best metric").wait_for()
    page.get_by_text(f"{best['value']:.6f}").first.wait_for()
    text = page.inner_text("body")
    assert "demo" in text and "DONE" in text
    page.screenshot(path=tmp_path / "overview.png")


def test_trials_show_the_hyper_parameters_as_axes(page, experiment, tmp_path):
    url, _ = experiment
    page.goto(f"{url}/detail")
    page.get_by_text("Trial jobs").first.wait_for()
    assert page.locator("[data-automationid=DetailsRow]").count() == 3
    page.get_by_role("tab", name="Hyper-parameter").click()
    for axis in ("lr", "optimizer", "model"):
        page.locator("svg text", has_text=re.compile(f"^{axis}$")).first.wait_for()
    page.screenshot(path=tmp_path / "hyper-parameter.png")


def test_trials_of_stage_2_show_the_labels_of_the_space(page, nas_experiment, tmp_path):
    url, best = nas_experiment
    page.goto(f"{url}/detail")
    page.get_by_text("Trial jobs").first.wait_for()
    assert page.locator("[data-automationid=DetailsRow]").count() == 2
    page.get_by_role("tab", name="Hyper-parameter").click()
    labels = [*json.loads((ROOT / "search_space_classic_nas.json").read_text())]
    assert {"block01_op", "block03_skip", "block13_op"} < set(labels) == best["parameters"].keys()
    for label in labels:
        page.locator("svg text", has_text=re.compile(f"^{label}$")).first.wait_for()
    page.screenshot(path=tmp_path / "hyper-parameter-nas.png")


def test_nni_serves_what_results_says(experiment):
    url, best = experiment
    with urllib.request.urlopen(f"{url}/api/v1/nni/trial-jobs") as answer:
        trials = json.load(answer)
    finals = [json.loads(json.loads(trial["finalMetricData"][0]["data"])) for trial in trials]
    assert max(final["default"] for final in finals) == best["value"]
    assert {trial["status"] for trial in trials} == {"SUCCEEDED"}


def test_a_page_of_another_server_starts_nothing(page, experiment, tmp_path):
    url, _ = experiment
    (tmp_path / "index.html").write_text(f"""<script>
        const ask = (path, how) => fetch("{url}/api/v1/nni/" + path, how).then(() => "sent", () => "refused");
        Promise.all([ask("trial-jobs", {{method: "POST", mode: "no-cors", body: "{{}}"}}), ask("trial-jobs", {{}}),
                     ask("experiment", {{method: "DELETE"}})]).then((told) => document.title = told.join(" "));
        </script>""")
    with serving(tmp_path) as other:
        page.goto(other)
        page.wait_for_function("document.title != ''")
    assert page.title() == "sent refused refused"  # sent blindly, and answered with 403
    with urllib.request.urlopen(f"{url}/api/v1/nni/trial-jobs") as answer:
        assert len(json.load(answer)) == 3


@contextlib.contextmanager
def serving(folder):
    """A web server of its own for a folder: its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


def test_the_tensorboard_button_opens_no_door(experiment):
    """It shows a trial's curves, on loopback alone; what it has started ends with the experiment."""
    url, best = experiment
    started = urllib.request.Request(f"{url}/api/v1/nni/tensorboard", json.dumps({"trials": best["trial"]}).encode(),
                                     {"Content-Type": "application/json"}, method="POST")
    with urllib.request.urlopen(started) as answer:
        board = json.load(answer)
    address, process = f"http://127.0.0.1:{board['port']}", psutil.Process(int(board["pid"]))
    assert soon(lambda: listening(process)) == {"127.0.0.1"}
    assert soon(lambda: json.load(urllib.request.urlopen(f"{address}/data/runs"))), "the curves of that trial"
    assert process in processes.all_of(Experiment(best["experiment"], best["experiment"], folder_of(process)))


def folder_of(process):
    """Of the experiment, as its TensorBoard was started."""
    [words] = [word for word in process.cmdline() if word.startswith("--logdir_spec=")]
    return Path(words.partition(":")[2].partition("/environments/")[0])


def soon(ask, seconds=60):
    """What it gives as soon as that is anything, or at last."""
    deadline = time.monotonic() + seconds
    while not (found := ask()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def listening(process):
    """The addresses of a process and of what it has started."""
    return {at.laddr.ip for one in [process, *process.children(recursive=True)] for at in one.net_connections()
            if at.status == psutil.CONN_LISTEN}
