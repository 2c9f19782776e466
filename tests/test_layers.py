"""Who may import whom: arrows point down only, scripts never import scripts, nothing runs at import."""

import ast

import pytest
from conftest import ROOT

LEVEL = {"config": 0, "files": 0, "autoaugment": 0, "distributed": 0, "stopping": 0, "hardware": 0,
         "models": 1, "augmentation": 1,
         "data": 2, "training": 2, "run_folder": 2, "guard": 2,
         "nas_ranking": 1, "nas_tuner": 2.5, "darts_drawing": 2, "bilevel": 2,
         "picture_files": 1, "checkpoints": 1, "model_file": 2, "export": 3, "model_card": 3, "nas_plots": 3,
         "trial": 3, "reporting": 3.5, "budgets": 1, "processes": 1, "stages": 3.5}
SCRIPTS = {"hpo_trial", "darts_search", "retrain", "predict", "classic_nas_trial", "experiment", "report", "pipeline"}
FORBIDDEN = {  # besides all of our own modules of the same or a higher level
    "config": {"torch", "torchvision", "nni", "numpy"},
    "files": {"torch", "torchvision", "nni", "numpy"},
    "picture_files": {"torch", "torchvision", "nni", "config"},  # a worker that decodes starts at once
    "stopping": {"torch", "torchvision", "nni", "numpy", "config"},
    "export": {"nni", "config"}, "model_card": {"nni", "config"}, "reporting": {"nni", "config"},
    **{name: {"nni", "config"}
       for name in ("hardware", "models", "bilevel", "checkpoints", "augmentation", "autoaugment", "data", "training",
                    "distributed", "run_folder", "model_file", "darts_drawing")},
    **{name: {"torch", "torchvision"} for name in ("guard", "nas_ranking", "nas_tuner", "experiment")},
}
DECLARE_MUTABLES = {"models/mobilenet_space/nni_space.py", "models/darts/nni_space.py"}  # may import nni.nas
OURS = {*LEVEL, *SCRIPTS}
FILES = sorted([*ROOT.glob("*.py"), *ROOT.glob("models/*.py"), *ROOT.glob("guard/*.py"), *ROOT.glob("reporting/*.py")])


def module(path):
    """models/zoo/vgg.py -> models"""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path):
    """Top-level names of everything that a file imports, inside of functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    name, used = module(path), set(imports(path))
    assert name in OURS, f"{name} has no level yet: give it one"
    level = LEVEL.get(name, 4)
    upward = {other for other in used & OURS if other != name and LEVEL.get(other, 4) >= level}
    forbidden = FORBIDDEN.get(name, set()) - ({"nni"} if str(path.relative_to(ROOT)) in DECLARE_MUTABLES else set())
    assert not upward and not used & forbidden


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_at_import(path):
    definitions = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in ast.parse(path.read_text()).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        entry = isinstance(node, ast.If) and ast.unparse(node.test) in ("__name__ == '__main__'", "TYPE_CHECKING")
        assert isinstance(node, definitions) or docstring or entry, f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_script_has_a_main(name):
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    [main] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    assert ast.unparse(main.args) == "argv: list[str] | None=None" and ast.unparse(main.returns) == "int"
