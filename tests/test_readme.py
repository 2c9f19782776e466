"""What the documents say: every command is executed, with less work for each (tiny trials, few of them, a HOME of its
own); every link, every file and every name of the code that they name is there."""

import ast
import functools
import importlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

import small_models
from conftest import ROOT
from test_floors import FLOOR
from test_pipeline import TINY as TINY_STAGES

README = (ROOT / "README.md").read_text()
WITH_COMMANDS = README, *((ROOT / "docs" / name).read_text() for name in ("stages.md", "nni.md"))
BLOCKS = [block for text in WITH_COMMANDS for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]
COMMANDS = [line.partition("    #")[0].strip() for block in BLOCKS for line in block.splitlines()]
IN_TABLES = [command for text in WITH_COMMANDS for command in re.findall(r"\| `(python .*?)` \|", text)]
ALL = list(dict.fromkeys(filter(None, [*COMMANDS, *IN_TABLES])))  # one that is named twice runs once
TINY = "--data digits --train-size 64 --val-size 32 --batch-size 32 --epochs 1"
SMALL = "--channels 4 --layers 3"
NOT_EXECUTED = {  # and why
    ". .venv/bin/activate": "the tests run in that environment already",
    "make test": "it is what runs this test",
}


def less(command: str, site: dict) -> str:
    """The same command with less work: what is said last wins."""
    tiny = f"{TINY} --data-dir {site['data_dir']}"
    anew = "" if "--resume" in command else " --overwrite"  # several of them go by one name on digits
    few = f"--set maxTrialNumber=1 --set 'trialCommand=python hpo_trial.py {tiny}'"
    if command.startswith("python hpo_trial.py"):
        return f"{command} {tiny} --runs-dir {site['folder']}/runs{anew}"
    if command.startswith("python classic_nas_trial.py") and "--write" not in command:
        command = command.replace("runs/classic_nas/best.json", str(site["arch"]))
        return f"{command} {tiny} --runs-dir {site['folder']}/runs{anew}"
    if command.startswith("python darts_search.py"):
        return f"{command} {tiny} {SMALL} --runs-dir {site['folder']}/runs{anew}"
    if command.startswith("python retrain.py"):
        genotype = re.sub(r"runs/\S+/genotype.json", "random:3", command)
        return f"{genotype} {tiny.replace('--val-size 32', '')} {SMALL} --runs-dir {site['folder']}/runs{anew}"
    if command.startswith("python report.py"):
        return f"{command} --runs {site['folder']}/runs"
    if command.startswith("python predict.py"):
        command = re.sub("runs/pipeline/test_pictures.csv|new_pictures", str(site["pictures"]), command)
        return re.sub(r"runs/\S+/model\.", f"{site['folder']}/model.", command)
    if command.startswith("python experiment.py run config_classic_nas"):
        return f"{command} {few.replace('hpo_trial', 'classic_nas_trial')} --out {site['folder']}/out"
    if command.startswith("python experiment.py run config_darts"):
        search = f"python darts_search.py {tiny} {SMALL} --choice-epochs 1 --choice-channels 4 --choice-layers 3"
        return f"{command} --set maxTrialNumber=1 --set 'trialCommand={search}' --out {site['folder']}/out"
    if command.startswith("python experiment.py run"):
        return f"{command} {few} --out {site['folder']}/out"
    if command.startswith("python experiment.py results"):
        return f"{command} --out {site['folder']}/out"
    if command.startswith("python -m benchmarks."):
        command = re.sub(r"(=--\w[^\"]*)", rf"\1 --epochs 1 --batch-size 32 {SMALL}", command)
        return f"{command} --data digits --data-dir {site['data_dir']} --train-size 64 --seeds 1 --minutes 0.1"
    if command == "make demo":
        tiny = f"--data-dir {site['data_dir']} --set {' '.join(TINY_STAGES)}"
        return f"make demo RUNS={site['folder']}/demo ARGS='{tiny}'"
    if command.startswith("python pipeline.py"):  # make demo runs it
        return f"{command.replace('my_pictures', 'digits')} --dry-run --runs-dir {site['folder']}/pipeline"
    if "nnictl create" in command:
        return command.replace("config_hpo.yml", str(site["config"])) + f" --port {site['port']}"
    return command


@pytest.fixture(scope="module")
def site(tmp_path_factory, digits_dir):
    """Where the commands are run, and what is stopped afterwards."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "home").mkdir()
    config = yaml.safe_load((ROOT / "config_hpo.yml").read_text())
    config |= {"trialCommand": f"python hpo_trial.py {TINY} --data-dir {digits_dir}", "trialCodeDirectory": str(ROOT),
               "searchSpaceFile": str(ROOT / "search_space.json"), "maxTrialNumber": 1}
    (folder / "tiny.yml").write_text(yaml.safe_dump(config))
    space = json.loads((ROOT / "search_space_classic_nas.json").read_text())
    (folder / "arch.json").write_text(json.dumps({label: spec["_value"][-1] for label, spec in space.items()}))
    small_models.write(folder / "model.pt", "mobilenet")
    (folder / "pictures").mkdir()
    for level in (0, 255):
        Image.new("RGB", (20, 10), (level, 99, 0)).save(folder / f"pictures/{level}.png")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as an activated environment has it
    site = {"folder": folder, "data_dir": digits_dir, "config": folder / "tiny.yml", "port": 18080,
            "arch": folder / "arch.json", "pictures": folder / "pictures",
            "environment": {**os.environ, "HOME": str(folder / "home"), "PATH": path, "OMP_NUM_THREADS": "1"}}
    yield site
    registry = folder / "home/nni-experiments/.experiment"
    for key in json.loads(registry.read_text()) if registry.exists() else ():
        done = shell(f"python experiment.py stop {key}", site)
        assert done.returncode == 0, done.stdout + done.stderr


def shell(command: str, site: dict) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", "-c", command], cwd=ROOT, env=site["environment"], capture_output=True, text=True,
                          timeout=400)


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in ALL if command not in NOT_EXECUTED], ids=str)
def test_command(command, site):
    done = shell(less(command, site), site)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_is_short_has_commands_and_its_files_exist():
    assert len(COMMANDS) >= 10 and "make demo" in COMMANDS and "make test" in COMMANDS
    assert len(README.splitlines()) <= 150
    tree = re.search(r"^## Files\n\n[^ ].*\n\n((?:    .*\n)+)", README, re.MULTILINE)[1]
    assert len(tree.splitlines()) > 10
    for line in tree.splitlines():
        for name in shlex.split(line.strip().split("   ")[0]):
            assert (ROOT / name).exists(), name


# ---- what the documents name is there

TRACKED = sorted(ROOT / name for name in subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True,
    check=True).stdout.split("\0") if name and (ROOT / name).is_file())
DOCUMENTS = [path for path in TRACKED if path.suffix == ".md"]
MOVES = [move for row in re.findall(r"^\| (`\w.*) \| (`.*) \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
         for move in zip(*(re.findall(r"`(.+?)`", cell) for cell in row), strict=False)]  # (path of before, of now)
WRITTEN = {"report.html", "config.json", "leaderboard.json"}  # by a run
KNOW_OLD_NAMES = {"CHANGELOG.md", "guard/moved.py"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links(path):
    for target in re.findall(r"\]\((?!http)([^)]+)\)", path.read_text()):
        file, _, section = target.partition("#")
        found = path.parent / file if file else path
        assert found.exists(), target
        assert not section or section in anchors(found), target


def anchors(document: Path) -> set[str]:
    """Those that a reader of Markdown makes of its headings."""
    headings = re.findall(r"^#+ (.*)", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=name_of)
def test_names_of_the_code_exist(path):
    """`room/file.py`, and `room.file.name` down to a method."""
    text, rooms = path.read_text(), "|".join([*FLOOR, "tests", "benchmarks", "docs"])
    for name in re.findall(rf"(?<![\w./-])((?:{rooms})/[\w./-]+\.\w+)", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`((?:\w+\.)+\w+)`", text):
        if name.partition(".")[0] in FLOOR and not (ROOT / name).exists() and name not in WRITTEN:
            assert is_there(name), name


def is_there(dotted: str) -> bool:
    module, _, name = dotted.rpartition(".")
    try:
        importlib.import_module(dotted)
    except ImportError:
        return bool(module) and hasattr(importlib.import_module(module), name)
    return True


@functools.cache
def old_names() -> re.Pattern:
    """Paths of before; file names and words that no file has any more; functions by the module they were in."""
    names, stems = {path.name for path in TRACKED}, {path.stem for path in TRACKED}
    found = set()
    for old, new in MOVES:
        file, module = Path(old), old.removesuffix(".py").replace("/", ".")
        found |= {old, *({file.name} - names), *({file.stem} - stems if "_" in file.stem else ())}
        if "." in module and not (ROOT / file.with_suffix("")).is_dir():
            found.add(module)
        if new.endswith(".py"):
            found |= {f"{module}.{node.name}" for node in ast.parse((ROOT / new).read_text()).body
                      if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return re.compile(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, sorted(found)))})(?!\w)")


def test_the_table_of_moves_is_whole():
    """Each path of now is there, none of before; some of the moves, to know that the table was read."""
    assert len(MOVES) >= 45 and {("data.py", "pictures/dataset.py"), ("nas_tuner.py", "nas/tuner.py"),
                                 ("models/darts_cells.py", "models/darts/cells.py")} <= set(MOVES)
    for old, new in MOVES:
        assert (ROOT / new).exists() and not (ROOT / old).exists(), (old, new)
    assert old_names().search("see data.py") and old_names().search("nas_tuner: lost")
    assert old_names().search("`training.train_step`") and not old_names().search("training/trial.py, hpo_trial.py")


def test_nothing_speaks_of_files_that_have_moved():
    read = [path for path in TRACKED if name_of(path) not in KNOW_OLD_NAMES
            and path.suffix in ("", ".md", ".py", ".yml", ".toml", ".txt", ".cjs", ".css")]
    lines = [(name_of(path), line.strip()) for path in read
             for line in (comments if path.suffix == ".py" else str.splitlines)(path.read_text())]
    assert len(read) > 100 and not [place for place in lines if old_names().search(place[1])]


def comments(code: str) -> Iterator[str]:
    """Comments and docstrings."""
    yield from (token.string for token in tokenize.generate_tokens(io.StringIO(code).readline)
                if token.type == tokenize.COMMENT)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield from (ast.get_docstring(node) or "").splitlines()
