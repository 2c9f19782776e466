"""Search spaces: those that are shipped, and how large one is."""

import json
from pathlib import Path

import pytest

from conftest import ROOT
from guard.search_space import space_size


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
