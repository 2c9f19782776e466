"""Text is UTF-8 whatever the locale, and what a terminal cannot show ends no command."""

import ast
import json
import os
import subprocess
import sys

import pytest

import tiny_pictures
from conftest import ROOT
from files import atomic_write
from test_floors import FILES, name_of

ASCII = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii",
         "OMP_NUM_THREADS": "1"}
TINY = ["--train-size", "16", "--val-size", "4", "--batch-size", "8", "--epochs", "1", "--device", "cpu"]
READERS = {"read_text", "write_text", "open", "fdopen"}
BINARY = {"os.open", "opener.open", "Image.open", "server.open", "chosen.open"}  # not files of text


def run(*argv: str, **locale: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *argv], cwd=ROOT, env={**ASCII, **locale}, capture_output=True, timeout=100)


@pytest.mark.parametrize("path", [*FILES, *sorted(ROOT.glob("benchmarks/**/*.py"))], ids=name_of)
def test_every_text_file_and_pipe_names_its_encoding(path):
    for call in (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)):
        name, given = ast.unparse(call.func), {keyword.arg for keyword in call.keywords}
        assert not given & {"text", "universal_newlines"}, f"line {call.lineno}: encoding= says both"
        if name.rpartition(".")[2] in READERS and name not in BINARY and None not in given:
            binary = any(isinstance(word, ast.Constant) and "b" in str(word.value) for word in call.args[-1:])
            said = "encoding" in given or (name.endswith("read_text") and call.args)
            assert binary or said, f"line {call.lineno}: {ast.unparse(call)}"


def test_text_is_written_whatever_it_holds(tmp_path):
    program = ("import sys; from pathlib import Path; from files import atomic_write\n"
               "with atomic_write(Path(sys.argv[1])) as file: file.write(" + ascii("école \udce9 \U0001f600") + ")")
    done = run("-c", program, str(tmp_path / "a.txt"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "école \\udce9 \U0001f600"
    with atomic_write(tmp_path / "b", "wb") as file:
        file.write(b"\xff")
    assert (tmp_path / "b").read_bytes() == b"\xff"


@pytest.mark.parametrize("argv", [
    ["experiment.py", "check", "no/ünïcode.yml"], ["experiment.py", "results", "ünïcode"],
    ["pipeline.py", "--data", "no/ünïcode", "--dry-run"], ["hpo_trial.py", "--data", "no/ünïcode"],
    ["classic_nas_trial.py", "--arch", "no/ünïcode"], ["darts_search.py", "--data", "no/ünïcode"],
    ["retrain.py", "--genotype", "no/ünïcode"], ["predict.py", "--model", "m", "--images", "no/ünïcode"],
    ["report.py", "--runs", "no/ünïcode"]], ids=lambda argv: argv[0])
def test_what_a_terminal_cannot_show_is_one_line_all_the_same(argv):
    """Of stdout too: a stream that raises for it would end in a traceback."""
    done = run(*argv)
    error = done.stderr.decode("ascii").strip().splitlines()
    assert done.returncode == 2 and error[-1].startswith("error: ") and "\\udcc3" in error[-1], done.stderr
    assert "Traceback" not in done.stderr.decode("ascii")


def test_a_path_that_the_locale_cannot_name_gets_the_cure(tmp_path):
    done = run("hpo_trial.py", "--data", "digits", "--data-dir", str(tmp_path), *TINY, "--val-size", "20",
               "--runs-dir", str(tmp_path / "läufe"))
    error = done.stderr.decode("ascii").strip().splitlines()
    assert done.returncode == 2 and error[-1].endswith("set PYTHONUTF8=1"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("locale", "names"), [
    ({"PYTHONUTF8": "1"}, ("Übung # x", "école", "größe")), ({}, ("pictures", "cat", "runs"))], ids=["UTF-8", "ASCII"])
def test_a_training_and_its_report_in_a_terminal_that_shows_ascii(tmp_path, locale, names):
    """Where the names of files are UTF-8 they may hold anything; where they are not, texts are UTF-8 still."""
    folder, name, place = names
    data = tiny_pictures.write(tmp_path / folder, (name, "naive"))
    runs, model = tmp_path / place, tmp_path / place / "hpo" / place / "model.pt"
    for argv in (["hpo_trial.py", "--data", str(data), "--data-dir", str(tmp_path / "c"), "--model", "mobilenet", *TINY,
                  "--runs-dir", str(runs), "--name", place],
                 ["predict.py", "--model", str(model), "--images", str(data / "test")],
                 ["predict.py", "--model", str(model), "--export", "onnx"],
                 ["report.py", "--runs", str(runs)]):
        done = run(*argv, **locale)
        assert done.returncode == 0, done.stderr
    assert json.loads(model.with_name("result.json").read_text(encoding="utf-8"))["stage"] == "hpo"
    page = (runs / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!") and place in page
