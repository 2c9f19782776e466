"""Stage 3, the second half: train the network of a genotype from scratch, by a recipe, and test it once.

    python retrain.py --genotype DARTS_V2 --data cifar10                    the standard recipe, 600 epochs
    python retrain.py --genotype runs/darts_search/NAME/genotype.json --recipe long --seed 1
    python retrain.py --genotype genotypes.py:NAME                          cells of other code: read, never run
    python retrain.py --genotype DARTS_V2 --epochs 50                       all of its schedules, shorter
    python retrain.py --model resnet18                                      a network of the zoo by the same recipe
    python retrain.py --model quicknet --recipe quick                       a strong small network in ten epochs
    python retrain.py --genotype DARTS_V2 --resume                          after a stop, as without one
    torchrun --nproc-per-node 4 retrain.py --genotype DARTS_V2              on four GPUs

The recipes are those of DARTS (arXiv:1806.09055): all training images, no validation, the last epoch counts, and only
then are the test images read (`--no-test`: not then). `--no-all-data` sets images aside and validates each epoch; by a
validation set that is given (val/) each epoch is validated anyhow, and it is never trained on. Two things differ from
the published code: momentum is Nesterov's, and weight decay spares batch norm and biases (training/optimizers.py). The
long recipe averages the weights over about 0.7 per cent of the training. The quick recipe is that of airbench94
(arXiv:2404.00498), for quicknet alone; where --batch-size and --lr are not given, they follow from the number of
training images. Without validation NNI gets the training accuracy as its metric, since nothing may be chosen by the
test set, and `test_accuracy` beside it.

SIGTERM and Ctrl-C let the running step finish and write a checkpoint. A run that goes on from it ends with the weights
of a run without a stop: bitwise on a CPU, with one number of threads; a GPU adds in another order each time. Exit code
1: out of GPU memory.
"""

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from config import Mistakes, RetrainConfig, merge
from training import place, trial
from training.reporter import Reporter

if TYPE_CHECKING:
    import torch
    from torch import nn

    from models.darts.genotype import Genotype

RECIPES: dict[str, dict[str, Any]] = {
    "standard": {},
    "long": {"epochs": 1500, "augment": "autoaugment"},
    # Jordan 2024, arXiv:2404.00498; what each is worth: docs/results.md
    "quick": {"epochs": 10, "batch_size": 0, "lr": 0.0, "momentum": 0.85, "weight_decay": 0.0153 / 11.5,
              "bias_factor": 64.0, "schedule": "triangle", "warmup": 0.23, "label_smoothing": 0.2, "clip": 0.0,
              "ema": 0.95, "crop_padding": 2, "crop_border": "reflect", "alternate": True, "cutout": 0},
}
QUICK = ("quicknet",)  # the networks of recipe quick
# Of recipe quick: the rate of 11.5 for 1024 images, decoupled from momentum as the paper has it, is in torch's SGD
QUICK_LR = 11.5 / (1 + 1 / (1 - 0.85))  # of which gradients are means over the images of a step.
QUICK_BATCH, QUICK_STEPS = 1024, 40  # images a step at most; steps an epoch at least, as far as
LEAST_BATCH = 32  # there are images for them
FORGOTTEN = 0.15  # epochs of an average's (1 - decay) summed up: 0.9999 for 1500 epochs, less for fewer
STEM_MULTIPLIER = 3  # of the published networks


def main(argv: list[str] | None = None) -> int:
    return trial.main(RetrainConfig, settings, run, argv, also=lambda config, tuner: target(config))


def run(argv: list[str] | None, parameters: dict[str, Any], reporter: Reporter) -> float:
    """One training; its validation accuracy after the last epoch, without validation its training accuracy."""
    config = trial.configured(RetrainConfig, __doc__, settings, argv, parameters, reporter)

    from training.distributed import joined  # torch and what stands on it: slow to import
    from training.hardware import pick_device

    with joined(pick_device(config.device)) as device:
        return train(config, device, reporter)


def train(config: RetrainConfig, device: "torch.device", reporter: Reporter) -> float:
    from pictures.dataset import final_batches, load, training_batches
    from training.distributed import share, size, synchronized
    from training.loop import set_seed

    if size() > 1 and reporter.tuned:
        raise ValueError("torchrun: a trial of a tuner is one process; start it by hand, or with one process")
    name, genotype = target(config)
    path = place.run_path(config, reporter, "retrain", f"{name}-{config.recipe}-seed{config.seed}")
    pictures = load(**config.data_set)
    config = sized(config, config.train_size or len(pictures.train_labels) - pictures.given_val)
    config = trial.fitted(config, pictures)
    loaders = training_batches(pictures, device, share=share(config.batch_size), **of_batches(config))

    test = final_batches(pictures, loaders.train.normalization, config.batch_size) if config.test else None
    set_seed(config.seed)
    model, network = build(config, genotype, len(pictures.classes), pictures.side)

    return trial.train(synchronized(model.to(device)), loaders, pictures, config, path, "retrain", reporter, network,
                       architecture=genotype and {kind: genotype.to_json()[kind] for kind in ("normal", "reduction")},
                       test=test, auxiliary=config.auxiliary, drop_path=config.drop_path, stop_signals=True)


# ---- settings


def settings(given: dict[str, Any], tuner: dict[str, Any], tuned: bool = False) -> RetrainConfig:
    """Default < recipe < `given`, the command line < `tuner`."""
    from models import BASELINES, MODELS
    from training.optimizers import MUON, OPTIMIZERS

    chosen = {**given, **tuner}
    recipe = chosen.get("recipe", RetrainConfig.recipe)
    if recipe not in tuple(RECIPES):
        raise ValueError(f"recipe = {recipe!r}: must be one of {', '.join(RECIPES)}")
    plain = {"auxiliary": 0.0, "drop_path": 0.0} if chosen.get("model") else {}
    config = merge(RetrainConfig, {**RECIPES[recipe], **plain, **given}, tuner, model=["", *MODELS, *BASELINES],
                   optimizer=OPTIMIZERS | MUON)
    if recipe == "long" and "ema" not in chosen:
        config = dataclasses.replace(config, ema=max(1 - FORGOTTEN / config.epochs, 0.0))
    _check_together(config)
    return config


def of_batches(config: RetrainConfig) -> dict[str, Any]:
    """The settings that training_batches takes."""
    keys = ("train_size", "val_size", "batch_size", "crop_padding", "flip", "cutout", "seed", "augment", "all_data",
            "alternate", "crop_border", "held_out")
    return {key: getattr(config, key) for key in keys}


def sized(config: RetrainConfig, images: int) -> RetrainConfig:
    """Batch size, a power of two, and learning rate by the number of training images, where they are left to quick."""
    size = config.batch_size
    if not size:
        size = min(max(images // QUICK_STEPS, LEAST_BATCH), QUICK_BATCH, images)
        size = 1 << size.bit_length() - 1
    return dataclasses.replace(config, batch_size=size, lr=config.lr or QUICK_LR * size / QUICK_BATCH)


def _check_together(config: RetrainConfig) -> None:
    if bool(config.genotype) == bool(config.model):
        raise ValueError("give either --genotype NAME_OR_FILE or --model NAME")
    if config.all_data and config.val_size:
        raise ValueError(f"val_size = {config.val_size}: all_data leaves none for validation; add --no-all-data")
    quick = config.recipe == "quick"
    if quick and config.model not in QUICK:
        raise ValueError(f"recipe = 'quick': for --model {', '.join(QUICK)} alone, not for "
                         f"{config.model or config.genotype}; the others have standard and long")
    allowed = ", or 0: found by recipe quick" if quick else " (0 is for recipe quick)"
    wrong = [f"batch_size = {config.batch_size}: must be at least 2{allowed}"] * (
        config.batch_size == 1 or not (quick or config.batch_size))
    if wrong := wrong + [f"lr = {config.lr}: must be above 0{allowed}"] * (not quick and not config.lr):
        raise Mistakes(wrong)
    for key in ("auxiliary", "drop_path"):
        if config.model and getattr(config, key):
            raise ValueError(f"{key} = {getattr(config, key)}: networks of the zoo have none")


# ---- the network


def target(config: RetrainConfig) -> tuple[str, "Genotype | None"]:
    """A name for the run, and the genotype, if it is not a network of the zoo that is trained."""
    from models.darts.genotype_files import genotype_name, load_genotype

    if config.model:
        return config.model, None
    return genotype_name(config.genotype).replace(":", "-"), load_genotype(config.genotype)


def build(config: RetrainConfig, genotype: "Genotype | None", classes: int,
          side: int) -> tuple["nn.Module", dict[str, Any]]:
    """The network, and its description for model.pt."""
    from models import build_model
    from models.darts.network import DartsNetwork

    if genotype is None:
        network = {"family": "zoo", "name": config.model}
        return build_model(config.model, classes, side), network
    network = {"family": "darts", "genotype": genotype.to_json(), "channels": config.channels, "layers": config.layers,
               "stem_multiplier": STEM_MULTIPLIER}
    return DartsNetwork(genotype, 3, config.channels, classes, config.layers, STEM_MULTIPLIER,
                        auxiliary=config.auxiliary > 0, side=side), network


if __name__ == "__main__":
    sys.exit(main())
