"""Who may import whom: arrows point down only, commands never import commands, nothing runs at import."""

import ast
import subprocess
import sys

import pytest

from conftest import ROOT

FLOORS = (  # the house from the ground up; a room is a folder, or a file at the root
    ("config", "files"),
    ("models", "pictures"),
    ("artifacts",),
    ("training", "guard"),
    ("journey", "reporting", "nas", "cluster"),
    ("experiment", "pipeline", "hpo_trial", "classic_nas_trial", "darts_search", "retrain", "predict", "leaderboard",
     "report"),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
COMMANDS = FLOORS[-1]
TORCH, NNI = {"torch", "torchvision"}, {"nni"}
FORBIDDEN = {  # besides all that is not below: others' packages, and the settings, which reach these rooms as arguments
    "config": {*TORCH, *NNI, "numpy"}, "files": {*TORCH, *NNI, "numpy"},
    "models": {*NNI, "config"}, "pictures": {*NNI, "config"}, "artifacts": {*NNI, "config"},
    "training": NNI, "guard": {*TORCH, "config"}, "nas": {"config"}, "cluster": {*TORCH, "config"},
    "reporting": {*NNI, "config"}, "journey": {*TORCH, *NNI}, "experiment": TORCH,
}
FILE_FORBIDS = {  # in single files more
    **{f"pictures/{name}.py": TORCH for name in ("decoding", "reading", "bare")},  # a worker starts at once
    "pictures/preprocess.py": {*TORCH, "files", "pictures"},  # copied beside exports, where there is no repository
    "nas/tuner.py": TORCH, "nas/ranking.py": TORCH,
    "training/stopping.py": {*TORCH, "numpy", "config"},  # in commands that need no torch
    **{f"training/{name}.py": {"config"} for name in
       ("loop", "average", "bilevel", "checkpoints", "compiling", "hardware", "distributed", "optimizers", "muon",
        "views")},
}
FILE_ALLOWS = {  # and in these what their room may not
    "models/mobilenet_space/nni_space.py": NNI, "models/darts/nni_space.py": NNI,  # declare spaces for nni.nas
    "training/reporter.py": NNI,  # asks and reports, when it is a trial
    "reporting/nas_plots.py": {"config"},
}
FILES = sorted(path for room in FLOOR for path in [*ROOT.glob(f"{room}.py"), *ROOT.glob(f"{room}/**/*.py")])


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def imports(path):
    """Dotted names of everything that a file imports, inside of functions and for annotations too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_file_has_a_floor():
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = {name.partition("/")[0].removesuffix(".py") for name in tracked.splitlines()}
    assert found - {"benchmarks", "docs", "tests"} == set(FLOOR)
    assert len(list(ROOT.glob("*.py"))) == 10


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_arrows_point_down(path):
    file, room = name_of(path), name_of(path).removesuffix(".py").partition("/")[0]
    used = {name.partition(".")[0] for name in imports(path)}
    upward = {other for other in used & FLOOR.keys() if other != room and FLOOR[other] >= FLOOR[room]}
    forbidden = (FORBIDDEN.get(room, set()) | FILE_FORBIDS.get(file, set())) - FILE_ALLOWS.get(file, set())
    assert not upward and not used & forbidden


def test_what_starts_at_once_loads_no_torch():
    """Nor by way of others: guard, journey, the tuner, each command until it has read its arguments."""
    names = [name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in FILES
             if name_of(path).removesuffix(".py").partition("/")[0] in ("guard", "journey", *COMMANDS)]
    program = ("import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]; "
               "sys.exit('torch' in sys.modules)")
    names += ["nas.tuner", "pictures.decoding", "training.stopping", "training.trial"]
    assert subprocess.run([sys.executable, "-c", program, *names], cwd=ROOT).returncode == 0


def test_no_circles():
    names = {name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in FILES}
    graph = {name: {other for other in imports(path) if other in names and other != name}
             for name, path in names.items()}
    while leaves := {name for name, below in graph.items() if not below}:
        graph = {name: below - leaves for name, below in graph.items() if name not in leaves}
    assert not graph  # what is left imports itself by way of others


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_runs_at_import(path):
    definitions = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in ast.parse(path.read_text()).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        entry = isinstance(node, ast.If) and ast.unparse(node.test) in ("__name__ == '__main__'", "TYPE_CHECKING")
        assert isinstance(node, definitions) or docstring or entry, f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_main(name):
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    [main] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    assert ast.unparse(main.args) == "argv: list[str] | None=None" and ast.unparse(main.returns) == "int"
