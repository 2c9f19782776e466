"""What the trial scripts share: their settings, the run's folder, training in it, reporting what really ran.

Each has `main(argv)`, the command, by hand or as a trial of NNI, and `run(argv, parameters, reporter)`, which any tuner
may call: it gives the final metric, and tells `reporter` on its way.
"""

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from artifacts.figures import percent
from config import TrainingConfig, command_line, identity, run_script
from pictures import SIDE
from training import place
from training.progress import left, of_data
from training.reporter import NniReporter, Reporter
from training.settings_check import SAMPLES, check

if TYPE_CHECKING:  # slow to import; a trial asks NNI first
    import torch

    from pictures.dataset import Batches, Loaders, Pictures
    from training.loop import FitResult


Config = TypeVar("Config", bound=TrainingConfig)


def main(cls: type[Config], settings: Callable[[dict, dict, bool], Config],
         run: Callable[[list[str] | None, dict, Reporter], Any], argv: list[str] | None,
         also: Callable[[Config, dict], Any] = lambda config, tuner: None) -> int:
    """The command: `run` with what NNI gives, if this is a trial of NNI's; the exit code.

    `also` looks at what of the settings `run` would find wrong later, for a check before the start.
    """
    if SAMPLES in os.environ:
        return run_script(lambda: check(cls, partial(settings, tuned=True), also, argv, Path(os.environ[SAMPLES])))
    reporter = NniReporter() if "NNI_PLATFORM" in os.environ else Reporter()
    parameters = reporter.ask()

    def work() -> None:
        run(argv, parameters, reporter)

    return run_script(work)


def configured(cls: type[Config], description: str, settings: Callable[[dict, dict, bool], Config],
               argv: list[str] | None, parameters: dict[str, Any], reporter: Reporter) -> Config:
    """What `settings` makes of the command line and the tuner's `parameters`."""
    given = command_line(cls, argv, description.splitlines()[0])
    if os.environ.get("RANK", "0") == "0":  # of the processes of torchrun
        print(f"loading PyTorch, then {given.get('data', cls.data)}", flush=True)
    return settings(given, parameters, reporter.tuned)


def assert_judged(config: TrainingConfig, tuned: bool) -> None:
    """ValueError for a trial without validation: the tuner would choose by what it was trained on."""
    if config.val_size < 0 and tuned:
        raise ValueError(f"val_size = {config.val_size}: at least 0 for a trial of a tuner, which chooses by it")


def fitted(config: Config, pictures: "Pictures", halves: int = 1) -> Config:
    """With a batch size that there are training images for: a default that is larger becomes a quarter of them, said.

    `halves`: 2 if the images are halved. ValueError for a batch size that was given and is larger.
    """
    from pictures.split import parts
    from training.distributed import rank, size

    train, _ = parts(pictures.train_labels, pictures.given_val, train_size=config.train_size, val_size=config.val_size,
                     seed=config.seed, all_data=getattr(config, "all_data", False),
                     classes=pictures.classes, held_out=config.held_out)
    images = len(train) // halves
    there = f"{images}, half of the training images" if halves == 2 else f"the {images} training images"
    if config.batch_size <= images:
        return config
    if config.batch_size != type(config).batch_size:
        raise ValueError(f"batch_size = {config.batch_size}: must be at most {there}")
    fits = max(images // 4 // size() * size(), size(), 2)
    if rank() == 0:
        print(f"batch_size {fits} and not {config.batch_size}, to fit {there}", flush=True)
    return replace(config, batch_size=fits)


# ---- the training


def train(model: "torch.nn.Module", loaders: "Loaders", pictures: "Pictures", config: TrainingConfig, path: Path,
          stage: str, reporter: Reporter, network: Mapping[str, Any], facts: Mapping[str, float] | None = None,
          architecture: Mapping[str, Any] | None = None, test: "Batches | None" = None, **how: Any) -> float:
    """Train `model` in the run folder `path`, report, write model.pt and result.json; returns the final metric.

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
    from training.views import Views

    facts, architecture = dict(facts or {}), dict(architecture or {})
    device = next(model.parameters()).device
    checkpoint = path / "checkpoint.pt"
    computes = {**identity(config), **architecture, "data_checksum": pictures.checksum}
    load = partial(load_checkpoint, identity=computes, device=device)
    resume_from = place.earlier(config, checkpoint, reporter, load)
    if resume_from is None:
        place.begin_anew(config, path, reporter)
    folder = RunFolder(path, config) if rank() == 0 else None  # of several processes one writes and reports

    def on_epoch(record: dict[str, float]) -> None:
        if folder:
            folder.epoch(record)
            if record["epoch"] < config.epochs:  # of the last one a tuner hears when all is written: it might stop a
                reporter.epoch(judged(record))  # trial that has its epochs behind it
            print(line(folder.records, config.epochs), flush=True)

    execution = of_training(config, model, size())
    if folder:
        print(of_data(pictures.summary(val_images(loaders))))
        print(execution, flush=True)
    with enough_memory(config.batch_size):
        result = fit(model, *loaders, config, identity=computes, checkpoint=checkpoint, resume_from=resume_from,
                     on_epoch=on_epoch, checkpoint_minutes=config.checkpoint_minutes,
                     execution=execution, **{"stop_signals": not reporter.tuned, **how})
    if facts:
        speeds = [record["images_per_second"] for record in result.history]
        facts["images_per_second"] = statistics.median(speeds) if speeds else 0.0  # of an epoch of training
    tested = _test(model, test, pictures.classes, config.precision) if test and not result.diverged else {}
    if tested and getattr(config, "tta", False):
        views = Views(model, loaders.train.augmentation.flip)
        found = _test(views, test, pictures.classes, config.precision)
        tested |= {f"several_views_{key}": found[key] for key in ("loss", "accuracy")}
    if folder:
        outcome = {
            **_outcome(model, result, loaders, pictures), "stage": stage, "execution": execution._asdict(), **facts,
            **({"architecture": architecture} if architecture else {}), **({"test": tested} if tested else {})}
        outcome |= folder.provenance(device)  # in the model file as well, which may be taken elsewhere
        if not result.diverged:
            described = network if pictures.side == SIDE else {**network, "side": pictures.side}
            save_model(path / "model.pt", model, described, loaders.train.normalization, pictures.classes, outcome,
                       *(pictures.digests(part.index.tolist() if part else ()) for part in loaders))
        folder.finish(outcome, device)
        if len(folder.records) == config.epochs:
            reporter.epoch(judged(folder.records[-1]))
        reporter.final(result.metric, {**facts, **({"test_accuracy": tested["accuracy"]} if tested else {})},
                       {**asdict(config), **architecture})
        _tell(result, loaders, tested, path)
    return result.metric


def _tell(result: "FitResult", loaders: "Loaders", tested: Mapping[str, Any], path: Path) -> None:
    """The end of a training, to people."""
    kind, of, test = "validation" if loaders.val else "training", val_images(loaders), tested.get("images")
    test_text = f", test accuracy {percent(tested['accuracy'], test)}" if tested else ""
    if "several_views_accuracy" in tested:
        test_text += f" ({percent(tested['several_views_accuracy'], test)} by several views)"
    value = percent(result.metric, of or len(loaders.train.index))
    print(f"{'diverged' if result.diverged else 'done'}: {kind} accuracy {value}{test_text}, {path}")


def judged(record: Mapping[str, float]) -> float:
    """The accuracy that an epoch is judged by."""
    return record.get("val_accuracy", record["train_accuracy"])


def line(records: Sequence[Mapping[str, float]], epochs: int) -> str:
    """The figures of the last of `records`, one an epoch, for people, and the time that is left."""
    record = records[-1]
    validation = "validation {val_accuracy:.2%}  " if "val_accuracy" in record else ""
    return ("epoch {epoch:3d}/{epochs}  lr {lr:.5f}  loss {train_loss:.3f}  train {train_accuracy:.2%}  " + validation
            + "{images_per_second:.0f} images/s  {left}").format(**record, epochs=epochs, left=left(records, epochs))


def _outcome(model: "torch.nn.Module", result: "FitResult", loaders: "Loaders", pictures: "Pictures") -> dict[str, Any]:
    """What a training came to, for result.json. An auxiliary head is not counted: it is no part of what is exported."""
    return {
        "metric": f"{'validation' if loaders.val else 'training'} accuracy after the last epoch",
        "value": result.metric, "diverged": result.diverged, "last": named(result.last, pictures.classes),
        "best": named(result.best, pictures.classes),
        "parameters": sum(p.numel() for name, p in model.named_parameters() if not name.startswith("auxiliary.")),
        "data": {"name": pictures.name, "checksum": pictures.checksum, "classes": len(pictures.classes),
                 "train_images": len(loaders.train.index), "val_images": val_images(loaders), **pictures.counts}}


def named(record: Mapping[str, Any] | None, classes: Sequence[str]) -> Mapping[str, Any] | None:
    """An epoch's record, with the accuracies of the classes by their names."""
    if record is None or "val_class_accuracy" not in record:
        return record
    return {**record, "val_class_accuracy": dict(zip(classes, record["val_class_accuracy"], strict=True))}


def val_images(loaders: "Loaders") -> int:
    return len(loaders.val.index) if loaders.val else 0


def _test(model: "torch.nn.Module", test: "Batches", classes: Sequence[str], precision: str) -> dict[str, Any]:
    """The only look at the test images: accuracy, that of each class, and how often which was taken for which."""
    import torch

    from training.balance import balanced_accuracy, recalls
    from training.hardware import pick_dtype
    from training.loop import evaluate

    device = next(model.parameters()).device
    confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64, device=device)  # (true, predicted)
    scores = evaluate(model, test.epoch(0), pick_dtype(precision, device, model), confusion)
    found = recalls(confusion)
    return {**scores, "balanced_accuracy": balanced_accuracy(found), "images": len(test.index),
            "class_accuracy": dict(zip(classes, found, strict=True)), "confusion": confusion.tolist()}
