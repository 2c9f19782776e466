"""The end of an experiment: what people are told, and the files that the next stage and the report take."""

import sys
from pathlib import Path

from files import read_object
from guard import results_view
from guard.results import Results

NAS_STAGE, PICTURES = "classic_nas", ("accuracy_parameters.png", "best.png")  # of the trials, of the best network


def hand_on(state: Results, folder: Path, csv_file: Path | None, more_problems: list[str],
            finished: bool) -> int:
    """Show results and write what the next stage and the report take; 0 if there is nothing wrong."""
    if state.trials:
        print(f"\n{results_view.table(state)}\n")
    print(results_view.summary(state))
    csv_file = csv_file or folder / "results.csv"
    results_view.write_csv(state, csv_file)
    best = results_view.write_best(state, folder / "best.json", finished)
    print(f"wrote {csv_file}" + (f" and {folder / 'best.json'}" if best else "; no best.json"), flush=True)
    draw(state, folder)
    problems = [*state.problems(), *more_problems]
    for line in problems:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if problems else 0


def draw(state: Results, folder: Path) -> None:
    """The pictures of stage 2, known by what its best trial says in result.json; older ones never stay."""
    for name in PICTURES:
        (folder / name).unlink(missing_ok=True)
    if state.best is None or (read_object(state.best.folder / "result.json") or {}).get("stage") != NAS_STAGE:
        return
    from reporting import nas_plots  # and with it torch and matplotlib, which nothing else here needs

    try:
        nas_plots.write(state, *(folder / name for name in PICTURES))
        print("wrote " + " and ".join(str(folder / name) for name in PICTURES), flush=True)
    except ValueError as error:
        print(f"note: no pictures: {error}", flush=True)
