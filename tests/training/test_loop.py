"""Training: optimizers, schedule, one step against the textbook, bitwise repeat and resume, divergence."""

import math
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graph_on_cpu import GraphOnCpu
from models.darts.depthwise import DepthwiseConv2d
from tiny_training import Doubled, FromAnyStep, Settings, TwoHeads, network, same
from training import loop, stopping
from training.checkpoints import load_checkpoint, save_checkpoint
from training.execution import Execution
from training.hardware import pick_device, pick_dtype
from training.loop import build_optimizer, evaluate, fit, train_step
from training.optimizers import OPTIMIZERS, schedule
from training.stopping import DeferredSignals

# ---- optimizer, schedule, device


@pytest.mark.parametrize("name", ["Adadelta", "Adagrad", "Adam", "Adamax", "SGD"])
def test_an_optimizer_is_what_its_name_says(name):
    optimizer = build_optimizer(network(), name, 0.1, 0.01, 0.9)
    assert type(optimizer) is getattr(torch.optim, name)
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0)
    assert {p.ndim for p in decayed["params"]} == {4, 2} and {p.ndim for p in plain["params"]} == {1}
    assert set(OPTIMIZERS) == {"Adadelta", "Adagrad", "Adam", "Adamax", "SGD"}


def test_an_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match="optimizer = 'adam': must be one of Adadelta"):
        build_optimizer(network(), "adam", 0.1, 0, 0.9)


def test_schedule_rises_and_falls():
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)]) and rates[10] == 1
    assert rates[10:] == pytest.approx([0.5 + 0.5 * math.cos(math.pi * i / 90) for i in range(90)])
    assert min(rates) > 0 and schedule(0, 1, 0.0) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="checks what is said where there is no CUDA device")
def test_cuda_where_there_is_none():
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"device = 'cuda'.*allowed: auto, cpu"):
        pick_device("cuda")


def test_automatic_precision_is_a_function_of_hardware_and_network(monkeypatch):
    depthwise, cpu = nn.Conv2d(8, 8, 3, groups=8), torch.device("cpu")
    for has_bf16, plain in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("training.hardware._cpu_has_bf16", lambda value=has_bf16: value)
        assert pick_dtype("auto", cpu, network()) == plain
        assert pick_dtype("auto", cpu, depthwise) == torch.float32
        assert pick_dtype("auto", cpu, DepthwiseConv2d(8, 3)) == plain  # whose gradients are our own
    assert pick_dtype("bf16", cpu, depthwise) == torch.bfloat16


# ---- step and evaluation against the textbook


def test_fp32_training_equals_the_textbook_loop(tiny_batches):
    """Ours: channels_last and autocast switched off. Theirs: NCHW, CrossEntropyLoss, the same schedule."""
    train, _ = tiny_batches
    ours, theirs = network(dropout=0), network(dropout=0)
    ours.to(memory_format=torch.channels_last)
    a, b = build_optimizer(ours, "SGD", 0.1, 0.0, 0.9), torch.optim.SGD(theirs.parameters(), 0.1, 0.9, nesterov=True)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    losses = [train_step(ours, a, x, y, lr=0.1, dtype=torch.float32, label_smoothing=0.1, clip=1.0)[0]
              for x, y in train.epoch(0)]
    for (x, y), expected in zip(train.epoch(0), losses, strict=True):
        b.zero_grad()
        loss = criterion(theirs(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        b.step()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-5)


def test_evaluation_equals_the_plain_mean(tiny_batches):
    model, (_, val) = network(), tiny_batches
    scores = evaluate(model, val.epoch(0), torch.float32)
    logits = model.eval()(val.x)
    assert scores["loss"] == pytest.approx(F.cross_entropy(logits, val.y).item(), rel=1e-5)
    assert scores["accuracy"] == pytest.approx((logits.argmax(1) == val.y).float().mean().item())


@pytest.mark.parametrize("auxiliary", [0.4, 0.0])
def test_the_auxiliary_loss_is_weighed_and_added(tiny_batches, auxiliary):
    x, y = next(tiny_batches[0].epoch(0))
    ours, theirs = TwoHeads(), TwoHeads()
    theirs.load_state_dict(ours.state_dict())
    loss, hits = train_step(ours, torch.optim.SGD(ours.parameters(), 0.1), x, y, lr=0.1, dtype=torch.float32,
                            label_smoothing=0.1, clip=0, auxiliary=auxiliary)
    main, extra = theirs(x)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    expected = criterion(main, y) + auxiliary * criterion(extra, y)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6) and hits == (main.argmax(1) == y).sum()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(p, q - 0.1 * q.grad, rtol=1e-5, atol=1e-7)
    assert not torch.equal(ours.first.weight, theirs.first.weight)
    assert torch.equal(ours.second.weight, theirs.second.weight) == (auxiliary == 0)


def test_drop_path_rises_linearly_and_a_resumed_run_knows_where(tiny_batches, tmp_path):
    whole, resumed, settings = TwoHeads(), TwoHeads(), Settings(epochs=4)
    stopped = FromAnyStep(tiny_batches[0], KeyboardInterrupt(), 9)
    fit(whole, *tiny_batches, settings, identity={}, auxiliary=0.4, drop_path=0.2)
    assert whole.rates == pytest.approx([0, 0.05, 0.1, 0.15]) and whole.rising == {False}
    with pytest.raises(KeyboardInterrupt):
        fit(TwoHeads(), stopped, tiny_batches[1], settings, identity={}, auxiliary=0.4, drop_path=0.2,
            checkpoint=tmp_path / "c.pt", checkpoint_minutes=0)
    saved = load_checkpoint(tmp_path / "c.pt", {}, torch.device("cpu"))
    fit(resumed, FromAnyStep(tiny_batches[0]), tiny_batches[1], settings, identity={}, auxiliary=0.4, drop_path=0.2,
        resume_from=saved)
    assert resumed.rates == pytest.approx([0.1, 0.15])


def test_the_confusion_is_counted(tiny_batches):
    model, (_, val) = network(), tiny_batches
    confusion = torch.zeros(4, 4, dtype=torch.int64)
    scores = evaluate(model, val.epoch(0), torch.float32, confusion)
    predicted = model.eval()(val.x).argmax(1)
    expected = [[sum(1 for y, p in zip(val.y, predicted, strict=True) if (y, p) == (row, column))
                 for column in range(4)] for row in range(4)]
    assert confusion.tolist() == expected
    assert scores["accuracy"] == confusion.diagonal().sum() / 32
    assert scores == evaluate(model, val.epoch(0), torch.float32)


def test_training_without_validation(tiny_batches):
    result = fit(network(), tiny_batches[0], None, Settings(epochs=2), identity={})
    assert result.best is None and result.metric == result.last["train_accuracy"] and len(result.history) == 2
    assert not any(key.startswith("val") for key in result.last)


def test_training_learns_and_bf16_comes_close(tiny_batches):
    accuracy = {}
    for precision in ("fp32", "bf16"):
        settings = Settings(precision=precision, epochs=15, lr=0.03)
        result = fit(network(), *tiny_batches, settings, identity={})
        accuracy[precision] = result.metric
        assert result.last["epoch"] == 15 and result.best["val_accuracy"] >= result.metric
    assert accuracy["fp32"] > 0.9 and accuracy["bf16"] > 0.85


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_a_compiled_network_learns_the_same(tiny_batches):
    plain, compiled = network(dropout=0), network(dropout=0)
    expected = fit(plain, *tiny_batches, Settings(epochs=2), identity={})
    result = fit(compiled, *tiny_batches, Settings(epochs=2, compile=True), identity={})
    assert result.last["train_loss"] == pytest.approx(expected.last["train_loss"], rel=1e-3)
    assert compiled.state_dict().keys() == plain.state_dict().keys()


# ---- repeat, resume, checkpoints


@pytest.mark.parametrize(
    ("optimizer", "ema"), [("Adam", 0.0), ("SGD", 0.9), ("Adadelta", 0.0), ("Adagrad", 0.0), ("Adamax", 0.5)])
def test_stop_and_resume_is_bitwise_no_stop(tiny_batches, tmp_path, optimizer, ema):
    settings = Settings(optimizer=optimizer, ema=ema)
    whole = network()
    expected = fit(whole, *tiny_batches, settings, identity={"a": 1})

    def stop_after_two(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(network(), *tiny_batches, settings, identity={"a": 1}, checkpoint=tmp_path / "c.pt",
            checkpoint_minutes=0, on_epoch=stop_after_two)
    resumed, seen = network(seed=1), []
    torch.manual_seed(99)
    saved = load_checkpoint(tmp_path / "c.pt", {"a": 1}, torch.device("cpu"))
    result = fit(resumed, *tiny_batches, settings, identity={"a": 1}, resume_from=saved,
                 on_epoch=lambda record: seen.append(record["epoch"]))
    assert same(whole, resumed) and seen == [1, 2, 3, 4]
    assert [r["train_loss"] for r in result.history] == [r["train_loss"] for r in expected.history]


def test_a_damaged_checkpoint_costs_the_time_since_the_one_before_and_nothing_else(tiny_batches, tmp_path, capsys):
    def stop_after_two(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    whole, resumed, settings, path = network(), network(seed=1), Settings(), tmp_path / "c.pt"
    fit(whole, *tiny_batches, settings, identity={})
    with pytest.raises(KeyboardInterrupt):
        fit(network(), *tiny_batches, settings, identity={}, checkpoint=path, checkpoint_minutes=0,
            on_epoch=stop_after_two)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    saved = load_checkpoint(path, {}, torch.device("cpu"))
    assert "going on from the one before it" in capsys.readouterr().out and saved["within_epoch"]["steps"] == 4
    train, val = tiny_batches
    fit(resumed, FromAnyStep(train), val, settings, identity={}, resume_from=saved, checkpoint=path)
    assert same(whole, resumed)


def without_times(history):
    return [{key: value for key, value in record.items() if "second" not in key} for record in history]


@pytest.mark.parametrize("at", range(1, 12))
@pytest.mark.parametrize(("optimizer", "ema"), [("SGD", 0.9), ("Adam", 0.0)])
def test_stop_and_resume_at_any_step_is_bitwise_no_stop(tiny_batches, tmp_path, optimizer, ema, at):
    """4 steps an epoch, 3 epochs, a checkpoint at each step; with dropout, running sums and averaged weights."""
    (train, val), settings = tiny_batches, Settings(optimizer=optimizer, ema=ema, epochs=3)
    whole, resumed = network(), network(seed=1)
    expected = fit(whole, train, val, settings, identity={})
    stopped = FromAnyStep(train, KeyboardInterrupt(), at)
    with pytest.raises(KeyboardInterrupt):
        fit(network(), stopped, val, settings, identity={}, checkpoint=tmp_path / "c.pt", checkpoint_minutes=0)
    saved = load_checkpoint(tmp_path / "c.pt", {}, torch.device("cpu"))
    assert ("within_epoch" in saved) == (at % 4 != 0)
    torch.manual_seed(99)
    rest = FromAnyStep(train)
    result = fit(resumed, rest, val, settings, identity={}, resume_from=saved)
    assert same(whole, resumed) and rest.handed == 12 - at
    assert without_times(result.history) == without_times(expected.history)


@pytest.mark.parametrize(("minutes", "expected"), [
    (6, [(6, 0)]),  # at the end
    (2, [(2, 1), (4, 1), (6, 0)]),  # in the step in which it is due
    (1 / 60, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 0)]),
    (0, [(epochs + (steps == 0), steps) for epochs in range(6) for steps in (1, 2, 3, 4, 0)]),
])
def test_the_timer_decides_when_a_checkpoint_is_written(tiny_batches, tmp_path, monkeypatch, minutes, expected):
    """Epochs of 61 s: after how many of them, and of the steps of the next one. With 0 after each step and epoch."""
    now, written = [0.0], []

    def clock():
        now[0] += 1e-9
        return now[0]

    def pass_time(record):
        now[0] += 61

    monkeypatch.setattr(loop.time, "monotonic", clock)
    monkeypatch.setattr(loop, "save_checkpoint", lambda path, parts, identity, history, within: written.append(
        (len(history), within["steps"] if within else 0)))
    fit(network(), *tiny_batches, Settings(epochs=6), identity={}, checkpoint=tmp_path / "c.pt",
        checkpoint_minutes=minutes, on_epoch=pass_time)
    assert written == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_step_finish_and_writes_a_checkpoint(tiny_batches, tmp_path, number):
    """It comes in the last step of the second epoch, before validation."""
    class Arrived(BaseException):
        pass

    class Signalled(FromAnyStep):
        def epoch(self, epoch, start=0):
            for batch in super().epoch(epoch, start):
                if self.handed == 8:
                    os.kill(os.getpid(), number)
                yield batch

    def arrived(number, frame):
        raise Arrived

    (train, val), settings, whole, resumed = tiny_batches, Settings(epochs=3), network(), network(seed=1)
    expected = fit(whole, train, val, settings, identity={})
    before = signal.signal(number, arrived)
    try:
        with pytest.raises(Arrived):
            fit(network(), Signalled(train), val, settings, identity={}, checkpoint=tmp_path / "c.pt",
                stop_signals=True)
        assert signal.getsignal(number) is arrived
    finally:
        signal.signal(number, before)
    saved = load_checkpoint(tmp_path / "c.pt", {}, torch.device("cpu"))
    assert saved["within_epoch"]["steps"] == 4 and len(saved["history"]) == 1
    result = fit(resumed, FromAnyStep(train), val, settings, identity={}, resume_from=saved)
    assert same(whole, resumed) and without_times(result.history) == without_times(expected.history)


def test_without_being_asked_signals_are_left_alone(tiny_batches, tmp_path):
    handlers = []
    before = signal.getsignal(signal.SIGINT)
    fit(network(), *tiny_batches, Settings(epochs=1), identity={},
        on_epoch=lambda record: handlers.append(signal.getsignal(signal.SIGINT)))
    assert handlers == [before]


@pytest.fixture
def counted():
    """Signal handlers that count; the old ones are put back."""
    seen = []
    before = {number: signal.signal(number, lambda number, frame: seen.append(number)) for number in stopping.SIGNALS}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


def test_deferred_signals(counted, monkeypatch):
    """Noted, then given to the handler of before; a second one at once is the same Ctrl-C, a later one acts."""
    now = [0.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    with DeferredSignals() as stop:
        assert not stop
        signal.raise_signal(signal.SIGTERM)
        assert stop and not counted
        stop.act()
        assert not stop and counted == [signal.SIGTERM]
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop and len(counted) == 1
        now[0] += 2
        signal.raise_signal(signal.SIGINT)
        assert counted == [signal.SIGTERM, signal.SIGINT]
        signal.raise_signal(signal.SIGINT)
    assert counted == [signal.SIGTERM, signal.SIGINT, signal.SIGINT]  # what was noted acts at the end
    signal.raise_signal(signal.SIGTERM)
    assert len(counted) == 4


def test_an_ignored_signal_stays_ignored(counted):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as for `python ... &` in a shell script
    with DeferredSignals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert not stop
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN and not counted


def test_signals_are_left_alone_in_another_thread():
    """In which a trial of Ray runs, where Python allows no handler."""
    def look():
        with DeferredSignals() as stop:
            return bool(stop)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(look).result() is False


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_finished_run_keeps_the_weights_alone(tiny_batches, tmp_path, ema):
    settings, model = Settings(epochs=2, ema=ema), network()
    expected = fit(model, *tiny_batches, settings, identity={}, checkpoint=tmp_path / "c.pt")
    saved = load_checkpoint(tmp_path / "c.pt", {}, torch.device("cpu"))
    assert saved.keys() == {"format", "identity", "history", "model"}
    again = network(seed=1)
    result = fit(again, *tiny_batches, settings, identity={}, resume_from=saved)
    assert same(model, again) and result.history == expected.history


def test_the_seed_makes_a_run_repeat_bitwise(tiny_batches):
    models = [network(), network(), network()]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        fit(model, *tiny_batches, Settings(seed=seed), identity={})
    assert same(models[0], models[1]) and not same(models[0], models[2])


@pytest.mark.parametrize(("damage", "words"), [
    (lambda path: path.unlink(), "there is no checkpoint"),
    (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "not a whole checkpoint"),
    (lambda path: path.write_bytes(b""), "not a whole checkpoint"),
    (lambda path: path.write_text("hello"), "not a whole checkpoint"),
    (lambda path: torch.save({"format": 99, "identity": {}}, path), "format 99"),
    (lambda path: None, "its run had lr = 0.1, this one has 0.2"),
])
def test_unusable_checkpoints_are_refused_with_the_reason(tiny_batches, tmp_path, damage, words):
    path = tmp_path / "c.pt"
    fit(network(), *tiny_batches, Settings(epochs=1), identity={"lr": 0.1}, checkpoint=path)
    damage(path)
    identity = {"lr": 0.2} if "lr" in words else {"lr": 0.1}
    with pytest.raises(ValueError, match=words) as error:
        load_checkpoint(path, identity, torch.device("cpu"))
    assert "\n" not in str(error.value)


# ---- divergence


@pytest.mark.parametrize(("theirs", "ours"), [((2, 0), (1, 9)), ((2, 3), (2, 2)), ((2, 1), (2, 0))])
def test_what_is_further_on_is_never_overwritten(tmp_path, theirs, ours):
    """Two runs in one folder: the one that has come further keeps its checkpoint."""
    def save(epochs, steps):
        save_checkpoint(tmp_path / "c.pt", {"model": network()}, {}, [{}] * epochs, {"steps": steps} if steps else None)

    for place in (ours, theirs, theirs):
        save(*place)
    before = (tmp_path / "c.pt").read_bytes()
    with pytest.raises(ValueError, match=r"c.pt: holds 2 epochs and .* another run writes there"):
        save(*ours)
    assert (tmp_path / "c.pt").read_bytes() == before
    (tmp_path / "c.pt").write_bytes(b"broken")
    save(*ours)


def test_a_diverging_run_ends_with_the_worst_metric(tiny_batches):
    settings = Settings(optimizer="SGD", lr=1e30, clip=0.0)
    result = fit(network(), *tiny_batches, settings, identity={})
    assert result.diverged and result.metric == 0 and len(result.history) < settings.epochs


def test_a_bad_picture_in_the_second_epoch_keeps_the_first(tiny_batches):
    train, val = tiny_batches

    class Poisoned(type(train)):
        def epoch(self, epoch):
            for x, y in super().epoch(epoch):
                yield (x if epoch == 0 else x * math.nan), y

    result = fit(network(), Poisoned(64, 16), val, replace(Settings(), epochs=3), identity={})
    assert result.diverged and result.metric == 0 and [r["epoch"] for r in result.history] == [1]


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_training_whose_step_is_recorded(optimizer, tiny_batches, monkeypatch):
    """As a CUDA graph would be, by an emulation: the same training, with a rate that changes at each step. In float64,
    so that the two differ by no rounding."""
    def trained(recorded):
        model = network(dropout=0).double()
        settings = Settings(epochs=3, optimizer=optimizer, ema=0.9)
        with monkeypatch.context() as context:
            if recorded:
                context.setattr(loop, "CudaGraph", GraphOnCpu)
            result = fit(model, *(Doubled(part) for part in tiny_batches), settings, identity={},
                         execution=Execution("cpu", "fp32", captured=recorded))
        return [*model.parameters()], [record["val_accuracy"] for record in result.history]

    (weights, accuracies), (expected, of_eager) = trained(True), trained(False)
    torch.testing.assert_close(weights, expected)
    assert accuracies == of_eager
