"""What can be known before an NNI experiment starts: `load_config` reads its file, `check` looks for traps.

NNI 3.0 finds few mistakes by itself: `nnictl create` returns 0 for a tuner that cannot start, waits for ever
on a search space that it cannot read, and takes a misspelt `_type` for a range. Here each gets one line.
A check is one small function: it returns what is fine, or raises ValueError with the one line for the user.
"""

import ast
import contextlib
import copy
import dataclasses
import difflib
import errno
import functools
import importlib.metadata
import importlib.util
import inspect
import json
import logging
import math
import os
import re
import shlex
import shutil
import socket
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from files import read_json

KINDS = ("tuner", "assessor")
BROKEN = {  # built-in algorithm -> why it cannot work with NNI 3.0 and today's packages
    "Hyperband": "its advisor dies on a type error, then NNI waits for ever",
    "BOHB": "its advisor dies on a type error, then NNI waits for ever",
    "Anneal": "hyperopt 0.1.2 does not run with numpy 2",
    "SMAC": "its package no longer builds",
    "PPO": "it needs gym and TensorFlow 1",
    "RegularizedEvolutionTuner": "it refuses every `choice`; use Evolution",
    "DNGO": "it needs pybnn, which is not maintained",
    "NetworkMorphism": "it needs packages that this project does not install",
}
SAME_TRIAL_NEVER_TWICE = ("TPE", "Random", "GridSearch", "Batch")  # these stop when a finite space is used up
STORM = "or NNI 3.0 starts processes without end"


@dataclass(frozen=True)
class Finding:
    """One line of the report: `problem` is None when the check passed; `detail` says what was found."""

    name: str
    problem: str | None
    detail: str


def load_config(path: str | os.PathLike, overrides: Mapping[str, str] = MappingProxyType({})) -> dict:
    """Read an experiment file, apply `--set KEY=VALUE`, make its paths absolute and its keys NNI's camelCase.

    Absolute, because the result is written elsewhere and NNI starts relative paths at the file it reads.
    Raises ValueError with one line for anything that is not a usable experiment file.
    """
    config = _named(_read_yaml(Path(path)), str(path))
    for key, text in overrides.items():
        config = _named(_overridden(config, key, text), f"--set {key}")
    return _absolute(config, Path(path).resolve().parent)


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


def _nearest(word: Any, known: Iterable[str]) -> str:
    """The end of a message about a word that does not exist: the nearest known one, or all of them."""
    known = list(known) or ["none"]
    folded = {name.lower(): name for name in known}
    found = difflib.get_close_matches(str(word).lower(), folded, n=1)
    return f"did you mean '{folded[found[0]]}'?" if found else f"allowed: {', '.join(known)}"


# ---- the experiment file -----------------------------------------------------------------------------------


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{path}: line {line}: not valid YAML ({error.problem})") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(f"{path}: cannot be read ({reason})") from None


def _overridden(config: dict, key: str, text: str) -> dict:
    """`config` with the dotted `key` set to the YAML value `text`; case and underscores do not count."""
    config = copy.deepcopy(config)
    *parents, last = key.split(".")
    node = config
    for part in parents:
        node = node.setdefault(_spelling(node, part), {})
        if not isinstance(node, dict):
            raise ValueError(f"--set {key}={text}: '{part}' holds {node!r}, which has no keys inside")
    try:
        node[_spelling(node, last)] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"--set {key}={text}: the value is not valid YAML") from None
    return config


def _fold(key: Any) -> str:
    return str(key).lower().replace("_", "")


def _spelling(node: dict, key: str) -> str:
    return next((known for known in node if _fold(known) == _fold(key)), key)


def _named(config: Any, source: str) -> dict:
    """`config` with its keys in NNI's camelCase; ValueError names an unknown key and the nearest one."""
    try:
        from nni.experiment.config import (
            CustomAlgorithmConfig,
            ExperimentConfig,
            LocalConfig,
            RemoteConfig,
            RemoteMachineConfig,
        )
    except ImportError as error:
        raise ValueError(f"NNI cannot be imported ({error}): pip install -r requirements.txt") from None
    config = _renamed(config, ExperimentConfig, source, "")
    for kind in (*KINDS, "advisor"):
        if config.get(kind) is not None:
            config[kind] = _renamed(config[kind], CustomAlgorithmConfig, source, f"{kind}.")
    service = config.get("trainingService", {})
    platforms = {"local": LocalConfig, "remote": RemoteConfig}  # the two that work in NNI 3.0
    platform = service.get("platform") if isinstance(service, dict) else service
    if not isinstance(service, dict) or platform not in platforms:
        allowed = ", ".join(platforms)
        raise ValueError(f"{source}: trainingService.platform: {platform!r} is not one of {allowed}")
    where = "trainingService."
    config["trainingService"] = service = _renamed(service, platforms[platform], source, where)
    if isinstance(machines := service.get("machineList"), list):
        where += "machineList."
        service["machineList"] = [_renamed(item, RemoteMachineConfig, source, where) for item in machines]
    if config.get("experimentType", "hpo") != "hpo" or config.get("useAnnotation"):
        raise ValueError(f"{source}: nnictl starts only experimentType hpo, without useAnnotation")
    return config


def _renamed(value: Any, cls: type, source: str, where: str) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{source}: {where.rstrip('.') or 'the file'} is {value!r}, must be keys and values")
    snake = [field.name for field in dataclasses.fields(cls)]
    known = {_fold(name): re.sub(r"_(\w)", lambda match: match[1].upper(), name) for name in snake}
    for key in value:
        if _fold(key) not in known:
            raise ValueError(f"{source}: unknown key '{where}{key}', {_nearest(key, known.values())}")
    return {known[_fold(key)]: item for key, item in value.items()}


def _machines(config: dict) -> list[dict]:
    machines = config["trainingService"].get("machineList")
    return machines if isinstance(machines, list) else []


def _absolute(config: dict, folder: Path) -> dict:
    """Every path taken from `folder`, as NNI does; the defaults that depend on it are written out."""
    service = config["trainingService"]
    config["trialCodeDirectory"] = config.get("trialCodeDirectory") or "."
    places = [(config, "searchSpaceFile"), (config, "experimentWorkingDirectory")]
    places += [(node, "trialCodeDirectory") for node in (config, service)]
    places += [(machine, "sshKeyFile") for machine in _machines(config)]
    for kind in KINDS:
        if (config.get(kind) or {}).get("className"):
            config[kind]["codeDirectory"] = config[kind].get("codeDirectory") or "."
            places.append((config[kind], "codeDirectory"))
    for node, key in places:
        if isinstance(node.get(key), str):
            node[key] = str((folder / Path(node[key]).expanduser()).resolve())
    return config


# ---- the machine -------------------------------------------------------------------------------------------


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


# ---- the experiment ----------------------------------------------------------------------------------------


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
    swapped = "NNI's web UI will show swapped parameters, `experiment.py results` the true ones"
    return f"{count} at a time: {swapped}" if count > 1 else "one at a time"


def _remote(config: dict, port: int) -> str:
    service = config["trainingService"]
    if service["platform"] != "remote":
        return "this machine"
    for machine in _machines(config):
        if machine.get("password") or machine.get("sshPassphrase"):
            host = machine.get("host")
            raise ValueError(f"password of {host} in plain text, which NNI's web UI shows: use an ssh key")
    if not (config.get("nniManagerIp") or service.get("nniManagerIp")):
        raise ValueError("nniManagerIp is not set: the workers must be told how to reach this machine")
    return (
        "NNI runs `pip install --upgrade nni` on each worker; give trialCommand the interpreter's full path"
    )


# ---- trial command -----------------------------------------------------------------------------------------


def _words(command: Any) -> list[str]:
    """The words of one simple shell command, without `exec` and assignments; ValueError for anything else.

    The shell replaces itself by a simple command; with a compound one it stays and takes NNI's signals, and
    the trial runs on after NNI has stopped it.
    """
    if not isinstance(command, str) or not command.strip():
        raise ValueError(f"trialCommand {command!r}: must be one command such as python trial.py")
    quoted = r"""'[^']*'|"(?:\\.|[^"\\])*"|\\."""
    bare = re.sub(quoted, lambda match: "`" if re.match(r'".*(`|\$\()', match[0]) else "_", command.strip())
    bad = re.search(r"[;&|<>()`\n]", bare)
    if bad:
        raise ValueError(f"trialCommand {command!r}: must be one simple command, without {bad[0]!r}")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"trialCommand {command!r}: {error}") from None
    while words and (words[0] == "exec" or re.match(r"[A-Za-z_]\w*=", words[0])):
        del words[0]
    builtin = not words or words[0] in ("cd", "source", ".", "eval")
    if builtin or re.search(r"(^|/)(ba|da|z)?sh -\w*c\b", " ".join(words)):
        raise ValueError(f"trialCommand {command!r}: must be one simple command, with no shell around it")
    return words


def _code(config: dict) -> Path:
    return Path(config["trainingService"].get("trialCodeDirectory") or config["trialCodeDirectory"])


def _command(config: dict) -> list[str]:
    return _words(config["trainingService"].get("trialCommand") or config.get("trialCommand"))


def _script(config: dict) -> Path | None:
    """The file that the trial's interpreter runs (also with -m); None when the command is no interpreter."""
    program, *rest = _command(config)
    if not re.fullmatch(r"(python|pypy|bash|sh)[\d.]*", Path(program).name):
        return None
    while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
        del rest[: 2 if rest[0] in ("-W", "-X") else 1]
    if not rest or rest[0] == "-c":
        return None
    if rest[0] == "-m" and rest[1:]:
        return _code(config) / f"{rest[1].replace('.', '/')}.py"
    return _code(config) / rest[0]


def _trial_command(config: dict, port: int) -> str:
    program, script, code = _command(config)[0], _script(config), _code(config)
    if not code.is_dir():
        raise ValueError(f"trialCodeDirectory {code}: no such folder")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # that of experiment.py
    found = shutil.which(str(code / program) if "/" in program else program, path=path)
    if config["trainingService"]["platform"] == "local" and found is None:
        raise ValueError(f"trialCommand: {program!r} is not an executable on PATH")
    if script is not None and not script.is_file():
        raise ValueError(f"trialCommand: {script.name!r} does not exist in {script.parent}")
    return shlex.join(_command(config))


def _lightning(config: dict, port: int) -> str:
    script = None
    with contextlib.suppress(ValueError):  # a bad command has its own line
        script = _script(config)
    if script is None or script.suffix != ".py" or not script.is_file():
        return "not needed"
    try:
        nodes = list(ast.walk(ast.parse(script.read_text(encoding="utf-8"))))
    except SyntaxError as error:
        raise ValueError(f"{script.name} line {error.lineno}: {error.msg}") from None
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [getattr(node, "module", None) or alias.name for node in imports for alias in node.names]
    if not any(name == "nni.nas" or name.startswith("nni.nas.") for name in names):
        return f"not needed by {script.name}"
    if importlib.util.find_spec("pytorch_lightning") is None:
        raise ValueError(
            f"{script.name} imports nni.nas, which needs it: pip install 'pytorch-lightning>=2,<3'"
        )
    return f"present, needed by {script.name}"


# ---- GPUs --------------------------------------------------------------------------------------------------


def gpu_count() -> int:
    """GPUs as NNI counts them: through NVML, which ignores CUDA_VISIBLE_DEVICES; 0 without a driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetCount()
    except Exception:  # no library, no driver, no permission: NNI cannot use the GPUs either
        return 0


def gpu_slots(gpus: int, usable: int, per_trial: int, share: int) -> int:
    """How many trials at once NNI's scheduler places on `usable` of the machine's `gpus` GPUs.

    A trial needs trialGpuNumber / maxTrialNumberPerGpu (`per_trial` / `share`). Less than one: a GPU takes
    trials up to a sum of 1.001. One or more: rounded half up, whole GPUs. Needs of all `gpus` or more are
    refused (>= where > was meant), so an only GPU can never be given whole. A refused trial is tried again at
    once, for ever: NNI's event loop starves, while each try may start a process. So: trials <= slots.
    """
    need = per_trial / share
    if need >= gpus:
        return 0
    return usable * math.floor(1.001 / need) if need < 1 else usable // math.floor(need + 0.5)


def _gpu(config: dict, port: int) -> str:
    from nni.experiment.config.utils import canonical_gpu_indices

    service, trials = config["trainingService"], config.get("trialConcurrency", 1)
    wanted = service.get("trialGpuNumber", config.get("trialGpuNumber"))
    share, machines = service.get("maxTrialNumberPerGpu", 1), _machines(config)
    if not wanted:
        return "trials see no GPU" if wanted == 0 else "not given out by NNI: each trial takes what it finds"
    if any(node.get("maxTrialNumberPerGpu", 1) < 1 for node in (service, *machines)) or wanted < 0:
        raise ValueError(f"trialGpuNumber {wanted} and maxTrialNumberPerGpu {share}: must be 1 or more")
    if not all(node.get("useActiveGpu") for node in machines or [service]):
        raise ValueError(
            "useActiveGpu must be true with trialGpuNumber: else NNI 3.0 takes GPUs that its own trials have "
            "just left for busy, and starts processes without end"
        )
    if machines:
        return f"not countable here: each worker needs over {wanted} / maxTrialNumberPerGpu GPUs, {STORM}"
    gpus = gpu_count()
    if not gpus:
        raise ValueError(f"trialGpuNumber {wanted}: no GPU or NVIDIA driver here, NNI shuts down; remove it")
    indices = canonical_gpu_indices(service.get("gpuIndices"))
    usable = gpus if indices is None else sum(index < gpus for index in indices)
    slots = gpu_slots(gpus, usable, wanted, share)
    if slots == 0:
        raise ValueError(
            f"trialGpuNumber {wanted} / maxTrialNumberPerGpu {share} must be below the number of "
            f"GPUs ({gpus}) and fit gpuIndices, {STORM}; with one GPU remove trialGpuNumber"
        )
    if trials > slots:
        raise ValueError(
            f"trialConcurrency {trials}: only {slots} GPU slots on {gpus} GPUs; lower it, {STORM}"
        )
    return f"{slots} slots on {gpus} GPUs"


# ---- search space ------------------------------------------------------------------------------------------


def _space(config: dict) -> Any:
    inline, file = config.get("searchSpace"), config.get("searchSpaceFile")
    if file is None or inline is not None:
        if (file is None) == (inline is None):
            raise ValueError("one of searchSpaceFile and searchSpace must be set, not both")
        return inline
    return _read_yaml(Path(file)) if Path(file).suffix in (".yml", ".yaml") else read_json(file)


def _checked_space(config: dict) -> dict:
    from nni.common.hpo_utils.validation import validate_search_space

    space, batch = _space(config), _algorithm(config, "tuner") == "Batch"
    _check_space(space, "", batch)
    if not batch:  # its dicts are whole trials, which NNI's validator does not know
        validate_search_space(space, raise_exception=True)
    return space


def _valid_space(config: dict) -> dict | None:
    with contextlib.suppress(ValueError):
        return _checked_space(config)


def _search_space(config: dict, port: int) -> str:
    return ", ".join(_checked_space(config))


def _check_space(space: Any, where: str, batch: bool = False) -> None:
    if not isinstance(space, dict) or not space:
        raise ValueError(f"search space {where}{space!r}: must be names with {{_type, _value}}")
    for name, spec in space.items():
        if not isinstance(spec, dict) or not {"_type", "_value"} <= spec.keys():
            raise ValueError(
                f"search space '{where}{name}': {spec!r}: must have _type and _value, such as "
                '{"_type": "choice", "_value": [1, 2]}'
            )
        if not isinstance(spec["_value"], list) or not spec["_value"]:
            raise ValueError(f"search space '{where}{name}': {spec['_value']!r}: must be a list, not empty")
        if spec["_type"] == "choice":
            _check_choice(f"{where}{name}", spec["_value"], batch)
        else:
            _check_range(f"{where}{name}", spec["_type"], spec["_value"])


def _check_choice(name: str, options: list, batch: bool) -> None:
    texts = [json.dumps(option, sort_keys=True, default=str) for option in options]
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice:
        raise ValueError(f"search space '{name}': {twice} stands twice in the choice")
    if batch or not any(isinstance(option, dict) for option in options):
        return
    if not all(isinstance(option, dict) and "_name" in option for option in options):
        raise ValueError(f"search space '{name}': every option of a nested choice must be a dict with _name")
    for option in options:
        inner = {key: spec for key, spec in option.items() if key != "_name"}
        if inner:
            _check_space(inner, f"{name}.{option['_name']}.")


def _check_range(name: str, kind: Any, values: list) -> None:
    from nni.common.hpo_utils.validation import common_search_space_types as kinds

    if kind not in kinds:
        raise ValueError(f"search space '{name}': _type {kind!r} does not exist, {_nearest(kind, kinds)}")
    normal, head = "normal" in kind, f"search space '{name}': {kind} {values}"
    if len(values) != 2 + kind.startswith("q"):
        raise ValueError(f"{head}: must have {2 + kind.startswith('q')} numbers")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            text = isinstance(value, str) and re.fullmatch(r"[\d.]+e-?\d+", value)
            hint = " (YAML takes 1e-3 for text: write 1.0e-3)" if text else ""
            raise ValueError(f"{head}: {value!r} is not a number{hint}")
    if not normal and values[0] >= values[1]:
        raise ValueError(f"{head}: the first number must be below the second")
    if normal and values[1] <= 0:
        raise ValueError(f"{head}: the standard deviation must be above 0")
    if not normal and "log" in kind and values[0] <= 0:
        raise ValueError(f"{head}: both bounds must be above 0")
    if kind.startswith("q") and values[2] <= 0:
        raise ValueError(f"{head}: the step must be above 0")


def _size(space: dict) -> float:
    """Number of combinations of a valid space; infinite when a parameter is continuous or unbounded."""
    return math.prod(_options(spec["_type"], spec["_value"]) for spec in space.values())


def _options(kind: str, values: list) -> float:
    if kind == "choice":
        inner = [
            {k: v for k, v in option.items() if k != "_name"}
            for option in values
            if isinstance(option, dict) and "_name" in option
        ]
        return sum(map(_size, inner)) if inner else len(values)
    if kind == "randint":
        return values[1] - values[0]
    if kind in ("quniform", "qloguniform"):  # NNI rounds to multiples of q, then clips to the bounds
        return round(values[1] / values[2]) - round(values[0] / values[2]) + 1
    return math.inf


def _trials(config: dict, port: int) -> str:
    space, trials, tuner = _valid_space(config), config.get("maxTrialNumber"), _algorithm(config, "tuner")
    if space is None:
        return "not counted: see search space"
    size = _size(space)
    if isinstance(trials, int) and trials > size:
        if tuner in SAME_TRIAL_NEVER_TWICE:
            raise ValueError(
                f"maxTrialNumber {trials}: the search space has {size} combinations, {tuner} tries "
                f"none twice, and NNI then waits for ever; set at most {size}"
            )
        return f"{trials} of {size} combinations, so some will run more than once"
    return f"{trials or 'any number'} of {'endless' if size == math.inf else f'{size:,}'} combinations"


# ---- tuner and assessor ------------------------------------------------------------------------------------


@functools.cache
def _algorithms() -> tuple[Any, ...]:
    """NNI's table of tuners and assessors, with those the user registered; kept, since it is slow YAML."""
    from nni.tools.package_utils.config_manager import get_all_algo_meta

    return tuple(get_all_algo_meta())


def _meta(config: dict, kind: str) -> Any:
    """NNI's entry of the config's tuner or assessor, by name or alias in any case as NNI does; or None."""
    name = str((config.get(kind) or {}).get("name")).lower()
    found = (meta for meta in _algorithms() if name in (meta.name.lower(), str(meta.alias).lower()))
    return next((meta for meta in found if meta.algo_type == kind and name != "none"), None)


def _algorithm(config: dict, kind: str) -> str | None:
    meta = _meta(config, kind)
    return meta.name if meta else None


def _load(dotted: str) -> type:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _tuner(config: dict, port: int) -> str:
    if config.get("advisor"):
        raise ValueError("advisor: NNI 3.0 runs none of its advisors any more; use a tuner such as TPE")
    if not config.get("tuner"):
        raise ValueError("no tuner: write tuner: {name: TPE, classArgs: {optimize_mode: maximize}}")
    if config["tuner"].get("className"):
        return _custom("tuner", config["tuner"])
    tuner, name, space = _builtin("tuner", config), _algorithm(config, "tuner"), _valid_space(config)
    try:
        if space is not None and name != "PBT":  # which wants a folder that only NNI's dispatcher gives it
            tuner.update_search_space(space)
    except Exception as error:
        raise ValueError(f"tuner {name} refuses this search space: {error}") from None
    given = "optimize_mode" in (config["tuner"].get("classArgs") or {})
    return f"{name}, {_mode(tuner)}{'' if given else ' (optimize_mode is not set)'}"


def _assessor(config: dict, port: int) -> str:
    if not config.get("assessor"):
        return "none: every trial runs to its end"
    if config["assessor"].get("className"):
        return _custom("assessor", config["assessor"])
    mode, other = _mode(_builtin("assessor", config)), None
    with contextlib.suppress(ValueError, AttributeError):  # a bad tuner has its own line
        other = _mode(_builtin("tuner", config))
    if {mode, other} == {"maximize", "minimize"}:
        raise ValueError(f"assessor optimize_mode is {mode}, tuner {other}: it would end the best trials")
    return f"{_algorithm(config, 'assessor')}, {mode}"


def _mode(algorithm: Any) -> str:
    """maximize or minimize, as the object sees it: TPE's default is minimize, Medianstop's maximize."""
    if type(algorithm).__name__ == "CurvefittingAssessor":
        return "maximize"
    if type(algorithm).__name__ == "MedianstopAssessor":
        return "maximize" if algorithm._high_better else "minimize"
    return getattr(getattr(algorithm, "optimize_mode", None), "value", "either optimize_mode")


def _builtin(kind: str, config: dict) -> Any:
    """The built-in tuner or assessor, made as NNI's dispatcher makes it, where an error would go unseen."""
    given, args, meta = config[kind].get("name"), config[kind].get("classArgs") or {}, _meta(config, kind)
    works = [other.name for other in _algorithms() if other.algo_type == kind and other.name not in BROKEN]
    if meta is None:
        raise ValueError(f"{kind}.name {given!r} does not exist, {_nearest(given, works)}")
    if meta.name in BROKEN:
        reason = f"{BROKEN[meta.name]}; works: {', '.join(works)}"
        raise ValueError(f"{kind}.name {given!r} does not work today: {reason}")
    if meta.name == "TPE_legacy" and importlib.util.find_spec("hyperopt") is None:
        raise ValueError("tuner.name TPE_legacy needs hyperopt: pip install 'nni[Anneal]', or use TPE")
    cls = _load(meta.class_name)
    known = list(inspect.signature(cls).parameters)
    _check_args(kind, args, known)
    try:
        if meta.validator_class_name:
            defaults = {"optimize_mode": "maximize"} if "optimize_mode" in known else {}
            _load(meta.validator_class_name)().validate_class_args(**{**defaults, **args})
        return cls(**{**(meta.class_args or {}), **args})
    except Exception as error:
        raise ValueError(f"{kind}.classArgs {args}: refused by {given}: {error}") from None


def _check_args(kind: str, args: Any, known: list[str]) -> None:
    if not isinstance(args, dict):
        raise ValueError(f"{kind}.classArgs {args!r}: must be keys and values")
    for key in args:
        if key not in known:
            raise ValueError(f"{kind}.classArgs.{key} does not exist, {_nearest(key, known)}")
    mode = args.get("optimize_mode", "maximize")
    if mode not in ("maximize", "minimize"):
        raise ValueError(f"{kind}.classArgs.optimize_mode {mode!r}: must be maximize or minimize")


def _custom(kind: str, spec: dict) -> str:
    """A tuner of one's own is read, not imported: its imports may be slow, and running it is NNI's job."""
    module, _, name = str(spec["className"]).rpartition(".")
    file = Path(spec["codeDirectory"]) / f"{module.replace('.', '/')}.py"
    if not module or not file.is_file():
        raise ValueError(f"{kind}.className {spec['className']!r}: must be module.Class, {file} must exist")
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ValueError(f"{kind}.className: {file.name} line {error.lineno}: {error.msg}") from None
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if name not in classes:
        raise ValueError(f"{kind}.className: {file.name} has no class {name!r}, {_nearest(name, classes)}")
    for node in classes[name].body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__" and not node.args.kwarg:
            args, plain = spec.get("classArgs") or {}, [argument.arg for argument in node.args.args[1:]]
            _check_args(kind, args, plain + [argument.arg for argument in node.args.kwonlyargs])
            needed = [key for key in plain[: len(plain) - len(node.args.defaults)] if key not in args]
            if needed:
                raise ValueError(f"{kind}.classArgs.{needed[0]} is missing, {spec['className']} needs it")
    return f"{spec['className']} of {file.parent}"


CHECKS: tuple[tuple[str, Callable[[dict, int], str]], ...] = (
    ("Python", _python),
    ("setuptools", _setuptools),
    ("filelock", _filelock),
    ("typeguard", _typeguard),
    ("NNI", _nni),
    ("config", _nni_config),
    ("name", _name),
    ("search space", _search_space),
    ("trials", _trials),
    ("budget", _budget),
    ("tuner", _tuner),
    ("assessor", _assessor),
    ("trial command", _trial_command),
    ("lightning", _lightning),
    ("concurrency", _concurrency),
    ("GPUs", _gpu),
    ("machines", _remote),
    ("folder", _folder),
    ("port", _port),
)
