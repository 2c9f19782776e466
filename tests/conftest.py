"""What several test files share."""

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Before torch, and for all processes of the tests: several of them with two threads each on two cores wait for one
# another at every parallel region. What a test computes is small.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before Triton, if it is there: its interpreter runs the kernels for GPUs on a CPU (models/test_kernels.py).
os.environ["TRITON_INTERPRET"] = "1"

import nni
import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from training.reporter import Reporter

ROOT = Path(__file__).parent.parent


START_NNI = re.compile(r"(test_experiment|nas/test_tuner|test_moved|test_webui)\.py"
                       r"|test_pipeline\.py::test_(ten_kills|interrupt)_"
                       r"|test_readme\.py::test_command\[(python experiment|make demo|NODE_OPTIONS)")


class ByFile(LoadScopeScheduling):
    """For the two processes of `make test`: a file's tests in one, but all that start NNI in the same, since each looks
    whether what it started is gone."""

    def _split_scope(self, nodeid):
        return "NNI" if START_NNI.search(nodeid) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)


def pytest_collection_modifyitems(items):
    """What starts NNI first: it takes longest and waits most."""
    items.sort(key=lambda item: START_NNI.search(item.nodeid) is None)


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    """A data_dir in which digits are packed."""
    from pictures import dataset

    folder = tmp_path_factory.mktemp("data")
    dataset.load("digits", folder)
    return folder


@pytest.fixture(scope="session")
def cifar10_dir():
    """All of CIFAR-10 as train/<class>/*.jpg and test/<class>/*.jpg, named by the environment."""
    if "CIFAR10_DIR" not in os.environ:
        pytest.skip("CIFAR10_DIR does not name a folder with CIFAR-10 as pictures")
    return Path(os.environ["CIFAR10_DIR"])


@pytest.fixture
def call_trial(tmp_path, monkeypatch):
    """Call a trial script as NNI would, with `tuner`'s parameters, or alone; exit code and what NNI was told."""
    def call(main, argv, tuner=None):
        told = {"intermediate": [], "written": [], "final": []}

        def hear(metric):
            told["intermediate"].append(metric)
            told["written"].append((tmp_path / "nni/result.json").exists())

        handed = []  # by NNI: parameters to each trial once, and nothing to a command that runs alone
        monkeypatch.setattr(nni, "get_next_parameter", lambda: handed.append(tuner) or tuner)
        monkeypatch.setattr(nni, "report_intermediate_result", hear)
        monkeypatch.setattr(nni, "report_final_result", told["final"].append)
        if tuner is not None:
            monkeypatch.setenv("NNI_PLATFORM", "local")
            monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path / "nni"))
        code = main(argv)
        assert handed == ([] if tuner is None else [tuner])
        return code, told
    return call


class Heard(Reporter):
    """A tuner's reporter that keeps what it is told."""

    tuned = True

    def __init__(self, folder):
        self.place, self.epochs, self.finals = folder, [], []

    def folder(self):
        return self.place

    def epoch(self, metric):
        self.epochs.append(metric)

    def final(self, metric, facts, ran):
        self.finals.append((metric, facts, ran))


@pytest.fixture
def call_run(tmp_path, monkeypatch):
    """Call a script's `run` as a tuner in Python would, in a thread, where there is no NNI; metric and reporter."""
    def call(run, argv, parameters):
        monkeypatch.setitem(sys.modules, "nni", None)
        heard = Heard(tmp_path / "tuned")
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(run, [*map(str, argv)], parameters, heard).result(), heard
    return call


@pytest.fixture
def tiny_batches():
    """Loaders of 64 training and 32 validation images, 8x8 noise with a learnable class signal; batch 16."""
    class Loader:
        def __init__(self, n, batch_size):
            generator = torch.Generator().manual_seed(n)
            self.y = torch.arange(n) % 4
            self.x = torch.randn(n, 3, 8, 8, generator=generator) + self.y[:, None, None, None]
            self.batch_size, self.images = batch_size, n

        def __len__(self):
            return len(self.y) // self.batch_size

        def epoch(self, epoch):
            order = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(epoch))
            for picked in order.split(self.batch_size):
                yield self.x[picked], self.y[picked]

    return Loader(64, 16), Loader(32, 16)
