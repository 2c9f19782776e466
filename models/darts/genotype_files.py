"""Genotypes by name and in files: our own JSON, and what other code of DARTS and PC-DARTS prints and keeps.

That is Genotype(normal=[(operation, source), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6)),
two edges for each node in turn, as text, in Python files, or JSON of these keys. Sources are counted as here. Such text
is taken apart and never run, whatever else may be in the file.
"""

import ast
import difflib
import hashlib
import json
import os
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from files import atomic_write, read_json
from models.darts.genotype import CHOSEN, N_NODES, Genotype, short

FOLDER = Path(__file__).parent / "genotypes"
SHIPPED = ("DARTS_V1", "DARTS_V2", "PC_DARTS")
NAMES = {**{name: name for name in SHIPPED}, "DARTS": "DARTS_V2"}
TEXT = re.compile(r"\s*Genotype\s*\(")
PLACE = re.compile(r"(.+\.(?:py|txt)):(\w+)")  # one of several genotypes in a file
KEYS = ("normal", "normal_concat", "reduce", "reduce_concat")  # of others
NODES = list(range(2, 2 + N_NODES))  # as others number them


def load_genotype(given: str) -> Genotype:
    """A shipped genotype by its name, a random one (`random:SEED`), that of a text `Genotype(...)`, of a file (.py and
    .txt with such text, any other with JSON), or one of several in a file (`FILE.py:NAME`).

    ValueError with one line names what is wrong.
    """
    if given.startswith("random:"):
        return random_genotype(given)
    file, name = _place(given)
    if given not in SHIPPED and os.path.isfile(file):  # Path.is_file raises for what is too long for a name
        return _told(file, lambda: _of_file(Path(file), name))
    if TEXT.match(given):
        return _told("genotype", lambda: _of_text(given.strip(), ""))
    return Genotype.from_json(read_json(FOLDER / f"{_shipped(given)}.json"))


def genotype_name(given: str) -> str:
    """What load_genotype(given) gives, as a name for runs: of what a search has left behind, that of its folder."""
    if TEXT.match(given):
        return f"genotype-{hashlib.sha256(given.encode()).hexdigest()[:8]}"
    file, name = _place(given)
    path = Path(file)
    if path.name in ("genotype.json", "genotype.py") and path.parent.name:
        return path.parent.name
    return name or NAMES.get(_folded(given), path.stem)


def _place(given: str) -> tuple[str, str]:
    """A file, and the name of one genotype in it, if there is one."""
    match = PLACE.fullmatch(given)
    return (match[1], match[2]) if match else (given, "")


def _folded(given: str) -> str:
    return given.upper().replace("-", "_")


def _shipped(given: str) -> str:
    if (name := _folded(given)) in NAMES:
        return NAMES[name]
    close = difflib.get_close_matches(name, NAMES, n=1)
    raise ValueError(f"genotype {given!r} is neither a file nor one of {', '.join(SHIPPED)}, random:SEED, "
                     "Genotype(...)" + (f"; did you mean {close[0]}?" if close else ""))


def random_genotype(name: str) -> Genotype:
    """`random:SEED`: uniform over the space, that is for each node two different sources and each any operation."""
    seed = name.removeprefix("random:")
    if not (seed.isascii() and seed.isdigit()):
        raise ValueError(f"genotype {name!r}: the seed of random:SEED must be a whole number, such as random:0")
    generator = random.Random(int(seed))
    return Genotype(*([[(generator.choice(CHOSEN), source) for source in generator.sample(range(node + 2), 2)]
                       for node in range(N_NODES)] for _ in range(2)))


# ---- files


def save_genotype(path: str | Path, genotype: Genotype) -> None:
    """As JSON, one line a node, or into a .py file as others have it; atomically."""
    with atomic_write(path) as file:
        file.write(_text(genotype) if Path(path).suffix == ".py" else _json(genotype))


def _json(genotype: Genotype) -> str:
    value = genotype.to_json()
    cells = [f'  "{kind}": [\n' + ",\n".join(f"    {json.dumps(pair)}" for pair in value[kind]) + "\n  ]"
             for kind in ("normal", "reduction")]
    return ",\n".join([f'{{\n  "schema": {value["schema"]}', *cells]) + "\n}\n"


def _text(genotype: Genotype) -> str:
    normal, reduce = ([tuple(edge) for pair in cell for edge in pair] for cell in (genotype.normal, genotype.reduction))
    return f"Genotype(normal={normal}, normal_concat={NODES}, reduce={reduce}, reduce_concat={NODES})\n"


def _told(where: str, read: Callable[[], Genotype]) -> Genotype:
    """What `read` gives; its errors say where."""
    try:
        return read()
    except OSError as error:
        raise ValueError(f"{where}: cannot be read ({error.strerror})") from None
    except (RecursionError, MemoryError):  # the parser's, of hundreds of brackets
        raise ValueError(f"{where}: nested too deeply") from None
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(f"{where}:") else f"{where}: {error}") from None


def _of_file(path: Path, name: str) -> Genotype:
    if path.suffix in (".py", ".txt"):
        return _of_text(path.read_text(encoding="utf-8-sig"), name)
    value = read_json(path)
    others = isinstance(value, dict) and "schema" not in value and not value.keys().isdisjoint(KEYS[1:])
    return _of_others(value) if others else Genotype.from_json(value)


# ---- of others


def _of_text(text: str, name: str) -> Genotype:
    """The genotype `name` of a Python text, or the only one in it."""
    found = _definitions(text)
    if name and name not in found:
        close = difflib.get_close_matches(name, found, n=1)
        raise ValueError(f"no {name} = Genotype(...) in it; " + (
            f"did you mean {close[0]}?" if close else f"allowed: {', '.join(filter(None, found)) or 'nothing'}"))
    if not found:
        raise ValueError("no Genotype(...) in it, nor NAME = Genotype(...)")
    if not name and len(set(found.values())) > 1:
        raise ValueError(f"several genotypes in it; behind the file and a colon name one of {', '.join(found)}")
    return _of_others(_fields(found[name] if name else next(iter(found.values()))))


def _definitions(text: str) -> dict[str, ast.Call]:
    """Name -> call, for each `NAME = Genotype(...)` and each other name for one; an unnamed call goes by "Genotype"."""
    try:
        body = ast.parse(text).body
    except SyntaxError as error:
        raise ValueError(f"not Python ({error.msg}, line {error.lineno or 1})") from None
    found: dict[str, ast.Call] = {}
    for statement in body:
        match statement:
            case ast.Expr(value=ast.Call(func=ast.Name(id="Genotype")) as call):
                found["Genotype"] = call
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id="Genotype")) as call):
                found[name] = call
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name(id=other)) if other in found:
                found[name] = found[other]
    return found


def _fields(call: ast.Call) -> dict[str, Any]:
    """The arguments of Genotype(...), which are literals."""
    names = [keyword.arg for keyword in call.keywords]
    if call.args or None in names or len(set(names)) < len(names):
        raise ValueError(f"Genotype(...): must have each of {', '.join(KEYS)} once, by its name")
    return {keyword.arg: _literal(keyword.arg, keyword.value) for keyword in call.keywords}


def _literal(key: str, node: ast.expr) -> Any:
    try:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
            return range(*map(ast.literal_eval, node.args))
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise ValueError(f"{key} = {ast.unparse(node)[:60]}: must be written out, without anything to compute "
                         "but range(2, 6)") from None


def _of_others(value: Mapping[str, Any]) -> Genotype:
    """From what is under their KEYS."""
    for key in (*value, *KEYS):
        if key not in KEYS:
            raise ValueError(f"{key}: no such key; allowed: {', '.join(KEYS)}")
        if key not in value:
            raise ValueError(f"{key} is missing; wanted are {', '.join(KEYS)}")
    for key in ("normal_concat", "reduce_concat"):
        nodes = value[key]
        if not isinstance(nodes, list | tuple | range) or list(nodes[: N_NODES + 1]) != NODES:
            raise ValueError(f"{key} = {short(nodes)}: must be {NODES}, since all four nodes go to the next cell here")
    return Genotype(_pairs("normal", value["normal"]), _pairs("reduce", value["reduce"]))


def _pairs(key: str, edges: Any) -> list[list[Any]]:
    if not isinstance(edges, list | tuple) or len(edges) != 2 * N_NODES:
        raise ValueError(f"{key} = {short(edges)}: must be {2 * N_NODES} edges, two for each node in turn, such as "
                         "[('sep_conv_3x3', 0), ('skip_connect', 1), ...]")
    return [edges[first : first + 2] for first in range(0, 2 * N_NODES, 2)]
