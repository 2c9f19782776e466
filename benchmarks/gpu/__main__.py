"""The command; see the package's docstring."""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.gpu import SECTIONS
from benchmarks.gpu.lines import cell, read, write_table
from benchmarks.gpu.processes import run_section
from config import run_script


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu", allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        description="What this machine's GPU does with the project: right or wrong, and how fast.")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything; each section gets its share")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION",
                        help="; ".join(f"{name}: {section.about}" for name, section in SECTIONS.items()))
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder; a section's last run counts")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", choices=("full", "tiny"), default="full", help="tiny: to see that everything runs")
    parser.add_argument("--data", default="there", help="cifar10, digits, a folder of pictures, or there: the CIFAR-10 "
                        "that is in data-dir, else digits")
    parser.add_argument("--commit", default="", help="of the code, where git cannot tell it")
    parser.add_argument("--data-dir", default=".data", help="folder of the packed cache")
    args = parser.parse_args(argv)
    return run_script(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """1 if a check or a case failed, in this run or in one before it in the same folder."""
    if args.minutes <= 0:
        raise ValueError(f"minutes = {args.minutes}: must be above 0")
    args.out.mkdir(parents=True, exist_ok=True)
    options = [word for key in ("device", "sizes", "data", "data_dir", "commit")
               for word in (f"--{key.replace('_', '-')}", getattr(args, key))]
    begun, ends = time.strftime("%Y-%m-%dT%H:%M:%S"), time.monotonic() + 60 * args.minutes
    chosen = [name for name in SECTIONS if name in args.only]
    for number, name in enumerate(chosen):
        began = time.monotonic()
        seconds = share(ends - began, chosen[number:])
        run_section(name, seconds, options, args.out, begun)
        print(f"{name}: {time.monotonic() - began:.0f} of {seconds:.0f} s", flush=True)
    lines = read(args.out / "results.jsonl")
    print(write_table(args.out / "table.md", lines))
    return summary(lines)


def summary(lines: list[dict]) -> int:
    """What is wrong or missing, last, where it is seen; the exit code."""
    failures = [line for line in lines if line["ok"] is False]
    for verdict, of in (("NOT MEASURED", [line for line in lines if line["value"] is None and line["ok"] is None]),
                        ("FAIL", failures)):
        for line in of:
            print(f"{verdict}: {line['section']} {line['case']} {line['settings'] or ''} {cell(line)}")
    print(f"{len(lines)} figures, {len(failures)} failures")
    return 1 if failures else 0


def share(left: float, names: list[str]) -> float:
    """Seconds for the first of the sections that are left."""
    return left * SECTIONS[names[0]].share / sum(SECTIONS[name].share for name in names)


if __name__ == "__main__":
    sys.exit(main())
