"""How settings are declared, checked and merged; which there are: config/__init__.py."""

import dataclasses
import difflib
import math
from collections.abc import Collection, Iterable
from typing import Any, TypeVar

Config = TypeVar("Config")


def setting(default: Any, help: str, **allowed: Any) -> Any:
    """A dataclass field. `allowed`: above, minimum, below, maximum (numbers) or choices (a collection)."""
    return dataclasses.field(default=default, metadata={"help": help, "allowed": allowed})


class Mistakes(ValueError):
    """A user's mistakes, all of a kind at once, a line each."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(lines)
        super().__init__("; ".join(self.lines))


def check(config: Any) -> None:
    """Types and ranges of all settings of a dataclass, for its __post_init__."""
    mistakes = []
    for field in dataclasses.fields(config):
        try:
            value = _typed(field.name, getattr(config, field.name), field.type)
            _check_range(field.name, value, **field.metadata["allowed"])
            object.__setattr__(config, field.name, value)  # an int given for a float is kept as a float
        except ValueError as error:
            mistakes.append(str(error))
    if mistakes:
        raise Mistakes(mistakes)


def merge(cls: type[Config], given: dict[str, Any], tuner: dict[str, Any] | None = None,
          **choices: Collection[str]) -> Config:
    """Settings of class `cls`: default < `given` (the command line) < `tuner`.

    `choices` names the allowed values that only a registry knows: merge(..., model=MODELS).
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    values = {**given, **(tuner or {})}
    mistakes = [f"{key}: not a setting; {_nearest(key, fields)}" for key in values if key not in fields]
    values = {key: value for key, value in values.items() if key in fields}
    try:
        config = cls(**values)
    except Mistakes as error:
        mistakes += error.lines
    for key, allowed in choices.items():
        value = values.get(key, fields[key].default)
        if isinstance(value, str) and value not in allowed:
            mistakes.append(_not_one_of(key, value, allowed))
    if mistakes:
        raise Mistakes(mistakes)
    return config


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"allowed: {', '.join(known)}"


KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", tuple: "words"}


def _typed(key: str, value: Any, kind: type) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{key} = {value!r}: must be {KINDS[kind]}")
    return value


def _not_one_of(key: str, value: Any, choices: Iterable[str]) -> str:
    return f"{key} = {value!r}: must be one of {', '.join(filter(None, choices))}"  # an empty text is no name


def _check_range(key: str, value: Any, above: float | None = None, minimum: float | None = None,
                 below: float | None = None, maximum: float | None = None, choices: Collection[str] = ()) -> None:
    problem = None
    if choices and value not in choices:
        raise ValueError(_not_one_of(key, value, choices))
    if isinstance(value, float) and not math.isfinite(value):
        problem = "must be a finite number"
    elif above is not None and not value > above:
        problem = f"must be above {above}"
    elif minimum is not None and value < minimum:
        problem = f"must be at least {minimum}"
    elif below is not None and not value < below:
        problem = f"must be below {below}"
    elif maximum is not None and value > maximum:
        problem = f"must be at most {maximum}"
    if problem:
        raise ValueError(f"{key} = {value!r}: {problem}")
