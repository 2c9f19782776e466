"""What a network looked at: the formula against a plain loop, and that it works for every network there is."""

import pytest
import torch
from torch import nn

from models import MODELS
from reporting.heat_maps import SIDE, layer_cam
from small_models import CLASSES, write


class Small(nn.Module):
    """Its last map of at least 8x8 is `last`, which what follows changes in place."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.pool = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1), nn.AvgPool2d(4)
        self.relu, self.linear = nn.ReLU(inplace=True), nn.Linear(24, 5)

    def forward(self, x):
        return self.linear(self.pool(self.relu(self.last(torch.tanh(self.first(x))))).flatten(1))


def test_layer_cam_is_its_formula():
    """M = ReLU(sum over channels of ReLU(dy/dA) A), of the map after the ReLU: the last of 8x8."""
    torch.manual_seed(0)
    model, x, classes = Small().eval(), torch.randn(3, 3, 32, 32), torch.tensor([4, 0, 2])
    found = layer_cam(model, x, classes)
    for image, label, heat in zip(x, classes, found, strict=True):
        a = torch.relu(model.last(torch.tanh(model.first(image[None])))).detach().requires_grad_()
        model.linear(model.pool(a).flatten(1))[0, label].backward()
        plain = torch.zeros(8, 8)
        for k in range(6):
            plain += a.grad[0, k].clamp(min=0) * a[0, k].detach()
        large = nn.functional.interpolate(plain[None, None], (32, 32), mode="bilinear")[0, 0]
        assert torch.allclose(heat, large / large.max(), atol=1e-5)


def test_it_leaves_the_network_as_it_was():
    model, x = Small().eval(), torch.randn(2, 3, 32, 32)
    before = model(x)
    layer_cam(model, x, torch.tensor([1, 1]))
    assert torch.equal(model(x), before) and all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_it_looks_where_the_class_is():
    """A network that only sees the brightness of the upper left corner."""
    model = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * 64, 2)).eval()
    with torch.no_grad():
        model[2].weight.zero_()
        model[2].weight[1].view(3, 8, 8)[:, :4, :4] = 1
    [heat] = layer_cam(model, torch.ones(1, 3, 32, 32), torch.tensor([1]))
    assert heat[:12, :12].min() > 0.9 and heat[20:, 20:].max() == 0


def test_maps_that_are_too_small_are_told():
    with pytest.raises(ValueError, match=f"no map of {SIDE}x{SIDE}"):
        layer_cam(nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(12, 2)), torch.ones(1, 3, 32, 32),
                  torch.tensor([1]))


LARGE = ("dpn92", "googlenet")


@pytest.mark.parametrize("family", ["darts", "classic_nas", *(
    pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in MODELS)])
def test_every_network_shows_what_it_looked_at(tmp_path, family):
    trained = write(tmp_path / "model.pt", family)
    torch.manual_seed(1)
    heat = layer_cam(trained.model, torch.randn(2, 3, 32, 32), torch.tensor([0, len(CLASSES) - 1]))
    assert heat.shape == (2, 32, 32) and heat.isfinite().all() and heat.min() >= 0
    assert torch.allclose(heat.amax((1, 2)), torch.ones(2)) and heat.std() > 0.01  # it tells places apart
