"""An exported ONNX file as a classifier, run by onnxruntime on the CPU; without torch.

ONNX has no checksums. The last entry of a file's metadata is the sha256 of all bytes before it, a JSON string as the
other entries; it is compared before the file is used.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from artifacts.file_kinds import ONNX, kind_of
from pictures.preprocess import scaled

SEALED = "its metadata end in the sha256 of all bytes before that entry"  # the file's description, at its beginning
# The entry as protobuf: field 14 of 76 bytes; in it field 1, the key, and field 2, the value of 66 bytes, 64 in quotes.
SEAL, ENTRY = b'\x72\x4c\x0a\x06sha256\x12\x42"', 78  # its beginning, and all its bytes


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
    content = path.read_bytes()
    if (whole := _is_whole(content)) is False:
        raise ValueError(f"{path}: damaged, or changed by another program (its content is not that of its "
                         "sha256); export it again")
    session, metadata = _session(path, content)
    if "classes" not in metadata:
        raise ValueError(f"{path}: not an export of predict.py (its metadata have no classes)")
    if whole is None:
        print(f"note: {path} is an export of before, without a digest: whether it is damaged cannot be told",
              file=sys.stderr)
    try:
        known = {key: json.loads(metadata[key]) for key in ("classes", "preprocess", "mirrored") if key in metadata}
    except ValueError as error:
        raise ValueError(f"{path}: its metadata are not JSON ({error}); export it again") from None
    [pictures] = session.get_inputs()  # an export of before has no more metadata than the classes
    return OnnxModel(tuple(known["classes"]), known.get("preprocess", {"side": pictures.shape[2]}),
                     known.get("mirrored"), lambda x: session.run(["logits"], {"pictures": x})[0])


def sealed(content: bytes) -> bytes:
    """The model with its digest; its description must be SEALED."""
    return content + SEAL + hashlib.sha256(content).hexdigest().encode() + b'"'


def _is_whole(content: bytes) -> bool | None:
    """Whether it is as `sealed` made it; None for an export of before, or of others, without a digest."""
    if content[-ENTRY:].startswith(SEAL):
        return content == sealed(content[:-ENTRY])
    return False if SEALED.encode() in content else None


def _session(path: Path, content: bytes) -> tuple[Any, dict[str, str]]:
    """What runs the file, and its metadata."""
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(f"{path}: to run an ONNX file takes the package onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # no lines of its own on standard error; what is fatal is raised
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return session, session.get_modelmeta().custom_metadata_map
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
