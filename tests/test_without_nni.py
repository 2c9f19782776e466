"""What runs alone runs where NNI is not installed: in an interpreter in which `import nni` fails."""

import json
import subprocess
import sys

import pytest

from conftest import ROOT

PROGRAM = """
import sys
sys.modules["nni"] = sys.modules["pytorch_lightning"] = None
import classic_nas_trial, darts_search, experiment, hpo_trial, predict, report, retrain
tiny = ["--data", "digits", "--data-dir", sys.argv[1], "--train-size", "64", "--batch-size", "32", "--epochs", "1"]
some, small, cells = ["--val-size", "32"], ["--channels", "4", "--layers", "3"], "runs/darts_search/found/genotype.json"
for command, *argv in (
        (hpo_trial, *tiny, *some, "--model", "shufflenetg2", "--name", "one"),
        (experiment, "collect", "runs/hpo"),
        (classic_nas_trial, *tiny, *some, "--baseline"),
        (darts_search, *tiny, *some, *small, "--name", "found"),
        (retrain, *tiny, *small, "--genotype", cells, "--name", "final"),
        (predict, "--model", "runs/retrain/final/model.pt", "--images", sys.argv[2], "--out", "predictions.tsv"),
        (predict, "--model", "runs/hpo/one/model.pt", "--export", "onnx"),
        (report,)):
    assert command.main(argv) == 0, command.__name__
"""


@pytest.mark.slow
def test_commands_run_without_nni(tmp_path, digits_dir):
    command = [sys.executable, "-c", PROGRAM, str(digits_dir), str(ROOT / "docs/classic_nas_best.png")]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs/report.html").exists() and (tmp_path / "runs/hpo/one/model.onnx").exists()
    assert "test" in json.loads((tmp_path / "runs/retrain/final/result.json").read_text())


def test_what_needs_nni_says_so_in_one_line(tmp_path):
    program = "import sys; sys.modules['nni'] = None; import experiment; sys.exit(experiment.main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", program, "check", str(ROOT / "config_hpo.yml")], cwd=tmp_path,
                          env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and "NNI cannot be imported" in done.stderr and done.stderr.count("\n") == 1


def test_the_requirements_without_nni_are_a_part_of_all():
    whole, part = ((ROOT / f"requirements{name}.txt").read_text() for name in ("", "-train"))
    assert "-r requirements-train.txt" in whole.splitlines()
    assert "\nnni" not in part and "lightning" not in part
