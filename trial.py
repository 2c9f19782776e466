"""What the trial scripts share: asking NNI for parameters, training in the run's folder, reporting what really ran.

Every script also runs without NNI; then nothing is asked or reported, and the run's folder is runs/<stage>/<name>.
"""

import os
import statistics
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nni

from config import TrainingConfig, identity

if TYPE_CHECKING:  # slow to import; a trial asks NNI first
    import torch

    from data import Loaders, Pictures


def ask() -> dict[str, Any]:
    """The tuner's parameters, {} without NNI. To be called exactly once, before anything slow or able to fail.

    NNI hands parameters out in the order of asking: a trial that dies before it asked, or asks twice, shifts the
    parameters of all trials after it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # without NNI it returns {} and warns
        return nni.get_next_parameter()


def under_nni() -> bool:
    return nni.get_experiment_id() != "STANDALONE"


def run_path(config: TrainingConfig, stage: str, name: str) -> Path:
    """NNI's folder of this trial, else runs/<stage>/<name>."""
    if under_nni():
        return Path(os.environ["NNI_OUTPUT_DIR"])
    return Path(config.runs_dir) / stage / (config.name or name)


def report_epoch(metric: float) -> None:
    """Tell NNI the metric after an epoch."""
    if under_nni():
        nni.report_intermediate_result(metric)


def report(metric: float, facts: Mapping[str, float], ran: Mapping[str, Any]) -> None:
    """Tell NNI the final metric, with `ran`: its own record of the parameters may be wrong."""
    if under_nni():
        nni.report_final_result({"default": metric, **facts, **{f"run.{key}": value for key, value in ran.items()}})


def train(model: "torch.nn.Module", loaders: "Loaders", pictures: "Pictures", config: TrainingConfig, path: Path,
          stage: str, tuner: Mapping[str, Any], facts: Mapping[str, float] | None = None,
          architecture: Mapping[str, str] | None = None) -> float:
    """Train `model` in the run folder `path`, report to NNI, write result.json; returns the final metric.

    `facts` about the network, numbers, go into result.json and, with its speed, into the final report. `architecture`
    is what made the network, where that is not a setting. A trial that NNI repeats in the folder of its first, stopped
    attempt goes on from that attempt's checkpoint.
    """
    from run_folder import RunFolder
    from training import fit, load_checkpoint

    facts, architecture = dict(facts or {}), dict(architecture or {})
    device = next(model.parameters()).device
    checkpoint = path / "checkpoint.pt"
    computes = {**identity(config), **architecture, "data_checksum": pictures.checksum}
    resume = config.resume or (under_nni() and checkpoint.exists())
    resume_from = load_checkpoint(checkpoint, computes, device) if resume else None
    folder = RunFolder(path, config)

    def on_epoch(record: dict[str, float]) -> None:
        folder.epoch(record)
        report_epoch(record["val_accuracy"])
        print("epoch {epoch:3d}  lr {lr:.5f}  loss {train_loss:.3f}  train {train_accuracy:.2%}  "
              "validation {val_accuracy:.2%}  {images_per_second:.0f} images/s".format(**record), flush=True)

    result = fit(model, *loaders, config, identity=computes, checkpoint=checkpoint, resume_from=resume_from,
                 on_epoch=on_epoch)
    if facts:
        speeds = [record["images_per_second"] for record in result.history]
        facts["images_per_second"] = statistics.median(speeds) if speeds else 0.0  # of an epoch of training
    folder.finish({
        "stage": stage, "metric": "validation accuracy after the last epoch", "value": result.metric,
        "diverged": result.diverged, "last": result.last, "best": result.best,
        "parameters": sum(p.numel() for p in model.parameters()), **facts,
        **({"architecture": architecture} if architecture else {}),
        "data": {"name": pictures.name, "checksum": pictures.checksum, "classes": len(pictures.classes),
                 "train_images": len(loaders.train.index), "val_images": len(loaders.val.index)},
    }, device)
    ran = {**asdict(config), **architecture}
    report(result.metric, facts, {key: ran[key] for key in tuner})
    print(f"{'diverged' if result.diverged else 'done'}: validation accuracy {result.metric:.2%}, {path}")
    return result.metric
