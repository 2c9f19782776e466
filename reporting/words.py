"""Figures and where they come from, in words."""

import re
import shlex
from pathlib import Path
from typing import Any

from artifacts.figures import UNKNOWN, span
from models.darts.genotype_files import genotype_name
from pictures.known import DATASETS
from pictures.listing import TEST_SHARE, named, without_folders

DATA = {"cifar10": "CIFAR-10", "digits": "handwritten digits"}
NETWORKS = {
    "vgg": "VGG-19, a plain stack of 16 convolutions",
    "resnet18": "ResNet-18, convolutions with shortcuts around them",
    "googlenet": "GoogLeNet, convolutions of several sizes side by side",
    "densenet121": "DenseNet-121, in which each layer sees all before it",
    "mobilenet": "MobileNet, small, with convolutions in two cheap steps",
    "dpn92": "DPN-92, with the shortcuts of ResNet and of DenseNet",
    "shufflenetg2": "ShuffleNet, very small, which shuffles groups of channels",
    "quicknet": "quicknet, small, made to learn in minutes",
    "senet18": "SENet-18, a ResNet that weighs its channels anew for each picture",
}
DECIDED = ((0.97, "nearly undecided: on every edge all operations weigh about the same, so that the cells found are "
                  "hardly better than ones drawn at random"),
           (0.8, "leaning: some operations weigh more than others, but none is settled"),
           (0.5, "mostly decided: on most edges a few operations hold most of the weight"),
           (-1.0, "decided: on nearly every edge one operation holds the weight"))


def val_images(result: dict[str, Any]) -> int | None:
    return result["data"].get("val_images")


def by_validation(result: dict[str, Any]) -> str:
    """The interval of a result's value, if it is an accuracy of validation pictures."""
    of, value = val_images(result), result.get("value")
    if not of or not isinstance(value, int | float) or not str(result.get("metric")).startswith("validation accuracy"):
        return ""
    return f" (95% interval {span(value * of, of)}, by {of:,} pictures)"


def decided(entropy: float) -> str:
    """What the entropy of the alphas, 0..1, says."""
    return next(words for least, words in DECIDED if entropy > least)


def millions(count: Any) -> str:
    if not isinstance(count, int | float):
        return UNKNOWN
    return f"{count / 1e6:.2f} million" if count >= 1e5 else f"{count:,.0f}"


def value(item: Any) -> str:
    return f"{item:g}" if isinstance(item, float) else str(item)


def data_name(settings: dict[str, Any]) -> str:
    """Of the data set in the settings of a run, without the folders above it."""
    return named(str(settings.get("data", "unknown data")))


def reason(error: Exception, data: str) -> str:
    """On one line, without the folders above the data set: a page is shown to others."""
    return without_folders(str(error), data)


def data_options(data: str, config: dict[str, Any]) -> str:
    """The options that name a run's data set, without the folders above it, and say how it was read."""
    given = {"test-share": ("test_share", TEST_SHARE), "image-size": ("image_size", "auto"), "fit": ("fit", "pad")}
    words = [word for flag, (key, usual) in given.items() if config.get(key, usual) != usual
             for word in (f"--{flag}", f"{config[key]}")]
    words += [f"--{key.replace('_', '-')}" for key in ("skip_broken", "drop_duplicates") if config.get(key)]
    return shlex.join(["--data", data if data in DATASETS else named(data), *words])


def data_title(name: str) -> str:
    return DATA.get(name, named(name))


def recipe(result: dict[str, Any]) -> str:
    """On what and how long, such as: digits, 1294 training and 143 validation images, 30 epochs, seed 0"""
    data, config = result["data"], result["config"]
    images = [f"{data[f'{part}_images']} {name}" for part, name in (("train", "training"), ("val", "validation"))
              if data.get(f"{part}_images")]
    parts = [named(str(data.get("name", UNKNOWN))), " and ".join(images) + " images" if images else "",
             f"{config.get('epochs', UNKNOWN)} epochs", f"seed {config.get('seed', UNKNOWN)}"]
    return ", ".join(filter(None, parts))


def network(stage: str, result: dict[str, Any]) -> str:
    """Which network a run has trained."""
    config = result["config"]
    if named := config.get("genotype"):
        name = genotype_name(str(named))
        return f"{name if 'DARTS' in name else f'DARTS {name}'}, {config.get('layers')} cells"
    if config.get("baseline"):
        return "plain MobileNet"
    if result.get("architecture"):
        return "MobileNet found by classic NAS"
    return str(config.get("model") or stage)


def network_in_words(stage: str, result: dict[str, Any]) -> str:
    """The same for those who do not know its name."""
    config = result["config"]
    if named := str(config.get("genotype") or ""):
        where = ("drawn at random" if named.startswith("random:") else "found by a search (DARTS)"
                 if Path(named).suffix or "/" in named else f"published as {genotype_name(named)}")
        return f"a stack of {config.get('layers', 'some')} cells, {where}"
    if config.get("baseline"):
        return NETWORKS["mobilenet"]
    if result.get("architecture"):
        return "a MobileNet whose 13 blocks and shortcuts were chosen by a search (classic NAS)"
    return NETWORKS.get(str(config.get("model")), network(stage, result))


def slug(text: str) -> str:
    return re.sub(r"[^\w-]+", "-", text).strip("-")
