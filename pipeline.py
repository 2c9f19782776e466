"""All stages in order: from pictures to a trained network, and a page that shows how it was found.

    python pipeline.py --data my_pictures                       an evening on a CPU; --budget demo: minutes
    python pipeline.py --data my_pictures --resume              go on after any stop; finished stages are skipped
    python pipeline.py --data cifar10 --budget full --dry-run   the commands, to be read or run one by one; pictures of
                                                                one's own are read and packed for it, broken ones told
    python pipeline.py --data digits --budget demo --stages hpo report --set hpo.epochs=2

hpo and classic_nas run as NNI experiments, by experiment.py, which names the address of the web UI; darts, retrain and
report are darts_search.py, retrain.py and report.py. Each is a process of its own, and files are all that one hands to
the next: stage 1's best.json gives stage 2 its learning rate and optimizer, genotype.json goes to the training, whose
model.pt is the final network. The test pictures are read by the training alone, once, after its last epoch. What the
budgets mean: journey/budgets.py.

Ctrl-C and SIGTERM stop the running stage in order, with all that it has started. Should this process be killed, the
kernel sends SIGTERM to the stage; what outlives even that is found and stopped by the next --resume.

What repeats: with one seed, one version and one number of threads a CPU computes the same, bit by bit, over any stops;
trials too, and the first 20 choices of stage 1. What does not: in a resume NNI asks for the next choice while it still
repeats the interrupted trial, so that later choices, and those of stage 2, are made without its result; the assessor
forgets earlier curves, so it may stop other trials; several trials at once end in any order; a time limit ends an
experiment after as many trials as the machine could do; a GPU, in fp32 and bf16, adds in another order each time.

Exit code 0: all done. 1: a stage failed. 2: a mistake in the command, the data or the installation, and nothing was
started. 129, 130, 143: interrupted by SIGHUP, SIGINT, SIGTERM, and stopped cleanly.
"""

import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from artifacts.figures import accuracy, percent
from config import command_line, merge, run_script, to_copy
from files import atomic_write, read_json, read_object, remove_torn
from guard import preflight
from journey.budgets import PipelineConfig, cores_seconds
from journey.data_set import write_test_pictures
from journey.finalists import BOARD
from journey.minutes import Timetable
from journey.plan import ABSENT, BEGUN, FINISHED, ROOT
from journey.planning import AnyStage, place, plan
from journey.processes import at_work, execute
from journey.stages import ExperimentStage, LeaderboardStage, ReportStage
from journey.trainings import RefitStage, RunStage
from pictures.summary import cautions
from training.progress import duration
from training.stopping import Signals

LOW_DISK = 200e6  # bytes
FOLDED = 80  # columns of a printed command, from where the next option begins a new line


def main(argv: list[str] | None = None) -> int:
    return run_script(lambda: run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    given = command_line(PipelineConfig, argv, __doc__.splitlines()[0])
    config = merge(PipelineConfig, {"refit": given.get("budget") == "full", **given})
    runs = Path(place(config.runs_dir))
    print(f"{'# ' * config.dry_run}looking at the settings, and the pictures of {config.data}", flush=True)
    stages, timetable = plan(config, runs)
    if config.dry_run:
        return show(stages, config.resume)
    assert_new(runs, config.resume)
    with at_work(runs) as lock:
        for stage in stages:
            if isinstance(stage, ExperimentStage):
                stage.stop_leftovers()
        remove_torn(runs)
        if code := check(stages):
            return code
        with Signals() as signals:
            try:
                go_on = again(argv)
                return work(stages, lambda command: execute(command, ROOT, lock, signals, go_on), signals, go_on,
                            timetable)
            except OSError as error:
                print(f"failed: {error}\n{advice(runs, again(argv))}", file=sys.stderr)
                return 1


# ---- what to do


def show(stages: list[AnyStage], resume: bool) -> int:
    print(f"cd {shlex.quote(str(ROOT))}")
    for stage in stages:
        progress = stage.progress() if resume else ABSENT
        print(f"\n# {stage.name}" + (": finished, would be skipped" if progress == FINISHED else ""))
        if isinstance(stage, RefitStage) and not (stage.plan.runs / BOARD).exists():
            print("# the training of the winner once more, on all pictures: which one, the choice before tells")
        elif progress != FINISHED:
            print(folded(stage.command(progress == BEGUN)))
    return 0


def folded(command: list[str]) -> str:
    """For a shell, in lines that are short as far as an option with its value is."""
    lines = [""]
    for word in map(shlex.quote, command):
        option = word.startswith(("--", "'--"))
        if option and len(lines[-1]) + len(word) > FOLDED:
            lines.append("   ")
        lines[-1] += f" {word}"
    return " \\\n".join(lines).lstrip()


def assert_new(runs: Path, resume: bool) -> None:
    made = [name for name in ("hpo", "classic_nas", "darts_search", "retrain", BOARD, "report.html")
            if (runs / name).exists()]
    if made and not resume:
        raise ValueError(f"runs_dir = {str(runs)!r}: holds results already ({', '.join(made)}); --resume goes on with "
                         "them, another --runs-dir begins anew")


def check(stages: list[AnyStage]) -> int:
    """What can be known before the start: results that do not belong here (ValueError), traps of NNI (exit code 2)."""
    waiting = [stage for stage in stages if stage.progress() != FINISHED and isinstance(stage, ExperimentStage)]
    for stage in waiting:
        findings = preflight.check(stage.before_start(), port=None)
        problems = [finding for finding in findings if finding.problem]
        if problems:
            print(f"{stage.name}:\n{preflight.render(problems)}", file=sys.stderr)
            return 2
    return 0


def again(argv: list[str]) -> str:
    """The command that goes on with this run."""
    options = [word for word in argv if word != "--resume"]
    return to_copy("pipeline.py", *options, "--resume")


# ---- doing it


def work(stages: list[AnyStage], do: Callable[[list[str]], int], signals: Signals, resume: str,
         timetable: Timetable | None = None) -> int:
    """Run every stage that is not finished; returns the exit code."""
    started, taken = time.monotonic(), {}
    for stage in stages:
        if timetable:
            timetable.set(stage)
        begun, progress = time.monotonic(), stage.progress()
        if progress == FINISHED:
            print(f"== {stage.name}: finished before, skipped ({stage.outcome()})", flush=True)
            taken[stage.name] = stage.seconds()
            continue
        command = stage.command(progress == BEGUN)
        time_left = timetable.left(stage.name) if timetable else left(stages, taken)
        print(f"== {stage.name}{' goes on' if progress == BEGUN else ''}{time_left}\n{folded(command)}", flush=True)
        code = do(command)
        if signals.received:
            print(f"interrupted, everything is stopped; go on with: {resume}", file=sys.stderr)
            return 128 + signals.received
        if stage.progress() != FINISHED or (code and not (isinstance(stage, RunStage) and stage.diverged())):
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            print(f"failed: {stage.name} {how}; its message is above. {advice(stage.plan.runs, resume)}",
                  file=sys.stderr)
            return 1
        taken[stage.name] = time.monotonic() - begun
        if timetable:
            timetable.ended(stage, taken[stage.name])
        print(f"== {stage.name} took {duration(taken[stage.name])}: {stage.outcome()}", flush=True)
        if stage.name == "baseline" and stage.model() and len(stages) > len(taken) + 1:
            first(stage, stages, do)
    finish(stages, time.monotonic() - started)
    if timetable:
        print(f"time:        {timetable.spent / 60:.1f} minutes of {timetable.minutes:g}")
    return 0


def left(stages: list[AnyStage], taken: dict[str, float | None]) -> str:
    """An estimate of the time left, from what the stages so far have taken."""
    guess = {stage.name: cores_seconds(stage.plan.budget, stage.name, getattr(stage, "given", {}), stage.plan.images)
             for stage in stages}
    known = {name: seconds for name, seconds in taken.items() if seconds}
    rest = sum(seconds for name, seconds in guess.items() if name not in taken)
    if not known:
        return f", about {duration(rest)} in all on 2 CPU cores (rough estimate)"
    return f", about {duration(rest * sum(known.values()) / sum(guess[name] for name in known))} left (estimate)"


def advice(runs: Path, resume: str) -> str:
    """What to do about a failure."""
    free = shutil.disk_usage(runs).free
    cure = f"The disk of {runs} has only {free / 1e6:.0f} MB left: make room" if free < LOW_DISK else "Mend it"
    return f"{cure}, then go on with: {resume}"


# ---- the end


def first(baseline: AnyStage, stages: list[AnyStage], do: Callable[[list[str]], int]) -> None:
    """The baseline as model.pt, and a page about it, while the searches run."""
    print("a first network, until the leaderboard has chosen:")
    export(baseline.model(), baseline.plan.runs)
    for stage in stages:
        if isinstance(stage, ReportStage):
            do(stage.command())


def finish(stages: list[AnyStage], seconds: float) -> None:
    """Tell what there is; without a leaderboard the last network that was trained becomes model.pt."""
    runs, plan = stages[0].plan.runs, stages[0].plan
    print(f"\n== done in {duration(seconds)}")
    for stage in stages:
        if stage.name in ("hpo", "classic_nas"):
            print(f"{stage.name + ':':12} {stage.outcome()}")
    model = next((stage.model() for stage in reversed(stages) if stage.model()), None)
    if any(isinstance(stage, LeaderboardStage) for stage in stages):
        headline(runs)
    elif model:
        export(model, runs)
    if (page := runs / "report.html").exists():
        print(f"report:      {page}")
    if model:
        table = runs / "test_pictures.csv"
        tested = write_test_pictures({"data": plan.data, "data_dir": plan.data_dir, **plan.data_set}, table)
        words = ["--model", str(runs / "model.pt")]
        print(f"try:         {to_copy('predict.py', *words, '--images', str(table) if tested else 'FOLDER')}")
        print(f"export:      {to_copy('predict.py', *words, '--export', 'onnx')}")


def headline(runs: Path) -> None:
    """The winner of the leaderboard."""
    board = read_json(runs / BOARD)
    best, test = board["rows"][0], board["exported"]["test"]
    print(f"network:     {best['network']}, {best['parameters']:,} parameters: {board['chosen']}")
    print(f"test:        {accuracy(test['accuracy'], test['images'])}")
    caution(read_object(runs / board["exported"]["folder"] / "result.json") or {})
    print(f"leaderboard: {runs / 'leaderboard.csv'}")
    print(f"model:       {runs / 'model.pt'}, described in {runs / 'MODEL_CARD.md'}")


def export(model: Path, runs: Path) -> None:
    """model.pt and MODEL_CARD.md in the folder of all results; the headline."""
    import torch

    from artifacts.model_card import title, write_model_card
    from artifacts.model_file import load_model

    trained = load_model(model, torch.device("cpu"))
    with atomic_write(runs / "model.pt", "wb") as file, open(model, "rb") as source:
        shutil.copyfileobj(source, file)
    card = write_model_card(runs, trained, model.parent)
    result = read_json(model.parent / "result.json")
    test, data = result.get("test") or {}, result.get("data") or {}
    print(f"network:     {title(trained.network)}, {result['parameters']:,} parameters")
    if test:
        print(f"test:        {accuracy(test['accuracy'], test.get('images'))}")
    else:
        print(f"accuracy:    {percent(result['value'], data.get('val_images'))} {result['metric']}, the test pictures "
              "were not read")
    caution(result)
    print(f"model:       {runs / 'model.pt'}, described in {card}")


def caution(result: Mapping[str, Any]) -> None:
    """Why its accuracies may say too much."""
    for line in cautions(result.get("data") or {}):
        print(f"caution:     {line}")


if __name__ == "__main__":
    sys.exit(main())
