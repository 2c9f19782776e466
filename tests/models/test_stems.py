"""Networks for pictures of every side: what the stem makes of them, and that nothing else changes."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from config import DataConfig
from models import MODELS, build_model
from models.blocks import SIZES, body_side, conv_bn_relu, halvings, stem
from models.zoo.vgg import vgg19
from pictures import sizes

# channels of the convolutions of each family's stem, all 3x3 and of stride 2, by the number of halvings
WIDTHS = {
    **{name: [[64], [64, 64], [64, 64, 64]] for name in ("vgg", "resnet18", "densenet121", "dpn92", "senet18")},
    "googlenet": [[192], [64, 192], [64, 64, 192]],
    "mobilenet": [[32], [32, 32], [32, 32, 32]],
    "shufflenetg2": [[24], [24, 24], [24, 24, 24]],
}
# parameters of what the stem is at 32; those of the convolution, its bias and its norm
AT_32 = {"vgg": 27 * 64 + 3 * 64, "resnet18": 27 * 64 + 2 * 64, "googlenet": 27 * 192 + 3 * 192, "densenet121": 27 * 64,
         "mobilenet": 27 * 32 + 2 * 32, "dpn92": 27 * 64 + 2 * 64, "shufflenetg2": 3 * 24 + 2 * 24,
         "senet18": 27 * 64 + 2 * 64}
BIASES = ("vgg", "googlenet")


def of_stem(name: str, side: int) -> int:
    """Its parameters, by hand."""
    widths = [3, *WIDTHS[name][halvings(side) - 1]]
    return sum(9 * c_in * c_out + (3 if name in BIASES else 2) * c_out
               for c_in, c_out in pairwise(widths))


def first_of(model: nn.Module) -> nn.Module:
    """The stem; VGG's is the first of its features."""
    return model.stem if hasattr(model, "stem") else model.features[0]


# ---- sizes


@pytest.mark.parametrize(("side", "times", "body"), [
    (32, 0, 32), (48, 1, 24), (64, 1, 32), (96, 2, 24), (128, 2, 32), (192, 3, 24), (224, 3, 28)])
def test_halved_until_the_body_sees_at_most_32(side: int, times: int, body: int) -> None:
    assert (halvings(side), body_side(side)) == (times, body)
    for inner in (None, 8):
        assert stem(16, side, inner=inner)(torch.zeros(2, 3, side, side)).shape == (2, 16, body, body)


def test_these_are_the_sides_that_pictures_are_packed_with() -> None:
    assert SIZES == sizes.SIZES
    assert DataConfig.__dataclass_fields__["image_size"].metadata["allowed"]["choices"] == ("auto", *map(str, SIZES))


@pytest.mark.parametrize("side", [0, 16, 33, 40, 256, -32, "32", None])
def test_another_side_is_refused_in_one_line(side: object) -> None:
    for build in (halvings, body_side, lambda side: stem(8, side), lambda side: build_model("vgg", 10, side)):
        with pytest.raises(ValueError, match="must be one of 32, 48, 64, 96, 128, 192, 224") as caught:
            build(side)
        assert str(caught.value).startswith(f"side = {side!r}: ") and "\n" not in str(caught.value)


def test_at_32_it_is_the_first_convolution_that_there_always_was() -> None:
    for bias in (False, True):
        torch.manual_seed(0)
        found = stem(24, 32, inner=8, bias=bias)
        torch.manual_seed(0)
        plain = conv_bn_relu(3, 24, 3, bias=bias)
        assert str(found) == str(plain)
        assert all(torch.equal(found.state_dict()[key], value) for key, value in plain.state_dict().items())
        assert found.state_dict().keys() == plain.state_dict().keys()


# ---- the zoo


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_no_side_is_32(name: str) -> None:
    torch.manual_seed(0)
    plain = build_model(name, 7)
    torch.manual_seed(0)
    found = build_model(name, 7, 32)
    assert str(found) == str(plain)
    assert all(torch.equal(found.state_dict()[key], value) for key, value in plain.state_dict().items())


@pytest.mark.parametrize("side", SIZES)
def test_the_largest_map_after_the_stem(name: str, side: int) -> None:
    with torch.device("meta"):
        model, after = build_model(name, 7, side).eval(), []
        first = first_of(model)
        inside = {*first.modules(), *[module for module in model.modules() if first in module.children()]}
        for module in set(model.modules()) - inside:
            module.register_forward_hook(lambda module, args, output: after.append(output.shape))
        first.register_forward_hook(lambda module, args, output: after.append(output.shape))
        assert model(torch.zeros(2, 3, side, side)).shape == (2, 7)
    assert after[0][2:] == (body_side(side),) * 2  # the stem's
    maps = [shape[2:] for shape in after if len(shape) == 4]
    assert max(maps) == (body_side(side),) * 2 and max(map(max, maps)) <= 32 and min(map(min, maps)) >= 1
    assert all(height == width for height, width in maps)


@pytest.mark.parametrize("side", SIZES[1:])
def test_only_the_stem_has_other_parameters(name: str, side: int) -> None:
    with torch.device("meta"):
        plain, model = build_model(name, 10), build_model(name, 10, side)
    count, found = (sum(p.numel() for p in each.parameters()) for each in (plain, model))
    assert found - of_stem(name, side) == count - AT_32[name]
    shapes, others = ([p.shape for p in each.parameters()][len(list(first_of(each).parameters())):]
                      for each in (plain, model))
    assert shapes == others
    widths = [module.out_channels for module in first_of(model).modules() if isinstance(module, nn.Conv2d)]
    assert widths == WIDTHS[name][halvings(side) - 1]
    assert all(module.stride == (2, 2) for module in first_of(model).modules() if isinstance(module, nn.Conv2d))


@pytest.mark.parametrize("side", [48, 224])
def test_it_trains(name: str, side: int) -> None:
    torch.manual_seed(0)
    model = build_model(name, 7, side)
    logits = model(torch.randn(3, 3, side, side))
    assert logits.shape == (3, 7) and logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.tensor([0, 6, 3])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        if parameter.dim() > 1:  # a bias before a normalisation has a gradient of zero, a weight never
            assert parameter.grad.any(), key


@pytest.mark.parametrize("side", [64, 96])
def test_every_pixel_counts(side: int) -> None:
    """Those at the edges too, whatever is rounded on the way."""
    torch.manual_seed(0)
    model, x = build_model("shufflenetg2", 7, side).eval(), torch.randn(1, 3, side, side, requires_grad=True)
    model(x).square().sum().backward()
    assert x.grad.abs().sum(1).all()


def test_the_pools_of_vgg_round_up() -> None:
    """32 pixels are halved five times as ever; 24 and 28 come down to 1 too."""
    for side, expected in ((32, [16, 8, 4, 2, 1]), (48, [12, 6, 3, 2, 1]), (224, [14, 7, 4, 2, 1])):
        with torch.device("meta"):
            model, found = vgg19(7, side).eval(), []
            for module in model.features:
                if isinstance(module, nn.MaxPool2d):
                    module.register_forward_hook(lambda module, args, output, found=found: found.append(
                        output.shape[-1]))
            model(torch.zeros(1, 3, side, side))
        assert found == expected
