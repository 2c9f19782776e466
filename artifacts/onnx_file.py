"""An exported ONNX file as a classifier, run by onnxruntime on the CPU; without torch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from artifacts.file_kinds import ONNX, kind_of
from pictures.preprocess import scaled


class OnnxModel(NamedTuple):
    """What `load_onnx` gives, from the metadata that artifacts.export writes."""

    classes: tuple[str, ...]
    preprocess: dict[str, Any]  # the arguments of pictures.preprocess
    mirrored: bool | None  # whether it was trained with mirrored pictures too; None: not told
    logits: Callable[[np.ndarray], np.ndarray]  # of pictures (N, 3, side, side) float32 in 0..1


def load_onnx(path: Path) -> OnnxModel:
    """ValueError with one line if there is no such file, or if predict.py has not written it."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if (kind := kind_of(path)) not in (None, ONNX):
        raise ValueError(f"{path}: not a model file (it is {kind})")
    session = _session(path)
    metadata = session.get_modelmeta().custom_metadata_map
    if "classes" not in metadata:
        raise ValueError(f"{path}: not an export of predict.py (its metadata have no classes)")
    known = {key: json.loads(metadata[key]) for key in ("classes", "preprocess", "mirrored") if key in metadata}
    [pictures] = session.get_inputs()  # an export of before has no more metadata than the classes
    return OnnxModel(tuple(known["classes"]), known.get("preprocess", {"side": pictures.shape[2]}),
                     known.get("mirrored"), lambda x: session.run(["logits"], {"pictures": x})[0])


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(f"{path}: to run an ONNX file takes the package onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # no lines of its own on standard error; what is fatal is raised
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of its own kinds, which have no common name
        raise ValueError(f"{path}: not a whole ONNX file ({' '.join(str(error).split())[:200]})") from None


def onnx_classifier(model: OnnxModel, tta: bool, piece: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images (N, side, side, 4) uint8 to probabilities (N, classes) float32, as predict.classifier.

    With `tta`, test-time augmentation, the mean with those of the mirror images; so many pictures at a time.
    """
    def probabilities(x: np.ndarray) -> np.ndarray:
        logits = np.concatenate([model.logits(x[start : start + piece]) for start in range(0, len(x), piece)])
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    def classify(images: np.ndarray) -> np.ndarray:
        if not len(images):
            return np.zeros((0, len(model.classes)), np.float32)
        x = scaled(images[..., :3])
        p = probabilities(x)
        return (p + probabilities(np.ascontiguousarray(x[..., ::-1]))) / 2 if tta else p

    return classify
