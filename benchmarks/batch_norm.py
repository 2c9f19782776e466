"""Networks after few steps and after many: judged with the running statistics of batch norm and with settled ones.

    python -m benchmarks.batch_norm --photographs FOLDER          the zoo and stage 2 on 240 crops of 4 photographs
    python -m benchmarks.batch_norm --data FOLDER --epochs 8      one network on a whole data set, after each epoch

FOLDER of photographs: that of scikit-image, skimage/data. Both judgements are of one and the same training, whose
weights no statistics reach.
"""

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.photographs import TEXTURES, crops, find
from config import HpoConfig
from models import MODELS, build_model
from models.mobilenet_space.space import build, search_space
from pictures.dataset import Loaders, final_batches, load, training_batches
from training import batch_norm
from training.hardware import pick_dtype
from training.loop import evaluate, fit, set_seed


def judged(model: nn.Module, loaders: Loaders, test: Any, dtype: torch.dtype) -> str:
    """Accuracies on training, validation and test pictures, before and after; the model keeps its statistics."""
    kept = {key: value.clone() for key, value in model.state_dict().items()}

    def accuracies() -> str:
        parts = labelled(loaders), loaders.val.epoch(0), test.epoch(0)
        return "  ".join(f"{evaluate(model, batches, dtype)['accuracy']:7.2%}" for batches in parts)

    before = accuracies()
    batch_norm.reestimate(model, loaders.train.plain(batch_norm.IMAGES), dtype)
    after = accuracies()
    model.load_state_dict(kept)
    return f"running {before}   settled {after}"


def labelled(loaders: Loaders) -> Any:
    """The training pictures as they are."""
    train, start = loaders.train, 0
    for x in train.plain(batch_norm.IMAGES):
        yield x, train.labels[train.index[start : start + len(x)]]
        start += len(x)


def few(photographs: Path, seeds: int) -> None:
    """28 steps of 32 pictures, by the settings of hpo_trial.py."""
    with tempfile.TemporaryDirectory() as folder:
        crops(find(TEXTURES, [photographs]), Path(folder) / "crops", train=60, test=15, size=96)
        pictures = load(f"{folder}/crops", folder)
        networks = {name: lambda name=name: build_model(name, 4) for name in MODELS}
        for number in range(4):
            draw = random.Random(number)
            sample = {label: draw.choice(spec["_value"]) for label, spec in search_space().items()}
            networks[f"stage 2, sample {number}"] = lambda sample=sample: build(sample, 4)
        print("accuracy on training, validation and test pictures")
        for name, make in networks.items():
            for seed in range(seeds):
                settings = HpoConfig(epochs=4, batch_size=32, seed=seed, optimizer="Adam", lr=0.001)
                loaders, test, model, dtype = ready(pictures, settings, make)
                fit(model, *loaders, settings, identity={})
                print(f"{name:20} seed {seed}  {judged(model, loaders, test, dtype)}", flush=True)


def many(data: str, data_dir: str, epochs: int, model: str) -> None:
    pictures = load(data, data_dir)
    settings = HpoConfig(epochs=epochs, model=model, optimizer="Adam", lr=0.001)
    loaders, test, network, dtype = ready(pictures, settings, lambda: build_model(model, len(pictures.classes)))

    def tell(record: dict[str, float]) -> None:
        steps = record["epoch"] * len(loaders.train)
        print(f"{model} after {steps} steps  {judged(network, loaders, test, dtype)}", flush=True)

    fit(network, *loaders, settings, identity={}, on_epoch=tell)


def ready(pictures: Any, settings: HpoConfig, make: Any) -> tuple[Loaders, Any, nn.Module, torch.dtype]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaders = training_batches(
        pictures, device, train_size=settings.train_size, val_size=settings.val_size, batch_size=settings.batch_size,
        crop_padding=settings.crop_padding, flip=settings.flip, cutout=settings.cutout, seed=settings.seed)
    set_seed(settings.seed)
    model = make().to(device)
    test = final_batches(pictures, loaders.train.normalization, settings.batch_size)
    return loaders, test, model, pick_dtype(settings.precision, device, model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data")
    parser.add_argument("--data-dir", default=".data")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--model", default="mobilenet")
    given = parser.parse_args()
    batch_norm.SETTLED = 0  # the trainings leave the running statistics as they are
    if given.photographs:
        few(given.photographs, given.seeds)
    if given.data:
        many(given.data, given.data_dir, given.epochs, given.model)


if __name__ == "__main__":
    main()
