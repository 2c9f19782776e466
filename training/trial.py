"""What the trial scripts share: asking NNI for parameters, training in the run's folder, reporting what really ran.

Every script also runs alone, whether NNI is installed or not; then nothing is asked or reported, and the run's folder
is runs/<stage>/<name>.
"""

import hashlib
import os
import re
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from config import TrainingConfig, command_line, identity, run_script
from files import read_object
from pictures import SIDE
from training.progress import left, of_data
from training.settings_check import SAMPLES, check

if TYPE_CHECKING:  # slow to import; a trial asks NNI first
    import torch

    from pictures.dataset import Batches, Loaders, Pictures
    from training.loop import FitResult


Config = TypeVar("Config", bound=TrainingConfig)
# Of a run, beside its records:
LEAVES = ("checkpoint.pt", "checkpoint.pt.before", "choice.pt", "choice.pt.before", "model.pt", "genotype.json")


def main(cls: type[Config], description: str, settings: Callable[[dict, dict], Config],
         run: Callable[[Config, dict], None], argv: list[str] | None,
         also: Callable[[Config, dict], Any] = lambda config, tuner: None) -> int:
    """A trial script: ask NNI, make `settings` of the command line and the tuner's parameters, `run`; the exit code.

    `also` looks at what of the settings `run` would find wrong later, for a check before the start.
    """
    tuner = ask()

    def work() -> None:
        if SAMPLES in os.environ:
            return check(cls, settings, also, argv, Path(os.environ[SAMPLES]))
        given = command_line(cls, argv, description)
        if os.environ.get("RANK", "0") == "0":  # of the processes of torchrun
            print(f"loading PyTorch, then {given.get('data', cls.data)}", flush=True)
        run(settings(given, tuner), tuner)

    return run_script(work)


def under_nni() -> bool:
    """Whether this process is a trial, or checks what one would do; known without importing nni."""
    return "NNI_PLATFORM" in os.environ or SAMPLES in os.environ


def assert_judged(config: TrainingConfig) -> None:
    """ValueError for a trial without validation: the tuner would choose by what it was trained on."""
    if config.val_size < 0 and under_nni():
        raise ValueError(f"val_size = {config.val_size}: not under NNI, whose tuner chooses by validation; at least 0")


def ask() -> dict[str, Any]:
    """The tuner's parameters, {} without NNI. To be called exactly once, before anything slow or able to fail.

    NNI hands parameters out in the order of asking: a trial that dies before it asked, or asks twice, shifts the
    parameters of all trials after it.
    """
    if "NNI_PLATFORM" not in os.environ:
        return {}
    import nni

    return nni.get_next_parameter()


# ---- the run's folder


def run_path(config: TrainingConfig, stage: str, name: str) -> Path:
    """NNI's folder of this trial, else runs/<stage>/<name>; ValueError if that would cost what an earlier run has left.

    `name`, made of the settings, gets that of the data set before it, unless this is the usual one.
    """
    if under_nni():
        return Path(os.environ["NNI_OUTPUT_DIR"])
    if config.resume and config.overwrite:
        raise ValueError("give either --resume, to go on, or --overwrite, to begin anew")
    stage_folder = Path(config.runs_dir) / stage
    path = stage_folder / (config.name or with_data(name, config.data, stage_folder))
    if not (config.resume or config.overwrite):
        assert_free(path)
    return path


def assert_free(path: Path) -> None:
    kept = [file for pattern in ("result.json", "checkpoint.pt", "seed*/checkpoint.pt") for file in path.glob(pattern)]
    if kept:
        what = "a finished run" if kept[0].name == "result.json" else "a run that was stopped"
        raise ValueError(f"{path}: holds {what}; --resume goes on with it, --overwrite begins anew, --name NAME gives "
                         "another folder")


def with_data(name: str, data: str, folder: Path) -> str:
    """`name` behind the data set's; of two folders of pictures with one name the later one gets a hash behind it."""
    from pictures.known import DATASETS

    if data == TrainingConfig.data:
        return name
    label = data if data in DATASETS else re.sub(r"[^\w.-]+", "-", Path(data).resolve().name).strip(".-") or "pictures"
    found = name if name.startswith(f"{label}-") else f"{label}-{name}"  # after the search that found the cells
    other = (read_object(folder / found / "config.json") or {}).get("data", data)
    if other == data or (other not in DATASETS and data not in DATASETS and (
            not Path(other).exists() or Path(other).resolve() == Path(data).resolve())):
        return found
    return f"{label}.{hashlib.sha256(str(Path(data).resolve()).encode()).hexdigest()[:6]}{found.removeprefix(label)}"


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


def begin_anew(path: Path) -> None:
    """Remove what an earlier run has left in its folder."""
    for file in LEAVES:
        (path / file).unlink(missing_ok=True)
    shutil.rmtree(path / "tensorboard", ignore_errors=True)


# ---- reports to NNI


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
    from training.views import Views

    facts, architecture = dict(facts or {}), dict(architecture or {})
    device = next(model.parameters()).device
    checkpoint = path / "checkpoint.pt"
    computes = {**identity(config), **architecture, "data_checksum": pictures.checksum}
    resume = config.resume or (under_nni() and checkpoint.exists())
    resume_from = load_checkpoint(checkpoint, computes, device) if resume else None
    if config.overwrite and not under_nni() and rank() == 0:
        begin_anew(path)
    folder = RunFolder(path, config) if rank() == 0 else None  # of several processes one writes and reports

    def on_epoch(record: dict[str, float]) -> None:
        if folder:
            folder.epoch(record)
            if record["epoch"] < config.epochs:  # of the last one NNI hears when all is written: its assessor might
                report_epoch(judged(record))  # stop a trial that has its epochs behind it
            print(line(folder.records, config.epochs), flush=True)

    execution = of_training(config, model, size())
    if folder:
        print(of_data(pictures.summary(val_images(loaders))))
        print(execution, flush=True)
    with enough_memory(config.batch_size):
        result = fit(model, *loaders, config, identity=computes, checkpoint=checkpoint, resume_from=resume_from,
                     on_epoch=on_epoch, checkpoint_minutes=config.checkpoint_minutes,
                     execution=execution, **{"stop_signals": not under_nni(), **how})
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
                       pictures.digests(loaders.train.index.tolist()))
        folder.finish(outcome, device)
        if len(folder.records) == config.epochs:
            report_epoch(judged(folder.records[-1]))
        ran = {**asdict(config), **architecture}
        _tell(result, loaders, facts, tested, {key: ran[key] for key in tuner}, path)
    return result.metric


def _tell(result: "FitResult", loaders: "Loaders", facts: Mapping[str, float], tested: Mapping[str, Any],
          ran: Mapping[str, Any], path: Path) -> None:
    """The end of a training, to NNI and to people."""
    report(result.metric, {**facts, **({"test_accuracy": tested["accuracy"]} if tested else {})}, ran)
    kind = "validation" if loaders.val else "training"
    test_text = f", test accuracy {tested['accuracy']:.2%}" if tested else ""
    if "several_views_accuracy" in tested:
        test_text += f" ({tested['several_views_accuracy']:.2%} by several views)"
    print(f"{'diverged' if result.diverged else 'done'}: {kind} accuracy {result.metric:.2%}{test_text}, {path}")


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
