"""One real training: resnet18 by `retrain.py` on all training images, and its accuracy on the test images at the end.

60 epochs at batch 512, or as many as there is time for: two epochs are run before, to know. The schedule stretches over
all of them, so this is a whole training, if a short one.
"""

from collections.abc import Iterator
from pathlib import Path

import retrain
from benchmarks.gpu.lines import Figure
from benchmarks.gpu.section import Bench
from files import read_json

RECIPE = "--model resnet18 --lr 0.2 --weight-decay 5e-4 --warmup 0.1 --label-smoothing 0.1 --cutout 8 --clip 0"
EPOCHS, LEAST = 60, 3
SPARE = 0.85  # of the time: to begin, and to read the test images


def resnet18(bench: Bench) -> Iterator[Figure]:
    first = run(bench, 2)
    seconds = first["last"]["seconds"]
    yield Figure("epoch", seconds, "s", {"batch": first["config"]["batch_size"]})
    epochs = min(bench.of(EPOCHS, 2), int(SPARE * bench.left() / seconds))
    if epochs < bench.of(LEAST, 1):
        yield Figure("not run", None, note=f"there was time for {epochs} epochs")
        return
    told = run(bench, epochs)
    settings = {"epochs": epochs, "of": EPOCHS, "batch": told["config"]["batch_size"], "data": told["data"]["name"],
                "training images": told["data"]["train_images"]}
    yield Figure("test accuracy", 100 * told["test"]["accuracy"], "%", settings)
    yield Figure("training accuracy", 100 * told["last"]["train_accuracy"], "%", settings)
    yield Figure("whole run", told["wall_seconds"], "s", settings)


def run(bench: Bench, epochs: int) -> dict:
    """result.json of a run of so many epochs."""
    sizes = bench.of("--batch-size 512", "--batch-size 16 --train-size 32 --model shufflenetg2")
    argv = [*f"{RECIPE} {sizes}".split(), "--epochs", str(epochs), "--device", bench.device.type, "--data", bench.data,
            "--data-dir", bench.data_dir, "--runs-dir", str(bench.folder), "--name", f"{epochs}-epochs", "--overwrite"]
    if code := retrain.main(argv):
        raise RuntimeError(f"retrain: exit code {code}")
    return read_json(Path(bench.folder) / "retrain" / f"{epochs}-epochs" / "result.json")


CASES = {"resnet18": resnet18}
