"""Operations that somebody adds: declared once, in a process of its own before anything else, they are in all forms."""

import json
import os
import subprocess
import sys

import pytest

from conftest import ROOT

CHAIN = ("sep_conv_7x7", "operations.chain(7, dilation=1, times=2)", {"fused"})  # and the forms that cannot compute it
PLAIN = ("blur_3x3", """operations.Operation(lambda channels, stride, affine: torch.nn.Sequential(
    torch.nn.Conv2d(channels, channels, 3, stride, 1, bias=False), torch.nn.BatchNorm2d(channels, affine=affine)))""",
         {"fused", "stored"})
DECLARE = """
import models.darts.operations as operations, torch
operations.SPACE[{name!r}] = {declared}
"""
FORMS = """
import json, sys
from torch.nn.functional import cross_entropy
from config import DartsSearchConfig
from models.darts.supernet import Supernet, cannot
from training.execution import of_search

def build(form):
    torch.manual_seed(0)
    net = Supernet(3, 4, 5, 4, form=form, stem_multiplier=1).double()
    with torch.no_grad():
        for alpha in net.alphas():
            alpha.normal_()
    return net

def told(make):
    try:
        make()
    except ValueError as error:
        return str(error)

x, y = torch.randn(4, 3, 16, 16, dtype=torch.float64), torch.randint(5, (4,))
results = {}
for form in ("plain", "stored"):
    if not cannot(form):
        net = build(form)
        logits = net(x)
        results[form] = [logits, *torch.autograd.grad(cross_entropy(logits, y), list(net.parameters()))]
for result in results.values():
    torch.testing.assert_close(result, results["plain"])
names = [name for name, _ in net.named_parameters()]
print(json.dumps({
    "forms": list(results), "alphas": list(net.alpha_normal.shape),
    "without": [name for name, grad in zip(names, results["plain"][1:]) if not grad.any()],
    "refused": {form: told(lambda: build(form)) for form in ("plain", "stored", "fused")},
    "cannot": {form: cannot(form) for form in ("stored", "fused")},
    "auto": {kind: of_search(DartsSearchConfig(), torch.device(kind), 1).form for kind in ("cpu", "cuda")},
    "edges": sum(name.startswith("cells.1.sources.0.operations." + sys.argv[1]) for name in names)}))
"""
SEARCH = """
import sys, darts_search, retrain
from models.darts.genotype import Genotype
from models.darts.genotype_files import load_genotype, save_genotype
tiny = ["--data", "digits", "--data-dir", sys.argv[2], "--channels", "4", "--layers", "3", "--train-size", "40"]
assert darts_search.main([*tiny, "--val-size", "20", "--batch-size", "10", "--epochs", "1", "--frozen", "0",
                          "--name", "x"]) == 0
load_genotype("runs/darts_search/x/genotype.json")
cell = [[(sys.argv[1], node), ("skip_connect", node + 1)] for node in range(4)]
save_genotype("found.json", Genotype(cell, cell))
assert retrain.main([*tiny, "--genotype", "found.json", "--batch-size", "20", "--epochs", "1", "--auxiliary", "0",
                     "--name", "x"]) == 0
"""


def in_space(name, declared, code, cwd, *words):
    """What `code` prints in a process whose space has one operation more."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", DECLARE.format(name=name, declared=declared) + code, name, *words]
    process = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout


@pytest.mark.parametrize(("name", "declared", "lacking"), [CHAIN, PLAIN], ids=["chain", "plain"])
def test_all_forms_that_can_compute_it_agree(name, declared, lacking, tmp_path):
    found = json.loads(in_space(name, declared, FORMS, tmp_path))
    assert set(found["forms"]) == {"plain", "stored"} - lacking and found["alphas"] == [14, 9]
    assert found["edges"] > 0 and not found["without"]  # one of a reduction cell, at stride 2; all have gradients
    assert found["cannot"] == {form: [name] if form in lacking else [] for form in ("stored", "fused")}
    assert found["refused"] == {"plain": None, **{
        form: f"form = '{form}': cannot compute {name}; allowed: plain" if form in lacking else None
        for form in ("stored", "fused")}}
    assert found["auto"] == {"cpu": "plain", "cuda": "plain" if "stored" in lacking else "stored"}


@pytest.mark.parametrize(("name", "declared"), [CHAIN[:2], PLAIN[:2]], ids=["chain", "plain"])
def test_a_search_and_a_training(name, declared, tmp_path, digits_dir):
    told = in_space(name, declared, SEARCH, tmp_path, str(digits_dir))
    assert f"on cpu: plain form of the supernet (the fast one lacks {name}), fp32, eager" in told
    folder = tmp_path / "runs" / "darts_search" / "x"
    assert {file.name for file in folder.iterdir()} >= {"genotype.json", "cells.png", "alphas.png", "result.json"}
    record = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert {len(row) for rows in record["strengths"].values() for row in rows} == {9}
    result = json.loads((tmp_path / "runs" / "retrain" / "x" / "result.json").read_text())
    assert result["architecture"]["normal"][0] == [[name, 0], ["skip_connect", 1]]


@pytest.mark.parametrize(("change", "count"), [
    ("del operations.SPACE['skip_connect']", 7), ("del operations.SPACE['max_pool_3x3']", 7),
    ("operations.SPACE['other_skip'] = operations.SPACE['skip_connect']", 9)])
def test_an_operation_fewer_or_twice(change, count, tmp_path):
    """Nothing but none is always there."""
    code = DECLARE.split("operations.SPACE", maxsplit=1)[0] + change + """
from models.darts.genotype import OPERATIONS, discretize
from models.darts.supernet import Supernet
nets = []
for form in ("plain", "stored", "fused"):
    torch.manual_seed(0)
    nets.append(Supernet(3, 4, 5, 3, form=form).double())
    with torch.no_grad():
        for alpha in nets[-1].alphas():
            alpha.normal_()
x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
results = [[net(x), *torch.autograd.grad(net(x).square().sum(), net.weights())] for net in nets]
torch.testing.assert_close(results[1:], results[:1] * 2)
print(len(OPERATIONS), nets[0].genotype(0) == nets[1].genotype(0))
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
                             capture_output=True, text=True, timeout=300)
    assert process.stdout == f"{count} True\n", process.stderr[-2000:]
