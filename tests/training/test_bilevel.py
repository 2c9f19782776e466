"""The bilevel gradients against autograd's own, in float64, and against closed forms."""

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.func import functional_call
from torch.nn import functional as F

from models.darts.supernet import Supernet
from training.bilevel import Batch, architecture_step, beta_decay, first_order, gradients, second_order, weight_step

LR, MOMENTUM, DECAY = 0.1, 0.9, 0.01


class Blend(nn.Module):
    """A smooth network small enough for the exact unrolled gradient."""

    def __init__(self):
        super().__init__()
        self.alpha = nn.Parameter(torch.randn(2, 3))
        self.w = nn.ParameterList([nn.Parameter(torch.randn(5, 5) / 2) for _ in range(2)])
        self.head = nn.Parameter(torch.randn(4, 5) / 2)

    def alphas(self):
        return [self.alpha]

    def weights(self):
        return [*self.w, self.head]

    def forward(self, x):
        x = x.flatten(1)
        for shares, w in zip(self.alpha.softmax(-1), self.w, strict=True):
            x = shares[0] * x + shares[1] * torch.tanh(x @ w) + shares[2] * torch.sigmoid(x @ w.T)
        return x @ self.head.T


def batch(seed, n=16):
    g = torch.Generator().manual_seed(seed)
    return Batch(torch.randn(n, 5, generator=g, dtype=torch.float64), torch.randint(4, (n,), generator=g))


@pytest.fixture
def blend():
    torch.manual_seed(0)
    return Blend().double()


def sgd(model):
    return torch.optim.SGD(model.weights(), LR, momentum=MOMENTUM, weight_decay=DECAY)


def test_first_order_gradient(blend):
    val = batch(1)
    expected = torch.autograd.grad(F.cross_entropy(blend(val.images), val.labels), blend.alphas())
    torch.testing.assert_close(first_order(blend, val).grads, list(expected))


def unrolled(model, train, val, momentum):
    """d L_val(w'(alpha), alpha) / d alpha through the look-ahead step, by autograd."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    weights = {name_of[id(weight)]: weight for weight in model.weights()}
    loss = F.cross_entropy(model(train.images), train.labels)
    grads = torch.autograd.grad(loss, model.weights(), create_graph=True)
    ahead = {name: w - LR * (MOMENTUM * b + g + DECAY * w)
             for (name, w), g, b in zip(weights.items(), grads, momentum, strict=True)}
    loss = F.cross_entropy(functional_call(model, ahead, (val.images,)), val.labels)
    return torch.autograd.grad(loss, model.alphas())


@pytest.mark.parametrize("steps", [0, 2], ids=["no momentum yet", "momentum"])
def test_second_order_gradient_is_that_of_the_unrolled_step(blend, steps):
    optimizer = sgd(blend)
    for step in range(steps):
        weight_step(blend, optimizer, batch(10 + step), clip=0)
    momentum = [optimizer.state[w].get("momentum_buffer", torch.zeros_like(w)) for w in blend.weights()]
    before = [w.detach().clone() for w in blend.weights()]
    expected = unrolled(blend, batch(2), batch(3), momentum)
    found = second_order(blend, batch(2), batch(3), optimizer).grads
    torch.testing.assert_close(found, list(expected), rtol=1e-4, atol=1e-7)
    first = first_order(blend, batch(3)).grads
    assert (found[0] - first[0]).abs().max() > 1e-3, "the test would not tell it from the first order"
    torch.testing.assert_close(list(blend.weights()), before, rtol=0, atol=0)


class Quadratic(nn.Module):
    """Cross-entropy of the logits (0, z) with label 1 is softplus(-z), so choose z to make the loss a known form."""

    def __init__(self, a, w):
        super().__init__()
        self.a, self.w = nn.Parameter(a), nn.Parameter(w)

    def alphas(self):
        return [self.a]

    def weights(self):
        return [self.w]

    def forward(self, x):
        """L_train = a . w + w^2 / 2 for x > 0, L_val = |w - x|^2 / 2 for x < 0, written as -log of a probability."""
        target = x[0, 0]
        loss = torch.where(target > 0, self.a @ self.w + self.w @ self.w / 2, (self.w + target).square().sum() / 2)
        return torch.stack([torch.zeros_like(loss), -torch.log(torch.expm1(loss))]).expand(len(x), 2)


def test_second_order_gradient_of_a_quadratic():
    """w' = w - lr (a + w), so dL_val/da = -lr (w' - x): all of it comes through the look-ahead."""
    a, w = torch.tensor([0.7, 0.4]).double(), torch.tensor([1.5, 2.0]).double()
    model = Quadratic(a, w)
    ones = torch.ones(1, dtype=torch.int64)
    train, val = (Batch(torch.full((1, 1), value).double(), ones) for value in (1.0, -0.5))
    optimizer = torch.optim.SGD(model.weights(), LR)
    ahead = w - LR * (a + w)
    torch.testing.assert_close(second_order(model, train, val, optimizer).grads[0], -LR * (ahead - 0.5),
                               rtol=1e-6, atol=1e-9)


def test_beta_decay_is_the_gradient_of_the_mean_logsumexp():
    alphas = [torch.randn(14, 8, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    beta = torch.randn(14, dtype=torch.float64)
    loss = 5.0 * torch.cat([alpha.logsumexp(-1) for alpha in alphas]).mean()
    torch.testing.assert_close(beta_decay([*alphas, beta], 5.0)[:2], list(torch.autograd.grad(loss, alphas)))
    assert not beta_decay([*alphas, beta], 5.0)[2].any()


def test_a_step_moves_only_its_own_parameters():
    torch.manual_seed(0)
    model = Supernet(3, 4, 5, 3)
    data = Batch(torch.randn(8, 3, 8, 8), torch.randint(5, (8,)))
    weights, alphas = ([p.detach().clone() for p in group] for group in (model.weights(), model.alphas()))
    architecture_step(model, torch.optim.Adam(model.alphas(), 0.1), lambda: first_order(model, data), decay=1.0)
    assert all(torch.equal(a, b) for a, b in zip(model.weights(), weights, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(model.alphas(), alphas, strict=True))
    alphas = [p.detach().clone() for p in model.alphas()]
    weight_step(model, torch.optim.SGD(model.weights(), 0.1), data, clip=5.0)
    assert all(torch.equal(a, b) for a, b in zip(model.alphas(), alphas, strict=True))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_clipping():
    torch.manual_seed(0)
    model = Blend()
    data = Batch(*(t.float() if t.is_floating_point() else t for t in batch(0)))
    before = [w.detach().clone() for w in model.weights()]
    norm = torch.cat([g.flatten() for g in gradients(model, data, model.weights()).grads]).norm()
    weight_step(model, torch.optim.SGD(model.weights(), 1.0), data, clip=float(norm) / 10)
    moved = torch.cat([(a - b).flatten() for a, b in zip(model.weights(), before, strict=True)]).norm()
    torch.testing.assert_close(moved, norm / 10, rtol=1e-4, atol=0)


def search_steps(rank, size, folder):
    """Some steps of both levels on this process's share of each joint batch; process 0 keeps the parameters."""
    if size > 1:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    torch.manual_seed(0)
    model = Blend().double()
    weights, alphas = sgd(model), torch.optim.Adam(model.alphas(), 0.1)
    for step in range(3):
        part = slice(rank * 16 // size, (rank + 1) * 16 // size)
        train, val = (Batch(*(each[part] for each in batch(seed))) for seed in (step, 10 + step))
        architecture_step(model, alphas, lambda train=train, val=val: second_order(model, train, val, weights), 1.0)
        weight_step(model, weights, train, clip=1.0)
    if rank == 0:
        torch.save([parameter.detach() for parameter in model.parameters()], f"{folder}/{size}.pt")
    if size > 1:
        distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one_with_the_joint_batch(tmp_path):
    """Without batch norm, which each process does on its share alone."""
    multiprocessing.spawn(search_steps, (2, tmp_path), nprocs=2)
    search_steps(0, 1, tmp_path)
    one, two = (torch.load(tmp_path / f"{size}.pt") for size in (1, 2))
    torch.testing.assert_close(two, one)
