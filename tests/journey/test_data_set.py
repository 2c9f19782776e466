"""The table of test pictures that a pipeline leaves for predict.py."""

import os

import pytest

from journey.data_set import write_test_pictures
from own_pictures import make_classes
from pictures import dataset
from pictures.named import Named


@pytest.mark.parametrize("form", ["flat", "splits", "table"])
def test_what_to_try_are_the_test_pictures(tmp_path, monkeypatch, form):
    """All of them, with their classes, and none of training."""
    monkeypatch.chdir(tmp_path)
    make_classes(tmp_path / "a, set", **{"cat, small": 5, "dog": 5})
    if form == "splits":
        make_classes(tmp_path / "a, set/train", cat=5, dog=5)
        make_classes(tmp_path / "a, set/Test", cat=2, dog=2)
    rows = [f'"{path.relative_to(tmp_path)}",{path.parent.name[:3]}' for path in sorted(tmp_path.glob("*/*/*.png"))]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    data = {"data": "labels.csv" if form == "table" else "a, set", "data_dir": "cache"}
    assert write_test_pictures(data, tmp_path / "runs/test.csv")
    pictures, named = dataset.load(**data), Named(["runs/test.csv"])
    assert list(named) == sorted(os.path.abspath(path) for path in pictures.paths("test")) and not named.broken
    assert [named.names(path)[0] for path in named] == [pictures.classes[label] for label in pictures.test_labels]


def test_what_is_no_file_is_not_to_try(tmp_path, digits_dir):
    assert not write_test_pictures({"data": "digits", "data_dir": digits_dir}, tmp_path / "test.csv")
    make_classes(tmp_path / "set", **{"caf\udce9": 5, "dog": 5})
    assert not write_test_pictures({"data": str(tmp_path / "set"), "data_dir": tmp_path}, tmp_path / "test.csv")
    assert not (tmp_path / "test.csv").exists()
