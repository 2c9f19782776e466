"""NNI search spaces: what NNI's validator misses, and how many combinations a space holds."""

import codecs
import contextlib
import json
import math
import re
from pathlib import Path
from typing import Any

from files import read_json
from guard.experiment_file import nearest, read_yaml


def read_space(config: dict) -> Any:
    inline, file = config.get("searchSpace"), config.get("searchSpaceFile")
    if file is None or inline is not None:
        if (file is None) == (inline is None):
            raise ValueError("one of searchSpaceFile and searchSpace must be set, not both")
        return inline
    return _read(Path(file))


def _read(file: Path) -> Any:
    """What NNI makes of the file: JSON, or else YAML, in which lists may end in a comma and comments begin with #."""
    if file.is_file() and file.read_bytes().startswith(codecs.BOM_UTF8):  # which is not JSON to NNI
        return read_yaml(file)
    try:
        return read_json(file)
    except ValueError:
        if file.suffix in (".yml", ".yaml"):
            return read_yaml(file)
        with contextlib.suppress(ValueError):
            if isinstance(space := read_yaml(file), dict):
                return space
        raise


def check_space(space: Any, where: str, batch: bool = False) -> None:
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
            check_space(inner, f"{name}.{option['_name']}.")


def _check_range(name: str, kind: Any, values: list) -> None:
    from nni.common.hpo_utils.validation import common_search_space_types as kinds

    if kind not in kinds:
        raise ValueError(f"search space '{name}': _type {kind!r} does not exist, {nearest(kind, kinds)}")
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


def space_size(space: dict) -> float:
    """Number of combinations of a valid space; infinite when a parameter is continuous or unbounded."""
    return math.prod(_options(spec["_type"], spec["_value"]) for spec in space.values())


def _options(kind: str, values: list) -> float:
    if kind == "choice":
        inner = [
            {k: v for k, v in option.items() if k != "_name"}
            for option in values
            if isinstance(option, dict) and "_name" in option
        ]
        return sum(map(space_size, inner)) if inner else len(values)
    if kind == "randint":
        return values[1] - values[0]
    if kind in ("quniform", "qloguniform"):  # NNI rounds to multiples of q, then clips to the bounds
        return round(values[1] / values[2]) - round(values[0] / values[2]) + 1
    return math.inf
