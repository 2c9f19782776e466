"""docs/scaling.md: what it says to change is accepted, and its array covers the search space; no GPU, no Slurm."""

import itertools
import json
import os
import re
import shlex
import subprocess

import pytest
import yaml

import config
from conftest import ROOT
from guard import trial_check
from guard.experiment_file import load_config
from guard.preflight import check

TEXT = (ROOT / "docs" / "scaling.md").read_text()
[SETTINGS], [ARRAY] = (re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE) for kind in ("yaml", "sh"))


@pytest.mark.parametrize("file", ["config_hpo.yml", "config_classic_nas.yml", "config_darts.yml"])
def test_settings_for_four_gpus_pass_the_check_and_those_for_more_do_not(monkeypatch, file):
    monkeypatch.setattr(trial_check, "gpu_count", lambda: 4)
    changes = {key: json.dumps(value) for key, value in yaml.safe_load(SETTINGS).items()
               if key != "tuner" or file == "config_hpo.yml"}

    def problems(**more):
        found = check(load_config(ROOT / file, changes | more), 18931)
        return {finding.name: finding.problem for finding in found if finding.problem}

    assert problems() == {}
    assert set(problems(trialConcurrency="5")) == {"GPUs"}


def test_the_array_trains_each_combination_once(tmp_path):
    """The script as Slurm would run it, with a python that tells how it was called."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\nprintf "%q " "$@"\n')
    python.chmod(0o755)

    def task(number):
        done = subprocess.run(["bash", "-c", ARRAY], cwd=tmp_path, capture_output=True, text=True, check=True,
                              env={**os.environ, "SLURM_ARRAY_TASK_ID": str(number)})
        return shlex.split(done.stdout)

    first, last = map(int, re.search(r"--array=(\d+)-(\d+)", ARRAY).groups())
    calls = [task(number) for number in range(first, last + 1)]
    given = [config.command_line(config.HpoConfig, call[1:], "") for call in calls]
    space = json.loads((ROOT / "search_space.json").read_text())
    wanted = {values for values in itertools.product(*(space[key]["_value"] for key in ("model", "optimizer", "lr")))}
    assert {(one["model"], one["optimizer"], one["lr"]) for one in given} == wanted and len(given) == len(wanted)
    assert {call[0] for call in calls} == {"hpo_trial.py"} and len({one["name"] for one in given}) == len(given)
    folder = tmp_path / "runs" / "hpo" / given[5]["name"]
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").touch()
    assert "--resume" in task(5) and "--resume" not in task(6)
    (folder / "result.json").touch()
    assert task(5) == []
