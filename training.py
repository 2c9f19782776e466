"""Training of one network: optimizer, schedule, one step, fit, evaluate, checkpoint, seed.

Nothing here knows where settings, networks or pictures come from: `fit` gets an nn.Module, two loaders and an
object with the settings as attributes, and hands a float and a record back after each epoch through a callback.

A loader has `epoch(e)`, which yields ready batches (x (B, 3, H, W), y (B,)) on the device as a function of e
alone, `len()` in batches and `images`, the number of images an epoch.
"""

import math
import pickle
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from files import atomic_write

OPTIMIZERS = {
    "Adadelta": torch.optim.Adadelta,
    "Adagrad": torch.optim.Adagrad,
    "Adam": torch.optim.Adam,
    "Adamax": torch.optim.Adamax,
    "SGD": torch.optim.SGD,
}
CHECKPOINT_FORMAT = 1
LOG_INTERVAL = 50  # steps between two looks at the loss; each look makes the host wait for the device


# ---- device, seed, precision


def pick_device(name: str) -> torch.device:
    """Settings `device` to a device: auto is cuda where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device = 'cuda': no CUDA device that torch can use here; allowed: auto, cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def set_seed(seed: int) -> None:
    """Seed torch's generators, which draw the initial weights and dropout, on all devices."""
    torch.manual_seed(seed)


def pick_dtype(precision: str, device: torch.device, model: nn.Module) -> torch.dtype:
    """Settings `precision` to the type that autocast computes in; a function of hardware and network alone.

    auto is bf16 on a GPU that has it. On a CPU with bf16 instructions it is bf16 too, but for networks with depthwise
    convolutions, which train slower in bf16 than in fp32 there (docs/results.md).
    """
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        depthwise = any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1 for m in model.modules())
        fast = _cpu_has_bf16() and not depthwise
    return torch.bfloat16 if fast else torch.float32


def _cpu_has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:  # not Linux
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


# ---- optimizer and schedule


def build_optimizer(model: nn.Module, name: str, lr: float, weight_decay: float,
                    momentum: float) -> torch.optim.Optimizer:
    """Optimizer `name` over the parameters of `model`; weight decay reaches matrices and kernels alone."""
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer = {name!r}: must be one of {', '.join(OPTIMIZERS)}")
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
              {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}]
    extra = {"momentum": momentum, "nesterov": momentum > 0} if name == "SGD" else {}
    return OPTIMIZERS[name](groups, lr=lr, **extra)


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at `step` of `steps`: linear warm-up, then half a cosine down to 0.

    Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts. The first step is above 0, the last too.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


# ---- one step


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, *, lr: float,
               dtype: torch.dtype, label_smoothing: float, clip: float) -> tuple[Tensor, Tensor]:
    """One update; returns loss and number of correct predictions as tensors, so that nobody waits for the device."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        logits = model(x)
    loss = F.cross_entropy(logits.float(), y, label_smoothing=label_smoothing)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if clip:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.detach(), (logits.detach().argmax(1) == y).sum()


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], dtype: torch.dtype) -> dict[str, float]:
    """Mean cross-entropy (no smoothing) and accuracy in 0..1 over `batches`, with `model` in eval mode."""
    model.eval()
    images, loss, correct = 0, 0.0, 0
    for x, y in batches:
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            logits = model(x)
        loss = loss + F.cross_entropy(logits.float(), y, reduction="sum")
        correct = correct + (logits.argmax(1) == y).sum()
        images += len(y)
    return {"loss": float(loss) / images, "accuracy": float(correct) / images}


# ---- fit


@dataclass
class FitResult:
    """What a training came to. `history` has a record for each epoch; accuracies are in 0..1."""

    history: list[dict[str, float]] = field(default_factory=list)
    diverged: bool = False

    @property
    def last(self) -> dict[str, float] | None:
        """The last whole epoch; None if the first one diverged."""
        return self.history[-1] if self.history else None

    @property
    def best(self) -> dict[str, float] | None:
        """The epoch of best validation accuracy, the first of equals."""
        return max(self.history, key=lambda record: record["val_accuracy"], default=None)

    @property
    def metric(self) -> float:
        """The figure to compare trainings by: validation accuracy after the last epoch, 0 if it diverged."""
        return 0.0 if self.diverged else self.last["val_accuracy"]


def fit(model: nn.Module, train: Any, val: Any, settings: Any, *, identity: dict[str, Any],
        checkpoint: Path | None = None, resume_from: dict[str, Any] | None = None,
        on_epoch: Callable[[dict[str, float]], None] = lambda record: None) -> FitResult:
    """Train `model`, on its device, for `settings.epochs`; the trained (or averaged) weights end up in `model`.

    settings: optimizer, lr, weight_decay, momentum, epochs, warmup, label_smoothing, clip, ema, precision, compile,
    seed. `identity`, what the run computes, is kept in the checkpoint. `resume_from`, a loaded checkpoint, gives
    bitwise the same weights as a run without a stop; `on_epoch` sees the records of its epochs too.
    A loss that is not finite ends the training: the result says `diverged`.
    """
    device = next(model.parameters()).device
    dtype = pick_dtype(settings.precision, device, model)
    model.to(memory_format=torch.channels_last)
    torch.backends.cudnn.benchmark = True  # all training steps have one shape, so trying every algorithm once pays
    optimizer = build_optimizer(model, settings.optimizer, settings.lr, settings.weight_decay, settings.momentum)
    average = None
    if settings.ema:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
    parts = {"model": model, "optimizer": optimizer, **({"average": average} if average else {})}
    result = FitResult()
    if resume_from:
        for name in parts.keys() & resume_from.keys():  # after the last epoch nothing but the weights is kept
            parts[name].load_state_dict(resume_from[name])
        result.history = list(resume_from["history"])
        for record in result.history:
            on_epoch(record)
    stepped = torch.compile(model) if settings.compile else model

    for epoch in range(len(result.history), settings.epochs):
        record = _train_epoch(stepped, optimizer, average, train, epoch, settings, dtype)
        if record is None:
            result.diverged = True
            return result
        scores = evaluate(average or stepped, val.epoch(epoch), dtype)
        record |= {f"val_{key}": value for key, value in scores.items()}
        if not math.isfinite(record["val_loss"]):
            result.diverged = True
            return result
        result.history.append(record)
        if average and epoch + 1 == settings.epochs:
            model.load_state_dict(average.module.state_dict())
        if checkpoint:
            kept = parts if epoch + 1 < settings.epochs else {"model": model}
            save_checkpoint(checkpoint, kept, identity, result.history)
        on_epoch(record)
    return result


def _train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, average: AveragedModel | None, train: Any,
                 epoch: int, settings: Any, dtype: torch.dtype) -> dict[str, float] | None:
    """One epoch; its record, or None as soon as the loss is seen not to be finite."""
    set_seed(settings.seed * 100_003 + epoch)  # dropout depends on seed and epoch alone, hence not on stops
    model.train()
    start, steps, total, correct = time.perf_counter(), len(train), 0.0, 0
    bar = tqdm(train.epoch(epoch), f"epoch {epoch + 1}/{settings.epochs}", steps, leave=False, disable=None, delay=2)
    for step, (x, y) in enumerate(bar):
        lr = settings.lr * schedule(epoch * steps + step, settings.epochs * steps, settings.warmup)
        loss, hits = train_step(model, optimizer, x, y, lr=lr, dtype=dtype, label_smoothing=settings.label_smoothing,
                                clip=settings.clip)
        if average:
            average.update_parameters(model)
        total, correct = total + loss, correct + hits
        if (step + 1) % LOG_INTERVAL == 0 or step + 1 == steps:
            mean_loss = float(total) / (step + 1)
            bar.set_postfix(loss=f"{mean_loss:.3f}")
            if not math.isfinite(mean_loss):
                return None
    seconds = time.perf_counter() - start
    return {"epoch": epoch + 1, "lr": lr, "train_loss": mean_loss, "train_accuracy": float(correct) / train.images,
            "seconds": seconds, "images_per_second": train.images / seconds}


# ---- checkpoints


def save_checkpoint(path: Path, parts: dict[str, Any], identity: dict[str, Any],
                    history: list[dict[str, float]]) -> None:
    """Write the states of `parts` (whatever has a state_dict), atomically; OSError if the disk is full."""
    state = {name: part.state_dict() for name, part in parts.items()}
    try:
        with atomic_write(path, "wb") as file:
            torch.save({"format": CHECKPOINT_FORMAT, "identity": identity, "history": history, **state}, file)
    except RuntimeError as error:  # how torch tells of a failed write, when it closes its archive
        raise OSError(f"{path}: cannot be written ({error.__context__ or error})") from None


def load_checkpoint(path: Path, identity: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """What `save_checkpoint` wrote, with its tensors on `device`, for `fit` to resume from.

    Raises ValueError with one line if there is no checkpoint, if it is broken, or if it is of another run.
    """
    if not path.exists():
        raise ValueError(f"resume: there is no checkpoint {path}")
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        version, theirs = saved["format"], saved["identity"]
    except (RuntimeError, EOFError, OSError, KeyError, TypeError, pickle.UnpicklingError) as error:
        reason = (str(error) or "it is empty").splitlines()[0]
        raise ValueError(f"{path}: not a whole checkpoint ({reason}); delete it to start anew") from None
    if version != CHECKPOINT_FORMAT:
        raise ValueError(f"{path}: format {version}, this version reads {CHECKPOINT_FORMAT}; delete it to start anew")
    for key in sorted(identity.keys() | theirs.keys()):
        if identity.get(key) != theirs.get(key):
            raise ValueError(f"{path}: its run had {key} = {theirs.get(key)!r}, this one has {identity.get(key)!r}; "
                             f"a run goes on with the settings it began with")
    return saved
