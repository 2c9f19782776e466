"""One section, in the process that runs it: case after case, each figure a line at once."""

import argparse
import gc
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import torch

from artifacts.run_folder import commit
from benchmarks.gpu import SECTIONS
from benchmarks.gpu.lines import TOOK, Figure, append
from benchmarks.gpu.processes import AGAIN
from benchmarks.gpu.processor import Cpu, Seconds, processor
from config import run_script
from pictures.dataset import Pictures, load

Value = TypeVar("Value")
ROUNDS = 5
MARGIN = 2.0  # seconds that are left to stop in good order before the process is killed


class Bench:
    """What every case gets: where it runs, at which sizes, on which pictures, and how much time is left."""

    def __init__(self, on: Cpu, sizes: str, data: str, data_dir: str, seconds: float, folder: Path) -> None:
        """folder: for what a case writes; it vanishes afterwards."""
        self.on, self.device, self.sizes, self.folder = on, on.device, sizes, folder
        self.data, self.data_dir = there(data_dir) if data == "there" else data, data_dir
        self.ends = time.monotonic() + seconds - MARGIN

    def left(self) -> float:
        return self.ends - time.monotonic()

    def of(self, full: Value, tiny: Value) -> Value:
        """By the sizes that were asked for."""
        return full if self.sizes == "full" else tiny

    def timed(self, call: Callable[[], object], times: int, warm: int = 1) -> Seconds:
        """Rounds of `times` calls, after `warm` that do not count."""
        rounds, times, warm = self.of((ROUNDS, times, warm), (1, 1, 1))
        self.on.seconds(call, warm)
        return Seconds(self.on.seconds(call, times) / times for _ in range(rounds))

    @cached_property
    def pictures(self) -> Pictures:
        return load(self.data, self.data_dir)


Case = Callable[[Bench], Iterator[Figure]]


def there(data_dir: str) -> str:
    """The CIFAR-10 that needs no download, else digits."""
    folder = Path(data_dir)
    if any((folder / name).exists() for name in ("cache/cifar10", "cifar-10-batches-py", "cifar-10-python.tar.gz")):
        return "cifar10"
    return str(folder / "cifar10-jpeg") if (folder / "cifar10-jpeg").is_dir() else "digits"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--after", default="", help="begin with the case after this one")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", required=True, help="its name")
    for name in ("device", "sizes", "data", "data-dir", "commit"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args(argv)
    return run_script(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    began = time.monotonic()
    if args.device == "cpu":
        torch.compiler.set_stance("force_eager")  # its compiler is slow, and not what is asked for
    on, known = processor(args.device), cases(args.section, args.sizes)
    names = list(known)[list(known).index(args.after) + 1 if args.after else 0 :]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(on, args.sizes, args.data, args.data_dir, args.seconds, Path(folder))
        for name in names:
            tell = partial(keep, args.out / "results.jsonl", {
                "run": args.run, "section": args.section, "case": name, **environment(on, args.commit)})
            if not run_case(name, known[name], bench, tell):
                return AGAIN
    print(f"{args.section} done in {time.monotonic() - began:.1f} s")
    return 0


def cases(section: str, sizes: str) -> dict[str, Case]:
    """By name, in their order. A module may name in TINY those that are enough to have run every line of it."""
    modules = [import_module(f"benchmarks.gpu.{name}") for name in SECTIONS[section].modules]
    return {name: case for module in modules for name, case in module.CASES.items()
            if sizes == "full" or name in getattr(module, "TINY", module.CASES)}


def run_case(name: str, case: Case, bench: Bench, tell: Callable[[Figure], None]) -> bool:
    """Whether the process is good for another one."""
    if bench.left() <= 0:
        tell(Figure("not run", None, note="no time was left"))
        return True
    print(f"case {name}")
    began = time.monotonic()
    try:
        for figure in case(bench):
            tell(figure)
        bench.on.wait()
    except Exception as error:
        traceback.print_exc()
        tell(Figure("failed", None, ok=False, note=f"{type(error).__name__}: {one_line(error)}"))
    tell(Figure(TOOK, time.monotonic() - began, "s"))
    gc.collect()
    return bench.on.works()


def one_line(error: Exception) -> str:
    """A CUDA error is told in many."""
    return (str(error).strip().splitlines() or [""])[0]


def keep(path: Path, where: dict[str, str], figure: Figure) -> None:
    line = figure.line(**where)
    append(path, line)
    print({key: line[key] for key in ("name", "value", "unit", "settings", "ok", "note")}, flush=True)


def environment(on: Cpu, of_code: str) -> dict[str, str]:
    return {"device": on.name, "torch": torch.__version__, "cuda": torch.version.cuda or "",
            "cudnn": str(torch.backends.cudnn.version() or ""), "python": platform.python_version(),
            "commit": of_code or commit(), "load": f"{os.getloadavg()[0]:.1f}"}


if __name__ == "__main__":
    sys.exit(main())
