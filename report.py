"""One page with all results: what was found, how good it is, where every figure comes from.

    python report.py                          runs/report.html, and runs/report.md with its pictures beside it
    python report.py --runs RUNS --out FILE.html

Shows whatever there is, also in the middle of a run: experiments of NNI, DARTS searches, trainings, the final test.
The page is one file that needs no network. Results of different data sets or versions are kept apart; what is broken is
listed, and what was not run offered. Predictions on the test pictures are computed once for each model.pt whose run, or
leaderboard, has read the test set, and kept beside it.
"""

import sys
import time
from pathlib import Path

from artifacts.figures import counted
from config import ReportConfig, command_line, merge, run_script
from files import atomic_write


def main(argv: list[str] | None = None) -> int:
    return run_script(lambda: run(argv))


def run(argv: list[str] | None) -> None:
    config = merge(ReportConfig, command_line(ReportConfig, argv, __doc__.splitlines()[0]))
    folder = Path(config.runs)
    out = Path(config.out or folder / "report.html")
    if out.suffix != ".html":
        raise ValueError(f"out = {config.out!r}: must end in .html")
    if not folder.is_dir():
        raise ValueError(f"runs = {config.runs!r}: no such folder")

    print(f"reading {folder}", flush=True)
    from reporting import markdown, web_page
    from reporting.blocks import Text
    from reporting.findings import find
    from reporting.sections import COMMANDS, page_title, report_blocks, stage_count

    findings = find(folder)
    if not findings.groups:
        broken = f" ({'; '.join(findings.problems[:3])})" if findings.problems else ""
        raise ValueError(f"runs = {config.runs!r}: no results here{broken}; these make some: " + "; ".join(
            COMMANDS.values()))
    blocks = report_blocks(findings, config.predict, config.device)
    title = page_title(findings)
    blocks.append(Text(f"Written on {time.strftime('%d %B %Y, %H:%M')}.", "note"))
    with atomic_write(out) as file:
        file.write(web_page.page(title, blocks))
    markdown.write(title, blocks, out.with_suffix(".md"), out.with_name(f"{out.stem}_pictures"))
    experiments, runs = stage_count(findings)
    counts = ((experiments, "experiment"), (runs, "run"), (len(findings.problems), "problem"))
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB) and {out.with_suffix('.md')}: "
          + ", ".join(counted(*one) for one in counts))


if __name__ == "__main__":
    sys.exit(main())
