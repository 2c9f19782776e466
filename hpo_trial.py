"""Stage 1, one trial: train one network of the zoo with one optimizer and one learning rate.

    python experiment.py run config_hpo.yml                                        as trials of an NNI experiment
    python hpo_trial.py --model resnet18 --optimizer Adam --lr 0.001 --data digits  alone

Reports validation accuracy, after each epoch and at the end. The test set is never read.
"""

import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

import nni

from config import HpoConfig, command_line, identity, merge, run_script


def main(argv: list[str] | None = None) -> int:
    # NNI hands out parameters in the order of asking: every trial must ask exactly once, before anything can fail.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # without NNI it returns {} and warns
        tuner = nni.get_next_parameter()
    return run_script(lambda: run(argv, tuner))


def run(argv: list[str] | None, tuner: dict) -> None:
    from data import load, training_batches  # torch and what stands on it: slow to import
    from models import MODELS, build_model
    from run_folder import RunFolder
    from training import OPTIMIZERS, fit, load_checkpoint, pick_device, set_seed

    given = command_line(HpoConfig, argv, __doc__.splitlines()[0])
    config = merge(HpoConfig, given, tuner, model=MODELS, optimizer=OPTIMIZERS)
    device = pick_device(config.device)

    pictures = load(config.data, config.data_dir)
    train, val = training_batches(
        pictures, device, train_size=config.train_size, val_size=config.val_size, batch_size=config.batch_size,
        crop_padding=config.crop_padding, flip=config.flip, cutout=config.cutout, seed=config.seed)

    set_seed(config.seed)
    model = build_model(config.model, len(pictures.classes)).to(device)

    path = run_path(config)
    checkpoint, computes = path / "checkpoint.pt", {**identity(config), "data_checksum": pictures.checksum}
    resume = config.resume or (under_nni() and checkpoint.exists())  # NNI repeats a stopped trial, in its folder
    resume_from = load_checkpoint(checkpoint, computes, device) if resume else None
    folder = RunFolder(path, config)

    def on_epoch(record: dict) -> None:
        folder.epoch(record)
        if under_nni():
            nni.report_intermediate_result(record["val_accuracy"])
        print("epoch {epoch:3d}  lr {lr:.5f}  loss {train_loss:.3f}  train {train_accuracy:.2%}  "
              "validation {val_accuracy:.2%}  {images_per_second:.0f} images/s".format(**record), flush=True)

    result = fit(model, train, val, config, identity=computes, checkpoint=checkpoint, resume_from=resume_from,
                 on_epoch=on_epoch)

    folder.finish({
        "stage": "hpo", "metric": "validation accuracy after the last epoch", "value": result.metric,
        "diverged": result.diverged, "last": result.last, "best": result.best,
        "parameters": sum(p.numel() for p in model.parameters()),
        "data": {"name": pictures.name, "checksum": pictures.checksum, "classes": len(pictures.classes),
                 "train_images": len(train.index), "val_images": len(val.index)},
    }, device)
    if under_nni():  # NNI's own record of the parameters may be wrong: echo what really ran
        nni.report_final_result({"default": result.metric, **{f"run.{key}": asdict(config)[key] for key in tuner}})
    print(f"{'diverged' if result.diverged else 'done'}: validation accuracy {result.metric:.2%}, {folder.path}")


def under_nni() -> bool:
    return nni.get_experiment_id() != "STANDALONE"


def run_path(config: HpoConfig) -> Path:
    """NNI's folder of this trial, else runs/hpo/<name>."""
    if under_nni():
        return Path(os.environ["NNI_OUTPUT_DIR"])
    name = config.name or f"{config.model}-{config.optimizer}-{config.lr:g}-seed{config.seed}"
    return Path(config.runs_dir) / "hpo" / name


if __name__ == "__main__":
    sys.exit(main())
