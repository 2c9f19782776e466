"""A section in a process of its own: killed at its time limit; after a crash the next case begins in a new one."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu.lines import Figure, append

ROOT = Path(__file__).parents[2]
MISTAKE = 2  # exit code of config.run_script, for a user's
AGAIN = 3  # exit code: a case failed and its process has told so, but cannot go on
WORTHWHILE = 10.0  # seconds: a process that imports torch and makes ready would not measure anything in less


class Death(NamedTuple):
    """Of a section's process, in the middle of `case`; before the first one if that is empty."""

    case: str
    why: str


def run_section(name: str, seconds: float, options: Sequence[str], out: Path, run: str) -> None:
    """All cases of a section, within `seconds`; figures and failures go to results.jsonl in `out`, with the name of
    the run. ValueError for a user's mistake, which only the section could see."""
    tell = partial(keep, out / "results.jsonl", run, name)
    ends, after = time.monotonic() + seconds, ""
    while (left := ends - time.monotonic()) > WORTHWHILE:
        command = [sys.executable, "-u", "-m", "benchmarks.gpu.section", name, "--seconds", f"{left:.1f}",
                   "--after", after, "--out", str(out), "--run", run, *options]
        code, printed = one_process(command, left, out / "log.txt")
        case, why = death(code, printed)
        if code is None:
            why = f"time limit of {seconds:.0f} s, in this case; those after it were not run"
            tell(case, Figure("not finished", None, note=why))
        elif code == MISTAKE:
            raise ValueError(why.removeprefix("error: "))
        elif code not in (0, AGAIN):
            tell(case, Figure("failed", None, ok=False, note=why))
        if code in (0, None) or not case:
            return
        after = case
    tell(after, Figure("not run", None, note=f"what comes after this did not fit into {seconds:.0f} s"))


def keep(path: Path, run: str, section: str, case: str, figure: Figure) -> None:
    append(path, figure.line(run=run, section=section, case=case or "start"))


def one_process(command: Sequence[str], seconds: float, log_path: Path) -> tuple[int | None, str]:
    """Run a section's process, and all that it starts, to its end; exit code, None at the time limit, and output."""
    with log_path.open("a+b") as log:
        began = log.seek(0, os.SEEK_END)
        search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                   env={**os.environ, "PYTHONPATH": search})
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(began)
        return code, log.read().decode(errors="replace")


def death(code: int | None, printed: str) -> Death:
    """The case under way, and the last line, of what a process printed."""
    cases = re.findall(r"^case (\w+)$", printed, re.MULTILINE)
    last = next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "")
    return Death(cases[-1] if cases else "", f"{signal.Signals(-code).name}: {last}" if code and code < 0 else last)
