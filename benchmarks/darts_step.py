"""DARTS: a step of the search and one of the retrain, plain against ours, and the memory of a search step.

Plain, as the public implementations of DARTS do it: fp32, NCHW, each operation of each edge by itself, PyTorch's own
gradients, and in both halves of a search step those of weights and alphas alike. The networks and their first weights
are the same. Ours computes in what `--precision auto` takes on this machine: the search in fp32, the retrain in bf16
where that is faster. First order; a search step is one of the alphas and one of the weights; random images. Each side
has a process of its own, since `prepare` is for a whole process.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measure import InProcess, at_least, environment, parser, publish, ratio, save, spread, take_turns
from benchmarks.memory import in_fresh_process
from config import run_script
from models.darts.genotype_files import load_genotype
from models.darts.network import DartsNetwork
from models.darts.supernet import Supernet
from training.bilevel import Batch, architecture_step, first_order, weight_step
from training.hardware import pick_device, pick_dtype, prepare
from training.loop import set_seed

LR, MOMENTUM, DECAY, CLIP = 0.025, 0.9, 3e-4, 5.0
AUXILIARY, DROP_PATH = 0.4, 0.2
SEARCH, RETRAIN = "search step", "retrain step"


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, rounds=3, data=False)
    options.add_argument("--only", choices=("search", "retrain", "memory"), help="one of the three measurements")
    options.add_argument("--steps", type=at_least(1), default=3, help="steps a turn")
    options.add_argument("--search", nargs=3, type=at_least(2), default=[64, 16, 8], metavar=("BATCH", "C", "LAYERS"))
    options.add_argument("--retrain", nargs=3, type=at_least(2), default=[96, 36, 20], metavar=("BATCH", "C", "LAYERS"))
    options.add_argument("--genotype", default="DARTS_V2")
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    args = options.parse_args(argv)
    return run_script(lambda: run(args))


def run(args) -> None:
    device = pick_device(args.device)
    where, speeds, memory = environment(device), {}, {}
    if args.only in (None, "search"):
        speeds[SEARCH] = take_turns(search_sides(args.steps, *args.search, device), args.rounds, device)
    if args.only in (None, "retrain"):
        sides = retrain_sides(args.steps, args.genotype, *args.retrain, device)
        speeds[RETRAIN] = take_turns(sides, args.rounds, device)
    if speeds:
        sizes = {SEARCH: args.search, RETRAIN: args.retrain}
        publish("DARTS: plain against ours", [row(name, sizes[name][0], of) for name, of in speeds.items()], where,
                f"Seconds a step: median (smallest to largest) of {args.rounds} rounds of {args.steps} steps. "
                + "; ".join(
                    f"{name}: batch {b}, {c} channels, {layers} cells" for name, (b, c, layers) in sizes.items()
                    if name in speeds) + f" (the genotype is {args.genotype}).")
    if args.only in (None, "memory"):
        for name in ("plain", "ours", "ours, recomputing"):
            memory[name] = [in_fresh_process(one_search_step, name, *args.search, device)["growth"]
                            for _ in range(args.rounds)]
        rows = [{"search step": name, "peak MB": spread(found)} for name, found in memory.items()]
        publish("DARTS: memory of a search step on a CPU", rows, where,
                f"Growth of the peak of resident memory over one step, {args.rounds} fresh processes each; batch, "
                f"channels, cells: {args.search}.")
    save(args.out, args, where, images_per_second=speeds, memory_mb=memory)


def row(name: str, batch: int, speeds: dict[str, list[float]]) -> dict[str, str]:
    cells = {f"{side}, seconds": spread([batch / value for value in values]) for side, values in speeds.items()}
    return {"step": name, **cells, "ours is faster by": ratio(speeds, "ours", "plain")}


def images(batch: int, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(batch, 3, 32, 32, generator=generator), torch.randint(10, (batch,), generator=generator)
    return Batch(x.to(device), y.to(device))


def channels_last(batch: Batch) -> Batch:
    return Batch(batch.images.to(memory_format=torch.channels_last), batch.labels)


def plain(model: nn.Module) -> nn.Module:
    """With PyTorch's own convolutions."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.__class__ = nn.Conv2d
    return model


# ---- the search


def search_sides(times: int, *args: Any) -> dict[str, Callable[[], int]]:
    return {side: InProcess(args[-1], times, search_step, side, *args) for side in ("plain", "ours")}


def search_step(side: str, batch: int, channels: int, layers: int, device: torch.device) -> Callable[[], int]:
    train = images(batch, device)
    if side == "plain":
        return plain_search_step(supernet(channels, layers, device, form="plain"), train)
    prepare(device)
    model = supernet(channels, layers, device, recompute="recomputing" in side)
    return our_search_step(model, channels_last(train))


def supernet(channels: int, layers: int, device: torch.device, form: str = "fused",
             recompute: bool = False) -> Supernet:
    set_seed(0)
    model = Supernet(3, channels, 10, layers, form=form, recompute=recompute).to(device)
    return plain(model) if form == "plain" else model.to(memory_format=torch.channels_last)


def optimizers(model: Supernet) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    return (torch.optim.SGD(model.weights(), LR, momentum=MOMENTUM, weight_decay=DECAY),
            torch.optim.Adam(model.alphas(), 3e-4, (0.5, 0.999), weight_decay=1e-3))


def our_search_step(model: Supernet, data: Batch) -> Callable[[], int]:
    weights, alphas = optimizers(model)

    def step() -> int:
        architecture_step(model, alphas, partial(first_order, model, data), decay=0.0)
        weight_step(model, weights, data, CLIP)
        return len(data.images)

    return step


def plain_search_step(model: Supernet, data: Batch) -> Callable[[], int]:
    weights, alphas = optimizers(model)

    def step() -> int:
        for optimizer in (alphas, weights):
            model.zero_grad()
            F.cross_entropy(model(data.images), data.labels).backward()
            if optimizer is weights:
                nn.utils.clip_grad_norm_(model.weights(), CLIP)
            optimizer.step()
        return len(data.images)

    return step


def one_search_step(*args: Any) -> None:
    """In a process of its own."""
    search_step(*args)()


# ---- the retrain


def retrain_sides(times: int, *args: Any) -> dict[str, Callable[[], int]]:
    return {side: InProcess(args[-1], times, retrain_step, side, *args) for side in ("plain", "ours in fp32", "ours")}


def retrain_step(side: str, genotype: str, batch: int, channels: int, layers: int,
                 device: torch.device) -> Callable[[], int]:
    train, model = images(batch, device), discrete(genotype, channels, layers, device)
    if side == "plain":
        return training_step(plain(model), train, torch.float32)
    prepare(device)
    dtype = torch.float32 if "fp32" in side else pick_dtype("auto", device, model)
    return training_step(model.to(memory_format=torch.channels_last), channels_last(train), dtype)


def discrete(genotype: str, channels: int, layers: int, device: torch.device) -> DartsNetwork:
    set_seed(0)
    model = DartsNetwork(load_genotype(genotype), 3, channels, 10, layers, auxiliary=True)
    model.drop_path_probability(DROP_PATH)
    return model.to(device).train()


def training_step(model: DartsNetwork, data: Batch, dtype: torch.dtype) -> Callable[[], int]:
    optimizer, device = torch.optim.SGD(model.parameters(), LR, MOMENTUM, weight_decay=DECAY), data.images.device

    def loss(logits: tuple[Tensor, Tensor]) -> Tensor:
        main, auxiliary = (F.cross_entropy(each.float(), data.labels) for each in logits)
        return main + AUXILIARY * auxiliary

    def step() -> int:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = model(data.images)
        loss(logits).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return len(data.images)

    return step


if __name__ == "__main__":
    sys.exit(main())
