"""MODEL_CARD.md beside a trained or exported network: data, recipe, figures, limits, licence note, how to load.

After Mitchell et al. 2019, arXiv:1810.03993. Everything in it comes from the model file and from the result.json in
its folder; what neither tells, but an earlier card of the same network there, is kept; all else is said to be unknown.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from artifacts.model_file import TrainedModel
from files import atomic_write, read_json
from pictures.known import DATASETS
from pictures.listing import named, without_folders
from pictures.preprocess import FITS
from pictures.summary import grey_words

NAME = "MODEL_CARD.md"
UNKNOWN = "not known"
SAME = ("| parameters |", "| classes |", "| checksum ", "| commit |", '{"')  # what tells one network from another
RECIPE = ("recipe", "augment", "optimizer", "lr", "weight_decay", "momentum", "epochs", "batch_size", "warmup",
          "schedule", "bias_factor", "label_smoothing", "clip", "ema", "drop_path", "auxiliary", "crop_padding",
          "crop_border", "flip", "alternate", "cutout", "precision", "seed")
IN_32NDS = dict.fromkeys(("crop_padding", "cutout"), ", in 32nds of the picture's side")
OWN_LICENCE = "The user's own pictures, a folder or a table of them: their licence is the user's to know and to state."
LIMITS = (
    "It knows the classes above and no others: a picture of anything else gets one of them too, often with confidence.",
    "Every picture is brought to {side}x{side} pixels, {fit}; what is too small to see then is lost.",
    "Its probabilities are the softmax of its logits; how well they are calibrated was not measured.",
    "The figures hold for pictures like those it was trained on; other cameras, crops or times were not measured.",
)


def write_model_card(folder: str | os.PathLike, trained: TrainedModel, run: str | os.PathLike | None = None) -> Path:
    """Write MODEL_CARD.md into `folder`, where the model files lie; returns its path.

    `run` is the folder of the training with its result.json, `folder` itself if not given.
    """
    folder = Path(folder)
    result = Path(run or folder) / "result.json"
    known = {**(read_json(result) if result.exists() else {}), **trained.facts}
    lines = _completed(list(card(trained, known, folder)), folder / NAME)
    with atomic_write(folder / NAME) as file:
        file.write("\n".join(lines) + "\n")
    return folder / NAME


def _completed(lines: list[str], earlier: Path) -> list[str]:
    """With what an earlier card of the same network and data knows: model files of before did not hold all."""
    before = earlier.read_text(encoding="utf-8").splitlines() if earlier.exists() else []
    rows = {line.split(" | ")[0]: line for line in before if line.startswith("| ")}
    same = before[:1] == lines[:1] and all(line in before for line in lines if line.startswith(SAME))
    return [rows.get(line.split(" | ")[0], line) if same and line.endswith(f" | {UNKNOWN} |") else line
            for line in lines]


def card(trained: TrainedModel, known: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """The lines of the card; `known` has the keys of a result.json, each of which may be missing."""
    config, data = known.get("config") or {}, known.get("data") or {}
    yield from (f"# {title(trained.network)}", "", "A classifier of pictures, one class a picture.", "")
    yield from table({
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "classes": ", ".join(trained.classes), "trained": known.get("finished"), "commit": known.get("commit"),
        "versions": flat(known.get("versions")), "hardware": known.get("hardware"),
        "training time, s": known.get("wall_seconds")})
    yield from ("```json", json.dumps(trained.network), "```", "", "## Data", "")
    yield from table({
        "data set": named(data["name"]) if data.get("name") else None,
        "checksum (sha256 of all pixels and labels)": data.get("checksum"),
        **{key.replace("_", " "): flat(value) for key, value in data.items()
           if key not in ("name", "checksum", "classes", "notes") and not key.endswith("_files")},
        **({"notes": without_folders(flat(data["notes"]), data["name"])} if "notes" in data else {})})
    name = data.get("name")
    licence = (DATASETS[name].licence if name in DATASETS else
               OWN_LICENCE if name else f"Licence of the data set: {UNKNOWN}, as is the data set.")
    yield from (licence, "", "## Recipe", "")
    settings = {key + IN_32NDS.get(key, ""): config[key] for key in RECIPE if key in config}
    yield from table(settings or {"settings": None})
    yield from ("## Figures", "")
    yield from table(figures(known))
    if known.get("chosen"):
        yield from (f"Chosen from the finalists of all stages of a pipeline: {known['chosen']}."
                    + (" The test pictures were read after that." if known.get("test") else ""), "")
    yield from (LAST_EPOCH, "", "## Limits", "", *limits(trained), "", "## How to load", "")
    yield from loading(folder, trained.side)


def limits(trained: TrainedModel) -> Iterator[str]:
    how = trained.preprocess
    yield from (f"- {line.format(side=how['side'], fit=FITS[how['fit']])}" for line in LIMITS)
    yield from (f"- {words}; values beyond are cut off." for words in grey_words(how["grey_range"] or {}))


LAST_EPOCH = ("Accuracies are shares of the pictures, in 0..1, of one training with the seed above. `last` is the last "
              "epoch, whose weights these are; `best` was picked by its own validation accuracy, hence flatters.")


def figures(known: Mapping[str, Any]) -> dict[str, Any]:
    """Every figure there is; those of the test pictures, if the run has read them, are named so."""
    found = {f"{group}: {key.replace('_', ' ')}": value for group in ("test", "last", "best")
             for key, value in (known[group].items() if isinstance(known.get(group), dict) else ())
             if "accuracy" in key or "loss" in key or key == "epoch"}
    if not any(key.startswith("test") for key in found):
        found["test: accuracy"] = None
    return found | {"diverged": known.get("diverged")}


def title(network: Mapping[str, Any]) -> str:
    return {"zoo": str(network.get("name")), "classic_nas": "A MobileNet found by classic NAS",
            "darts": "A network found by DARTS"}.get(network.get("family"), UNKNOWN)


def flat(value: Any) -> Any:
    """A dict, or a list of sentences, as one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {flat(part)}" for key, part in value.items())
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "; ".join(value)
    return value


def table(rows: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| | |", "|---|---|")
    for key, value in rows.items():
        text = UNKNOWN if value is None or value == "" else f"{value:.6g}" if isinstance(value, float) else str(value)
        yield f"| {key} | {' '.join(text.split()).replace('|', chr(92) + '|')} |"
    yield ""


# ---- how to load: a block for each kind of file in the folder

LOAD = {
    ".pt": '''
{name}, with the repository that trained it on the PYTHONPATH. Or, in its root:
`python predict.py --model {name} --images FOLDER`.

```python
from pathlib import Path

import torch

from artifacts.model_file import load_model
from pictures.decoding import decode
from predict import classifier

trained = load_model(Path("{name}"), torch.device("cpu"))
found = decode(["picture.jpg"], **trained.preprocess)
[probabilities] = classifier(trained, precision="fp32", tta=False)(found.images)
print(trained.classes[probabilities.argmax()], probabilities.max())
```
''',
    ".onnx": '''
{name}, with onnxruntime, numpy, Pillow and the preprocess.py that lies here. In: pictures (N, 3, {side}, {side})
float32, RGB in 0..1. Out: logits (N, classes). Or, in the root of the repository:
`python predict.py --model {name} --images FOLDER`.

```python
import json

import numpy as np
import onnxruntime

from preprocess import batch

session = onnxruntime.InferenceSession("{name}", providers=["CPUExecutionProvider"])
metadata = {{key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}}
pictures = batch(["picture.jpg"], **metadata["preprocess"])
[[logits]] = session.run(["logits"], {{"pictures": pictures}})
probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
print(metadata["classes"][probabilities.argmax()], probabilities.max())
```
''',
    ".pt2": '''
{name}, with PyTorch, numpy, Pillow and the preprocess.py that lies here; the same input and output.

```python
import json

import torch

from preprocess import batch

metadata = {{"classes": "", "preprocess": ""}}
model = torch.export.load("{name}", extra_files=metadata).module()
classes = json.loads(metadata["classes"])
pictures = batch(["picture.jpg"], **json.loads(metadata["preprocess"]))
with torch.no_grad():
    probabilities = model(torch.from_numpy(pictures)).softmax(1)[0]
print(classes[int(probabilities.argmax())], float(probabilities.max()))
```
''',
}


def loading(folder: Path, side: int) -> Iterator[str]:
    files = sorted(path.name for path in folder.iterdir() if path.suffix in LOAD and path.name != "checkpoint.pt")
    for name in files:
        yield LOAD[Path(name).suffix].format(name=name, side=side).lstrip("\n")
        yield f"sha256 of {name}: `{hashlib.sha256((folder / name).read_bytes()).hexdigest()}`\n"
    if not files:
        yield "There was no model file in this folder when the card was written."
