"""Run hpo_trial.py up to its first training step and print how long each part took, as JSON (for startup.py).

    python -m benchmarks.traced_trial STARTED [options of hpo_trial.py]

STARTED is the time.monotonic() at which the parent started this process. The trial is the real one: the functions
that it calls are wrapped, and a wrapper books the time since the last booking on its part, so that the parts add
up to the whole. A part thus includes the little that the trial does just before it.
"""

import sys
import time

parts: dict[str, float] = {}
last = float(sys.argv[1])


def book(part: str) -> None:
    global last
    now = time.monotonic()
    parts[part] = now - last
    last = now


book("interpreter")
import nni  # noqa: E402, F401

book("import nni")
import torch  # noqa: E402, F401

book("import torch")
import hpo_trial  # noqa: E402
import models  # noqa: E402
from artifacts import run_folder  # noqa: E402
from pictures import dataset  # noqa: E402
from training import loop  # noqa: E402

book("import our modules")


def booked(owner: object, name: str, part: str) -> None:
    """Wrap function `name` of `owner`: what it returns is timed when it returns."""
    function = getattr(owner, name)

    def wrapper(*args, **options):
        result = function(*args, **options)
        book(part)
        return result

    setattr(owner, name, wrapper)


def first_batch(epoch):
    def wrapper(*args):
        batches = epoch(*args)
        batch = next(batches)
        book("first batch")
        yield batch
        yield from batches

    return wrapper


def first_step(train_step):
    def wrapper(*args, **options):
        loss, _ = train_step(*args, **options)
        float(loss)  # waits for a GPU
        book("first step")
        raise KeyboardInterrupt  # ends the trial

    return wrapper


booked(dataset, "load", "open the data")
booked(dataset, "training_batches", "split, statistics")
booked(models, "build_model", "build the network")
booked(run_folder.RunFolder, "__init__", "run folder")
booked(loop, "build_optimizer", "build the optimizer")
dataset.Batches.epoch = first_batch(dataset.Batches.epoch)
loop.train_step = first_step(loop.train_step)

try:
    code = hpo_trial.main(sys.argv[2:])
except KeyboardInterrupt:
    import json

    print(json.dumps(parts))
    code = 0
sys.exit(code)
