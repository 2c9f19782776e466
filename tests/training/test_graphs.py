"""Steps that are recorded and repeated, by an emulation of CUDA graphs on the CPU."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graph_on_cpu import GraphOnCpu
from training.graphs import WARM, Captured, ready_to_step, set_rate

CPU = torch.device("cpu")


class Pair(NamedTuple):
    x: Tensor
    y: Tensor
    nothing: None = None


def test_results_follow_the_arguments_and_the_state():
    total = torch.zeros(3)

    def step(pair, factor):
        total.add_(pair.x * factor)
        return (pair.x - pair.y).relu(), total * 2

    pairs = [Pair(torch.randn(3), torch.randn(3)) for _ in range(WARM + 4)]
    captured, expected = Captured(step, GraphOnCpu), torch.zeros(3)
    for number, pair in enumerate(pairs):
        difference, twice = captured(pair, torch.tensor(float(number)))
        expected += pair.x * number
        assert torch.equal(difference, (pair.x - pair.y).relu())
        torch.testing.assert_close(twice, expected * 2)
        torch.testing.assert_close(total, expected)


def test_a_number_is_frozen_and_a_tensor_is_not():
    """Which is why a learning rate must be a tensor; and that the emulation would show it."""
    number, held = 1.0, torch.tensor(1.0)
    captured = Captured(lambda x: (x * number, x * held), GraphOnCpu)
    for _ in range(WARM + 1):
        captured(torch.ones(2))
    number = 5.0
    held.fill_(5.0)
    frozen, followed = captured(torch.ones(2))
    assert frozen.tolist() == [1, 1] and followed.tolist() == [5, 5]


def test_waiting_for_the_device_is_noticed():
    captured = Captured(lambda x: x * float(x.sum()), GraphOnCpu)
    for _ in range(WARM):
        captured(torch.ones(2))
    with pytest.raises(AssertionError, match="waits"):
        captured(torch.ones(2))


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_recorded_steps_of_an_optimizer_are_its_steps(name):
    """With a learning rate that changes, bitwise; and after a state was loaded."""
    def train(recorder, steps=WARM + 5):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
        optimizer = getattr(torch.optim, name)(model.parameters(), 0.1, weight_decay=1e-2,
                                               **({"momentum": 0.9} if name == "SGD" else {}))
        ready_to_step(optimizer, CPU, True)
        optimizer.load_state_dict(optimizer.state_dict())
        ready_to_step(optimizer, CPU, True)

        def step(x, y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss.detach()

        captured, losses = Captured(step, recorder), []
        for number in range(steps):
            generator = torch.Generator().manual_seed(number)
            set_rate(optimizer, 0.1 / (1 + number))
            x, y = torch.randn(6, 4, generator=generator).double(), torch.randint(3, (6,), generator=generator)
            losses.append(captured(x, y).clone())
        return [*losses, *model.parameters()]

    torch.testing.assert_close(train(GraphOnCpu), train(None), rtol=0, atol=0)


def test_random_numbers_go_on():
    captured = Captured(lambda x: torch.bernoulli(x), GraphOnCpu)
    torch.manual_seed(1)
    found = [captured(torch.full((20,), 0.5)).clone() for _ in range(WARM + 4)]
    torch.manual_seed(1)
    assert all(torch.equal(one, torch.bernoulli(torch.full((20,), 0.5))) for one in found)
