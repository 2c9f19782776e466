"""What is in these pictures? And: the trained network for other programs.

    python predict.py --model runs/retrain/NAME/model.pt --images FOLDER               path, class, probability
    python predict.py --model runs/retrain/NAME/model.pt --images FOLDER --json --out predictions.jsonl
    python predict.py --model runs/retrain/NAME/model.pt --export onnx     model.onnx, preprocess.py and MODEL_CARD.md
    python predict.py --model model.onnx --images FOLDER                                by onnxruntime, on the CPU
    python predict.py --model model.onnx --images a.jpg 'more/*.png' labels.csv         several at once

Any format and size that Pillow reads, any number of pictures. Standard output is for programs; a summary goes to
standard error, with the accuracy where all pictures are in folders that are named as the classes, or in a table. Exit
code 1: some pictures could not be decoded (they are listed at the end, the others are predicted), or an export does not
compute what the original does. 2: a mistake in the command, nothing was predicted.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from artifacts.file_kinds import kind_of
from config import PredictConfig, command_line, merge, run_script
from files import atomic_write
from pictures import SIDE
from pictures.decoding import Decoded, Decoder
from pictures.grey import GreySeen
from pictures.listing import shown
from pictures.named import Named

if TYPE_CHECKING:  # slow to import; meanwhile the first worker starts
    import numpy as np
    import torch

    from artifacts.model_file import TrainedModel

ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})  # in a table
VERIFIED = 256  # pictures of --images that an export is verified on
EARLIER = {"none": "a text file", "onnx": "an ONNX file", "torch": "an export of torch.export"}  # kinds of --out
PIECE = 32  # pictures a forward pass on a CPU, whose caches hold their feature maps; those of 256 they do not


def main(argv: list[str] | None = None) -> int:
    return run_script(lambda: run(argv))


def run(argv: list[str] | None) -> int:
    config = merge(PredictConfig, command_line(PredictConfig, argv, __doc__.splitlines()[0]))
    if not config.model:
        raise ValueError("model is missing: give a trained model file, --model FILE")
    if not config.images and config.export == "none":
        raise ValueError("images is missing: give a picture or a folder of pictures, --images PATH")
    pictures = Named(config.images)
    check_out(config, pictures)
    if sys.stderr.isatty():  # programs read both streams
        print("loading PyTorch and the network", file=sys.stderr, flush=True)
    count = count_pictures(pictures) if config.images else 0
    if config.export != "none":
        return export_model(config, pictures)
    return predict(config, pictures, count)


def is_onnx(path: str) -> bool:
    return path.lower().endswith(".onnx")


def check_out(config: PredictConfig, pictures: Named) -> None:
    """ValueError if something that is no earlier output is at the place of --out."""
    out = Path(config.out)
    if not config.out or not os.path.lexists(out):
        return
    if out.exists() and not out.is_file():
        raise ValueError(f"out = {config.out!r}: a {'folder' if out.is_dir() else 'device or pipe'}; give a file")
    if _is_same(config.out, config.model):
        raise ValueError(f"out = {config.out!r}: the model itself, which would be overwritten")
    above = {out.resolve(), *out.resolve().parents}
    if any(Path(place).resolve() in above for place in pictures.places) or any(
            _is_same(config.out, path) for path in pictures):
        raise ValueError(f"out = {config.out!r}: one of the files of --images, which would be overwritten")
    kind, earlier = kind_of(out) or "something else", EARLIER[config.export]
    if out.stat().st_size and not kind.startswith(earlier):
        raise ValueError(f"out = {config.out!r}: is there, and no earlier output ({kind}), which would be overwritten")


def _is_same(one: str, other: str) -> bool:
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def count_pictures(pictures: Named) -> int:
    """How many files there are, without keeping their names; ValueError if none."""
    count = sum(1 for _ in pictures)
    if not count:
        folders = "this folder" if len(pictures.places) == 1 else "these folders"
        raise ValueError(f"images = {', '.join(map(repr, pictures.places))}: no pictures in {folders} (hidden files do "
                         "not count)")
    return count


# ---- predictions


class Network(NamedTuple):
    """What predictions need of a trained network, whatever file it is from."""

    classes: tuple[str, ...]
    preprocess: dict[str, Any]  # the arguments of pictures.preprocess
    classify: Callable[["np.ndarray"], "np.ndarray"]  # images (N, side, side, 4) uint8 -> probabilities (N, classes)
    learnt: frozenset[int] = frozenset()  # digests of the pictures it was trained on; an ONNX file has none
    judged: frozenset[int] = frozenset()  # and of those that it was validated on

    def seen(self, digest: int) -> str:
        """As what it has seen a picture: training, validation or, if it is new, nothing."""
        return "training" if digest in self.learnt else "validation" if digest in self.judged else ""


def predict(config: PredictConfig, pictures: Named, count: int) -> int:
    """Write a line a picture; returns the exit code."""
    started, whole, broken = time.monotonic(), False, list(pictures.broken)
    with Decoder(SIDE, config.workers) as decoder:
        from tqdm import tqdm

        from pictures.duplicates import digests
        from reporting.predictions import Tally

        network = (onnx_network if is_onnx(config.model) else torch_network)(config)
        decoder.how, tally = network.preprocess, Tally(pictures.names, network.classes)
        grey = GreySeen(network.preprocess.get("grey_range"))
        with output(config.out) as file, tqdm(total=count, unit=" pictures", disable=None, delay=1) as bar:
            if not config.json:
                file.write("path\tclass\tprobability\n")
            for batch in decoder.batches(pictures, config.batch_size):
                broken += batch.broken
                for path, values in batch.values:
                    grey.add(values, shown(path))
                probabilities = network.classify(batch.images)
                file.writelines(lines(batch, probabilities, network.classes, config.json))
                tally.add(batch.paths, (network.classes[best] for best in probabilities.argmax(1)),
                          map(network.seen, digests(batch.images).tolist()))
                bar.update(len(batch.paths) + len(batch.broken))
            file.flush()
            whole = True  # and not left by a reader that has seen enough
    warnings = (f"warning: {line}" for line in grey.lines())
    for line in (*warnings, *(tally.lines(time.monotonic() - started) if whole else ()), *broken):
        print(line, file=sys.stderr)
    if broken:
        print(f"{len(broken)} of {count + len(pictures.broken)} pictures could not be used", file=sys.stderr)
    return 1 if broken else 0


def torch_network(config: PredictConfig) -> Network:
    from artifacts.model_file import load_model
    from training.hardware import pick_device

    trained = load_model(Path(config.model), pick_device(config.device))
    if config.tta and not trained.mirrored:
        raise ValueError("tta = True: this network was trained without mirrored pictures, and would misread them")
    return Network(trained.classes, trained.preprocess, classifier(trained, config.precision, config.tta),
                   frozenset(trained.learnt.tolist()), frozenset(trained.judged.tolist()))


def onnx_network(config: PredictConfig) -> Network:
    from artifacts.onnx_file import load_onnx, onnx_classifier

    for key, value, allowed in (("device", config.device, "cpu"), ("precision", config.precision, "fp32")):
        if value not in ("auto", allowed):
            raise ValueError(f"{key} = {value!r}: an ONNX file runs on the CPU as it is, {key} is {allowed}")
    model = load_onnx(Path(config.model))
    if config.tta and not model.mirrored:
        reason = ("the file does not tell whether its network was trained with mirrored pictures; export it anew"
                  if model.mirrored is None else "its network was trained without mirrored pictures")
        raise ValueError(f"tta = True: {reason}")
    return Network(model.classes, model.preprocess, onnx_classifier(model, config.tta, PIECE))


def classifier(trained: "TrainedModel", precision: str, tta: bool) -> Callable[["np.ndarray"], "np.ndarray"]:
    """A function from images (N, side, side, 4) uint8 to probabilities (N, classes) float32, the softmax of the logits.

    With `tta`, test-time augmentation, the mean of those of the images and of their mirror images.
    """
    import torch

    from pictures.augmentation import words
    from training.hardware import pick_dtype, true_fp32

    device = trained.normalization.mean.device
    dtype = pick_dtype(precision, device, trained.model)
    network = trained.model.to(memory_format=torch.channels_last)

    def probabilities(x: "torch.Tensor") -> "torch.Tensor":
        pieces = x.split(PIECE) if device.type == "cpu" else [x]
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32), true_fp32():
            return torch.cat([network(piece).float().softmax(1) for piece in pieces])

    @torch.inference_mode()
    def classify(images: "np.ndarray") -> "np.ndarray":
        if not len(images):
            return images.reshape(0, len(trained.classes)).astype("float32")
        x = trained.normalization(words(torch.from_numpy(images)).to(device))  # (N, 3, side, side)
        p = probabilities(x)
        if tta:
            p = (p + probabilities(x.flip(3))) / 2
        return p.cpu().numpy()

    return classify


def lines(batch: Decoded, probabilities: "np.ndarray", classes: tuple[str, ...], as_json: bool) -> Iterator[str]:
    """A line a picture: tab-separated path, class and probability, or JSON."""
    for path, best, row in zip(batch.paths, probabilities.argmax(1), probabilities.tolist(), strict=True):
        if as_json:
            record = {"path": path, "class": classes[best], "probability": row[best],
                      "probabilities": dict(zip(classes, row, strict=True))}
            yield json.dumps(record, allow_nan=False) + "\n"
        else:
            yield f"{shown(path.translate(ESCAPES))}\t{classes[best].translate(ESCAPES)}\t{row[best]:.4f}\n"


@contextlib.contextmanager
def output(path: str) -> Iterator[IO[str]]:
    """A file that appears whole at the end, or standard output."""
    if path:
        with atomic_write(path) as file:
            yield file
        return
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it ends


# ---- export


def export_model(config: PredictConfig, pictures: Named) -> int:
    """Write the network, verified, and its model card; returns the exit code."""
    import torch

    from artifacts.export import FORMATS, ExportDiffers, export, preprocess_beside, write_preprocess
    from artifacts.model_card import write_model_card
    from artifacts.model_file import load_model

    if is_onnx(config.model):
        raise ValueError(f"model = {config.model!r}: it is exported already; an export is made from a model.pt")
    trained = load_model(Path(config.model), torch.device("cpu"))
    path = Path(config.out or Path(config.model).with_suffix(FORMATS[config.export].suffix))
    beside = preprocess_beside(path)
    try:
        differences = export(trained, config.export, path, config.tolerance, first_pictures(pictures, trained))
    except ExportDiffers as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    for name, difference in differences.items():
        print(f"largest difference of the logits on {name}: {difference:.2g} (tolerance {config.tolerance:g})")
    write_preprocess(beside)
    card = write_model_card(path.parent, trained, Path(config.model).parent)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB), {beside}, {card}")
    return 0


def first_pictures(pictures: Named, trained: "TrainedModel") -> "np.ndarray | None":
    """Some pictures to verify an export on, (N, side, side, 4) uint8; those that cannot be decoded do not count."""
    if not pictures.places:
        return None
    with Decoder(**trained.preprocess, workers=1) as decoder:
        return next(decoder.batches(pictures, VERIFIED)).images


if __name__ == "__main__":
    sys.exit(main())
