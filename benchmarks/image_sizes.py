"""What pictures of 32, 64, 96 and 128 pixels are worth, on crops of photographs, against random forests.

    python -m benchmarks.image_sizes --photographs FOLDER...      accuracy, seconds and memory of each size
    python -m benchmarks.image_sizes --photographs FOLDER... --fits    crop, pad and stretch, for any proportions

FOLDERs: those of the pictures of scikit-image, scikit-learn and matplotlib (skimage/data, sklearn/datasets/images and
matplotlib/mpl-data/sample_data). The networks are trained by `retrain.py --model`, quicknet by its recipe; a forest of
500 trees, with scikit-learn's defaults, sees histograms of colours, or of local binary patterns (Ojala et al. 2002), of
whole crops.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.ensemble import RandomForestClassifier

from benchmarks.photographs import MATERIALS, SCENES, crops, find
from models import BASELINES

SIZES = (32, 64, 96, 128)
NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))  # in turn around a pixel


def colours(image: Image.Image) -> np.ndarray:
    """(576,): shares of 8x8x8 colours and of 64 grey levels."""
    rgb = np.asarray(image.convert("RGB")) >> 5
    joint = np.bincount((rgb @ np.array([64, 8, 1])).ravel(), minlength=512)
    grey = np.bincount((np.asarray(image.convert("L")) >> 2).ravel(), minlength=64)
    return np.concatenate([part / part.sum() for part in (joint, grey)])


def patterns(image: Image.Image) -> np.ndarray:
    """(768,): shares of the patterns of which of 8 neighbours are brighter, at distances of 1, 2 and 4 pixels."""
    grey = np.asarray(image.convert("L")).astype(np.int16)
    parts = []
    for distance in (1, 2, 4):
        inner = grey[distance:-distance, distance:-distance]
        height, width = inner.shape
        code = np.zeros_like(inner)
        for bit, (y, x) in enumerate(NEIGHBOURS):
            top, left = distance * (1 + y), distance * (1 + x)
            code |= (grey[top : top + height, left : left + width] >= inner) << bit
        parts.append(np.bincount(code.ravel(), minlength=256) / code.size)
    return np.concatenate(parts)


def forest(folder: Path, features: object, seeds: int) -> list[float]:
    """Test accuracies."""
    def split(name: str) -> tuple[np.ndarray, list[str]]:
        paths = sorted((folder / name).glob("*/*"))
        return np.stack([features(Image.open(path)) for path in paths]), [path.parent.name for path in paths]

    (x, y), (test_x, test_y) = split("train"), split("test")
    return [RandomForestClassifier(500, random_state=seed).fit(x, y).score(test_x, test_y) for seed in range(seeds)]


def network(folder: Path, model: str, epochs: int, seed: int, options: list[str]) -> tuple[float, float, float]:
    """Test accuracy, seconds and peak memory in MB of a training, imports and packing included."""
    with tempfile.TemporaryDirectory() as runs:
        places = ["--data", str(folder), "--data-dir", f"{runs}/data", "--runs-dir", runs, "--name", "one"]
        recipe = ["--recipe", "quick"] if model in BASELINES else [
            "--batch-size", "32", "--optimizer", "Adam", "--lr", "0.001", "--warmup", "0.1"]
        recipe += ["--model", model, "--epochs", str(epochs), "--seed", str(seed)]
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, "retrain.py", *places, *recipe, *options],
                                   stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)  # what this one process took
        seconds = time.perf_counter() - started
        if status:
            raise OSError(f"retrain.py {' '.join(options)} failed; its message is above")
        result = json.loads(Path(runs, "retrain/one/result.json").read_text("utf-8"))
        return result["test"]["accuracy"], seconds, used.ru_maxrss / 1024


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, nargs="+", required=True)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fits", action="store_true")
    given = parser.parse_args()
    aspect = 3.0 if given.fits else 1.0
    with tempfile.TemporaryDirectory() as place:
        for title, names, mode in (("materials, all grey", MATERIALS, "L"), ("scenes, in colour", SCENES, "RGB")):
            folder = Path(place, title.split(",")[0])
            crops(find(names, given.photographs), folder, train=40, test=20, size=128, mode=mode, aspect=aspect)
            print(f"\n{title}: {len(names)} classes of 40 + 20 crops of about 128 pixels, {given.seeds} seeds\n")
            print("| | test accuracy, mean (least to most) | seconds | peak memory, MB |\n|---|---:|---:|---:|")
            for name, features in (("colour histograms", colours), ("texture patterns", patterns)):
                print(f"| random forest, {name} | {spread(forest(folder, features, given.seeds))} | | |", flush=True)
            ways = ([["--image-size", "64", "--fit", fit] for fit in ("crop", "pad", "stretch")] if given.fits else
                    [["--image-size", str(size)] for size in SIZES])
            for way in ways:
                runs = [network(folder, given.model, given.epochs, seed, way) for seed in range(given.seeds)]
                accuracies, seconds, memory = (list(column) for column in zip(*runs, strict=True))
                print(f"| {given.model}, `{' '.join(way)}` | {spread(accuracies)} | {np.median(seconds):.0f} | "
                      f"{max(memory):.0f} |", flush=True)


if __name__ == "__main__":
    main()
