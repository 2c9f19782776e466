"""What can be known before an NNI experiment starts: `load_config` reads its file, `check` looks for traps.

NNI 3.0 finds few mistakes by itself: `nnictl create` returns 0 for a tuner that cannot start, waits for ever
on a search space that it cannot read, and takes a misspelt `_type` for a range. Here each gets one line.
A check is one small function: it returns what is fine, or raises ValueError with the one line for the user.
"""

import contextlib
import copy
import errno
import importlib.metadata
import importlib.util
import logging
import os
import re
import shutil
import socket
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from guard import algorithms, trial_check
from guard.experiment_file import load_config, machines

__all__ = ["Finding", "check", "load_config", "render"]


@dataclass(frozen=True)
class Finding:
    """One line of the report: `problem` is None when the check passed; `detail` says what was found."""

    name: str
    problem: str | None
    detail: str


def check(config: dict, port: int) -> list[Finding]:
    """Every check of CHECKS on a config of `load_config`; starts nothing and writes nothing."""
    return [_finding(name, function, config, port) for name, function in CHECKS]


def render(findings: Iterable[Finding]) -> str:
    """The report as text: one aligned line a check, long ones wrapped; coloured only on a terminal."""
    findings, colour = list(findings), sys.stdout.isatty()
    left = 11 + max((len(finding.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        mark, code = ("PROBLEM", 31) if finding.problem else ("ok", 32)
        text = textwrap.fill(
            finding.problem or finding.detail,
            max(60, shutil.get_terminal_size().columns - 1),
            initial_indent=" " * left,
            subsequent_indent=" " * left,
            break_long_words=False,
            break_on_hyphens=False,
        )
        head = f"{mark:<7}  {finding.name}".ljust(left)
        head = head.replace(mark, f"\033[{code}m{mark}\033[0m", 1) if colour else head
        lines.append(head + text[left:])
    count = sum(finding.problem is not None for finding in findings)
    total = f"{count} problem{'s' * (count != 1)}" if count else f"all {len(lines)} checks passed"
    return "\n".join([*lines, total])


def _finding(name: str, function: Callable[[dict, int], str], config: dict, port: int) -> Finding:
    try:
        with _quiet():
            return Finding(name, None, function(config, port))
    except ValueError as error:
        return Finding(name, " ".join(str(error).split()), "")
    except Exception as error:  # a value of a type that nobody expects: another line says which
        reason = " ".join(str(error).split())
        return Finding(name, f"cannot be checked ({type(error).__name__}: {reason})", "")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNI's validators log and warn into the terminal, in the middle of the report."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _version(name: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in re.findall(r"\d+", importlib.metadata.version(name))[:3])
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"{name} is not installed: pip install -r requirements.txt") from None


def _below(name: str, bound: tuple[int, ...], why: str) -> str:
    version, limit = _version(name), ".".join(map(str, bound))
    if version >= bound:
        raise ValueError(f"{'.'.join(map(str, version))} is too new: {why}; pip install '{name}<{limit}'")
    return f"{'.'.join(map(str, version))} (below {limit})"


def _python(config: dict, port: int) -> str:
    version = sys.version_info[:2]
    if not (3, 10) <= version <= (3, 13):
        raise ValueError(
            f"{version[0]}.{version[1]} does not run NNI 3.0 with today's packages: use 3.10 to 3.13"
        )
    return ".".join(map(str, sys.version_info[:3]))


def _setuptools(config: dict, port: int) -> str:
    found = _below("setuptools", (82,), "nnictl imports pkg_resources, which it no longer has")
    if importlib.util.find_spec("pkg_resources") is None:
        raise ValueError("pkg_resources, which nnictl imports, is missing: pip install -U 'setuptools<82'")
    return found


def _filelock(config: dict, port: int) -> str:
    return _below("filelock", (3, 12), "nnictl then hangs for ever after 'Starting web server'")


def _typeguard(config: dict, port: int) -> str:
    """NNI asks for less than 4.1.3; 4.6 was seen to run an experiment all the same, so this only tells."""
    return f"{'.'.join(map(str, _version('typeguard')))} (NNI asks for less than 4.1.3)"


def _nni(config: dict, port: int) -> str:
    if _version("nni")[:2] != (3, 0):
        raise ValueError(f"NNI {importlib.metadata.version('nni')}: made for 3.0; pip install nni==3.0")
    beside = Path(sys.executable).with_name("nnictl")
    if not beside.exists() and importlib.util.find_spec("nni.tools.nnictl") is None:
        raise ValueError(f"{beside} does not exist: pip install -r requirements.txt")
    return importlib.metadata.version("nni")


def _port(config: dict, port: int) -> str:
    remote = config["trainingService"]["platform"] == "remote"  # workers connect to the next port
    for number in (port, port + 1)[: 1 + remote]:
        if not 1 <= number <= 65535:
            raise ValueError(f"port {number}: must be 1 to 65535")
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, ""), (socket.AF_INET6, "::")):
            _try_port(family, host, number)
    return f"{port}{f' and {port + 1}' if remote else ''} free"


def _try_port(family: int, host: str, port: int) -> None:
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            # as node does it, so that a port that was just closed counts as free
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((host, port))
        except OSError as error:
            if family == socket.AF_INET or error.errno == errno.EADDRINUSE:  # no IPv6 here is fine
                raise ValueError(f"port {port}: {error.strerror}; choose another with --port") from None


def _nni_config(config: dict, port: int) -> str:
    """NNI's own validation, with its exceptions turned into one line."""
    from nni.experiment.config import ExperimentConfig

    try:
        ExperimentConfig(**copy.deepcopy(config)).canonical_copy()
    except AssertionError as error:  # without words: the asserted line of NNI is the only message
        line = traceback.extract_tb(error.__traceback__)[-1].line or ""
        reason = str(error) or line.replace("assert ", "must hold: ").replace("self.", "")
    except Exception as error:
        reason = " ".join(str(error).split())
    else:
        return "accepted by NNI"
    raise ValueError(re.sub(r"(?<![\w/.])([a-z]+(?:_[a-z]+)+)(?![\w/.])", _camel, reason))


def _camel(match: re.Match) -> str:
    return re.sub(r"_(\w)", lambda letter: letter[1].upper(), match[1])


def _name(config: dict, port: int) -> str:
    name = config.get("experimentName")
    if name is not None and not re.fullmatch(r"\w[\w .+-]{0,99}", str(name)):
        raise ValueError(
            f"experimentName {name!r}: it names a folder, so only letters, digits, space . _ + -"
        )
    return str(name or "not set")


def _folder(config: dict, port: int) -> str:
    folder = Path(config.get("experimentWorkingDirectory") or "~/nni-experiments").expanduser()
    existing = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"experimentWorkingDirectory {folder}: {existing} is not a writable folder")
    return str(folder)


def _budget(config: dict, port: int) -> str:
    from nni.experiment.config.utils import parse_time

    trials, durations = config.get("maxTrialNumber"), ("maxExperimentDuration", "maxTrialDuration")
    if trials is None and config.get(durations[0]) is None:
        raise ValueError("neither maxTrialNumber nor maxExperimentDuration is set: it would never end")
    if trials is not None and (not isinstance(trials, int) or trials < 1):
        raise ValueError(f"maxTrialNumber {trials!r}: must be a whole number, 1 or more")
    for key in durations:
        with contextlib.suppress(ValueError, TypeError):
            if config.get(key) is None or parse_time(config[key]) > 0:
                continue
        raise ValueError(f"{key} {config[key]!r}: must be a number of seconds or such as 90s, 30m, 24h, 2d")
    limits = [f"{trials} trials" if trials else None, *(config.get(key) for key in durations[:1])]
    return "ends after " + " or ".join(str(limit) for limit in limits if limit is not None)


def _concurrency(config: dict, port: int) -> str:
    count = config.get("trialConcurrency")
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"trialConcurrency {count!r}: must be a whole number, 1 or more")
    if config["trainingService"].get("reuseMode"):
        raise ValueError("trainingService.reuseMode true: it crashes in NNI 3.0; remove it")
    name = str((config.get("tuner") or {}).get("name"))
    if count > 1 and name.lower() in DIES_OF_SWAPPED_TRIALS:
        raise ValueError(f"trialConcurrency {count} with tuner {name}, which dies when NNI 3.0 mixes up its trials; "
                         "use Random, or codeDirectory: guard with className: tuners.TPE")
    swapped = "NNI's web UI will show swapped parameters, `experiment.py results` the true ones"
    return f"{count} at a time: {swapped}" if count > 1 else "one at a time"


def _remote(config: dict, port: int) -> str:
    service = config["trainingService"]
    if service["platform"] != "remote":
        return "this machine"
    for machine in machines(config):
        if machine.get("password") or machine.get("sshPassphrase"):
            host = machine.get("host")
            raise ValueError(f"password of {host} in plain text, which NNI's web UI shows: use an ssh key")
    if not (config.get("nniManagerIp") or service.get("nniManagerIp")):
        raise ValueError("nniManagerIp is not set: the workers must be told how to reach this machine")
    return "NNI runs `pip install --upgrade nni` on each worker; give trialCommand the interpreter's full path"


DIES_OF_SWAPPED_TRIALS = ("tpe", "evolution")
CHECKS: tuple[tuple[str, Callable[[dict, int], str]], ...] = (
    ("Python", _python),
    ("setuptools", _setuptools),
    ("filelock", _filelock),
    ("typeguard", _typeguard),
    ("NNI", _nni),
    ("config", _nni_config),
    ("name", _name),
    ("search space", algorithms.check_search_space),
    ("trials", algorithms.check_trials),
    ("budget", _budget),
    ("tuner", algorithms.check_tuner),
    ("assessor", algorithms.check_assessor),
    ("trial command", trial_check.check_command),
    ("lightning", trial_check.check_lightning),
    ("concurrency", _concurrency),
    ("GPUs", trial_check.check_gpus),
    ("machines", _remote),
    ("folder", _folder),
    ("port", _port),
)
