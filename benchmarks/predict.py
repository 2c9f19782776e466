"""Prediction from picture files against the raw forward pass of the same network, and its peak memory.

Forward: the network alone on a ready batch, again and again; in pieces: the same as predict.py splits it on a CPU.
Predict: what predict.py does, from files to lines, with decoding in other processes meanwhile, which have started
before. Memory is that of a fresh process for a tenth of the files and for all of them, its workers apart.
"""

import itertools
import sys
from collections.abc import Callable

import torch
from torch import nn

from artifacts.model_file import TrainedModel
from benchmarks.measure import at_least, environment, parser, publish, ratio, save, spread, take_turns
from benchmarks.memory import in_fresh_process
from config import run_script
from models import MODELS, build_model
from pictures import SIDE
from pictures.augmentation import Normalization
from pictures.decoding import Decoder
from pictures.folders import find_pictures
from predict import PIECE, classifier, lines
from training.hardware import pick_device, pick_dtype
from training.loop import set_seed

CLASSES = 10


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, rounds=3, data=False)
    options.add_argument("--images", default=".data/cifar10-jpeg/test", help="folder of pictures")
    options.add_argument("--files", type=at_least(10), default=10_000, help="pictures of it")
    options.add_argument("--models", nargs="+", default=["resnet18", "mobilenet"], choices=list(MODELS))
    options.add_argument("--batch-size", type=at_least(1), default=256)
    options.add_argument("--workers", type=at_least(0), default=0, help="as for predict.py")
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options.add_argument("--no-memory", action="store_true", help="leave out the memory")
    args = options.parse_args(argv)
    return run_script(lambda: run(args))


def run(args) -> None:
    device = pick_device(args.device)
    where, speeds = environment(device), {}
    found = sum(1 for _ in itertools.islice(find_pictures(args.images), args.files))
    if found < args.files:
        raise ValueError(f"images = {args.images!r}: {found} files, fewer than the {args.files} to measure")
    with Decoder(SIDE, args.workers) as decoder:
        for name in args.models:
            trained = network(name, device)
            sides = {"forward": forward(trained, args.files, args.batch_size, args.batch_size),
                     "in pieces": forward(trained, args.files, args.batch_size, PIECE),
                     "predict": prediction(trained, decoder, args.images, args.files, args.batch_size)}
            speeds[name] = take_turns(sides, args.rounds, device)
            print(f"{name} done", file=sys.stderr, flush=True)
        workers = decoder.workers
    rows = [{"network": name, **{f"{side} pictures/s": spread(values) for side, values in speed.items()},
             **{f"predict of {side}": ratio(speed, "predict", side) for side in ("forward", "in pieces")}}
            for name, speed in speeds.items()]
    publish("Prediction from files against the forward pass", rows, where,
            f"Pictures per second: median (smallest to largest) of {args.rounds} rounds of {args.files} files, batch "
            f"{args.batch_size}, pieces of {PIECE}; {workers} decoding processes.")
    growth = {} if args.no_memory else memory(args, where)
    save(args.out, args, where, pictures_per_second=speeds, memory=growth)


def memory(args, where: dict) -> dict[int, list[dict[str, float]]]:
    """Publish the peak growth of a process by the number of files."""
    name = args.models[-1]
    runs = {files: [in_fresh_process(predict_anew, name, args.images, files, args.batch_size, args.workers, args.device)
                    for _ in range(args.rounds)] for files in (args.files // 10, args.files)}
    rows = [{"files": str(files), "peak growth MB": spread([run["growth"] for run in measured])}
            for files, measured in runs.items()]
    publish(f"Peak memory of prediction, {name}", rows, where,
            f"Median (smallest to largest) of {args.rounds} fresh processes; MB of 10^6 bytes, the network included; "
            f"batch {args.batch_size}.")
    return runs


def network(name: str, device: torch.device) -> TrainedModel:
    """Untrained: its speed is that of a trained one."""
    set_seed(0)
    normalization = Normalization(*(torch.full((3,), value, device=device) for value in (0.5, 0.25)))
    classes = tuple(f"class{i}" for i in range(CLASSES))
    return TrainedModel(build_model(name, CLASSES).to(device).eval(), {}, normalization, classes, {})


def forward(trained: TrainedModel, files: int, batch_size: int, piece: int) -> Callable[[], int]:
    """A side of the comparison: as many whole batches as `files` fill, each in pieces of so many pictures."""
    device = trained.normalization.mean.device
    dtype = pick_dtype("auto", device, trained.model)
    model: nn.Module = trained.model.to(memory_format=torch.channels_last)
    x = torch.randn(batch_size, 3, SIDE, SIDE, device=device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def side() -> int:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            for _ in range(files // batch_size):
                for part in x.split(piece):
                    model(part)
        return files // batch_size * batch_size

    return side


def prediction(trained: TrainedModel, decoder: Decoder, images: str, files: int, batch_size: int) -> Callable[[], int]:
    classify = classifier(trained, "auto", tta=False)

    def side() -> int:
        predicted = 0
        paths = itertools.islice(find_pictures(images), files)
        for batch in decoder.batches(paths, batch_size):
            predicted += sum(1 for _ in lines(batch, classify(batch.images), trained.classes, as_json=False))
        return predicted

    return side


def predict_anew(name: str, images: str, files: int, batch_size: int, workers: int, device: str) -> None:
    with Decoder(SIDE, workers) as decoder:
        prediction(network(name, pick_device(device)), decoder, images, files, batch_size)()


if __name__ == "__main__":
    sys.exit(main())
