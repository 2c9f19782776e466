"""The experiment files of NNI 1 and 2: what each of their keys is called today.

NNI's own table is nni/experiment/config/convert.py; nnictl 3.0 follows it only for a file that is whole.
"""

from collections.abc import Iterator
from typing import Any

GONE = ""
_SERVICE = {"gpuIndices": "trainingService.gpuIndices", "maxTrialNumPerGpu": "trainingService.maxTrialNumberPerGpu",
            "useActiveGpu": "trainingService.useActiveGpu"}
_MACHINE = {"ip": "host", "port": "port", "username": "user", "passwd": "password", "sshKeyPath": "sshKeyFile",
            "passphrase": "sshPassphrase", "gpuIndices": "gpuIndices", "maxTrialNumPerGpu": "maxTrialNumberPerGpu",
            "useActiveGpu": "useActiveGpu", "pythonPath": "pythonPath"}
_ALGORITHM = {"codeDir": "codeDirectory", "classFileName": "className, as module.Class",
              "optimize_mode": "classArgs.optimize_mode"}
KINDS = ("tuner", "assessor", "advisor")
TODAY = {  # key of then -> key of now
    **dict.fromkeys(("authorName", "description", "multiPhase", "multiThread", "versionCheck", "logCollection"), GONE),
    "maxExecDuration": "maxExperimentDuration", "maxTrialNum": "maxTrialNumber", "searchSpacePath": "searchSpaceFile",
    "logDir": "experimentWorkingDirectory", "trainingServicePlatform": "trainingService.platform",
    "optimize_mode": "tuner.classArgs.optimize_mode",
    "trial.command": "trialCommand", "trial.codeDir": "trialCodeDirectory", "trial.gpuNum": "trialGpuNumber",
    **{f"localConfig.{old}": new for old, new in _SERVICE.items()}, "remoteConfig.reuse": GONE,
    **{f"machineList.{old}": f"trainingService.machineList.{new}" for old, new in _MACHINE.items()},
    **{f"{kind}.builtin{kind.title()}Name": f"{kind}.name" for kind in KINDS},
    **{f"{kind}.{old}": f"{kind}.{new}" for kind in KINDS for old, new in _ALGORITHM.items()},
    **{f"{kind}.includeIntermediateResults": GONE for kind in KINDS},
    **{f"{kind}.gpuIndices": "tunerGpuIndices" for kind in KINDS},
}
NO_MORE = ("trial", "localConfig", "remoteConfig", "machineList")  # sections, with all that they hold


def old_keys(config: Any) -> list[str]:
    """What has become of each key of an experiment file that NNI 3 does not know by this name any more."""
    known = {key.lower(): now for key, now in TODAY.items()}
    found = {key: known.get(key.lower(), GONE if key.partition(".")[0] in NO_MORE else None) for key in _keys(config)}
    return [f"'{key}' is " + (f"now '{now}'" if now else "no more") for key, now in found.items() if now is not None]


def _keys(config: Any) -> Iterator[str]:
    """Keys of the file, those of its sections with the section's name before them."""
    for key, value in config.items() if isinstance(config, dict) else ():
        if key in (*KINDS, *NO_MORE):
            for part in value if isinstance(value, list) else [value]:
                yield from (f"{key}.{inner}" for inner in part if isinstance(part, dict)) if part else ()
        else:
            yield str(key)
