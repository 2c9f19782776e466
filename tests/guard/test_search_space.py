"""Search spaces: those that are shipped, and how large one is."""

import json
from pathlib import Path

import pytest

from conftest import ROOT
from guard.search_space import read_space, space_size


@pytest.mark.parametrize("path", sorted(ROOT.glob("search_space*.json")), ids=lambda path: path.name)
def test_every_search_space_passes_nni(path: Path) -> None:
    from nni.common.hpo_utils.validation import validate_search_space

    assert validate_search_space(json.loads(path.read_text(encoding="utf-8")), raise_exception=True)


def test_size_counts_what_nni_tries_once() -> None:
    from nni.algorithms.hpo.gridsearch_tuner import GridSearchTuner
    from nni.common.hpo_utils import deformat_parameters, format_search_space

    space = {
        "a": {"_type": "randint", "_value": [2, 5]},
        "b": {"_type": "quniform", "_value": [0.5, 3.2, 1]},
        "c": {
            "_type": "choice",
            "_value": [
                {
                    "_name": "x",
                    "k": {"_type": "choice", "_value": [1, 2]},
                    "l": {"_type": "randint", "_value": [0, 2]},
                },
                {"_name": "y"},
            ],
        },
    }
    tuner, seen = GridSearchTuner(), set()
    tuner.update_search_space(space)
    while (parameters := tuner._suggest()) is not None:
        seen.add(json.dumps(deformat_parameters(parameters, format_search_space(space)), sort_keys=True))
    assert space_size(space) == len(seen)


@pytest.mark.parametrize("text", [
    '{"lr": {"_type": "choice", "_value": [0.1, 0.01]}}', '{"lr": {"_type": "choice", "_value": [0.1, 0.01,],},}',
    '{"lr": {"_type": "choice", "_value": [0.1, 1e-2]}}',
    '# why\n{"lr": {"_type": "choice", "_value": [0.1, 0.01]}}  # so', "lr: {_type: choice, _value: [0.1, 0.01]}",
    '\ufeff{"lr": {"_type": "choice", "_value": [0.1, 1e-2]}}', "{'lr': {'_type': 'choice', '_value': [0.1]}}"],
    ids=lambda text: ascii(text)[:30])
@pytest.mark.parametrize("name", ["space.json", "space.yml"])
def test_a_file_is_read_as_nni_reads_it(tmp_path: Path, text: str, name: str) -> None:
    from nni.experiment.config.experiment_config import _load_search_space_file

    (tmp_path / name).write_text(text, encoding="utf-8")
    found = read_space({"searchSpaceFile": str(tmp_path / name)})
    assert found == _load_search_space_file(tmp_path / name) and found["lr"]["_type"] == "choice"


@pytest.mark.parametrize(("text", "words"), [
    ('{"lr": {"_type": "choice", // why\n "_value": [1]}}', "not valid JSON (line 1, column 28: it has no comments)"),
    ('{"lr": {"_type": "choice", "_value": [1]}', "not valid JSON (line 1, column 42: it ends too early)"),
    ('{"lr": {"_type": "choice", "_value": [1]}, "lr": {}}', "key 'lr' stands twice"),
    ('{"lr": {_type: choice, "_value": [1]}, }}', "not valid JSON (line 1, column 9")], ids=lambda text: text[:30])
def test_what_neither_reads_says_where(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "space.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as error:
        read_space({"searchSpaceFile": str(tmp_path / "space.json")})
    assert "space.json: " in str(error.value) and words in str(error.value)
