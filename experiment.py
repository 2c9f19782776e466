"""NNI made trustworthy: check, run, resume and stop an experiment, and get its true results.

    python experiment.py check config_hpo.yml      every trap that can be known before the start, on one screen
    python experiment.py run config_hpo.yml        checked, web UI on this machine only, watched, results, clean stop
    python experiment.py results latest            of a running, finished, stopped or killed experiment
    python experiment.py resume latest             go on with a stopped or killed one
    python experiment.py stop latest               end it and everything it started
    python experiment.py collect runs/hpo          the same results of trials without NNI: a Slurm array, by hand
    python experiment.py run config_hpo.yml --engine ray    by Ray Tune, on many machines: docs/scaling.md
    python experiment.py ray head|worker           a Ray of several machines, which these run on

Exit code 0: the experiment finished, at least one trial completed with a finite metric, and none failed, ended without
a metric, reported NaN or ran other parameters than recorded (trials stopped early are fine). 1: anything else that
went wrong. 2: a mistake in the command or the config, nothing was started. 130, 143: interrupted, and stopped cleanly.
"""

import argparse
import os
import sys
from pathlib import Path

import yaml

from cluster import checks, engine, node, record
from config import NOT_COMPUTED, run_script, to_copy
from files import atomic_write
from guard import collected, launch, logs, preflight, processes, registry, results, watchdog, web_server
from guard.experiment_file import load_config, pairs
from guard.lost_trials import revive
from guard.moved import rename_in
from guard.places import folder_of, keep_place, place_of
from guard.registry import Experiment
from reporting.handing_on import hand_on
from training.stopping import Signals

SURVIVOR_SECONDS = 30.0  # a tuner outlives its killed manager by 22 s, and would hijack the next one



def main(argv: list[str] | None = None) -> int:
    return run_script(lambda: execute(parse(argv)))


def execute(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit code."""
    try:
        return arguments.command(arguments)
    except (launch.StartFailed, watchdog.ExperimentFailed) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="experiment.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function in (check, run, resume, results_of, stop, collect, ray):
        name = function.__name__.partition("_")[0]
        command = commands.add_parser(name, help=(function.__doc__ or "").splitlines()[0])
        command.set_defaults(command=function)
        if name in ("check", "run"):
            command.add_argument("config", metavar="CONFIG", type=Path, help="an NNI 3.0 experiment file")
            command.add_argument("--set", metavar="KEY=VALUE", action="append", default=[],
                                 help="override one key of the config, e.g. --set maxTrialNumber=8")
            command.add_argument("--engine", choices=("nni", "ray"), default="nni",
                                 help="nni: this machine; ray: Ray Tune, on one machine or many")
        elif name == "ray":
            command.add_argument("part", choices=("head", "worker"), help="one head, a worker on each other machine")
            command.add_argument("address", metavar="ADDRESS", nargs="?", help="HOST:PORT of the head, for a worker")
            command.add_argument("--host", help="this machine's address for the others; default of a head: 127.0.0.1")
            command.add_argument("--port", type=int, default=6379, help="of a head (%(default)s)")
        elif name == "collect":
            command.add_argument("folder", metavar="FOLDER", type=Path, help="of the runs, such as runs/hpo")
            command.add_argument("--only", metavar="KEY=VALUE", action="append", default=[],
                                 help="take those with this setting alone, e.g. --only epochs=30")
        else:
            command.add_argument("experiment", metavar="ID", help="an ID, `latest`, or an experiment's folder")
        if name in ("run", "resume"):
            command.add_argument("--address", metavar="HOST:PORT", help="of a Ray that this machine is a part of; "
                                 "default, with --engine ray: one of its own, on this machine")
        if name in ("check", "run", "resume"):
            command.add_argument("--port", type=int, help="of the web UI; default: the first free one from 8080 on")
        if name in ("run", "resume"):
            command.add_argument("--keep-ui", action="store_true", help="leave the web UI up after a normal end")
            command.add_argument("--stall", type=float, default=watchdog.STALL_SECONDS, metavar="SECONDS",
                                 help="give up if no trial is waiting or running for so long (%(default).0f)")
        if name in ("run", "resume", "results", "collect"):
            command.add_argument("--out", type=Path, help="folder of results.csv and best.json; default: "
                                 + ("FOLDER" if name == "collect" else "that of `run`, or runs/NAME"))
        if name in ("results", "collect"):
            command.add_argument("--csv", type=Path, help="write the CSV to this file instead")
    return parser.parse_args(argv)


def check(arguments: argparse.Namespace) -> int:
    """look for every trap before the start"""
    if arguments.engine == "ray":
        findings = checks.check(load_config(arguments.config, pairs("--set", arguments.set)))
    else:
        findings = preflight.check(*load(arguments))
    print(preflight.render(findings))
    return 2 if any(finding.problem for finding in findings) else 0


def load(arguments: argparse.Namespace) -> tuple[dict, int]:
    """The effective config and the port it will use."""
    print(f"checking {arguments.config}", flush=True)
    config = load_config(arguments.config, pairs("--set", arguments.set))
    return config, free_port(arguments.port)


def free_port(wanted: int | None, usual: int = web_server.DEFAULT_PORT) -> int:
    """The port of the web UI; says why, if it is not the usual one."""
    port = web_server.pick_port(wanted, usual)
    if wanted is None and port != usual:
        print(f"port {usual} is taken by {web_server.holder(usual)}; using the next free one, {port}", flush=True)
    return port


def run(arguments: argparse.Namespace) -> int:
    """check, start, watch, show the results, stop"""
    if arguments.engine == "ray":
        return run_on_ray(arguments)
    if arguments.address:
        raise ValueError("--address: for --engine ray alone")
    with Signals() as signals:
        with launch.start_lock():
            config, port = load(arguments)
            problems = [finding for finding in preflight.check(config, port) if finding.problem]
            if problems:
                print(preflight.render(problems), file=sys.stderr)
                return 2
            _assert_reachable(config)
            file = (arguments.out or folder_of(config.get("experimentName") or "experiment")) / "config.yml"
            with atomic_write(file) as stream:
                yaml.safe_dump(config, stream, sort_keys=False, allow_unicode=True)
            print(f"checks passed, starting NNI on port {port}", flush=True)
            home = Path(config.get("experimentWorkingDirectory") or registry.home())
            experiment = launch.create(file, port, home)
        keep_place(experiment, file.parent)
        return follow(experiment, arguments, signals)


def _assert_reachable(config: dict) -> None:
    """Workers of the remote service call back to the web port, which listens on this machine only."""
    address = str(config.get("nniManagerIp", ""))
    if config["trainingService"].get("platform") == "remote" and not web_server.is_loopback(address):
        raise ValueError("nniManagerIp: must be 127.0.0.1 for the remote service, with `ssh -R PORT:127.0.0.1:PORT "
                         "WORKER` open to each worker: the web port is not reachable from other machines")


def resume(arguments: argparse.Namespace) -> int:
    """go on with a stopped or killed experiment"""
    if record.is_one(folder := Path(arguments.experiment)):
        return follow_on_ray(folder, arguments)
    experiment = registry.find(arguments.experiment)
    with Signals() as signals:
        with launch.start_lock():
            results.load(experiment.folder, alive=False)  # ValueError if there is nothing to go on with
            if processes.manager_of(experiment):
                raise ValueError(f"{experiment.id} is running ({experiment.url}); stop it first")
            _await_survivors(experiment)
            revive(experiment.folder)
            rename_in(experiment.folder)
            port = free_port(arguments.port, experiment.port or web_server.DEFAULT_PORT)
            log = experiment.folder / "log" / "dispatcher.log"
            log_start = log.stat().st_size if log.exists() else 0
            print(f"resuming {experiment.id} on port {port}", flush=True)
            experiment = launch.resume(experiment, port)
            if arguments.out:
                keep_place(experiment, arguments.out)
        return follow(experiment, arguments, signals, log_start)


def _await_survivors(experiment: Experiment) -> None:
    """A tuner that has outlived its manager would take the place of the new one."""
    if survivors := processes.all_of(experiment):
        print(f"waiting up to {SURVIVOR_SECONDS:.0f} s for {len(survivors)} surviving process(es) of {experiment.id}")
        processes.wait_gone(survivors, SURVIVOR_SECONDS)
    _tell(processes.stop(experiment))


def follow(experiment: Experiment, arguments: argparse.Namespace, signals: Signals, log_start: int = 0) -> int:
    """Watch a running experiment to its end, stop it whatever happens, report; returns the exit code."""
    print(f"experiment {experiment.id} ({experiment.name}), web UI {experiment.url} (this machine only)", flush=True)
    watch = watchdog.Watch(experiment, lambda: signals.received is not None, arguments.stall, log_start)
    reason, at_once, keep, finished = "", False, False, False
    try:
        watch.follow()
        finished = signals.received is None
        keep = arguments.keep_ui and finished
    except (watchdog.ExperimentFailed, ValueError, OSError) as error:
        reason, at_once = str(error), isinstance(error, watchdog.ProcessStorm)
    finally:
        if not keep:
            print("stopping NNI (takes a few seconds)", flush=True)
            _tell(processes.stop(experiment, at_once))
    code = report(experiment, arguments, alive=keep, reason=reason, finished=finished)
    if keep:
        print(f"web UI still up: {experiment.url}  end it with: "
              + to_copy("experiment.py", "stop", experiment.id))
    if signals.received:
        print(f"interrupted; go on with: {again(experiment, arguments)}", file=sys.stderr)
        return 128 + signals.received
    return code


def again(experiment: Experiment, arguments: argparse.Namespace) -> str:
    """The command that goes on with an experiment as it was begun."""
    if logs.GO_ON in os.environ:
        return os.environ[logs.GO_ON]
    words = ["--out", str(arguments.out)] if arguments.out else []
    words += ["--port", str(arguments.port)] if arguments.port else []
    words += ["--stall", f"{arguments.stall:g}"] if arguments.stall != watchdog.STALL_SECONDS else []
    words += ["--keep-ui"] if arguments.keep_ui else []
    return to_copy("experiment.py", "resume", experiment.id, *words)


def _tell(notes: list[str]) -> None:
    for note in notes:
        print(f"note: {note}", flush=True)


def report(experiment: Experiment, arguments: argparse.Namespace, alive: bool, reason: str = "",
           finished: bool = False) -> int:
    """Table, files and problems of an experiment; 0 if there is nothing wrong with it."""
    state = results.load(experiment.folder, alive)
    folder = arguments.out or place_of(experiment) or folder_of(state.name)
    return hand_on(state, folder, getattr(arguments, "csv", None), [reason] if reason else [], finished)


def results_of(arguments: argparse.Namespace) -> int:
    """show and write the true results"""
    if record.is_one(folder := Path(arguments.experiment)):
        return hand_on(engine.load(folder), arguments.out or folder, arguments.csv, [], finished=False)
    experiment = registry.find(arguments.experiment)
    return report(experiment, arguments, alive=processes.manager_of(experiment) is not None)


def run_on_ray(arguments: argparse.Namespace) -> int:
    """`run` with --engine ray."""
    print(f"checking {arguments.config}", flush=True)
    config = load_config(arguments.config, pairs("--set", arguments.set))
    folder = arguments.out or folder_of(config.get("experimentName") or "experiment")
    if problems := engine.begin(config, folder, arguments.address):
        print(preflight.render(problems), file=sys.stderr)
        return 2
    return follow_on_ray(folder, arguments, new=True)


def follow_on_ray(folder: Path, arguments: argparse.Namespace, new: bool = False) -> int:
    """Run the experiment in `folder` on Ray to its end, report; returns the exit code."""
    state, failure, signal = engine.run(folder, arguments.address, new)
    code = hand_on(state, arguments.out or folder, None, [failure] if failure else [], finished=not (failure or signal))
    if signal:
        words = ["--address", arguments.address] if arguments.address else []
        print(f"interrupted; go on with: {to_copy('experiment.py', 'resume', str(folder), *words)}", file=sys.stderr)
    return 128 + signal if signal else code


def ray(arguments: argparse.Namespace) -> int:
    """start Ray on this machine, as the head of several or as a worker of it"""
    if (arguments.part == "worker") != (arguments.address is not None):
        raise ValueError("ADDRESS, HOST:PORT of the head: for `ray worker`, and for it alone")
    head = arguments.part == "head"
    return node.start(head, arguments.host or ("127.0.0.1" if head else None), arguments.address, arguments.port)


def collect(arguments: argparse.Namespace) -> int:
    """results of trials without an experiment: a Slurm array, another tuner, by hand"""
    folder = arguments.out or arguments.folder
    found = collected.read(arguments.folder, NOT_COMPUTED, pairs("--only", arguments.only))
    collected.assert_not_of_nni(folder)
    _tell(found.notes)
    return hand_on(found.results, folder, arguments.csv, found.problems, finished=not found.unfinished)


def stop(arguments: argparse.Namespace) -> int:
    """end an experiment and everything it started"""
    if record.is_one(Path(arguments.experiment)):
        raise ValueError(f"{arguments.experiment}: on Ray; end its `run` or `resume` by Ctrl-C or SIGTERM")
    experiment = registry.find(arguments.experiment)
    if was_running := bool(processes.all_of(experiment)):
        print(f"stopping {experiment.id}", flush=True)
    _tell(processes.stop(experiment))
    if left := processes.all_of(experiment):
        raise watchdog.ExperimentFailed(f"{experiment.id}: still there: " + ", ".join(str(p.pid) for p in left))
    print(f"{experiment.id} stopped" if was_running else f"{experiment.id} was not running")
    return 0


if __name__ == "__main__":
    sys.exit(main())
