"""What an experiment of NNI has found: the parameters of its best trial, from the best.json of experiment.py."""

from files import read_json

SCHEMA = 1


def best_parameters(file: str) -> dict:
    """What the best trial ran; ValueError with one line, which names the file, if it does not tell."""
    best = read_json(file)
    if not isinstance(best, dict) or best.get("schema") != SCHEMA:
        schema = best.get("schema") if isinstance(best, dict) else None
        raise ValueError(f"{file}: schema {schema!r}, this version reads {SCHEMA}; run the stage again, or delete the "
                         "file")
    if not isinstance(best.get("parameters"), dict):
        raise ValueError(f"{file}: parameters {best.get('parameters')!r} must be an object of names and values")
    return best["parameters"]


def of_stage1(file: str, keys: tuple[str, ...]) -> dict:
    """`keys` of lr, optimizer and model; ValueError if the best trial has not all of them."""
    found = best_parameters(file)
    for key in keys:
        if key not in found:
            raise ValueError(f"{file}: its best trial has no {key}; a result of stage 1 is wanted")
    return {key: found[key] for key in keys}
