"""Retrain: recipes, what a run writes, stop and resume, several processes, bad input."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import retrain
from artifacts.model_file import load_model
from config import RetrainConfig
from conftest import ROOT
from models.darts.genotype_files import load_genotype
from pictures import dataset
from training import loop

CPU = torch.device("cpu")
NETWORK = ["--genotype", "DARTS_V2", "--channels", "4", "--layers", "3"]
SMALL = ["--data", "digits", "--train-size", "96", "--batch-size", "24", "--epochs", "2"]  # 8 steps


@pytest.fixture
def main(call_trial, digits_dir, tmp_path):
    """retrain.main on digits; the run's folder is NAME in tmp_path."""
    def call(*argv, tuner=None, network=NETWORK):
        where = ["--data-dir", str(digits_dir), "--runs-dir", str(tmp_path)]
        return call_trial(retrain.main, [*network, *SMALL, *where, *argv], tuner)
    return call


@pytest.fixture(scope="module")
def unbroken(digits_dir, tmp_path_factory):
    """The folder of a run without a stop."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert retrain.main([*NETWORK, *SMALL, "--data-dir", str(digits_dir), "--runs-dir", str(folder)]) == 0
    return folder / "retrain" / "digits-DARTS_V2-standard-seed0"


def same_model(a, b):
    a, b = (torch.load(folder / "model.pt", weights_only=True)["weights"] for folder in (a, b))
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


# ---- settings


def test_the_defaults_are_the_published_recipe():
    config = retrain.settings({"genotype": "DARTS_V2"}, {})
    published = {"epochs": 600, "batch_size": 96, "optimizer": "SGD", "lr": 0.025, "momentum": 0.9, "warmup": 0.0,
                 "weight_decay": 3e-4, "clip": 5.0, "cutout": 16, "crop_padding": 4, "auxiliary": 0.4,
                 "drop_path": 0.2, "label_smoothing": 0.0, "channels": 36, "layers": 20, "all_data": True,
                 "augment": "basic", "ema": 0.0}
    assert {key: getattr(config, key) for key in published} == published
    long = retrain.settings({"genotype": "DARTS_V2", "recipe": "long"}, {})
    changed = {key for key in vars(config) if getattr(config, key) != getattr(long, key)}
    assert changed == {"recipe", "epochs", "augment", "ema"}
    assert (long.epochs, long.augment, long.ema) == (1500, "autoaugment", pytest.approx(0.9999))


def test_default_recipe_command_line_tuner():
    given = {"genotype": "DARTS_V1", "recipe": "long"}
    assert retrain.settings(given, {}).epochs == 1500
    assert retrain.settings({**given, "epochs": 30}, {}).epochs == 30
    assert retrain.settings({**given, "epochs": 30}, {"epochs": 3}).epochs == 3
    by_tuner = retrain.settings({"genotype": "DARTS_V1"}, {"recipe": "long", "lr": 0.1})
    assert (by_tuner.epochs, by_tuner.lr) == (1500, 0.1)
    # The average reaches back over the same share of a shorter training.
    assert 1 - retrain.settings({**given, "epochs": 150}, {}).ema == pytest.approx(10 * 1e-4)
    assert retrain.settings({**given, "ema": 0.5}, {}).ema == 0.5


def test_a_network_of_the_zoo_has_neither_head_nor_paths():
    config = retrain.settings({"model": "resnet18"}, {})
    assert (config.auxiliary, config.drop_path, config.epochs) == (0, 0, 600)


def test_names_of_runs(tmp_path):
    source = tmp_path / "search-7" / "genotype.json"
    source.parent.mkdir()
    source.write_text(json.dumps(load_genotype("PC_DARTS").to_json()))
    names = {name: retrain.target(RetrainConfig(genotype=name))[0]
             for name in ("DARTS_V2", "random:3", str(source))}
    assert names == {"DARTS_V2": "DARTS_V2", "random:3": "random-3", str(source): "search-7"}
    assert retrain.target(RetrainConfig(genotype=str(source)))[1] == load_genotype("PC_DARTS")
    assert retrain.target(RetrainConfig(model="vgg")) == ("vgg", None)


# ---- a run


def test_what_a_run_writes(unbroken, digits_dir):
    """The figures of result.json are found again with model.pt and plain loops over the test images."""
    result, pictures = result_of(unbroken), dataset.load("digits", digits_dir)
    assert result["stage"] == "retrain" and result["last"]["epoch"] == 2 and result["best"] is None
    assert result["metric"].startswith("training accuracy") and result["value"] == result["last"]["train_accuracy"]
    assert result["data"]["train_images"] == 96 and result["data"]["val_images"] == 0
    assert result["architecture"]["normal"] == load_genotype("DARTS_V2").to_json()["normal"]
    trained = load_model(unbroken / "model.pt", CPU)
    assert result["parameters"] == sum(p.numel() for p in trained.model.parameters())
    assert trained.facts["test"] == result["test"] and trained.facts["config"]["lr"] == 0.025
    assert trained.classes == tuple("0123456789")

    pixels = torch.from_numpy(pictures.test_images[..., :3].astype(np.float32) / 255).permute(0, 3, 1, 2)
    mean, std = (value.view(1, 3, 1, 1) for value in (trained.normalization.mean, trained.normalization.std))
    with torch.no_grad():
        logits = trained.model((pixels - mean) / std)
    test, labels = result["test"], torch.from_numpy(pictures.test_labels)
    confusion = [[int(((labels == row) & (logits.argmax(1) == column)).sum()) for column in range(10)]
                 for row in range(10)]
    assert test["images"] == 360 and np.abs(np.array(test["confusion"]) - confusion).sum() <= 2  # equal logits
    assert test["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=0.02)
    right = [row[i] for i, row in enumerate(test["confusion"])]
    assert test["accuracy"] == pytest.approx(sum(right) / 360)
    assert test["class_accuracy"] == {str(i): pytest.approx(right[i] / sum(test["confusion"][i])) for i in range(10)}


def test_the_test_images_are_read_once_after_the_last_epoch(main, monkeypatch):
    """8 steps, then the two batches of the 360 test images."""
    read, batch = [], dataset.Batches.ready

    def reading(batches, picked, draws):
        read.append((len(batches.pixels), len(picked)))
        return batch(batches, picked, draws)

    monkeypatch.setattr(dataset.Batches, "ready", reading)
    assert main()[0] == 0
    assert read == [(1437, 24)] * 8 + [(360, 256), (360, 104)]


def test_with_validation_the_metric_is_that_of_validation(main, tmp_path):
    code, _ = main("--no-all-data", "--val-size", "64", "--name", "v")
    result = result_of(tmp_path / "retrain" / "v")
    assert code == 0 and result["data"]["val_images"] == 64 and result["value"] == result["last"]["val_accuracy"]
    assert result["metric"].startswith("validation accuracy") and result["best"]["val_accuracy"] >= result["value"]


def test_the_long_recipe_runs(main, tmp_path):
    code, _ = main("--recipe", "long")
    folder = tmp_path / "retrain" / "digits-DARTS_V2-long-seed0"
    config = json.loads((folder / "config.json").read_text())
    assert code == 0 and config["augment"] == "autoaugment" and config["ema"] == pytest.approx(0.925)


def test_a_network_of_the_zoo_by_the_same_recipe(main, tmp_path):
    code, _ = main("--name", "zoo", network=["--model", "shufflenetg2"])
    trained = load_model(tmp_path / "retrain" / "zoo" / "model.pt", CPU)
    assert code == 0 and trained.network == {"family": "zoo", "name": "shufflenetg2"}


def test_a_trial_of_nni(main, tmp_path):
    code, told = main(tuner={"seed": 1, "genotype": "DARTS_V1"})
    result = result_of(tmp_path / "nni")
    epochs = [json.loads(line) for line in (tmp_path / "nni" / "metrics.jsonl").read_text().splitlines()]
    assert code == 0 and result["config"]["seed"] == 1
    assert told["intermediate"] == [epoch["train_accuracy"] for epoch in epochs] and len(epochs) == 2
    assert told["final"] == [{"default": result["value"], "test_accuracy": result["test"]["accuracy"],
                              "run.seed": 1, "run.genotype": "DARTS_V1"}]


def test_a_diverged_run_is_not_tested_and_has_no_model(main, tmp_path):
    code, _ = main("--name", "d", "--lr", "1e30", "--clip", "0")
    result = result_of(tmp_path / "retrain" / "d")
    assert code == 0 and result["diverged"] and result["value"] == 0 and "test" not in result
    assert not (tmp_path / "retrain" / "d" / "model.pt").exists()


# ---- batches


@pytest.mark.parametrize("augment", ["basic", "autoaugment"])
def test_an_epoch_may_begin_at_any_batch_and_be_shared(digits_dir, augment):
    pictures = dataset.load("digits", digits_dir)

    def batches(share=slice(None)):
        return dataset.training_batches(
            pictures, CPU, train_size=100, val_size=0, batch_size=24, crop_padding=4, flip="on", cutout=8, seed=3,
            augment=augment, all_data=True, share=share).train

    whole = list(batches().epoch(5))
    assert len(whole) == 4 == len(batches(slice(0, 12)))
    for start in range(5):
        tail = list(batches().epoch(5, start))
        assert len(tail) == 4 - start
        for batch, expected in zip(tail, whole[start:], strict=True):
            assert all(map(torch.equal, batch, expected))
    parts = [list(batches(share).epoch(5)) for share in (slice(0, 12), slice(12, 24))]
    for (x, y), *both in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([part[0] for part in both]), x)
        assert torch.equal(torch.cat([part[1] for part in both]), y)
    assert batches(slice(0, 12)).images == 96  # of all processes together


def test_all_images_are_trained_on(digits_dir):
    pictures = dataset.load("digits", digits_dir)
    loaders = dataset.training_batches(pictures, CPU, train_size=0, val_size=0, batch_size=24, crop_padding=0,
                                       flip="off", cutout=0, seed=0, all_data=True)
    assert loaders.val is None and sorted(loaders.train.index.tolist()) == list(range(1437))


# ---- stop and resume


@pytest.mark.parametrize("recipe", ["standard", "long"])
def test_stop_within_an_epoch_and_resume_is_bitwise_no_stop(main, tmp_path, monkeypatch, capsys, recipe):
    """Ctrl-C in the sixth of eight steps: drop path, cutout, AutoAugment, averaged weights, momentum, sums."""
    assert main("--name", "whole", "--recipe", recipe)[0] == 0
    step, steps = loop.train_step, []

    def interrupted(*args, **kwargs):
        steps.append(1)
        if len(steps) == 6:
            signal.raise_signal(signal.SIGINT)
        return step(*args, **kwargs)

    with monkeypatch.context() as context:
        context.setattr(loop, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            main("--name", "stopped", "--recipe", recipe)
    stopped = tmp_path / "retrain" / "stopped"
    assert len(steps) == 6 and not (stopped / "model.pt").exists() and not (stopped / "result.json").exists()
    assert torch.load(stopped / "checkpoint.pt", weights_only=True)["within_epoch"]["steps"] == 2
    assert main("--name", "stopped", "--recipe", recipe, "--resume")[0] == 0
    whole = tmp_path / "retrain" / "whole"
    assert same_model(whole, stopped)
    assert result_of(whole)["test"] == result_of(stopped)["test"]


@pytest.fixture
def process(digits_dir, tmp_path):
    """Start retrain.py as its own process, 40 steps with checkpoints as often as can be, in folder `name`."""
    def start(name, *argv):
        command = [sys.executable, "retrain.py", *NETWORK, *SMALL, "--epochs", "10", "--checkpoint-minutes", "1e-9",
                   "--data-dir", str(digits_dir), "--runs-dir", str(tmp_path), "--name", name, *argv]
        return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                env={**os.environ, "OMP_NUM_THREADS": "1"})
    return start


def wait_for(path, seconds=60):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_process_killed_at_random_moments_goes_on_exactly(process, tmp_path, number):
    """Three times each. The checkpoint is whole after every one; who sent the signal sees the process end by it."""
    whole, folder, moments = process("whole"), tmp_path / "retrain" / "killed", random.Random(number)
    for attempt in range(3):
        checkpoint = folder / "checkpoint.pt"
        before = checkpoint.stat().st_mtime_ns if attempt else 0
        running = process("killed", *(["--resume"] if attempt else []))
        wait_for(checkpoint)
        while checkpoint.stat().st_mtime_ns == before and running.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.random() * 0.3)
        running.send_signal(number)
        output = running.communicate(timeout=60)[0]
        assert running.returncode == -number, output
        torch.load(checkpoint, weights_only=True)
        assert not (folder / "result.json").exists()
    last = process("killed", "--resume")
    output = last.communicate(timeout=120)[0]
    assert last.returncode == 0, output
    assert whole.wait(timeout=120) == 0
    assert same_model(tmp_path / "retrain" / "whole", folder)
    assert not list(folder.glob(".*"))  # of files half written


# ---- several processes


SHARED = '''
import sys
from types import SimpleNamespace
import torch
from torch import nn
from pictures.dataset import load, training_batches
from training.distributed import joined, rank, share, size
from training.loop import fit

settings = SimpleNamespace(optimizer="SGD", lr=0.05, weight_decay=1e-3, momentum=0.9, epochs=3, warmup=0.1,
                           label_smoothing=0.1, clip=1.0, ema=0.9, precision="fp32", compile=False, graph=True,
                           seed=0)
with joined(torch.device("cpu")) as device:
    loaders = training_batches(load("digits", sys.argv[1]), device, train_size=96, val_size=50, batch_size=24,
                               crop_padding=4, flip="off", cutout=8, seed=0, share=share(24))
    torch.manual_seed(rank())  # process 0's weights count
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.GroupNorm(2, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
                          nn.Flatten(), nn.Linear(32, 10))
    result = fit(model, *loaders, settings, identity={})
    torch.save({"weights": model.state_dict(), "last": result.last, "processes": size()}, f"{sys.argv[2]}-{rank()}.pt")
'''


def torchrun(*argv, how=()):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    how = how or ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *how, *map(str, argv)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_the_joint_batch(digits_dir, tmp_path):
    """With group norm: on CPUs torch has no batch norm over several processes, so each norms its share."""
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    subprocess.run([sys.executable, script, digits_dir, tmp_path / "one"], cwd=ROOT, check=True,
                   env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
    done = torchrun(script, digits_dir, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    one, *both = (torch.load(tmp_path / name, weights_only=True) for name in ("one-0.pt", "two-0.pt", "two-1.pt"))
    assert one["processes"] == 1 and both[0]["processes"] == 2
    for two in both:
        for key, value in one["weights"].items():
            assert torch.allclose(value, two["weights"][key], rtol=1e-4, atol=1e-6), key
        for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            assert two["last"][key] == pytest.approx(one["last"][key], rel=1e-4), key


@pytest.mark.slow
def test_torchrun_writes_one_run_and_can_be_resumed_by_one_process(digits_dir, tmp_path, main):
    argv = ["retrain.py", *NETWORK, *SMALL, "--data-dir", digits_dir, "--runs-dir", tmp_path]
    done = torchrun(*argv)
    folder = tmp_path / "retrain" / "digits-DARTS_V2-standard-seed0"
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   2") == 1 and done.stdout.count("done:") == 1
    first = result_of(folder)["test"]
    assert main("--resume")[0] == 0 and result_of(folder)["test"] == first
    odd = torchrun(*argv, "--batch-size", 25, "--name", "odd")
    assert odd.returncode != 0 and "batch_size = 25: must be a multiple of 2" in odd.stderr


KILLED_ONCE = '''
import os, signal, sys
import retrain
from artifacts.run_folder import RunFolder
from training import place

def epoch(self, record, whole=RunFolder.epoch):
    whole(self, record)
    if record["epoch"] == 3 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)

if os.environ["RANK"] == "0":
    place.RESTARTS = {}  # as where torchrun has not seen the failure on another machine
RunFolder.epoch = epoch
sys.exit(retrain.main(sys.argv[1:]))
'''


@pytest.mark.slow
def test_torchrun_goes_on_when_a_worker_was_killed(digits_dir, tmp_path):
    (tmp_path / "killed.py").write_text(KILLED_ONCE)
    argv = [*NETWORK, *SMALL, "--data-dir", digits_dir, "--runs-dir", tmp_path, "--name", "a", "--epochs", 4,
            "--checkpoint-minutes", 1e-9]
    done = torchrun(tmp_path / "killed.py", *argv, how=["--standalone", "--max-restarts", "1"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("started again by torchrun: goes on after epoch 3") == 1
    assert result_of(tmp_path / "retrain/a")["last"]["epoch"] == 4


# ---- bad input


@pytest.mark.parametrize(("argv", "words"), [
    (["--genotype", "DARTS_V3"], ["genotype 'DARTS_V3'", "DARTS_V2"]),
    (["--genotype", "random:x"], ["random:x", "whole number"]),
    (["--recipe", "short"], ["recipe = 'short'", "standard, long"]),
    (["--model", "resnet18"], ["either --genotype NAME_OR_FILE or --model NAME"]),
    (["--genotype", ""], ["either --genotype NAME_OR_FILE or --model NAME"]),
    (["--genotype", "", "--model", "resnet19"], ["model = 'resnet19'", "resnet18"]),
    (["--genotype", "", "--model", "resnet18", "--auxiliary", "0.4"], ["auxiliary = 0.4", "zoo"]),
    (["--genotype", "", "--model", "resnet18", "--drop-path", "0.2"], ["drop_path = 0.2", "zoo"]),
    (["--val-size", "50"], ["val_size = 50", "--no-all-data"]),
    (["--train-size", "1500"], ["train_size = 1500", "1437"]),
    (["--batch-size", "97"], ["batch_size = 97", "96 training images"]),
    (["--optimizer", "sgd"], ["optimizer = 'sgd'", "SGD"]),
    (["--augment", "randaugment"], ["augment = 'randaugment'", "autoaugment"]),
    (["--layers", "2"], ["layers = 2", "at least 3"]),
    (["--drop-path", "1"], ["drop_path = 1.0", "below 1"]),
    (["--resume", "--name", "fresh"], ["no checkpoint", "fresh"]),
])
def test_bad_input_is_one_line_with_exit_code_2(main, tmp_path, capsys, argv, words):
    code, _ = main(*argv)
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("error: ") and error.count("\n") == 1 and all(word in error for word in words), error
    assert not (tmp_path / "retrain").exists()


def test_a_broken_genotype_file_is_named(main, tmp_path, capsys):
    genotype = load_genotype("DARTS_V2").to_json()
    genotype["normal"][0][0] = ["conv_7x7", 0]
    (tmp_path / "g.json").write_text(json.dumps(genotype))
    assert main("--genotype", str(tmp_path / "g.json"))[0] == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "g.json" in error and "conv_7x7" in error


@pytest.mark.parametrize(("argv", "network", "words"), [
    ([], ["--genotype", "DARTS_V1", "--channels", "4", "--layers", "3"], ["normal"]),
    ([], ["--genotype", "DARTS_V2", "--channels", "5", "--layers", "3"], ["channels = 4", "has 5"]),
    ([], ["--model", "shufflenetg2"], ["auxiliary = 0.4", "has 0.0"]),
    (["--seed", "7"], NETWORK, ["seed = 0", "has 7"]),
    (["--epochs", "3"], NETWORK, ["epochs = 2", "has 3"]),
])
def test_a_checkpoint_of_another_run_is_refused(main, unbroken, tmp_path, capsys, argv, network, words):
    folder = tmp_path / "retrain" / "other"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes((unbroken / "checkpoint.pt").read_bytes())
    assert main("--name", "other", "--resume", *argv, network=network)[0] == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "checkpoint.pt" in error and all(word in error for word in words), error


def test_a_checkpoint_of_another_data_set_is_refused(main, unbroken, tmp_path, capsys, monkeypatch):
    folder, load = tmp_path / "retrain" / "other", dataset.load

    def changed(**settings):
        pictures = load(**settings)
        object.__setattr__(pictures, "checksum", "another")
        return pictures

    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes((unbroken / "checkpoint.pt").read_bytes())
    monkeypatch.setattr(dataset, "load", changed)
    assert main("--name", "other", "--resume")[0] == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "data_checksum" in error and "another" in error


def test_out_of_gpu_memory_names_a_batch_that_would_fit(main, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(loop, "train_step", full)
    assert main()[0] == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "out of GPU memory" in error and "--batch-size 12" in error
