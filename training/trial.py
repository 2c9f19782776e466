"""What the trial scripts share: asking NNI for parameters, training in the run's folder, reporting what really ran.

Every script also runs alone, whether NNI is installed or not; then nothing is asked or reported, and the run's folder
is runs/<stage>/<name>.
"""

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import TrainingConfig, identity
from pictures import SIDE

if TYPE_CHECKING:  # slow to import; a trial asks NNI first
    import torch

    from pictures.dataset import Batches, Loaders, Pictures
    from training.loop import FitResult


def under_nni() -> bool:
    """Whether this process is a trial; known without importing nni, which need not be there."""
    return "NNI_PLATFORM" in os.environ


def ask() -> dict[str, Any]:
    """The tuner's parameters, {} without NNI. To be called exactly once, before anything slow or able to fail.

    NNI hands parameters out in the order of asking: a trial that dies before it asked, or asks twice, shifts the
    parameters of all trials after it.
    """
    if not under_nni():
        return {}
    import nni

    return nni.get_next_parameter()


def run_path(config: TrainingConfig, stage: str, name: str) -> Path:
    """NNI's folder of this trial, else runs/<stage>/<name>."""
    if under_nni():
        return Path(os.environ["NNI_OUTPUT_DIR"])
    return Path(config.runs_dir) / stage / (config.name or name)


def report_epoch(metric: float) -> None:
    """Tell NNI the metric after an epoch."""
    if under_nni():
        import nni

        nni.report_intermediate_result(metric)


def report(metric: float, facts: Mapping[str, float], ran: Mapping[str, Any]) -> None:
    """Tell NNI the final metric, with `ran`: its own record of the parameters may be wrong."""
    if under_nni():
        import nni

        nni.report_final_result({"default": metric, **facts, **{f"run.{key}": value for key, value in ran.items()}})


def train(model: "torch.nn.Module", loaders: "Loaders", pictures: "Pictures", config: TrainingConfig, path: Path,
          stage: str, tuner: Mapping[str, Any], network: Mapping[str, Any], facts: Mapping[str, float] | None = None,
          architecture: Mapping[str, Any] | None = None, test: "Batches | None" = None, **how: Any) -> float:
    """Train `model` in the run folder `path`, report to NNI, write model.pt and result.json; returns the final metric.

    `network` describes it for model.pt. `facts` about it, numbers, go into result.json and, with its speed, into the
    final report. `architecture` is what made it, where that is not a setting. `test` is read once, at the end; `how`
    goes to `training.loop.fit`. A trial that NNI repeats in the folder of its first, stopped attempt goes on from that
    attempt's checkpoint. Alone, a run that is stopped by a signal writes one first.
    """
    from artifacts.model_file import save_model
    from artifacts.run_folder import RunFolder
    from training.checkpoints import load_checkpoint
    from training.distributed import rank, size
    from training.execution import of_training
    from training.hardware import enough_memory
    from training.loop import fit

    facts, architecture = dict(facts or {}), dict(architecture or {})
    device = next(model.parameters()).device
    checkpoint = path / "checkpoint.pt"
    computes = {**identity(config), **architecture, "data_checksum": pictures.checksum}
    resume = config.resume or (under_nni() and checkpoint.exists())
    resume_from = load_checkpoint(checkpoint, computes, device) if resume else None
    folder = RunFolder(path, config) if rank() == 0 else None  # of several processes one writes and reports
    for torn in path.glob(f".{checkpoint.name}.*") if folder else ():  # left by a run that was killed while writing
        torn.unlink()

    def on_epoch(record: dict[str, float]) -> None:
        if folder:
            folder.epoch(record)
            report_epoch(record.get("val_accuracy", record["train_accuracy"]))
            print(_line(record), flush=True)

    execution = of_training(config, model, size())
    if folder:
        print(pictures.summary(val_images(loaders)))
        print(execution, flush=True)
    with enough_memory(config.batch_size):
        result = fit(model, *loaders, config, identity=computes, checkpoint=checkpoint, resume_from=resume_from,
                     on_epoch=on_epoch, checkpoint_minutes=config.checkpoint_minutes,
                     execution=execution, **{"stop_signals": not under_nni(), **how})
    if facts:
        speeds = [record["images_per_second"] for record in result.history]
        facts["images_per_second"] = statistics.median(speeds) if speeds else 0.0  # of an epoch of training
    tested = _test(model, test, pictures.classes, config.precision) if test and not result.diverged else {}
    if folder:
        outcome = {
            **_outcome(model, result, loaders, pictures), "stage": stage, "execution": execution._asdict(), **facts,
            **({"architecture": architecture} if architecture else {}), **({"test": tested} if tested else {})}
        if not result.diverged:
            described = network if pictures.side == SIDE else {**network, "side": pictures.side}
            save_model(path / "model.pt", model, described, loaders.train.normalization, pictures.classes,
                       {**outcome, "config": asdict(config), "commit": folder.commit})
        folder.finish(outcome, device)
        ran = {**asdict(config), **architecture}
        _tell(result, loaders, facts, tested, {key: ran[key] for key in tuner}, path)
    return result.metric


def _tell(result: "FitResult", loaders: "Loaders", facts: Mapping[str, float], tested: Mapping[str, Any],
          ran: Mapping[str, Any], path: Path) -> None:
    """The end of a training, to NNI and to people."""
    report(result.metric, {**facts, **({"test_accuracy": tested["accuracy"]} if tested else {})}, ran)
    kind = "validation" if loaders.val else "training"
    test_text = f", test accuracy {tested['accuracy']:.2%}" if tested else ""
    print(f"{'diverged' if result.diverged else 'done'}: {kind} accuracy {result.metric:.2%}{test_text}, {path}")


def _line(record: Mapping[str, float]) -> str:
    """An epoch's figures for people."""
    validation = "validation {val_accuracy:.2%}  " if "val_accuracy" in record else ""
    return ("epoch {epoch:3d}  lr {lr:.5f}  loss {train_loss:.3f}  train {train_accuracy:.2%}  " + validation
            + "{images_per_second:.0f} images/s").format(**record)


def _outcome(model: "torch.nn.Module", result: "FitResult", loaders: "Loaders", pictures: "Pictures") -> dict[str, Any]:
    """What a training came to, for result.json. An auxiliary head is not counted: it is no part of what is exported."""
    return {
        "metric": f"{'validation' if loaders.val else 'training'} accuracy after the last epoch",
        "value": result.metric, "diverged": result.diverged, "last": result.last, "best": result.best,
        "parameters": sum(p.numel() for name, p in model.named_parameters() if not name.startswith("auxiliary.")),
        "data": {"name": pictures.name, "checksum": pictures.checksum, "classes": len(pictures.classes),
                 "train_images": len(loaders.train.index), "val_images": val_images(loaders), **pictures.counts}}


def val_images(loaders: "Loaders") -> int:
    return len(loaders.val.index) if loaders.val else 0


def _test(model: "torch.nn.Module", test: "Batches", classes: Sequence[str], precision: str) -> dict[str, Any]:
    """The only look at the test images: accuracy, that of each class, and how often which was taken for which."""
    import torch

    from training.hardware import pick_dtype
    from training.loop import evaluate

    device = next(model.parameters()).device
    confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64, device=device)  # (true, predicted)
    scores = evaluate(model, test.epoch(0), pick_dtype(precision, device, model), confusion)
    recall = confusion.diagonal().double() / confusion.sum(1)
    return {**scores, "images": len(test.index), "class_accuracy": dict(zip(classes, recall.tolist(), strict=True)),
            "confusion": confusion.tolist()}
