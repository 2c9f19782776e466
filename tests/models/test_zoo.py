"""Every network of the registry, on two images."""

import copy
import json
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from conftest import ROOT
from models import MODELS, build_model
from models.zoo.densenet import DenseLayer
from models.zoo.dpn import DualPathBlock, Stage
from models.zoo.resnet import BasicBlock
from models.zoo.senet import PreActivationBlock
from models.zoo.shufflenet import ShuffleUnit, channel_shuffle

SEARCH_SPACE = ROOT / "search_space.json"

# name: (parameters at 10 classes, channels and size of the last feature map)
EXPECTED = {
    "vgg": (20_040_522, 512, 1),
    "resnet18": (11_173_962, 512, 4),
    "googlenet": (6_166_250, 1024, 8),
    "densenet121": (6_956_298, 1024, 4),
    "mobilenet": (3_217_226, 1024, 2),
    "dpn92": (34_236_634, 2560, 4),
    "shufflenetg2": (887_582, 800, 4),
    "senet18": (11_260_354, 512, 4),
}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=EXPECTED)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def network(name: str, images: Tensor) -> Iterator[nn.Module]:
    """One network for all its tests: 7 classes, running statistics taken from the images.

    Fresh statistics would hide mistakes: in eval they let the signal fade until the logits are only the bias.
    """
    torch.manual_seed(0)
    model = build_model(name, 7)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(images)
    yield model.eval()


def test_registry_is_the_search_space() -> None:
    choices = json.loads(SEARCH_SPACE.read_text())["model"]["_value"]
    assert sorted(choices) == sorted(MODELS) == sorted(EXPECTED)


def test_parameter_count(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name, 10)
    assert sum(p.numel() for p in model.parameters()) == EXPECTED[name][0]


def test_shufflenet_count_by_hand() -> None:
    def unit(c_in: int, c_out: int, groups_in: int = 2) -> int:
        """Parameters of one branch: convolution and the two vectors of its normalisation, three times."""
        mid = c_out // 4
        reduce = c_in // groups_in * mid + 2 * mid
        depthwise = 9 * mid + 2 * mid
        expand = mid // 2 * c_out + 2 * c_out
        return reduce + depthwise + expand

    stem = 3 * 24 + 2 * 24
    stage1 = unit(24, 200 - 24, groups_in=1) + 3 * unit(200, 200)
    stage2 = unit(200, 400 - 200) + 7 * unit(400, 400)
    stage3 = unit(400, 800 - 400) + 3 * unit(800, 800)
    linear = 800 * 10 + 10
    assert (stem, stage1, stage2, stage3, linear) == (120, 39_002, 305_750, 534_700, 8_010)
    assert stem + stage1 + stage2 + stage3 + linear == EXPECTED["shufflenetg2"][0]


def test_eval_logits_and_last_feature_map(name: str, network: nn.Module, images: Tensor) -> None:
    shapes = []
    handle = network.head.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    with torch.no_grad():
        logits = network(images)
    handle.remove()
    _, channels, size = EXPECTED[name]
    assert shapes == [(2, channels, size, size)]
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert (logits[0] - logits[1]).abs().max() > 1e-2, "the logits do not depend on the image"


def test_train_logits_and_gradients(network: nn.Module, images: Tensor) -> None:
    model = copy.deepcopy(network).train()
    logits = model(images)
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.tensor([0, 6])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        if parameter.dim() > 1:  # a bias before a normalisation has a gradient of zero, a weight never
            assert parameter.grad.any(), key


def test_state_dict_round_trip(name: str, network: nn.Module, images: Tensor) -> None:
    fresh = build_model(name, 7).eval()
    with torch.no_grad():
        expected = network(images)
        assert not torch.equal(fresh(images), expected)
        fresh.load_state_dict(network.state_dict())
        assert torch.equal(fresh(images), expected)


def test_channels_last_is_kept_and_changes_nothing(network: nn.Module, images: Tensor) -> None:
    model = copy.deepcopy(network).to(memory_format=torch.channels_last)
    kept = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(
                lambda _, args: kept.append(args[0].stride(1) == 1 or args[0].shape[1] == 1)
            )
    with torch.no_grad():
        logits = model(images.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(logits, network(images), rtol=1e-4, atol=1e-4)
    assert kept and all(kept)


@pytest.mark.parametrize(
    "block",
    [
        BasicBlock(64, 64, 1),
        PreActivationBlock(64, 64, 1),
        ShuffleUnit(64, 64, 1, 2),
        DenseLayer(64),
        DualPathBlock(64, Stage(width=32, residual=48, dense=8, blocks=2, stride=2), first=False),
    ],
    ids=lambda block: type(block).__name__,
)
def test_shortcut_passes_the_input_on(block: nn.Module) -> None:
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(2, 64, 4, 4)  # not negative, as after a ReLU
    assert torch.equal(block(x)[:, :64], x)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_channel_shuffle_interleaves(memory_format: torch.memory_format) -> None:
    x = torch.arange(6.0).view(1, 6, 1, 1).repeat(2, 1, 3, 3).contiguous(memory_format=memory_format)
    y = channel_shuffle(x, 2)
    assert y[1, :, 2, 2].tolist() == [0, 3, 1, 4, 2, 5]
    assert y.shape == x.shape
    assert y.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("bad", ["resnet50", "VGG", "", None, {"_name": "vgg"}])
def test_unknown_name(bad: object) -> None:
    with pytest.raises(ValueError) as error:
        build_model(bad, 10)
    message = str(error.value)
    assert message.startswith("model: ")
    assert repr(bad) in message
    assert all(name in message for name in MODELS)
    assert "\n" not in message


@pytest.mark.parametrize("bad", [1, 0, -3, 10.0, "10", None, True])
def test_bad_num_classes(bad: object) -> None:
    with pytest.raises(ValueError) as error:
        build_model("vgg", bad)
    message = str(error.value)
    assert message.startswith("num_classes: ")
    assert repr(bad) in message
    assert "\n" not in message
