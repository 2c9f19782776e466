"""An experiment by Ray Tune, on this machine or on all of a Ray: the file, tuners, assessors, trials and results of
NNI's engine, with what NNI does not have: other machines that may be lost, and processes that stay warm.

    python experiment.py run config_hpo.yml --engine ray                            here
    python experiment.py run config_hpo.yml --engine ray --address 10.0.0.1:6379    on all machines of that Ray
    python experiment.py resume runs/hpo                                            after any stop

The folder of results holds the record (record.py), each trial's folder, and must be seen by all machines.
"""

import contextlib
import importlib
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import checks, node
from cluster.record import LINES, SETTINGS, Entry, Record, read_settings, write_settings
from guard import algorithms, collected, preflight
from guard.launch import StartFailed
from guard.results import Results
from guard.results_view import parameters_text
from guard.search_space import read_space
from training.stopping import Signals

LOSSES = 3  # machines or processes that a trial may lose
SHOWN = 100  # characters of the parameters in a trial's line
TUNER, SCRATCH = "tuner", ".ray"  # folders: what the tuner keeps, and what Tune does


def begin(config: dict[str, Any], folder: Path, address: str | None) -> list[preflight.Finding]:
    """Make the folder of a new experiment, unless there are problems; ValueError if it cannot be one."""
    node.assert_installed()
    if address:
        node.assert_answers(address)
        node.use_token()
    if problems := [finding for finding in checks.check(config) if finding.problem]:
        return problems
    if (folder / LINES).exists():
        raise ValueError(f"{folder}: holds an experiment; `experiment.py resume {folder}` goes on with it, "
                         "--out FOLDER begins another one")
    collected.assert_not_of_nni(folder)
    write_settings(folder, config)
    return []


def load(folder: Path) -> Results:
    """The results of an experiment by now, running or not."""
    config, record = read_settings(folder), Record(folder)
    return record.results(config, read_space(config), "RUNNING" if record.is_written() else "INTERRUPTED")


def run(folder: Path, address: str | None, new: bool = False) -> tuple[Results, str, int | None]:
    """Begin or go on with the experiment in `folder`, to its end or until a signal arrives.

    address: HOST:PORT of a Ray that this machine is a part of; none: one of our own, which ends with us.
    Its results, what went wrong with all of it, and the signal; ValueError before any trial if Ray cannot be used, and
    then a `new` one leaves nothing.
    """
    node.assert_installed()
    if address:
        node.assert_answers(address)
        node.use_token()
    folder = folder.resolve()
    config = read_settings(folder)
    space = read_space(config)
    record = Record(folder)
    record.claim()
    try:
        if not record.unfinished and not _may_begin(config, record):
            return record.results(config, space), "", None
        ray = node.joined(address) if address else node.own(folder)
        with Signals() as early, ray, Signals() as late:  # anew, since Ray has taken them over
            failure = _tune(config, space, record, lambda: bool(early.received or late.received))
        return record.results(config, space), failure, early.received or late.received
    except SystemExit as stop:  # by Ray's handler of SIGTERM, which is in place while Ray starts
        return record.results(config, space), "", int(stop.code)
    except (ValueError, StartFailed):
        if new and not record.entries:
            for name in (SETTINGS, LINES):
                (folder / name).unlink()
            shutil.rmtree(folder / TUNER, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    finally:
        record.release()


def _may_begin(config: dict[str, Any], record: Record) -> bool:
    """Whether maxTrialNumber and maxExperimentDuration let another trial begin."""
    from nni.experiment.config.utils import parse_time

    limit, seconds = config.get("maxTrialNumber"), config.get("maxExperimentDuration")
    return (limit is None or len(record.entries) < limit) and (seconds is None or record.clock < parse_time(seconds))


def _tune(config: dict[str, Any], space: dict[str, Any], record: Record, stopped: Callable[[], bool]) -> str:
    from nni.experiment.config.utils import parse_time
    from ray import tune

    from cluster import search, trial

    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stdout)
    for name, level in (("nas", logging.INFO), ("nni", logging.ERROR), ("ray.tune", logging.CRITICAL)):
        logging.getLogger(name).setLevel(level)
    share = checks.share_of(config, *_machines(record.folder, checks.command_of(config)[0]))
    script, argv = checks.command_of(config)
    code = str(Path(config["trainingService"].get("trialCodeDirectory") or config["trialCodeDirectory"]))

    def config_of(entry: Entry) -> dict[str, Any]:
        (record.folder / entry.name).mkdir(exist_ok=True)
        return {"folder": str(record.folder / entry.name), "parameters": entry.parameters, "script": str(script),
                "argv": argv, "code": code}

    def tell(entry: Entry) -> None:
        figure = "" if entry.value is None else f" {entry.value:.5g}"
        print(f"{entry.name}  {entry.state}{figure}  {parameters_text(entry.parameters)[:SHOWN]}"
              + (f"  {entry.note}" if entry.note else ""), flush=True)

    proposals = search.Proposals(_tuner(config, space, record), record, config_of, lambda: _may_begin(config, record),
                                 stopped, tell)
    assessor = search.Assessment(_made("assessor", config), record) if config.get("assessor") else None
    scratch = record.folder / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        tune.Tuner(
            tune.with_resources(trial.Process, share),
            tune_config=tune.TuneConfig(search_alg=proposals, scheduler=assessor, num_samples=-1, reuse_actors=True,
                                        max_concurrent_trials=config["trialConcurrency"]),
            run_config=tune.RunConfig(
                name="tune", storage_path=str(scratch), verbose=0, stop=search.Stop(
                    parse_time(config.get("maxTrialDuration") or 0), stopped),
                failure_config=tune.FailureConfig(max_failures=LOSSES)),
        ).fit()
    except tune.TuneError as error:
        return "Ray Tune: " + " ".join(str(error).split())[-300:]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return f"tuner: {type(proposals.failure).__name__}: {proposals.failure}" if proposals.failure else ""


def _tuner(config: dict[str, Any], space: dict[str, Any], record: Record) -> Any:
    """The tuner, told of what has ended as NNI tells it when it resumes an experiment."""
    place = record.folder / TUNER
    place.mkdir(exist_ok=True)
    os.environ["NNI_CHECKPOINT_DIRECTORY"] = str(place)  # where tuners look for what they kept
    tuner = _made("tuner", config)
    if record.entries:
        tuner.load_checkpoint()
    try:
        tuner.update_search_space(space)
        if known := [{"parameter": entry.parameters, "value": entry.value}
                     for entry in record.ended if entry.value is not None]:
            tuner.import_data(known)
    except ValueError as error:
        raise ValueError(f"tuner: {error}") from None
    return tuner


def _made(kind: str, config: dict[str, Any]) -> Any:
    """The tuner or assessor, as NNI's dispatcher makes it."""
    spec = config[kind]
    if not spec.get("className"):
        return algorithms.builtin(kind, config)
    if spec["codeDirectory"] not in sys.path:
        sys.path.append(spec["codeDirectory"])
    module, _, name = spec["className"].rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)(**spec.get("classArgs") or {})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{kind} {spec['className']}: {error}") from None


def _machines(folder: Path, script: Path) -> tuple[list[float], list[float]]:
    """CPUs and GPUs of each machine; ValueError for those that do not see the folder of results, or the script."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def lacking(paths: list[str]) -> list[str]:  # within this function it travels whole
        import os

        return [path for path in paths if not os.path.exists(path)]

    here, nodes = ray.get_runtime_context().get_node_id(), [one for one in ray.nodes() if one["Alive"]]
    look = ray.remote(num_cpus=0)(lacking)
    asked = {one["NodeManagerAddress"]: look.options(
        scheduling_strategy=NodeAffinitySchedulingStrategy(one["NodeID"], soft=False)).remote(
        [str(folder / SETTINGS), str(script)]) for one in nodes if one["NodeID"] != here}
    lines = [f"{host}: does not see {path}; all machines must share this folder" for host, answer in asked.items()
             for path in ray.get(answer, timeout=60)]
    if lines:
        raise ValueError("; ".join(lines))
    return ([one["Resources"].get("CPU", 0.0) for one in nodes], [one["Resources"].get("GPU", 0.0) for one in nodes])
