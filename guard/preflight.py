"""What can be known before an NNI experiment starts: every check, and the report of what they found.

NNI 3.0 finds few mistakes by itself: `nnictl create` returns 0 for a tuner that cannot start, waits for ever
on a search space that it cannot read, and takes a misspelt `_type` for a range. Here each gets one line.
A check is one small function: it returns what is fine, or raises ValueError with the one line for the user.
"""

import contextlib
import copy
import logging
import re
import shutil
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from guard import algorithms, machine_check, settings_check, trial_check
from guard.experiment_file import machines

Check = Callable[[dict, int | None], str]
DIES_OF_SWAPPED_TRIALS = ("tpe", "evolution")  # tuners, in NNI 3.0


@dataclass(frozen=True)
class Finding:
    """One line of the report: `problem` is None when the check passed; `detail` says what was found."""

    name: str
    problem: str | None
    detail: str


def check(config: dict, port: int | None, checks: Iterable[tuple[str, Check]] = ()) -> list[Finding]:
    """Every check of CHECKS, or of others, on a config of `load_config`; starts nothing and writes nothing.

    port: None for an experiment that takes the first one that is free when it starts, or none.
    """
    return [finding for name, function in checks or CHECKS for finding in _findings(name, function, config, port)]


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


def _findings(name: str, function: Callable[[dict, int | None], str], config: dict, port: int | None) -> list[Finding]:
    try:
        with _quiet():
            return [Finding(name, None, function(config, port))]
    except ValueError as error:
        lines = error.lines if isinstance(error, settings_check.WrongSettings) else [str(error)]
        return [Finding(name, " ".join(line.split()), "") for line in lines]
    except Exception as error:  # a value of a type that nobody expects: another line says which
        reason = " ".join(str(error).split())
        return [Finding(name, f"cannot be checked ({type(error).__name__}: {reason})", "")]


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


CHECKS: tuple[tuple[str, Check], ...] = (
    ("Python", machine_check.check_python),
    ("setuptools", machine_check.check_setuptools),
    ("filelock", machine_check.check_filelock),
    ("typeguard", machine_check.check_typeguard),
    ("NNI", machine_check.check_nni),
    ("config", _nni_config),
    ("name", _name),
    ("search space", algorithms.check_search_space),
    ("trials", algorithms.check_trials),
    ("budget", _budget),
    ("tuner", algorithms.check_tuner),
    ("assessor", algorithms.check_assessor),
    ("trial command", trial_check.check_command),
    ("settings", settings_check.check_settings),
    ("lightning", trial_check.check_lightning),
    ("concurrency", _concurrency),
    ("GPUs", trial_check.check_gpus),
    ("machines", _remote),
    ("folder", machine_check.check_folder),
    ("port", machine_check.check_port),
)
