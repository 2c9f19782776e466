"""The networks by name: (N, 3, S, S) images in, (N, num_classes) logits out, in train and eval alike.

S is one of blocks.SIZES, 32 or more. At 32 the networks are those of the literature for such pictures; beyond, a stem
halves the pictures until the body sees at most 32, and nothing else changes.

All of MODELS keep torch's initial weights: batch normalisation makes the scale of the convolutions immaterial.

DartsStackedCells and MobileNetSpace, the search spaces declared for NNI, are loaded when asked for: nni.nas takes six
seconds to import, and neither a trial nor a tuner needs it.
"""

import importlib
from collections.abc import Callable
from typing import Any

from torch import nn

from models.blocks import halvings
from models.zoo import densenet, dpn, googlenet, mobilenet, quicknet, resnet, senet, shufflenet, vgg

# name -> function of the number of classes and, for pictures other than 32x32, their side. MODELS is what stage 1
# chooses from, BASELINES are made for a recipe of their own.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "vgg": vgg.vgg19,
    "resnet18": resnet.resnet18,
    "googlenet": googlenet.googlenet,
    "densenet121": densenet.densenet121,
    "mobilenet": mobilenet.mobilenet,
    "dpn92": dpn.dpn92,
    "shufflenetg2": shufflenet.shufflenet_g2,
    "senet18": senet.senet18,
}
BASELINES: dict[str, Callable[..., nn.Module]] = {"quicknet": quicknet.quicknet}
NNI_SPACES = {"DartsStackedCells": "models.darts.nni_space", "MobileNetSpace": "models.mobilenet_space.nni_space"}


def build_model(name: str, num_classes: int, side: int = 32) -> nn.Module:
    """The network `name` for pictures of side x side; ValueError names what is not allowed."""
    networks = MODELS | BASELINES
    if not isinstance(name, str) or name not in networks:
        raise ValueError(f"model: {name!r} is not one of {', '.join(networks)}")
    if not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"num_classes: {num_classes!r} is not an integer of at least 2")
    return networks[name](num_classes, side) if halvings(side) else networks[name](num_classes)


def __getattr__(name: str) -> Any:
    if name in NNI_SPACES:
        return getattr(importlib.import_module(NNI_SPACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
