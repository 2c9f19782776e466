"""The training step alone in three forms: fp32 NCHW, fp32 channels_last, bf16 channels_last.

The evidence for the rule in training.hardware.pick_dtype. The batch is random and stays the same, so that nothing but
the network, its backward pass and the optimizer is measured; the forms take turns of --steps steps.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import at_least, environment, parser, publish, save, spread, take_turns
from config import run_script
from models import MODELS, build_model
from pictures import SIDE
from training.hardware import pick_device, pick_dtype
from training.loop import build_optimizer, set_seed, train_step

CLASSES = 10
FORMS = {  # memory format, type that autocast computes in
    "fp32 NCHW": (torch.contiguous_format, torch.float32),
    "fp32 channels_last": (torch.channels_last, torch.float32),
    "bf16 channels_last": (torch.channels_last, torch.bfloat16),
}


def main(argv: list[str] | None = None) -> int:
    options = parser(__doc__, rounds=3, data=False)
    options.add_argument("--models", nargs="+", default=["all"], choices=[*MODELS, "all"])
    options.add_argument("--batch-size", type=at_least(2), default=64)
    options.add_argument("--steps", type=at_least(1), default=3, help="steps a measurement")
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    args = options.parse_args(argv)
    return run_script(lambda: run(args))


def run(args) -> None:
    device = pick_device(args.device)
    where, speeds, chosen = environment(device), {}, {}
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(args.batch_size, 3, SIDE, SIDE, generator=generator).to(device)
    y = torch.randint(CLASSES, (args.batch_size,), generator=generator).to(device)
    for name in list(MODELS) if "all" in args.models else args.models:
        sides = {form: train(name, x, y, args.steps, *parts) for form, parts in FORMS.items()}
        speeds[name] = take_turns(sides, args.rounds, device)
        chosen[name] = str(pick_dtype("auto", device, build_model(name, CLASSES))).removeprefix("torch.")
        print(f"{name} done", file=sys.stderr, flush=True)

    rows = [{"network": name, **{form: spread(values) for form, values in forms.items()}, "pick_dtype": chosen[name]}
            for name, forms in speeds.items()]
    publish("Training step by precision and memory format, images/s", rows, where,
            f"Median (smallest to largest) of {args.rounds} rounds of {args.steps} steps, batch "
            f"{args.batch_size}; Adam.")
    save(args.out, args, where, images_per_second=speeds, pick_dtype=chosen)


def train(name: str, x: Tensor, y: Tensor, steps: int, memory: torch.memory_format,
          dtype: torch.dtype) -> Callable[[], int]:
    """A side of the comparison: some steps on one batch, and how many images that makes."""
    set_seed(0)
    model = build_model(name, CLASSES).to(x.device, memory_format=memory).train()
    optimizer = build_optimizer(model, "Adam", 0.001, weight_decay=0.0, momentum=0.0)
    x = x.contiguous(memory_format=memory)

    def some_steps() -> int:
        for _ in range(steps):
            train_step(model, optimizer, x, y, lr=0.001, dtype=dtype, label_smoothing=0.0, clip=0.0)
        return steps * len(x)

    return some_steps


if __name__ == "__main__":
    sys.exit(main())
