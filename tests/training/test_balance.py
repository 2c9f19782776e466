"""Classes of unequal size: the weights of the loss, the accuracies, and that nothing changes without the setting."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import hpo_trial
import retrain
from config import ADDED, DartsSearchConfig, HpoConfig, RetrainConfig, identity
from training.balance import balanced_accuracy, class_weights, cross_entropy, recalls
from training.checkpoints import load_checkpoint
from training.loop import train_step

CPU = torch.device("cpu")


def test_weights_are_inverse_frequencies_with_mean_1():
    labels = torch.tensor([0] * 6 + [1] * 3 + [3] * 1)
    weights = class_weights(labels, 5)
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 0, 10 / 3, 0])
    assert weights[labels].mean().item() == pytest.approx(1)
    assert class_weights(torch.arange(4), 4).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_weighted_mean(smoothing):
    torch.manual_seed(0)
    logits, y = torch.randn(12, 3), torch.tensor([0] * 8 + [1] * 3 + [2])
    weights = class_weights(y, 3)
    one = torch.ones(3)
    assert torch.equal(cross_entropy(logits, y, smoothing, None), F.cross_entropy(logits, y, label_smoothing=smoothing))
    assert cross_entropy(logits, y, smoothing, one).item() == pytest.approx(
        cross_entropy(logits, y, smoothing, None).item())
    by_class = torch.stack([F.cross_entropy(logits[y == label], y[y == label]) for label in range(3)])
    assert cross_entropy(logits, y, 0.0, weights).item() == pytest.approx(by_class.mean().item(), rel=1e-5)


def test_without_weights_a_step_is_bitwise_what_it_was():
    torch.manual_seed(0)
    x, y = torch.randn(8, 4), torch.arange(8) % 3
    models = [torch.nn.Linear(4, 3) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    train_step(models[0], torch.optim.SGD(models[0].parameters(), 0.1), x, y, dtype=torch.float32, label_smoothing=0.1,
               clip=0.0)
    plain = torch.optim.SGD(models[1].parameters(), 0.1)
    F.cross_entropy(models[1](x), y, label_smoothing=0.1).backward()
    plain.step()
    assert all(map(torch.equal, models[0].parameters(), models[1].parameters()))


def test_recalls_by_hand():
    confusion = torch.tensor([[3, 1, 0], [0, 0, 0], [1, 1, 2]])
    assert recalls(confusion) == [0.75, None, 0.5] and balanced_accuracy(recalls(confusion)) == 0.625


def test_checkpoints_of_before_go_on(tmp_path):
    """They know nothing of the setting; a balanced run is another one."""
    for config in (HpoConfig(), RetrainConfig(genotype="DARTS_V2"), DartsSearchConfig()):
        assert not ADDED.keys() & identity(config).keys() and identity(replace(config, balance=True))["balance"]
    before = {"format": 1, "identity": identity(HpoConfig()), "history": []}
    torch.save(before, tmp_path / "c.pt")
    assert load_checkpoint(tmp_path / "c.pt", identity(HpoConfig()), CPU)["history"] == []
    with pytest.raises(ValueError, match="balance = None, this one has True"):
        load_checkpoint(tmp_path / "c.pt", identity(HpoConfig(balance=True)), CPU)


@pytest.fixture(scope="module")
def unequal(tmp_path_factory):
    """Two classes of tints that overlap, 60 pictures and 6: who always says `many` is right nine times of ten."""
    folder, rng = tmp_path_factory.mktemp("unequal"), np.random.default_rng(0)
    for split, counts in (("train", (60, 6)), ("test", (40, 40))):
        for name, count in zip(("many", "rare"), counts, strict=True):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                tint = rng.normal(14 if name == "rare" else 0, 14) * np.array([1, 0, -1])
                pixels = rng.integers(100, 156, (8, 8, 3)) + tint
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / split / name / f"{number}.png")
    return folder


def trained(command, unequal, tmp_path, *argv):
    assert command.main([*argv, "--data", str(unequal), "--data-dir", str(tmp_path / "c"), "--batch-size", "11",
                         "--runs-dir", str(tmp_path), "--name", "x", "--overwrite", "--device", "cpu", "--cutout", "0",
                         "--crop-padding", "0"]) == 0
    [file] = tmp_path.glob("*/x/result.json")
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_rare_class_is_found_with_balance(unequal, tmp_path):
    words = ["--genotype", "DARTS_V2", "--channels", "4", "--layers", "3", "--epochs", "4", "--auxiliary", "0",
             "--drop-path", "0", "--lr", "0.02"]
    plain, balanced = (trained(retrain, unequal, tmp_path, *words, *more)["test"] for more in ([], ["--balance"]))
    for test in (plain, balanced):
        recall = [test["confusion"][row][row] / sum(test["confusion"][row]) for row in range(2)]
        assert test["class_accuracy"] == dict(zip(("many", "rare"), recall, strict=True))
        assert test["balanced_accuracy"] == pytest.approx(sum(recall) / 2)
    assert balanced["class_accuracy"]["rare"] > plain["class_accuracy"]["rare"]
    assert balanced["balanced_accuracy"] > plain["balanced_accuracy"]


def test_validation_says_the_same_of_each_class(unequal, tmp_path):
    result = trained(hpo_trial, unequal, tmp_path, "--model", "mobilenet", "--epochs", "2", "--val-size", "20",
                     "--balance")
    last = result["last"]
    assert last["val_class_accuracy"].keys() == {"many", "rare"} and result["config"]["balance"] is True
    assert last["val_balanced_accuracy"] == pytest.approx(sum(last["val_class_accuracy"].values()) / 2)
    lines = (tmp_path / "hpo/x/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert [("val_balanced_accuracy" in record, "val_class_accuracy" in record) for record in records] == [
        (True, False), (True, True)]
