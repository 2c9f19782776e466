"""What a finished model says about the test pictures: the confusion matrix and its most confident mistakes.

Only of runs that have read the test set at their end, or been tested by a leaderboard; nothing is chosen by it.
Computed once: the result lies beside the model file, in final_test.json, if it can be written there, and counts as long
as that file and the data set are the same.
"""

import base64
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from files import read_json, write_json
from reporting.findings import Origin, Run

if TYPE_CHECKING:
    import numpy as np

    from pictures.dataset import Pictures

FILE, SCHEMA = "final_test.json", 2
MISTAKES = 16  # that are shown
CHANGES = ("test_share", "skip_broken", "drop_duplicates")  # settings that change a data set
BEFORE = {"image_size": "32", "fit": "stretch"}  # of runs that do not tell
BATCH = 256


class Mistake(NamedTuple):
    index: int  # of the test picture
    true: int
    predicted: int
    probability: float  # of what was predicted
    png: str  # base64, of what the network saw
    heat: str  # base64, a grey PNG as large: how much each place spoke for the prediction; empty: not known
    file: str  # its path; empty if the data set has a name


class FinalTest(NamedTuple):
    classes: list[str]
    confusion: list[list[int]]  # (C, C): pictures of class i that were taken for class j
    mistakes: list[Mistake]  # most confident first

    @property
    def images(self) -> int:
        return sum(map(sum, self.confusion))

    @property
    def correct(self) -> int:
        return sum(row[i] for i, row in enumerate(self.confusion))


def final_test(run: Run, device: str) -> FinalTest:
    """From the cache, or computed now; ValueError says why it cannot be."""
    model = run.path / "model.pt"
    if not model.is_file():
        raise ValueError("model.pt is missing")
    key = {"schema": SCHEMA, "model": hashlib.sha256(model.read_bytes()).hexdigest(), "data": run.origin.checksum}
    if (cached := _cached(run.path / FILE, key)) is not None:
        return cached
    found = compute(model, data_set(run.origin, run.config), device)
    try:
        write_json(run.path / FILE, {**key, **found._asdict(), "mistakes": [m._asdict() for m in found.mistakes]})
    except OSError as error:  # a folder that can only be read, a full disk: the page needs no file
        print(f"the predictions of {run.name} are not kept: {error}", flush=True)
    return found


def _cached(file: Path, key: dict[str, Any]) -> FinalTest | None:
    """What was computed of this model and data set; none if it has to be done anew."""
    try:
        value = read_json(file)
        if {name: value[name] for name in key} != key:
            return None
        return FinalTest(value["classes"], value["confusion"], [Mistake(**mistake) for mistake in value["mistakes"]])
    except (ValueError, KeyError, TypeError):
        return None


def data_set(origin: Origin, config: dict[str, Any]) -> "Pictures":
    """The very data set of a run; never downloaded for a report. ValueError if it is not there, or has changed."""
    from pictures.dataset import load

    name, data_dir = origin.data, Path(config.get("data_dir", ".data"))
    if name == "cifar10" and not (data_dir / "cache" / "cifar10").is_dir():
        raise ValueError(f"cifar10 is not in {data_dir}")
    pictures = load(name, data_dir, **BEFORE | {key: config[key] for key in (*CHANGES, *BEFORE) if key in config})
    if pictures.checksum != origin.checksum:
        raise ValueError(f"the data set {name} has changed since: its checksum is {pictures.checksum[:12]} now")
    return pictures


def compute(model_file: Path, pictures: "Pictures", device: str) -> FinalTest:
    import numpy as np

    from artifacts.model_file import load_model
    from training.hardware import pick_device

    trained = load_model(model_file, pick_device(device))
    if trained.classes != pictures.classes:
        raise ValueError(f"its classes, {', '.join(trained.classes)}, are not those of the data set")
    probabilities = _probabilities(trained, pictures.test_images)  # (N, C)
    predicted, true = probabilities.argmax(1), np.asarray(pictures.test_labels)
    confusion = np.zeros((len(pictures.classes),) * 2, int)
    np.add.at(confusion, (true, predicted), 1)
    sure = probabilities.max(1)
    wrong = np.flatnonzero(predicted != true)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:MISTAKES]
    heats = _heats(trained, pictures.test_images[worst], predicted[worst]) if len(worst) else []
    files = pictures.paths("test") or [""] * len(true)
    mistakes = [Mistake(int(i), int(true[i]), int(predicted[i]), float(sure[i]),
                        _png(pictures.test_images[i][:, :, :3]), heat, files[i])
                for i, heat in zip(worst, heats, strict=True)]
    return FinalTest(list(pictures.classes), confusion.tolist(), mistakes)


def _probabilities(trained: Any, images: "np.ndarray") -> "np.ndarray":
    """images (N, 32, 32, 4) uint8 -> (N, C) float32"""
    import torch
    from tqdm import tqdm

    from pictures.augmentation import words

    device, parts = trained.normalization.mean.device, []
    with torch.inference_mode():
        for start in tqdm(range(0, len(images), BATCH), "predictions on the test pictures", disable=None, delay=2):
            pixels = words(torch.from_numpy(images[start : start + BATCH])).to(device)
            parts.append(trained.model(trained.normalization(pixels)).float().softmax(1).cpu())
    return torch.cat(parts).numpy()


def _heats(trained: Any, images: "np.ndarray", predicted: "np.ndarray") -> list[str]:
    """images (N, S, S, 4) uint8, predicted (N,) -> what the network looked at, as Mistake.heat"""
    import torch

    from pictures.augmentation import words
    from reporting.heat_maps import layer_cam

    device = trained.normalization.mean.device
    pixels = trained.normalization(words(torch.from_numpy(images)).to(device))
    try:
        maps = layer_cam(trained.model, pixels, torch.from_numpy(predicted).to(device))
    except ValueError:  # its maps are too small
        return [""] * len(images)
    return [_png(one) for one in (255 * maps).round().byte().cpu().numpy()]


def _png(image: "np.ndarray") -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image.copy()).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()
