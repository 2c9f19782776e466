"""Every command of the README is executed, with less work for each: tiny trials, few of them, a HOME of its own."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

import small_models
from conftest import ROOT
from test_pipeline import TINY as TINY_STAGES

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
COMMANDS = [line.partition("    #")[0].strip() for block in BLOCKS for line in block.splitlines()]
IN_TABLES = re.findall(r"\| `(python .*?)` \|", README)
TINY = "--data digits --train-size 64 --val-size 32 --batch-size 32 --epochs 1"
SMALL = "--channels 4 --layers 3"
NOT_EXECUTED = {  # and why
    ". .venv/bin/activate": "the tests run in that environment already",
    "make test": "it is what runs this test",
}


def less(command: str, site: dict) -> str:
    """The same command with less work: what is said last wins."""
    tiny = f"{TINY} --data-dir {site['data_dir']}"
    few = f"--set maxTrialNumber=1 --set 'trialCommand=python hpo_trial.py {tiny}'"
    if command.startswith("python hpo_trial.py"):
        return f"{command} {tiny} --runs-dir {site['folder']}/runs"
    if command.startswith("python classic_nas_trial.py") and "--write" not in command:
        command = command.replace("runs/classic_nas/best.json", str(site["arch"]))
        return f"{command} {tiny} --runs-dir {site['folder']}/runs"
    if command.startswith("python darts_search.py"):
        return f"{command} {tiny} {SMALL} --runs-dir {site['folder']}/runs"
    if command.startswith("python retrain.py"):
        genotype = re.sub(r"runs/\S+/genotype.json", "random:3", command)
        return f"{genotype} {tiny.replace('--val-size 32', '')} {SMALL} --runs-dir {site['folder']}/runs"
    if command.startswith("python report.py"):
        return f"{command} --runs {site['folder']}/runs"
    if command.startswith("python predict.py"):
        command = command.replace("my_pictures/test", str(site["pictures"]))
        return re.sub(r"runs/\S+/model.pt", f"{site['folder']}/model.pt", command)
    if command.startswith("python experiment.py run config_classic_nas"):
        return f"{command} {few.replace('hpo_trial', 'classic_nas_trial')} --out {site['folder']}/out"
    if command.startswith("python experiment.py run config_darts"):
        search = f"python darts_search.py {tiny} {SMALL} --choice-epochs 1 --choice-channels 4 --choice-layers 3"
        return f"{command} --set maxTrialNumber=1 --set 'trialCommand={search}' --out {site['folder']}/out"
    if command.startswith("python experiment.py run"):
        return f"{command} {few} --out {site['folder']}/out"
    if command.startswith("python experiment.py results"):
        return f"{command} --out {site['folder']}/out"
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
@pytest.mark.parametrize("command", [c for c in [*COMMANDS, *IN_TABLES] if c and c not in NOT_EXECUTED], ids=str)
def test_command(command, site):
    done = shell(less(command, site), site)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_has_commands_and_its_files_exist():
    assert len(COMMANDS) >= 10 and "make demo" in COMMANDS and "make test" in COMMANDS
    tree = re.search(r"## Files\n\n(.*?)\n\n", README, re.DOTALL)[1]
    for line in tree.splitlines():
        for name in shlex.split(line.strip().split("   ")[0]):
            assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / link).exists(), link
