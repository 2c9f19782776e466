"""Small networks of all three families as model files, for the tests of what is done with them."""

import random
from pathlib import Path

import torch
from torch import nn

from artifacts.model_file import TrainedModel, load_model, save_model
from models import build_model
from models.darts.genotype import Genotype
from models.darts.network import DartsNetwork
from models.mobilenet_space import space as mobilenet_space
from pictures.augmentation import Normalization

CLASSES = ("ant", "bee", "cat", "dog", "eel")
CELL = [[["sep_conv_3x3", 0], ["skip_connect", 1]], [["max_pool_3x3", 0], ["dil_conv_5x5", 2]],
        [["avg_pool_3x3", 1], ["sep_conv_5x5", 3]], [["dil_conv_3x3", 2], ["skip_connect", 0]]]
GENOTYPE = {"schema": 1, "normal": CELL, "reduction": CELL}


def zoo(name: str) -> tuple[nn.Module, dict]:
    return build_model(name, len(CLASSES)), {"family": "zoo", "name": name}


def classic_nas() -> tuple[nn.Module, dict]:
    rng = random.Random(1)
    sample = {label: rng.choice(choices) for label, choices in mobilenet_space.choices().items()}
    return mobilenet_space.build(sample, len(CLASSES)), {"family": "classic_nas", "architecture": sample}


def darts() -> tuple[nn.Module, dict]:
    model = DartsNetwork(Genotype.from_json(GENOTYPE), 3, 4, len(CLASSES), 3, 3)
    return model, {"family": "darts", "genotype": GENOTYPE, "channels": 4, "layers": 3, "stem_multiplier": 3}




def write(path: Path, family: str = "darts", facts: dict | None = None) -> TrainedModel:
    """A model file of one family, or of the zoo by its name: untrained, but batch norm knows the statistics of noise.

    Without these the signal would die on the way, and all pictures would have equal logits.
    """
    torch.manual_seed(0)
    model, network = {"darts": darts, "classic_nas": classic_nas}.get(family, lambda: zoo(family))()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(64, 3, 32, 32))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    normalization = Normalization(torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.25]))
    save_model(path, model.eval(), network, normalization, CLASSES, facts or {})
    return load_model(path, torch.device("cpu"))
