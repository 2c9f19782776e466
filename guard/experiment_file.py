"""The file of an NNI experiment: read, overridden, its keys checked and its paths made absolute."""

import contextlib
import copy
import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from guard.moved import renamed
from guard.old_format import old_keys

KINDS = ("tuner", "assessor")
TEXT = ("experimentName", "trialCommand", "trialCodeDirectory", "searchSpaceFile", "experimentWorkingDirectory",
        "codeDirectory", "className", "sshKeyFile")  # keys whose values are text


def load_config(path: str | os.PathLike, overrides: Mapping[str, str] = MappingProxyType({})) -> dict:
    """Read an experiment file, apply `--set KEY=VALUE`, make its paths absolute and its keys NNI's camelCase.

    VALUE is YAML, but for keys whose values are text, which is taken as it is unless it stands in quotes.
    Absolute, because the result is written elsewhere and NNI starts relative paths at the file it reads. What an
    earlier version named where it lay then, in the file or in an override, is named as it lies now.
    Raises ValueError with one line for anything that is not a usable experiment file.
    """
    config = _named(read_yaml(Path(path)), str(path))
    for key, text in overrides.items():
        config = _named(_overridden(config, key, text), f"--set {key}")
    return _absolute(renamed(config), Path(path).resolve().parent)


def pairs(option: str, words: list[str]) -> dict[str, str]:
    """KEY=VALUE of an option that may be given several times."""
    for text in words:
        if "=" not in text:
            raise ValueError(f"{option} {text}: must be KEY=VALUE")
    return {key: value for key, _, value in (text.partition("=") for text in words)}


def nearest(word: Any, known: Iterable[str]) -> str:
    """The end of a message about a word that does not exist: the nearest known one, or all of them."""
    known = list(known) or ["none"]
    folded = {name.lower(): name for name in known}
    found = difflib.get_close_matches(str(word).lower(), folded, n=1)
    return f"did you mean '{folded[found[0]]}'?" if found else f"allowed: {', '.join(known)}"


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; ValueError names file, line, column and what is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: cannot be read (byte {error.start + 1} is not UTF-8)") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {_place(text, error)}") from None


class _Loader(yaml.SafeLoader):
    """In which a key that stands twice is a mistake, not the end of the first one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                mark = next(key for key, _ in reversed(node.value) if key.value == keys[number]).start_mark
                raise yaml.MarkedYAMLError(problem=f"key {key!r} stands twice", problem_mark=mark)
        return super().construct_mapping(node, deep)


def _place(text: str, error: yaml.YAMLError) -> str:
    """Where in `text` the error is, and which."""
    mark = getattr(error, "problem_mark", None)
    position = mark.index if mark else getattr(error, "position", 0)
    line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return f"not valid YAML (line {line}, column {column}: {' '.join(reason.split())})"


def _overridden(config: dict, key: str, text: str) -> dict:
    """`config` with the dotted `key` set to what `text` stands for; case and underscores do not count."""
    config = copy.deepcopy(config)
    *parents, last = key.split(".")
    node = config
    for part in parents:
        node = node.setdefault(_spelling(node, part), {})
        if not isinstance(node, dict):
            raise ValueError(f"--set {key}={text}: '{part}' holds {node!r}, which has no keys inside")
    is_text = _fold(last) in map(_fold, TEXT) and "classargs" not in map(_fold, parents)
    node[_spelling(node, last)] = _text(text) if is_text else _value(key, text)
    return config


def _value(key: str, text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {key}={text}: {_place(text, error)}") from None


def _text(text: str) -> str | None:
    """`text` itself, whatever it would mean in YAML; without the quotes around it; None for null."""
    if text in ("", "null", "~"):
        return None
    if text[0] == text[-1] and text[0] in "\"'":
        with contextlib.suppress(yaml.YAMLError):
            quoted = yaml.safe_load(text)
            return quoted if isinstance(quoted, str) else text
    return text


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
    if old := old_keys(config):
        raise ValueError(f"{source}: the old format, of NNI 1 and 2: {', '.join(old)}")
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
    if isinstance(items := service.get("machineList"), list):
        where += "machineList."
        service["machineList"] = [_renamed(item, RemoteMachineConfig, source, where) for item in items]
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
            raise ValueError(f"{source}: unknown key '{where}{key}', {nearest(key, known.values())}")
    return {known[_fold(key)]: item for key, item in value.items()}


def machines(config: dict) -> list[dict]:
    items = config["trainingService"].get("machineList")
    return items if isinstance(items, list) else []


def _absolute(config: dict, folder: Path) -> dict:
    """Every path taken from `folder`, as NNI does; the defaults that depend on it are written out."""
    service = config["trainingService"]
    config["trialCodeDirectory"] = config.get("trialCodeDirectory") or "."
    places = [(config, "searchSpaceFile"), (config, "experimentWorkingDirectory")]
    places += [(node, "trialCodeDirectory") for node in (config, service)]
    places += [(machine, "sshKeyFile") for machine in machines(config)]
    for kind in KINDS:
        if (config.get(kind) or {}).get("className"):
            config[kind]["codeDirectory"] = config[kind].get("codeDirectory") or "."
            places.append((config[kind], "codeDirectory"))
    for node, key in places:
        if isinstance(node.get(key), str):
            node[key] = str((folder / Path(node[key]).expanduser()).resolve())
    return config
