"""Stage 1, one trial: train one network of the zoo with one optimizer and one learning rate.

    python experiment.py run config_hpo.yml                                         as trials of an NNI experiment
    python hpo_trial.py --model resnet18 --optimizer Adam --lr 0.001 --data digits  alone
    python hpo_trial.py --best runs/hpo/best.json --epochs 90                       the best combination, for longer

Reports validation accuracy, after each epoch and at the end. The test set is never read.
"""

import sys
from typing import Any

from config import HpoConfig, merge
from training import place, trial
from training.best import of_stage1
from training.reporter import Reporter


def main(argv: list[str] | None = None) -> int:
    return trial.main(HpoConfig, settings, run, argv)


def settings(given: dict[str, Any], tuner: dict[str, Any], tuned: bool = False) -> HpoConfig:
    """Default < the best trial of an experiment, if one is named < `given`, the command line < `tuner`."""
    from models import MODELS  # torch and what stands on it: slow to import
    from training.optimizers import OPTIMIZERS

    found = of_stage1(given["best"], ("model", "optimizer", "lr")) if given.get("best") else {}
    config = merge(HpoConfig, {**found, **given}, tuner, model=MODELS, optimizer=OPTIMIZERS)
    trial.assert_judged(config, tuned)
    return config


def run(argv: list[str] | None, parameters: dict[str, Any], reporter: Reporter) -> float:
    """One trial, by the command line and a tuner's parameters; its validation accuracy after the last epoch."""
    config = trial.configured(HpoConfig, __doc__, settings, argv, parameters, reporter)

    from models import build_model
    from pictures.dataset import load, training_batches
    from training.hardware import pick_device
    from training.loop import set_seed

    path = place.run_path(config, reporter, "hpo",
                          f"{config.model}-{config.optimizer}-{config.lr:g}-seed{config.seed}")
    device = pick_device(config.device)

    pictures = load(**config.data_set)
    config = trial.fitted(config, pictures)
    loaders = training_batches(
        pictures, device, train_size=config.train_size, val_size=config.val_size, batch_size=config.batch_size,
        crop_padding=config.crop_padding, flip=config.flip, cutout=config.cutout, seed=config.seed,
        held_out=config.held_out)

    set_seed(config.seed)
    model = build_model(config.model, len(pictures.classes), pictures.side).to(device)

    return trial.train(model, loaders, pictures, config, path, "hpo", reporter,
                       {"family": "zoo", "name": config.model})


if __name__ == "__main__":
    sys.exit(main())
