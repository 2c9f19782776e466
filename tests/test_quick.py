"""The recipe quick: its settings, a run of it, stop and resume, as a recorded step, on two processes, bad input."""

import dataclasses
import json
import signal

import pytest
import torch

import predict
import retrain
from artifacts.model_file import load_model
from benchmarks import accuracy, recipe
from conftest import ROOT
from graph_on_cpu import GraphOnCpu
from models import build_model
from pictures import dataset
from test_retrain import result_of, same_model, torchrun
from training import loop
from training.execution import Execution
from training.loop import build_optimizer, fit, set_seed
from training.optimizers import triangle
from training.views import Views

CPU = torch.device("cpu")
QUICK = ["--model", "quicknet", "--recipe", "quick"]


@pytest.fixture
def main(call_trial, digits_dir, tmp_path):
    """retrain.main on 200 digits; the run's folder is NAME in tmp_path."""
    def call(*argv, network=QUICK):
        where = ["--data", "digits", "--data-dir", str(digits_dir), "--runs-dir", str(tmp_path)]
        return call_trial(retrain.main, [*network, *where, "--train-size", "200", "--epochs", "2", *argv])[0]
    return call


def settings(**given):
    return retrain.settings({"model": "quicknet", "recipe": "quick", **given}, {})


# ---- settings


def test_the_recipe_is_that_of_the_paper():
    """11.5 and 0.0153 for 1024 images, decoupled: in torch's SGD 1.5, and their quotient."""
    config = retrain.sized(settings(), 50_000)
    assert (config.epochs, config.batch_size, config.momentum) == (10, 1024, 0.85)
    assert config.lr == pytest.approx(1.5) and config.weight_decay == pytest.approx(0.00133, rel=1e-3)
    assert config.bias_factor == 64 and config.label_smoothing == 0.2


def test_the_command_line_wins_over_the_recipe():
    config = retrain.sized(settings(epochs=20, batch_size=500, bias_factor=1.0), 50_000)
    assert (config.epochs, config.batch_size, config.bias_factor) == (20, 500, 1.0)
    assert config.lr == pytest.approx(1.5 * 500 / 1024)
    assert retrain.sized(settings(lr=2.0), 50_000).lr == 2.0


@pytest.mark.parametrize(("images", "batch"), [(50_000, 1024), (40_960, 1024), (5000, 64), (1437, 32), (200, 32),
                                               (20, 16)])
def test_few_images_have_small_batches(images, batch):
    config = retrain.sized(settings(), images)
    assert config.batch_size == batch and config.lr == pytest.approx(1.5 * batch / 1024)


def test_the_triangle():
    rates = [triangle(step, 100, 0.25) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[25] == 1 and max(rates) == 1
    assert rates[99] == pytest.approx(0.07 + 0.93 / 75) and triangle(0, 1, 0.23) == 1
    assert rates[:26] == sorted(rates[:26]) and rates[25:] == sorted(rates[25:], reverse=True)


def test_biases_of_batch_norm_have_a_rate_of_their_own():
    model = build_model("quicknet", 10)
    kernels, others, biases = build_optimizer(model, "SGD", 0.1, 0.01, 0.9, bias_factor=64.0).param_groups
    assert {p.ndim for p in kernels["params"]} == {4, 2} and others["params"] == [model.stem[0].bias]
    assert len(biases["params"]) == 6 and biases["factor"] == 64 and biases["weight_decay"] == 0.01 / 64
    optimizer = build_optimizer(model, "SGD", 0.1, 0.01, 0.9, bias_factor=64.0)
    for recorded in (True, False):
        loop.ready_to_step(optimizer, CPU, recorded)
        loop.set_rate(optimizer, 0.5)
        assert [float(group["lr"]) for group in optimizer.param_groups] == [0.5, 0.5, 32]
    assert len(build_optimizer(build_model("resnet18", 10), "SGD", 0.1, 0.01, 0.9).param_groups) == 2


# ---- a run


def test_a_run_from_training_to_prediction(main, tmp_path, digits_dir):
    assert main("--name", "q", "--tta") == 0
    folder = tmp_path / "retrain" / "q"
    result, trained = result_of(folder), load_model(folder / "model.pt", CPU)
    assert result["config"]["recipe"] == "quick" and result["config"]["batch_size"] == 32
    assert 0 <= result["test"]["several_views_accuracy"] <= 1 and result["test"]["several_views_loss"] > 0
    assert trained.network == {"family": "zoo", "name": "quicknet"} and result["parameters"] == 1_972_792
    layer, loaders = trained.model.stem[0], loaders_of(digits_dir)
    again = build_model("quicknet", 10)
    again.prepare(loaders.train.plain(2048))
    torch.testing.assert_close(layer.weight, again.stem[0].weight)  # frozen, averaged weights or not
    assert layer.bias.any()
    picture = str(ROOT / "docs/classic_nas_best.png")
    assert predict.main(["--model", str(folder / "model.pt"), "--images", picture, "--out", str(tmp_path / "o")]) == 0


def loaders_of(digits_dir, **given):
    config = retrain.sized(settings(train_size=200, seed=0, **given), 200)
    return dataset.training_batches(dataset.load("digits", digits_dir), CPU, **retrain.of_batches(config))


def test_it_learns(digits_dir):
    """200 digits, a minute of one core: 10 epochs come to 94% of the others."""
    measure = accuracy.Measure(dataset.load("digits", digits_dir), CPU, 200)
    line = measure({"model": "quicknet", "recipe": "quick", "precision": "fp32", "epochs": 4})
    assert line["test_accuracy"] > 0.7


def test_stop_within_an_epoch_and_resume_is_bitwise_no_stop(main, tmp_path, monkeypatch):
    """Alternating flips, a rate of their own for biases, the triangle, averaged weights, the whitening of the start."""
    more = ["--flip", "on"]
    assert main("--name", "whole", *more) == 0
    step, steps = loop.train_step, []

    def interrupted(*args, **kwargs):
        steps.append(1)
        if len(steps) == 8:
            signal.raise_signal(signal.SIGINT)
        return step(*args, **kwargs)

    with monkeypatch.context() as context:
        context.setattr(loop, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            main("--name", "stopped", *more)
    stopped = tmp_path / "retrain" / "stopped"
    assert torch.load(stopped / "checkpoint.pt", weights_only=True)["within_epoch"]["steps"] == 2
    assert main("--name", "stopped", "--resume", *more) == 0
    assert same_model(tmp_path / "retrain" / "whole", stopped)


def test_a_training_whose_step_is_recorded(digits_dir, monkeypatch):
    """As a CUDA graph would be, by an emulation: the same weights, with rates that change at each step."""
    def trained(recorded):
        loaders = loaders_of(digits_dir, flip="on")
        config = dataclasses.replace(retrain.sized(settings(), 200), epochs=2, precision="fp32")
        set_seed(0)
        model = build_model("quicknet", 10)
        with monkeypatch.context() as context:
            if recorded:
                context.setattr(loop, "CudaGraph", lambda: GraphOnCpu())
            fit(model, *loaders, config, identity={}, execution=Execution("cpu", "fp32", captured=recorded))
        return list(model.state_dict().values())

    torch.testing.assert_close(trained(True), trained(False), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_two_processes(digits_dir, tmp_path):
    done = torchrun("retrain.py", *QUICK, "--data", "digits", "--data-dir", digits_dir, "--runs-dir", tmp_path,
                    "--train-size", 200, "--epochs", 1, "--name", "q")
    assert done.returncode == 0, done.stderr
    assert result_of(tmp_path / "retrain" / "q")["test"]["images"] == 360


# ---- pictures


def test_flips_alternate(digits_dir):
    """Which images are mirrored in an epoch is half of them, and the other half in the next."""
    train = loaders_of(digits_dir, flip="on").train
    flips = [torch.stack([torch.stack((picked, draws.flip)) for picked, draws in train.drawn(epoch)])
             for epoch in range(3)]
    by_image = [dict(zip(*epoch.transpose(0, 1).flatten(1).tolist(), strict=True)) for epoch in flips]
    both = by_image[0].keys() & by_image[1].keys()
    assert len(both) > 100 and all(by_image[0][i] != by_image[1][i] for i in both)
    assert all(by_image[0][i] == by_image[2][i] for i in by_image[0].keys() & by_image[2].keys())
    assert 0.3 < flips[0][:, 1].double().mean() < 0.7
    none = loaders_of(digits_dir).train  # digits are not mirrored
    assert not any(draws.flip.any() for epoch in range(2) for _, draws in none.drawn(epoch))


def test_a_reflected_border(digits_dir):
    """Against torch's own padding, with the same draws."""
    train = loaders_of(digits_dir, flip="on", crop_padding=4).train
    picked, draws = next(train.drawn(0))
    x, _ = train.ready(picked, draws)
    padded = torch.nn.functional.pad(train.normalization(train.pixels[picked]), (4, 4, 4, 4), mode="reflect")
    for i in range(len(picked)):
        top, left = 4 + int(draws.top[i]), 4 + int(draws.left[i])
        expected = padded[i, :, top : top + 32, left : left + 32]
        assert torch.equal(x[i], expected.flip(2) if draws.flip[i] else expected)


@pytest.mark.parametrize(("mirrored", "passes"), [(True, 6), (False, 3)])
def test_several_views_of_a_picture(mirrored, passes):
    """A network that reads one pixel shows which, and with which weight."""
    seen = []

    class OnePixel(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return x[:, :, 3, 5]

    x, found = torch.randn(2, 3, 8, 8), Views(OnePixel(), mirrored)
    places = [(3, 5, 0.5), (2, 4, 0.25), (4, 6, 0.25)]
    expected = sum(weight * x[:, :, row, column] for row, column, weight in places)
    if mirrored:
        other = sum(weight * x[:, :, row, column] for row, column, weight in [(3, 2, 0.5), (2, 1, 0.25), (4, 3, 0.25)])
        expected = (expected + other) / 2
    torch.testing.assert_close(found(x), expected)
    assert len(seen) == passes


# ---- benchmarks/recipe.py


@pytest.mark.parametrize("name", recipe.INGREDIENTS)
def test_every_ingredient_can_be_left_out(name):
    """It changes a setting, what the network computes, or what of it is trained."""
    without, x = recipe.INGREDIENTS[name], torch.randn(4, 3, 32, 32)
    networks = []
    for change in (lambda network: None, without.change):
        torch.manual_seed(0)
        networks.append(build_model("quicknet", 10))
        change(networks[-1])
        networks[-1].prepare([x])
    with torch.no_grad():
        computed = torch.equal(networks[0](x), networks[1](x))
    trained = [sum(p.numel() for p in network.parameters() if p.requires_grad) for network in networks]
    others = [key for key, value in without.settings.items() if getattr(settings(), key) != value]
    assert (name == recipe.WHOLE) == (computed and trained[0] == trained[1] and not others)


def test_a_line_for_each_run_and_a_table_of_all(digits_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(accuracy, "evaluate", lambda *args: {"accuracy": 0.5})
    argv = ["--data", "digits", "--data-dir", str(digits_dir), "--train-size", "32", "--epochs", "1", "--seeds", "1",
            "--only", "whole", "flip", "--lengths", "1", "2", "--out", str(tmp_path / "lines.jsonl"), "--ema", "0.5"]
    assert recipe.main(argv) == 0
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [(line["without"], line["epochs"]) for line in lines] == [("whole", 1), ("flip", 1), ("whole", 2)]
    assert all(line["test_accuracy"] == 0.5 and line["seconds"] > 0 for line in lines)
    told = capsys.readouterr().out
    assert "| flip " in told and "+0.00" in told and "accuracy against minutes" in told


def test_a_benchmark_out_of_time_says_what_is_missing(digits_dir, capsys):
    argv = ["--data", "digits", "--data-dir", str(digits_dir), "--train-size", "32", "--minutes", "0"]
    assert recipe.main(argv) == 0
    assert "over before without whole, model quicknet, recipe quick, epochs 10, seed 0" in capsys.readouterr().err
    assert recipe.main([*argv, "--emma", "0.9"]) == 2 and "did you mean --ema?" in capsys.readouterr().err


def test_trainings_beside_each_other(digits_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(accuracy, "evaluate", lambda *args: {"accuracy": 0.25})
    argv = ["--data", "digits", "--data-dir", str(digits_dir), "--train-size", "32", "--seeds", "2", "--out",
            str(tmp_path / "lines.jsonl")]
    cell = "cell=--genotype random:0 --channels 4 --layers 3 --epochs 1 --batch-size 16"
    assert accuracy.main([*argv, "quick=--model quicknet --recipe quick --epochs 1", cell]) == 0
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [(line["name"], line["seed"]) for line in lines] == [("quick", 0), ("cell", 0), ("quick", 1), ("cell", 1)]
    assert "| cell " in (told := capsys.readouterr().out) and "25.00 ± 0.00" in told
    for wrong in ("cell", "cell=--genotype nobody", "cell=--epochs 1"):
        assert accuracy.main([*argv, wrong]) == 2
        assert capsys.readouterr().err.startswith("error: ")


# ---- bad input


@pytest.mark.parametrize(("network", "argv", "words"), [
    (["--model", "resnet18", "--recipe", "quick"], [], ["recipe = 'quick'", "quicknet", "resnet18"]),
    (["--genotype", "DARTS_V2", "--recipe", "quick"], [], ["recipe = 'quick'", "quicknet", "DARTS_V2"]),
    (["--model", "quicknet", "--recipe", "quickly"], [], ["recipe = 'quickly'", "standard, long, quick"]),
    (["--model", "resnet18"], ["--lr", "0"], ["lr = 0.0", "quick"]),
    (["--model", "resnet18"], ["--batch-size", "0"], ["batch_size = 0", "quick"]),
    (QUICK, ["--batch-size", "1"], ["batch_size = 1"]),
    (QUICK, ["--batch-size", "201"], ["batch_size = 201", "200 training images"]),
    (QUICK, ["--schedule", "line"], ["schedule = 'line'", "cosine, triangle"]),
    (QUICK, ["--bias-factor", "0"], ["bias_factor = 0.0", "above 0"]),
])
def test_bad_input_is_one_line_with_exit_code_2(main, tmp_path, capsys, network, argv, words):
    assert main(*argv, network=network) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and all(word in error for word in words), error
    assert not (tmp_path / "retrain").exists()
