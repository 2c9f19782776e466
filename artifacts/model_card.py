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

from artifacts.figures import accuracy, duration, percent
from artifacts.model_file import TrainedModel
from files import atomic_write, read_json
from pictures.known import DATASETS
from pictures.listing import named, without_folders
from pictures.preprocess import FITS
from pictures.summary import cautions, facts, grey_words, warnings

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
    figures = {line.replace(",", "") for line in before}  # 1,000 was 1000
    same = before[:1] == lines[:1] and all(line.replace(",", "") in figures for line in lines if line.startswith(SAME))
    return [rows.get(line.split(" | ")[0], line) if same and line.endswith(f" | {UNKNOWN} |") else line
            for line in lines]


def card(trained: TrainedModel, known: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """The lines of the card; `known` has the keys of a result.json, each of which may be missing."""
    config, data = known.get("config") or {}, known.get("data") or {}
    yield from (f"# {title(trained.network)}", "", "A classifier of pictures, one class a picture.", "")
    yield from table({
        "parameters": f"{sum(p.numel() for p in trained.model.parameters()):,}",
        "classes": ", ".join(trained.classes), "trained": known.get("finished"), "commit": known.get("commit"),
        "versions": flat(known.get("versions")), "hardware": known.get("hardware"),
        "training time": duration(known["wall_seconds"]) if "wall_seconds" in known else None})
    yield from ("```json", json.dumps(trained.network), "```", "", "## Data", "")
    yield from table({
        "data set": named(data["name"]) if data.get("name") else None,
        "checksum (sha256 of all pixels and labels)": data.get("checksum"), **sizes(known)})
    yield from listed(data)
    name = data.get("name")
    licence = (DATASETS[name].licence if name in DATASETS else
               OWN_LICENCE if name else f"Licence of the data set: {UNKNOWN}, as is the data set.")
    yield from (licence, "", "## Recipe", "")
    settings = {key + IN_32NDS.get(key, ""): config[key] for key in RECIPE if key in config}
    yield from table(settings or {"settings": None})
    yield from ("## Figures", "")
    yield from (f"**Caution:** {line}." + "\n" for line in cautions(without_files(data)))
    yield from table(figures(known))
    if known.get("chosen"):
        yield from (f"In its pipeline {known['chosen']}."
                    + (" The test pictures were read after that." if known.get("test") else ""), "")
    yield from (LAST_EPOCH, "", "## Limits", "", *limits(trained), "", "## How to load", "")
    yield from loading(folder, trained.side)


def limits(trained: TrainedModel) -> Iterator[str]:
    how = trained.preprocess
    yield from (f"- {line.format(side=how['side'], fit=FITS[how['fit']])}" for line in LIMITS)
    yield from (f"- {words}; values beyond are cut off." for words in grey_words(how["grey_range"] or {}))


LAST_EPOCH = ("Of one training with the seed above; the weights are those of its last epoch. The best epoch was picked "
              "by its own validation accuracy, hence flatters. An interval is where the share would lie for many more "
              "pictures of the same kind, in 19 of 20 such tests.")


def sizes(known: Mapping[str, Any]) -> dict[str, Any]:
    """How many pictures there are for what, and what they are brought to."""
    data, test = known.get("data") or {}, known.get("test") or {}
    counts = {"training pictures": data.get("train_images"), "validation pictures": data.get("val_images"),
              "test pictures": test.get("images")}
    found = {key: f"{count:,}" for key, count in counts.items() if count is not None}
    if {"side", "fit"} <= data.keys():
        found["brought to"] = f"{data['side']}x{data['side']} pixels, {FITS[data['fit']]}"
    return found


def listed(data: Mapping[str, Any]) -> Iterator[str]:
    """What else is to be said of the pictures, the worst first."""
    counts = without_files(data)
    notes = (without_folders(note, str(data.get("name"))) for note in data.get("notes") or ())
    lines = [f"- {line}" for line in (*warnings(counts), *notes, *facts(counts))]
    yield from [*lines, ""] if lines else []


def without_files(data: Mapping[str, Any]) -> dict[str, Any]:
    """Names of single files are no part of a card."""
    return {key: value for key, value in data.items() if not key.endswith("_files")}


def figures(known: Mapping[str, Any]) -> dict[str, Any]:
    """Of the test pictures, if the run has read them, of its last epoch, and of its best one if that is another."""
    test, last, best = ({} if not isinstance(known.get(key), dict) else known[key] for key in ("test", "last", "best"))
    of = (known.get("data") or {}).get("val_images")
    found = {"test accuracy": None} | dict(judged("test", "", test, test.get("images")))
    found |= epoch_figures("last", last, of)
    if best.get("epoch") != last.get("epoch"):
        found |= epoch_figures("best", best, of)
    return found | ({"diverged": "yes, its loss is not finite"} if known.get("diverged") else {})


def epoch_figures(which: str, record: Mapping[str, Any], of: int | None) -> dict[str, Any]:
    """`of`: validation pictures."""
    found = {**dict(judged("validation", "val_", record, of)), **dict(judged("training", "train_", record, None))}
    number = {f"{which} epoch": record["epoch"]} if "epoch" in record else {}
    return number | {f"{key}, {which} epoch": value for key, value in found.items()}


def judged(name: str, prefix: str, record: Mapping[str, Any], of: int | None) -> Iterator[tuple[str, str]]:
    """What a record has of `of` pictures, under keys with `prefix`."""
    texts = {"accuracy": lambda value: accuracy(value, of), "loss": lambda value: f"{value:.4g}",
             "several_views_accuracy": lambda value: percent(value, of),
             "balanced_accuracy": lambda value: percent(value, of),
             "class_accuracy": lambda values: ", ".join(f"{label} {percent(share)}" for label, share in values.items())}
    names = {"several_views_accuracy": "accuracy by several views", "balanced_accuracy": "accuracy, each class alike",
             "class_accuracy": "accuracy of each class"}
    for key, text in texts.items():
        if record.get(prefix + key) is not None:
            yield f"{name} {names.get(key, key)}", text(record[prefix + key])


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
