"""Muon: what its steps are, that others are SGD's, and that a recorded step is its step."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graph_on_cpu import GraphOnCpu
from training.graphs import WARM, Captured, ready_to_step, set_rate
from training.muon import Muon, orthogonal
from training.optimizers import build_optimizer

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (16, 16)])
def test_a_step_has_the_directions_of_the_gradient_and_singular_values_near_1(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    found = u.T @ orthogonal(x) @ v.T
    assert (found - torch.diag(found.diagonal())).abs().max() < 1e-9
    assert found.diagonal().min() > 0.3 and found.diagonal().max() < 1.3


def test_without_orthogonal_groups_it_is_sgd():
    models = [nn.Linear(4, 3).double(), nn.Linear(4, 3).double()]
    models[1].load_state_dict(models[0].state_dict())
    ours = Muon(models[0].parameters(), 0.1, 0.9, 0.01)
    theirs = torch.optim.SGD(models[1].parameters(), 0.1, 0.9, nesterov=True, weight_decay=0.01)
    for number in range(5):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(number)).double()
        for model, optimizer in zip(models, (ours, theirs), strict=True):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(models[0].weight, models[1].weight)


def test_recorded_steps_with_a_rate_of_each_group():
    """Kernels keep their norm."""
    def train(recorder):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                              nn.Flatten(), nn.Linear(8, 4)).double()
        optimizer = build_optimizer(model, "Muon", 0.5, 1e-3, 0.85, bias_factor=4.0)
        assert [len(group["params"]) for group in optimizer.param_groups] == [1, 2, 1, 1]
        ready_to_step(optimizer, CPU, True)

        def step(x, y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss.detach()

        captured, losses = Captured(step, recorder), []
        for number in range(WARM + 5):
            generator = torch.Generator().manual_seed(number)
            set_rate(optimizer, 0.5 / (1 + number))
            x, y = torch.randn(6, 3, 8, 8, generator=generator).double(), torch.randint(4, (6,), generator=generator)
            losses.append(captured(x, y).clone())
        assert model[0].weight.norm().item() == pytest.approx(8**0.5)
        return [*losses, *model.parameters()]

    torch.testing.assert_close(train(GraphOnCpu), train(None), rtol=0, atol=1e-12)
