"""model.pt: a trained network in one file, with all that it takes to use it and no more.

It holds tensors and plain types only: the weights, what network they are of, the normalisation of the pictures, the
names of the classes, and facts about the training. It is read without NNI, without running code from the file, and only
if it is what was written (artifacts/tensor_file.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from artifacts import tensor_file
from artifacts.file_kinds import kind_of
from models import build_model
from models.darts.genotype import Genotype
from models.darts.network import DartsNetwork
from pictures import SIDE
from pictures.augmentation import Normalization
from pictures.known import mirrored_in

FORMAT = 1
KIND = "trained model"  # tells the file from a checkpoint


class TrainedModel(NamedTuple):
    """What `load_model` gives: `model` is in eval mode and channels_last, on the device of `normalization`."""

    model: nn.Module
    network: dict[str, Any]
    normalization: Normalization
    classes: tuple[str, ...]
    facts: dict[str, Any]
    learnt: Tensor = torch.empty(0, dtype=torch.int64)  # digests (pictures.duplicates) of what it was trained on
    judged: Tensor = torch.empty(0, dtype=torch.int64)  # and of what it was validated on, by which it may be chosen

    @property
    def side(self) -> int:
        """Of the pictures that it takes, in pixels."""
        return self.network.get("side", SIDE)

    @property
    def preprocess(self) -> dict[str, Any]:
        """How its pictures were read, and new ones are: the arguments of pictures.preprocess."""
        data = self.facts.get("data") or {}
        return {"side": self.side, "fit": data.get("fit", "stretch"), "grey_range": data.get("grey_range")}

    @property
    def mirrored(self) -> bool:
        """Whether it was trained with mirrored pictures too, as far as the facts tell.

        `auto` is what pictures.dataset.training_batches makes of it.
        """
        flip, data = (self.facts.get("config") or {}).get("flip"), (self.facts.get("data") or {}).get("name")
        return flip == "on" or (flip in ("auto", None) and mirrored_in(data))


def build_network(network: Mapping[str, Any], num_classes: int) -> nn.Module:
    """The network that a description names, untrained and without auxiliary head; the description is one of

    {"family": "zoo", "name": "resnet18"}, {"family": "classic_nas", "architecture": {label: choice}},
    {"family": "darts", "genotype": {...}, "channels": 36, "layers": 20, "stem_multiplier": 3},

    each with "side", if its pictures are not of 32x32 pixels.
    """
    family, side = network.get("family"), network.get("side", SIDE)
    if family == "zoo":
        return build_model(network["name"], num_classes, side)
    if family == "classic_nas":
        from models.mobilenet_space.space import build, check_sample

        check_sample(network["architecture"])
        return build(network["architecture"], num_classes, side)
    if family == "darts":
        return DartsNetwork(Genotype.from_json(network["genotype"]), 3, network["channels"], num_classes,
                            network["layers"], network["stem_multiplier"], side=side)
    raise ValueError(f"family = {family!r}: must be one of zoo, classic_nas, darts")


def save_model(path: Path, model: nn.Module, network: Mapping[str, Any], normalization: Normalization,
               classes: Sequence[str], facts: Mapping[str, Any], learnt: Any = (), judged: Any = ()) -> None:
    """Write `model`, which `network` describes, atomically; an auxiliary head is left out. OSError if the disk is full.

    facts: what is worth knowing about the training, of plain types, under the keys of its result.json. `learnt` and
    `judged`: as in TrainedModel, or as arrays; empty if they are not known.
    """
    weights = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()
               if not key.startswith("auxiliary.")}
    content = {"kind": KIND, "format": FORMAT, "network": dict(network), "classes": list(classes),
               "facts": dict(facts), "mean": normalization.mean.cpu(), "std": normalization.std.cpu(),
               "weights": weights, "learnt": torch.as_tensor(learnt, dtype=torch.int64),
               "judged": torch.as_tensor(judged, dtype=torch.int64)}
    tensor_file.write(path, content)


def load_model(path: Path, device: torch.device) -> TrainedModel:
    """What `save_model` wrote; ValueError with one line if there is no such file, or no whole model in it."""
    content = _read(Path(path), device)
    try:
        model = build_network(content["network"], len(content["classes"]))
        model.load_state_dict(content["weights"])
        normalization = Normalization(content["mean"], content["std"], content["network"].get("side", SIDE))
        found = TrainedModel(model.to(device, memory_format=torch.channels_last).eval(), content["network"],
                             normalization, tuple(content["classes"]), content["facts"],
                             *(content.get(key, torch.empty(0, dtype=torch.int64)) for key in ("learnt", "judged")))
    except KeyError as error:
        raise ValueError(f"{path}: not a whole model file ({error.args[0]} is missing)") from None
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: its weights do not fit the network it names ({reason})") from None
    return found


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """The content of a model file, of the format that this version reads."""
    if path.is_dir():
        found = next((path / name for name in ("model.pt", "model.onnx") if (path / name).is_file()), None)
        raise ValueError(f"{path}: a folder; " + (f"give the file in it, {found}" if found else
                         "a trained model is wanted, such as the model.pt of a run's folder"))
    if not path.is_file():
        raise ValueError(f"{path}: no such file; a trained model is wanted, such as the model.pt of a run's folder")
    if kind := kind_of(path):
        raise ValueError(f"{path}: not a model file (it is {kind})")
    try:
        content = tensor_file.read(path, device)
    except tensor_file.NotWhole as error:
        raise ValueError(f"{path}: not a whole model file ({error})") from None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        checkpoint = isinstance(content, dict) and "identity" in content
        what = "a checkpoint, made to resume a run" if checkpoint else "something else"
        raise ValueError(f"{path}: not a model file but {what}; the run's folder has a model.pt once it has finished")
    if content.get("format") != FORMAT:
        raise ValueError(f"{path}: format {content.get('format')!r}, this version reads {FORMAT}; export it again")
    return content
