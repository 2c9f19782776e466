"""What can be known before an experiment starts on Ray: the checks of NNI's engine that concern it, and its own."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

from guard import preflight, trial_check

SHARED = ("Python", "NNI", "config", "name", "search space", "trials", "budget", "tuner", "assessor", "trial command",
          "settings")  # of guard.preflight.CHECKS
NOT_HERE = ("advisor", "sharedStorage", "nniManagerIp", "tunerGpuIndices", "trainingService.gpuIndices",
            "trainingService.machineList")  # keys that ask for what only NNI does


def check(config: dict[str, Any]) -> list[preflight.Finding]:
    """Every check, as `guard.preflight.check`."""
    ours = (("trial script", _check_script), ("machines", _check_machines), ("concurrency", _check_concurrency))
    return preflight.check(config, None, [*(pair for pair in preflight.CHECKS if pair[0] in SHARED), *ours])


def command_of(config: dict[str, Any]) -> tuple[Path, list[str]]:
    """Script and arguments of trialCommand; ValueError unless its `run` can be called."""
    command = trial_check.command_of(config)
    words = shlex.split(str(command))
    if len(words) < 2 or not re.fullmatch(r"python[\d.]*", Path(words[0]).name) or not words[1].endswith(".py"):
        raise ValueError(f"trialCommand {command!r}: must be `python SCRIPT.py ARGUMENTS` for Ray, which calls "
                         "its `run`")
    script = trial_check.code_of(config) / words[1]
    if not script.is_file():
        raise ValueError(f"trialCommand: {script.name!r} does not exist in {script.parent}")
    return script.resolve(), words[2:]


def _check_script(config: dict[str, Any], port: int | None) -> str:
    script, _ = command_of(config)
    try:
        nodes = ast.parse(script.read_bytes()).body
    except SyntaxError as error:
        raise ValueError(f"{script.name} line {error.lineno}: {error.msg}") from None
    if not any(isinstance(node, ast.FunctionDef) and node.name == "run" and len(node.args.args) == 3 for node in nodes):
        raise ValueError(f"trialCommand: {script.name} must have run(argv, parameters, reporter), which Ray calls")
    return f"{script.name}: run(argv, parameters, reporter)"


def _check_machines(config: dict[str, Any], port: int | None) -> str:
    service = config["trainingService"]
    if service["platform"] != "local":
        raise ValueError(f"trainingService.platform {service['platform']}: must be local, Ray has its own machines "
                         "(--address)")
    for key in NOT_HERE:
        place, _, last = key.rpartition(".")
        if (config[place] if place else config).get(last) is not None:
            raise ValueError(f"{key}: Ray cannot do that; remove it, or leave out --engine ray")
    wanted, share = gpus_of(config)
    if wanted is None:
        return "each trial gets its share of the GPUs, if there are any"
    return f"{wanted} GPUs a trial, {share} trials a GPU"


def gpus_of(config: dict[str, Any]) -> tuple[int | None, int]:
    """trialGpuNumber, none if it is not set, and maxTrialNumberPerGpu."""
    service = config["trainingService"]
    wanted, share = service.get("trialGpuNumber", config.get("trialGpuNumber")), service.get("maxTrialNumberPerGpu", 1)
    for key, value, least in (("trialGpuNumber", wanted, 0), ("maxTrialNumberPerGpu", share, 1)):
        if value is not None and (not isinstance(value, int) or value < least):
            raise ValueError(f"{key} {value!r}: must be a whole number, {least} or more")
    if wanted and wanted > 1 and share > 1:
        raise ValueError(f"maxTrialNumberPerGpu {share}: must be 1 with trialGpuNumber {wanted}")
    return wanted, share


def _check_concurrency(config: dict[str, Any], port: int | None) -> str:
    count = config.get("trialConcurrency")
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"trialConcurrency {count!r}: must be a whole number, 1 or more")
    return f"{count} at a time, on all machines together"


def share_of(config: dict[str, Any], cpus: list[float], gpus: list[float]) -> dict[str, float]:
    """CPUs and GPUs of a trial, by those of each machine; ValueError if no machine has that many GPUs.

    CPUs: as many whole ones as let trialConcurrency run at once, or a part of one. GPUs: trialGpuNumber, or where that
    is not set a GPU each, or a part of one.
    """
    count, (wanted, share) = config["trialConcurrency"], gpus_of(config)
    whole = next((size for size in range(int(max(cpus)), 0, -1) if sum(has // size for has in cpus) >= count), 0)
    of_gpus = min(1.0, sum(gpus) / count) if wanted is None else wanted / share
    if of_gpus > max(gpus):
        raise ValueError(f"trialGpuNumber {wanted}: no machine of this Ray has so many, the largest {max(gpus):g}")
    part = next((1 / size for size in range(2, 10_000) if sum(has * size for has in cpus) >= count), 0.0001)
    return {"cpu": whole or part, "gpu": of_gpus if of_gpus >= 1 else int(of_gpus * 1000) / 1000}
