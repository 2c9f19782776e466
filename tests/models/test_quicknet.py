"""quicknet: what its first layer does to pictures, what its convolutions begin as, every side and number of classes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models import BASELINES, MODELS, build_model
from models.blocks import SIZES
from models.zoo import quicknet

GENERATOR = torch.Generator()


def pictures(side=32, grey=False):
    """64 pictures whose neighbours resemble each other, as those of photographs do."""
    noise = torch.randn(64, 1 if grey else 3, side + 2, side + 2, generator=GENERATOR.manual_seed(1))
    return F.avg_pool2d(noise, 3, 1).expand(-1, 3, -1, -1) * 3


def whitened(side=32, grey=False):
    torch.manual_seed(0)
    model = build_model("quicknet", 10, side)
    x = pictures(side, grey)
    model.prepare(x.split(32))
    return model.stem[0], model.stem[0](x).transpose(0, 1).flatten(1).detach()


def test_it_is_no_network_of_stage_1():
    assert BASELINES.keys() == {"quicknet"} and not BASELINES.keys() & MODELS.keys()
    with pytest.raises(ValueError, match=r"'quick' is not one of vgg, .*, quicknet$"):
        build_model("quick", 10)


@pytest.mark.parametrize("side", [32, 64])
def test_patches_are_white_after_the_first_layer(side):
    """Their second moments become the identity, but for EPS; the other half of the maps are the negatives."""
    layer, maps = whitened(side)
    assert maps.shape == (24, 64 * (31**2 if side == 32 else 32**2))
    moments = maps[:12] @ maps[:12].T / maps.shape[1]
    assert (moments - torch.eye(12)).abs().max() < 0.02
    assert torch.equal(maps[12:], -maps[:12])
    assert not layer.weight.requires_grad and layer.bias.requires_grad


def test_grey_pictures_have_four_axes_and_no_noise():
    """Elsewhere there is nothing: a map of nothing would be blown up by the batch norm behind it."""
    _, maps = whitened(grey=True)
    assert (maps.std(1) - 1).abs().max() < 0.02
    assert torch.equal(maps[:4], maps[4:8]) and torch.equal(maps[:4], maps[8:12])


def test_pictures_of_one_colour_leave_it_as_it_was():
    torch.manual_seed(0)
    layer = quicknet.Whitening(1)
    before = layer.weight.clone()
    layer.prepare([torch.zeros(8, 3, 32, 32)])
    assert torch.equal(layer.weight, before)


def test_whitening_keeps_its_precision_under_autocast():
    """In bf16 alone the difference of two channels that hardly differ is lost: a tenth of it, here."""
    x = pictures(grey=True) + 0.02 * pictures()
    layer = quicknet.Whitening(1)
    layer.prepare([x])
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), layer(x), rtol=0.01, atol=0.01)


def test_the_first_filters_pass_their_inputs_on():
    layer, x = quicknet.conv(8, 12), torch.randn(2, 8, 5, 5)
    assert torch.equal(layer(x)[:, :8], x) and not torch.equal(layer(x)[:, 8:], x[:, :4])
    wide = quicknet.conv(8, 4)
    torch.testing.assert_close(wide(x), x[:, :4])


@pytest.mark.parametrize("side", SIZES)
def test_every_side(side):
    torch.manual_seed(0)
    model, plain = build_model("quicknet", 7, side), build_model("quicknet", 7)
    maps = []
    model.stem.register_forward_hook(lambda module, args, output: maps.append(output.shape))
    logits = model(torch.randn(3, 3, side, side))
    assert maps[0][1] == 24 and maps[0][2:] == ({32: 31, 48: 24, 96: 24, 192: 24, 224: 28}.get(side, 32),) * 2
    assert [p.shape for p in model.blocks.parameters()] == [p.shape for p in plain.blocks.parameters()]
    F.cross_entropy(logits, torch.tensor([0, 6, 3])).backward()
    for key, parameter in model.named_parameters():
        frozen = key == "stem.0.weight" or (key.endswith("weight") and parameter.ndim == 1)
        assert frozen != parameter.requires_grad, key
        assert frozen or (parameter.grad.isfinite().all() and parameter.grad.any()), key


def test_parameters_and_the_scale_of_the_logits():
    with torch.device("meta"):
        model = build_model("quicknet", 10)
    assert sum(p.numel() for p in model.parameters()) == 1_972_792
    assert model.head[-1].bias is None
    torch.manual_seed(0)
    for classes in (2, 100):
        model = build_model("quicknet", classes)
        assert model.head[-1].out_features == classes and model(torch.randn(8, 3, 32, 32)).abs().max() < 0.5
    assert all((norm.weight == 1).all() for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))
