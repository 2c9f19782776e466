"""benchmarks.gpu without a GPU: what keeps figures through crashes and time limits, what says whether a figure is
right, and every section once, in small, on a CPU."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.counting import Launches
from benchmarks.gpu import SECTIONS, __main__, correct_kernels, correct_search, processes, processor, section
from benchmarks.gpu.errors import Smooth, check, error, expectation, on_device, random_batch, worst
from benchmarks.gpu.lines import Figure, append, read, table
from benchmarks.gpu.processor import Cpu, Cuda, Seconds, fp32_as
from conftest import ROOT
from graph_on_cpu import GraphOnCpu
from training.graphs import WARM

WHERE = {"run": "1", "section": "zoo", "case": "all"}


# ---- lines and table


def test_lines_survive_a_torn_one_and_the_last_run_of_a_section_counts(tmp_path):
    path = tmp_path / "results.jsonl"
    for run, name in (("1", "old"), ("2", "new"), ("2", "newer")):
        append(path, Figure(name, 1.0).line(**{**WHERE, "run": run}))
    append(path, Figure("copy", 2.0).line(**{**WHERE, "run": "1", "section": "ceilings"}))
    with path.open("a") as file:
        file.write('{"run": "2", "sec')
    assert [line["name"] for line in read(path)] == ["new", "newer", "copy"]
    assert read(tmp_path / "none.jsonl") == []


def test_a_figure_that_is_no_number_is_json_still():
    line = check("loss", math.nan, 0.1).line(**WHERE)
    assert json.loads(json.dumps(line, allow_nan=False))["value"] is None
    assert line["ok"] is False and line["note"] == "nan; at most 0.1"


def test_the_table_has_a_row_for_what_shares_its_settings():
    figures = [Figure("step", 12.3456, "ms", {"form": "stored"}), Figure("launches", 9947, "", {"form": "stored"}),
               check("loss", 2e-7, 1e-5, form="plain"), check("loss", 1.0, 1e-5, form="fused"),
               Figure("not run", None, note="no time | was left"), Figure("took", 3.0, "s")]
    text = table([figure.line(**WHERE, torch="2.11", device="GPU") for figure in figures])
    assert text.splitlines()[0] == "device GPU, torch 2.11"
    assert text.splitlines()[4:] == [
        "| zoo | all | form stored | step 12.35 ms; launches 9947 |",
        "| zoo | all | form plain | loss 2e-07 ok (at most 1e-05) |",
        "| zoo | all | form fused | loss 1 FAIL (at most 1e-05) |",
        "| zoo | all |  | not run - (no time / was left) |"]


# ---- processes


def python(program):
    return [sys.executable, "-u", "-c", program]


def test_a_process_ends_at_its_time_limit_with_all_that_it_started(tmp_path):
    program = ("import subprocess, sys, time; print('case one'); "
               "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
               "print(child.pid); time.sleep(60)")
    began = time.monotonic()
    code, printed = processes.one_process(python(program), 2.0, tmp_path / "log.txt")
    assert code is None and time.monotonic() - began < 30
    assert processes.death(code, printed).case == "one"
    pid = int(printed.splitlines()[1])
    with pytest.raises(ProcessLookupError):  # or a zombie, until init has seen it
        for _ in range(100):
            os.kill(pid, 0)
            if "State:\tZ" in (text := status(pid)) or not text:
                raise ProcessLookupError
            time.sleep(0.1)


def status(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


@pytest.mark.parametrize(("program", "why"), [
    ("raise RuntimeError('CUDA error: an illegal address')", "RuntimeError: CUDA error: an illegal address"),
    ("import os, sys; print('terminate called', file=sys.stderr); os.abort()", "SIGABRT: terminate called")])
def test_a_death_is_told_by_its_last_line(program, why, tmp_path):
    code, printed = processes.one_process(python(f"print('case a\\ncase b'); {program}"), 20.0, tmp_path / "log.txt")
    assert code and processes.death(code, printed) == ("b", why)
    assert why.split(": ", 1)[1] in (tmp_path / "log.txt").read_text()


def run_section(monkeypatch, folder, *ends, seconds=100.0):
    """A section whose processes end so, one after the other; its lines, and after which case each began."""
    began = []

    def one_process(command, seconds, log):
        began.append(command[command.index("--after") + 1])
        return ends[len(began) - 1]

    monkeypatch.setattr(processes, "one_process", one_process)
    processes.run_section("zoo", seconds, ["--device", "cpu"], folder, "1")
    return [(line["case"], line["name"], line["ok"], line["note"]) for line in read(folder / "results.jsonl")], began


def test_after_a_crash_the_next_case_goes_on(monkeypatch, tmp_path):
    lines, began = run_section(monkeypatch, tmp_path, (-signal.SIGSEGV, "case a\ncase b\nboom\n"),
                               (processes.AGAIN, "case c\n"), (0, "case d\n"))
    assert began == ["", "b", "c"]
    assert lines == [("b", "failed", False, "SIGSEGV: boom")]  # of c its process has told


@pytest.mark.parametrize(("end", "line"), [
    ((1, "ImportError: no module"), ("start", "failed", False, "ImportError: no module")),
    ((None, "case a\ncase b\n"), ("b", "not finished", None, "time limit of 100 s, in this case; those after it were "
                                  "not run"))])
def test_where_nothing_can_go_on_the_section_ends(end, line, monkeypatch, tmp_path):
    assert run_section(monkeypatch, tmp_path, end) == ([line], [""])


def test_a_section_without_time_is_told(monkeypatch, tmp_path):
    lines, began = run_section(monkeypatch, tmp_path, seconds=3.0)
    assert not began and lines == [("start", "not run", None, "what comes after this did not fit into 3 s")]


def test_a_mistake_of_the_user_ends_it_all(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"^device = 'cuda': no CUDA device$"):
        run_section(monkeypatch, tmp_path, (processes.MISTAKE, "error: device = 'cuda': no CUDA device\n"))


# ---- the command


def test_time_is_shared_and_what_is_left_over_goes_on(monkeypatch, tmp_path, capsys):
    """A section that takes none leaves its share to the others; the last one gets all that there is."""
    given = {}

    def nothing(name, seconds, options, out, run):
        given[name] = seconds
        append(out / "results.jsonl", Figure("x", 1.0, ok=name != "zoo").line(run=run, section=name, case="c"))

    monkeypatch.setattr(__main__, "run_section", nothing)
    assert __main__.main(["--minutes", "10", "--out", str(tmp_path)]) == 1
    assert list(given) == list(SECTIONS)
    part = SECTIONS["ceilings"].share / sum(section.share for section in SECTIONS.values())
    assert given["ceilings"] == pytest.approx(600 * part, rel=0.01)
    assert given["launches"] == pytest.approx(600, rel=0.01)
    assert "| zoo | c |  | x 1 FAIL |" in (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out.splitlines()[-2:] == ["FAIL: zoo c  x 1 FAIL", "9 figures, 1 failures"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line(tmp_path, capsys):
    assert __main__.main(["--only", "ceilings", "zoo", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: device = 'cuda': no CUDA device that torch can use here; allowed: cpu\n"
    assert __main__.main(["--minutes", "0"]) == 2


# ---- a section's own process


@pytest.fixture
def bench(tmp_path):
    return section.Bench(Cpu(), "tiny", "digits", str(tmp_path), 100.0, tmp_path)


def test_a_case_that_raises_is_told_and_the_next_one_runs(bench, monkeypatch):
    def case(bench):
        yield Figure("first", 1.0)
        raise RuntimeError("CUDA error: misaligned address\nCompile with TORCH_USE_CUDA_DSA")

    told = []
    assert section.run_case("bad", case, bench, told.append)
    assert [figure.name for figure in told] == ["first", "failed", "took"]
    assert told[1].note == "RuntimeError: CUDA error: misaligned address" and told[1].ok is False
    monkeypatch.setattr(bench.on, "works", lambda: False)
    assert not section.run_case("bad", case, bench, told.append)


def test_a_case_without_time_is_not_begun(bench):
    told, bench.ends = [], 0.0
    assert section.run_case("late", lambda bench: iter([Figure("x", 1.0)]), bench, told.append)
    assert [(figure.name, figure.value, figure.ok) for figure in told] == [("not run", None, None)]


def test_the_data_that_is_there(tmp_path):
    assert section.there(str(tmp_path)) == "digits"
    (tmp_path / "cifar10-jpeg").mkdir()
    assert section.there(str(tmp_path)) == str(tmp_path / "cifar10-jpeg")
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert section.there(str(tmp_path)) == "cifar10"


# ---- errors


def test_errors_are_relative_and_a_small_tensor_is_not_lost():
    expected = [torch.full((1000,), 10.0), torch.full((10,), 1.0)]
    found = [expected[0], expected[1] + 0.5]
    assert error(expected, expected) == 0 and error(found, expected) < 0.01
    assert worst(found, expected) == pytest.approx(0.5)
    assert math.isnan(worst([expected[0], expected[1] * math.nan], expected))
    assert not check("x", math.nan, 1.0).ok and check("x", 1.0, 1.0).ok


def test_without_kinks_float32_is_near_float64(bench):
    """And a wrong gradient is far from it."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten(), nn.Linear(8 * 15 * 15, 10))

    def gradients(scale, model, images, labels):
        with Launches() as launches:
            loss = scale * F.cross_entropy(model(images), labels)
        assert not {"relu", "max_pool2d_with_indices"} & launches.of.keys()
        return torch.autograd.grad(loss, list(model.parameters()))

    with Smooth(), fp32_as("ieee"):
        expected = expectation(model, lambda *args: gradients(1.0, *args), 4)
        right, wrong = (on_device(bench, model, lambda *args, scale=scale: gradients(scale, *args), 4)
                        for scale in (1.0, 1.01))
    assert expected[0].dtype == torch.float64 and right[0].dtype == torch.float32
    assert error(right, expected) < 1e-5 < 5e-3 < error(wrong, expected)
    assert random_batch(3)[0].shape == (3, 3, 32, 32)


# ---- a GPU, made up


@pytest.fixture
def gpu(monkeypatch):
    """torch.cuda that counts launches of nothing; its clock goes on by a millisecond a call."""
    now = iter(range(10**6))

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = next(now)

        def synchronize(self):
            pass

        def elapsed_time(self, other):
            return float(other.at - self.at)

    class Graph:
        def replay(self):
            next(now)

    def properties():
        return SimpleNamespace(multi_processor_count=132, total_memory=80e9, L2_cache_size=50e6, major=9, minor=0,
                               uuid="0-1")

    stream = SimpleNamespace(wait_stream=lambda other: None)
    made_up = {
        "get_device_name": lambda: "made up", "synchronize": lambda: None, "empty_cache": lambda: None, "Event": Event,
        "CUDAGraph": Graph, "Stream": lambda: stream, "current_stream": lambda: stream,
        "graph": lambda graph: nullcontext(), "stream": lambda stream: nullcontext(),
        "reset_peak_memory_stats": lambda: None,
        "max_memory_allocated": lambda: 2 * 10**9, "max_memory_reserved": lambda: 3 * 10**9,
        "set_sync_debug_mode": lambda mode: warnings.warn("does not detect all synchronizing operations", stacklevel=1),
        "get_device_properties": properties}
    for name, value in made_up.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return Cuda()


def raises(error):
    def raising(*args, **how):
        raise error
    return raising


def test_what_is_measured_on_a_gpu(gpu, monkeypatch):
    calls = []
    assert gpu.seconds(lambda: calls.append(1), 5) == 0.001 and len(calls) == 5
    replay = gpu.together([lambda: calls.append(2)] * 4)
    assert calls.count(2) == 3 + 4 and gpu.seconds(replay, 6) == pytest.approx(0.007)
    assert gpu.peaks(lambda: 7) == (7, {"peak memory": 2.0, "with what is kept": 3.0})
    assert gpu.works()
    monkeypatch.setattr(torch.cuda, "synchronize", raises(RuntimeError("CUDA error")))
    assert not gpu.works()


def test_waits_are_counted(gpu):
    def two():
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    assert gpu.waits(two) == 2 and gpu.waits(lambda: None) == 0


def test_facts_of_a_gpu(gpu, monkeypatch):
    def smi(command, **how):
        assert command[:3] == ["nvidia-smi", "-i", "GPU-0-1"]
        return SimpleNamespace(stdout="345, 1980, 2619, 30, [N/A], 580.159.04\n")

    monkeypatch.setattr(processor.subprocess, "run", smi)
    found = {figure.name: figure for figure in gpu.facts()}
    assert found["memory"].value == 80 and found["compute capability"].value == 9.0
    assert found["clocks.sm"].value == 345 and found["clocks.sm"].settings == {"driver": "580.159.04"}
    assert found["power.draw"].value is None and found["power.draw"].note == "[N/A]"
    monkeypatch.setattr(processor.subprocess, "run", raises(FileNotFoundError("nvidia-smi")))
    assert [figure.name for figure in gpu.clocks("x")] == ["clocks"]


def test_seconds_as_time_and_as_rate():
    seconds = Seconds([0.001, 0.004, 0.002])
    assert seconds.figure("step", "ms", batch=4) == Figure("step", 2.0, "ms", {"batch": 4}, spread=(1.0, 4.0))
    assert seconds.figure("speed", "images/s", 8)[1:3] == (4000.0, "images/s")


def test_kernels_of_a_cpu_are_its_operations():
    x = torch.ones(100, 100)
    count, seconds = Cpu().kernels(lambda: x @ x)
    assert count >= 1 and 0 < seconds < 1


# ---- recorded steps


@pytest.mark.slow
def test_a_recorded_search_is_checked_and_a_wrong_one_found(bench, digits_dir, monkeypatch):
    """By an emulation of CUDA graphs; and one that forgets a replay."""
    bench.data_dir, bench.on.recorder = str(digits_dir), GraphOnCpu
    monkeypatch.setattr(correct_search, "steps_of", lambda bench: WARM + 3)
    right = list(correct_search.recorded(1, bench))
    assert [figure.ok for figure in right] == [True, True] and right[0].value < 1e-12
    monkeypatch.setattr(GraphOnCpu, "replay", lambda graph: None)
    assert next(iter(correct_search.recorded(1, bench))).ok is False


# ---- kernels of our own


def test_a_kernel_is_checked_and_a_wrong_one_found(bench, monkeypatch):
    """By Triton's interpreter, as far as that can: no TF32, and no products in bf16."""
    pytest.importorskip("triton", reason="Triton comes with PyTorch's CUDA builds")
    from models.kernels import pooling

    products, pools = list(correct_kernels.pointwise(bench)), list(correct_kernels.pools(bench))
    assert len(products) == 5 * 3 * 3 and all(figure.ok for figure in products if figure.settings["type"] != "bf16")
    assert len(pools) == 2 * 3 * 2 and all(figure.ok for figure in pools)
    monkeypatch.setattr(pooling, "avg_pool", lambda x, kernel, stride, count: F.avg_pool2d(x, kernel, stride, 1))
    assert not next(correct_kernels.pools(bench)).ok


# ---- all of it


@pytest.mark.slow
def test_every_section_runs_in_small_on_a_cpu_and_without_nni(tmp_path, digits_dir):
    (tmp_path / "without").mkdir()
    (tmp_path / "without/nni.py").write_text("raise ImportError('there is no NNI')\n")
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--sizes", "tiny", "--minutes", "15",
               "--data", "digits", "--data-dir", str(digits_dir), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path / "without")},
                          capture_output=True, text=True, timeout=900)
    log = (tmp_path / "out/log.txt").read_text()
    assert done.returncode == 0, done.stdout + done.stderr + log
    lines = read(tmp_path / "out/results.jsonl")
    took = {(line["section"], line["case"]) for line in lines if line["name"] == "took"}
    assert took == {(name, case) for name in SECTIONS for case in section.cases(name, "tiny")}
    assert all(line["value"] is not None and line["ok"] in (None, True) for line in lines)
    assert all(line["torch"] == torch.__version__ and line["device"] and line["commit"] for line in lines)
    assert (tmp_path / "out/table.md").read_text() in done.stdout
