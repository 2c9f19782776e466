"""From the settings of pipeline.py to its stages, in order; every mistake is told before one of them begins."""

import dataclasses
import os
import textwrap
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from files import read_object
from journey.budgets import CONTROLS, SETTINGS, PipelineConfig, fitted, overrides, stages_of
from journey.data_set import DataSet, assert_splits, changes, known, loaded
from journey.finalists import FOLDERS
from journey.minutes import FILE as MINUTES
from journey.minutes import Amount, Pace, Timetable, measured
from journey.plan import ROOT, Plan
from journey.stages import ExperimentStage, LeaderboardStage, ReportStage
from journey.trainings import RefitStage, RunStage
from pictures.known import DATASETS
from pictures.split import validation_size

AnyStage = ExperimentStage | RunStage | RefitStage | LeaderboardStage | ReportStage
NEEDS = {"hpo_final": ("hpo", "hpo/best.json"), "nas_final": ("classic_nas", "classic_nas/best.json"),
         "retrain": ("darts", f"{FOLDERS['darts']}/genotype.json")}  # a stage, and what it leaves


def plan(config: PipelineConfig, runs: Path) -> tuple[list[AnyStage], Timetable | None]:
    """The stages that are wanted, in order, with their settings; and what fits these to minutes, if any are given."""
    started = time.monotonic()
    given, wanted = overrides(config.set, config.budget), config.stages or stages_of(config.budget)
    config = dataclasses.replace(config, data_dir=place(config.data_dir),
                                 data=config.data if config.data in DATASETS else place(config.data))
    data = known(config) if config.dry_run and config.data in DATASETS else loaded(config)
    print(textwrap.indent(data.lines, "# " * config.dry_run), flush=True)
    after_hpo = "hpo" in wanted or (runs / "hpo/best.json").exists()
    shared = Plan(runs, config.data, config.data_dir, config.budget, config.seed, data.checksum, len(data.classes),
                  data.images, after_hpo, changes(config), data.side,
                  0 if data.given_val else validation_size(data.images, len(data.classes)))
    refit = config.refit and not data.given_val
    for name, (before, file) in NEEDS.items():
        if name in wanted and before not in wanted and not (runs / file).exists():
            raise ValueError(f"stages = {name}: needs the {Path(file).name} of {before}, which is not there yet; add "
                             f"{before}")
    balance = {"balance": True} if config.balance else {}
    tables = {name: {**balance, **fitted(config.budget, name, data.images, len(data.classes), data.given_val),
                     **given.get(CONTROLS.get(name, ""), {}), **given[name]}
              for name in SETTINGS if name in stages_of(config.budget)}
    timetable = None
    if config.minutes:
        asked = {name: table for name, table in tables.items() if name in wanted}
        timetable = timed(config, shared, data, asked, given, started)
        tables |= {name: timetable.planned(name) for name in timetable.stages}
        wanted = [*timetable.stages, *(name for name in wanted if name not in tables)]
    elif (runs / MINUTES).exists():
        raise ValueError(f"minutes: {runs} was begun with some; give them again, or another --runs-dir")
    found: list[AnyStage] = [(ExperimentStage if name in ("hpo", "classic_nas") else RunStage)(name, shared, table)
                             for name, table in tables.items() if name in wanted]
    for stage in found:
        stage.config()  # every mistake in a setting is told before anything starts
    assert_splits(data, [stage.training() for stage in found])
    if config.refit and data.given_val:
        print("no refit: the validation pictures are given, and never trained on", flush=True)
    return [*found, *ends(shared, wanted, tables, refit)], timetable


def timed(config: PipelineConfig, shared: Plan, data: DataSet, tables: dict[str, dict[str, Any]],
          given: dict[str, dict[str, Any]], started: float) -> Timetable:
    """What fits `tables` to the minutes, by the speed of this machine; says what there is no time for."""
    prefix, kept = "# " * config.dry_run, (read_object(shared.runs / MINUTES) or {}).get("pace")
    if not kept:
        print(f"{prefix}measuring this machine", flush=True)
    pace = Pace(**kept) if kept else measured(len(data.classes), data.side, tables, config.budget == "demo")
    held_out = data.given_val or shared.held_out
    amount = Amount(data.images - shared.held_out, held_out, data.test, len(data.classes))
    timetable = Timetable(shared.runs, config.minutes, pace, amount, tables, given, config.refit and not data.given_val,
                          spent=time.monotonic() - started)
    told = "; ".join(filter(None, [", ".join(timetable.stages), timetable.left_out]))
    print(f"{prefix}{config.minutes:g} minutes: {told}", flush=True)
    return timetable


def ends(plan: Plan, wanted: Collection[str], tables: dict[str, dict[str, Any]], refit: bool) -> list[AnyStage]:
    """What follows the trainings, whose settings are `tables`."""
    choice = [LeaderboardStage(plan, tested=False), RefitStage(plan, tables)] if refit else []
    board = [*choice, LeaderboardStage(plan)] if "leaderboard" in wanted else []
    return [*board, *([ReportStage(plan)] if "report" in wanted else [])]


def place(path: str) -> str:
    """A path as the scripts must be given it, which run in the root of the project."""
    return path if Path.cwd() == ROOT else os.path.abspath(path)
