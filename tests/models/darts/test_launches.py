"""Launches of a search step, which bound it on a GPU: counted at the published size, on the meta device."""

import torch

from benchmarks.counting import Launches
from benchmarks.gpu.launches import ALLOWED, of_step


def test_a_step_of_the_published_search_has_few_launches():
    """Batch 64, 16 channels, 8 cells, first order; the plain form has 31 465."""
    of = of_step("stored", 1, 64)
    assert of.total() <= ALLOWED == 12_000
    assert of["convolution_backward"] > of["convolution"]


def test_a_convolution_s_backward_counts_as_the_gradients_that_it_gives():
    x, weight = torch.randn(1, 2, 4, 4), torch.randn(2, 2, 3, 3, requires_grad=True)
    counts = []
    for wanted in ([weight], [weight, x.requires_grad_()]):
        y = torch.conv2d(x, weight)
        with Launches() as launches:
            torch.autograd.grad(y.sum(), wanted)
        counts.append(launches.of["convolution_backward"])
    assert counts == [1, 2]
