"""A trained network for other programs: as ONNX, or as torch.export's own archive; always compared with the original.

What is exported takes pictures (N, 3, side, side) float32, red, green and blue in 0..1, any N, and gives logits
(N, classes) float32: the normalisation is inside. The metadata hold, as JSON, the names of the classes in the order of
the logits, what pictures.preprocess makes the pictures by, and whether mirrored pictures were trained on. An ONNX file
ends in its digest (artifacts/onnx_file.py), an archive of torch.export is a zip archive, with a CRC-32 of each part.
"""

import copy
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from artifacts.model_file import TrainedModel
from artifacts.onnx_file import SEALED, sealed
from files import atomic_write
from pictures import preprocess
from pictures.augmentation import words

BATCHES = (1, 7, 32)  # sizes of the batches that an export is verified on
Runner = Callable[[np.ndarray], np.ndarray]  # pictures -> logits


class Format(NamedTuple):
    suffix: str
    dump: Callable[[torch.export.ExportedProgram, dict[str, str]], bytes]  # with metadata
    open: Callable[[bytes], Runner]


class ExportDiffers(Exception):
    """What was exported does not compute what the original does."""


class WithNormalization(nn.Module):
    """Pictures (N, 3, side, side) in 0..1 -> logits."""

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean.view(1, 3, 1, 1).clone())
        self.register_buffer("std", std.view(1, 3, 1, 1).clone())

    def forward(self, pictures: Tensor) -> Tensor:
        return self.network((pictures - self.mean) / self.std)


def export(trained: TrainedModel, format: str, path: str | os.PathLike, tolerance: float,
           real: np.ndarray | None = None) -> dict[str, float]:
    """Write the network of `trained`, which is on the CPU, to `path`; returns the largest differences of its logits.

    They are those of random pictures, over the largest logit where that is above 1, and, if `real` (N, side, side, 4)
    uint8 has any, of these. ExportDiffers if one is above `tolerance`; then, as after any error, nothing is written.
    """
    chosen = FORMATS[format]
    with atomic_write(path, "wb") as file:
        content = chosen.dump(_program(trained), metadata(trained))
        exported = chosen.open(content)
        differences = {"random pictures": _difference(trained, exported, _random_pictures(trained.side), relative=True)}
        if real is not None and len(real):
            differences["your pictures"] = _difference(trained, exported, [real])
        for name, difference in differences.items():
            if not difference <= tolerance:  # also if it is not a number
                raise ExportDiffers(f"{path}: the logits of {name} differ by {difference:.2g}, more than the tolerance "
                                    f"{tolerance:g}; nothing was written")
        file.write(content)
    return differences


def metadata(trained: TrainedModel) -> dict[str, str]:
    facts = {"classes": trained.classes, "network": trained.network, "preprocess": trained.preprocess,
             "mirrored": trained.mirrored}
    return {key: json.dumps(value) for key, value in facts.items()}


def preprocess_beside(path: str | os.PathLike) -> Path:
    """Where a copy of pictures/preprocess.py goes; ValueError if another file of that name is there."""
    beside, title = Path(path).parent / "preprocess.py", preprocess.__doc__.partition("\n")[0]
    if beside.exists() and title.encode() not in beside.read_bytes():
        raise ValueError(f"out = {str(path)!r}: {beside} is there and would be overwritten; take another folder")
    return beside


def write_preprocess(beside: Path) -> None:
    with atomic_write(beside) as file:
        file.write(Path(preprocess.__file__).read_text(encoding="utf-8"))


def _program(trained: TrainedModel) -> torch.export.ExportedProgram:
    # A copy in the usual memory format, so that the layout of training leaves no trace in the graph.
    network = copy.deepcopy(trained.model).to(memory_format=torch.contiguous_format)
    model = WithNormalization(network, trained.normalization.mean, trained.normalization.std).eval()
    example = torch.rand(4, 3, trained.side, trained.side)
    with torch.no_grad():
        return torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))


# ---- formats


def _dump_onnx(program: torch.export.ExportedProgram, metadata: dict[str, str]) -> bytes:
    made = torch.onnx.export(program, (), dynamo=True, verbose=False, input_names=["pictures"], output_names=["logits"])
    model = made.model_proto
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    model.doc_string = SEALED
    return sealed(model.SerializeToString())


def _open_onnx(content: bytes) -> Runner:
    import onnxruntime  # only here

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda pictures: session.run(["logits"], {"pictures": pictures})[0]


def _dump_torch(program: torch.export.ExportedProgram, metadata: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=metadata)
    return buffer.getvalue()


def _open_torch(content: bytes) -> Runner:
    model = torch.export.load(io.BytesIO(content)).module()
    return lambda pictures: model(torch.from_numpy(pictures)).detach().numpy()


FORMATS = {"onnx": Format(".onnx", _dump_onnx, _open_onnx), "torch": Format(".pt2", _dump_torch, _open_torch)}


# ---- verification


def _random_pictures(side: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for size in BATCHES:
        yield rng.integers(0, 256, (size, side, side, 4), dtype=np.uint8)


@torch.no_grad()
def _difference(trained: TrainedModel, exported: Runner, batches: Iterator[np.ndarray] | list[np.ndarray],
                relative: bool = False) -> float:
    """Largest absolute difference of a logit; the original gets its pictures as in training, from bytes.

    `relative`: over the largest logit of the batch, where that is above 1. A network may answer noise, unlike anything
    that it was trained on, with logits of hundreds, and rounding errors of that scale.
    """
    largest = 0.0
    for images in batches:  # (N, side, side, 4) uint8
        expected = trained.model(trained.normalization(words(torch.from_numpy(images)))).numpy()
        difference = np.abs(exported(preprocess.scaled(images[..., :3])) - expected).max()
        largest = np.maximum(largest, difference / max(1, np.abs(expected).max()) if relative else difference)
    return float(largest)  # nan if one is
