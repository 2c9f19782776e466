"""Whether the trials of an NNI experiment can start: their command, their script, their GPUs."""

import ast
import contextlib
import importlib.util
import math
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from guard import experiment_file

STORM = "or NNI 3.0 starts processes without end"


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


def code_of(config: dict) -> Path:
    return Path(config["trainingService"].get("trialCodeDirectory") or config["trialCodeDirectory"])


def command_of(config: dict) -> Any:
    return config["trainingService"].get("trialCommand") or config.get("trialCommand")


def _command(config: dict) -> list[str]:
    return _words(command_of(config))


def script_of(config: dict) -> Path | None:
    """The file that the trial's interpreter runs (also with -m); None when the command is no interpreter."""
    program, *rest = _command(config)
    if not re.fullmatch(r"(python|pypy|bash|sh)[\d.]*", Path(program).name):
        return None
    while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
        del rest[: 2 if rest[0] in ("-W", "-X") else 1]
    if not rest or rest[0] == "-c":
        return None
    if rest[0] == "-m" and rest[1:]:
        return code_of(config) / f"{rest[1].replace('.', '/')}.py"
    return code_of(config) / rest[0]


def check_command(config: dict, port: int) -> str:
    program, script, code = _command(config)[0], script_of(config), code_of(config)
    if not code.is_dir():
        raise ValueError(f"trialCodeDirectory {code}: no such folder")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # that of experiment.py
    found = shutil.which(str(code / program) if "/" in program else program, path=path)
    if config["trainingService"]["platform"] == "local" and found is None:
        raise ValueError(f"trialCommand: {program!r} is not an executable on PATH")
    if script is not None and not script.is_file():
        raise ValueError(f"trialCommand: {script.name!r} does not exist in {script.parent}")
    return shlex.join(_command(config))


def check_lightning(config: dict, port: int) -> str:
    script = None
    with contextlib.suppress(ValueError):  # a bad command has its own line
        script = script_of(config)
    if script is None or script.suffix != ".py" or not script.is_file():
        return "not needed"
    try:
        nodes = list(ast.walk(ast.parse(script.read_bytes())))
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


def check_gpus(config: dict, port: int) -> str:
    from nni.experiment.config.utils import canonical_gpu_indices

    service, trials = config["trainingService"], config.get("trialConcurrency", 1)
    wanted = service.get("trialGpuNumber", config.get("trialGpuNumber"))
    share, machines = service.get("maxTrialNumberPerGpu", 1), experiment_file.machines(config)
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
