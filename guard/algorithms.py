"""Which tuners and assessors of NNI 3.0 work today, and whether the one of a config would start."""

import ast
import contextlib
import functools
import importlib
import importlib.util
import inspect
import math
from pathlib import Path
from typing import Any

from guard.experiment_file import nearest
from guard.search_space import check_space, read_space, space_size

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


def check_tuner(config: dict, port: int) -> str:
    if config.get("advisor"):
        raise ValueError("advisor: NNI 3.0 runs none of its advisors any more; use a tuner such as TPE")
    if not config.get("tuner"):
        raise ValueError("no tuner: write tuner: {name: TPE, classArgs: {optimize_mode: maximize}}")
    if config["tuner"].get("className"):
        return _custom("tuner", config["tuner"])
    tuner, name, space = builtin("tuner", config), _algorithm(config, "tuner"), _valid_space(config)
    try:
        if space is not None and name != "PBT":  # which wants a folder that only NNI's dispatcher gives it
            tuner.update_search_space(space)
    except Exception as error:
        raise ValueError(f"tuner {name} refuses this search space: {error}") from None
    given = "optimize_mode" in (config["tuner"].get("classArgs") or {})
    return f"{name}, {_mode(tuner)}{'' if given else ' (optimize_mode is not set)'}"


def check_assessor(config: dict, port: int) -> str:
    if not config.get("assessor"):
        return "none: every trial runs to its end"
    if config["assessor"].get("className"):
        return _custom("assessor", config["assessor"])
    mode, other = _mode(builtin("assessor", config)), None
    with contextlib.suppress(ValueError, AttributeError):  # a bad tuner has its own line
        other = _mode(builtin("tuner", config))
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


def builtin(kind: str, config: dict) -> Any:
    """The built-in tuner or assessor, made as NNI's dispatcher makes it, where an error would go unseen."""
    given, args, meta = config[kind].get("name"), config[kind].get("classArgs") or {}, _meta(config, kind)
    works = [other.name for other in _algorithms() if other.algo_type == kind and other.name not in BROKEN]
    if meta is None:
        raise ValueError(f"{kind}.name {given!r} does not exist, {nearest(given, works)}")
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
            raise ValueError(f"{kind}.classArgs.{key} does not exist, {nearest(key, known)}")
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
        tree = ast.parse(file.read_bytes())
    except SyntaxError as error:
        raise ValueError(f"{kind}.className: {file.name} line {error.lineno}: {error.msg}") from None
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if name not in classes:
        raise ValueError(f"{kind}.className: {file.name} has no class {name!r}, {nearest(name, classes)}")
    for node in classes[name].body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__" and not node.args.kwarg:
            args, plain = spec.get("classArgs") or {}, [argument.arg for argument in node.args.args[1:]]
            _check_args(kind, args, plain + [argument.arg for argument in node.args.kwonlyargs])
            needed = [key for key in plain[: len(plain) - len(node.args.defaults)] if key not in args]
            if needed:
                raise ValueError(f"{kind}.classArgs.{needed[0]} is missing, {spec['className']} needs it")
    return f"{spec['className']} of {file.parent}"


def _checked_space(config: dict) -> dict:
    from nni.common.hpo_utils.validation import validate_search_space

    space, batch = read_space(config), _algorithm(config, "tuner") == "Batch"
    check_space(space, "", batch)
    if not batch:  # its dicts are whole trials, which NNI's validator does not know
        validate_search_space(space, raise_exception=True)
    return space


def _valid_space(config: dict) -> dict | None:
    with contextlib.suppress(ValueError):
        return _checked_space(config)


def check_search_space(config: dict, port: int) -> str:
    return ", ".join(_checked_space(config))


def check_trials(config: dict, port: int) -> str:
    space, trials, tuner = _valid_space(config), config.get("maxTrialNumber"), _algorithm(config, "tuner")
    if space is None:
        return "not counted: see search space"
    size = space_size(space)
    if isinstance(trials, int) and trials > size:
        if tuner in SAME_TRIAL_NEVER_TWICE:
            raise ValueError(
                f"maxTrialNumber {trials}: the search space has {size} combinations, {tuner} tries "
                f"none twice, and NNI then waits for ever; set at most {size}"
            )
        return f"{trials} of {size} combinations, so some will run more than once"
    return f"{trials or 'any number'} of {'endless' if size == math.inf else f'{size:,}'} combinations"
