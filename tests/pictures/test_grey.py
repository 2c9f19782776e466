"""Pictures of 16-bit or floating grey that do not keep to the range of the training pictures: never cut off unsaid."""

import numpy as np
import pytest
from PIL import Image

import predict
import small_models
from pictures.dataset import load
from pictures.grey import GreySeen, Values


def write(path, largest, kind="integer"):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(abs(hash(str(path)))).random((16, 16)) * largest
    values[0, :2] = 0, largest
    Image.fromarray(values.astype(np.uint16 if kind == "integer" else np.float32)).save(path)


@pytest.mark.parametrize(("kind", "suffix", "train", "other", "name"), [
    ("integer", "png", 4095, 60_000, "16-bit"), ("integer", "tiff", 1023, 1030, "16-bit"),
    ("float", "tiff", 1, 1.5, "floating")])
def test_validation_and_test_pictures_beyond_the_range_are_told(tmp_path, kind, suffix, train, other, name):
    for split, largest in (("train", train), ("val", train), ("test", other)):
        for label in ("ant", "bee"):
            for number in range(3):
                write(tmp_path / f"set/{split}/{label}/{number}.{suffix}",
                      largest if number == 0 else train, kind)
    for _ in range(2):  # packed, and from its cache
        pictures = load(str(tmp_path / "set"), tmp_path / "cache")
        words = f"{name} grey in 12 pictures, values 0 to {other}: those of the training pictures are 0 to {train}; " \
                "2 pictures are cut off there"
        assert pictures.counts["grey_unlike"] == [words] and f"validation and test: {words}" in pictures.summary()


def test_what_keeps_to_the_range_needs_no_word(tmp_path):
    for split in ("train", "test"):
        for label in ("ant", "bee"):
            for number in range(2):
                write(tmp_path / f"set/{split}/{label}/{number}.png", 4000 - 100 * number)
    assert "grey_unlike" not in load(str(tmp_path / "set"), tmp_path / "cache").counts


@pytest.mark.parametrize(("learnt", "largest", "words"), [
    ({"integer": [0, 4095]}, 4000, None),
    ({"integer": [0, 4095]}, 50_000, "values 0 to 50000: those of the training pictures are 0 to 4095; 3 pictures are "
                                     "cut off there, the first {}/in/0.png"),
    ({"integer": [0, 65535]}, 4095, "values 0 to 4095: those of the training pictures are 0 to 65535; what was learnt "
                                    "is brighter"),
    (None, 65535, "values 0 to 65535: the training pictures had none such")])
def test_predictions_tell_of_another_range(tmp_path, capsys, learnt, largest, words):
    small_models.write(tmp_path / "model.pt", "shufflenetg2", {"data": {"grey_range": learnt}})
    for number in range(3):
        write(tmp_path / f"in/{number}.png", largest)
    Image.new("L", (16, 16), 255).save(tmp_path / "in/plain.png")
    argv = ["--model", str(tmp_path / "model.pt"), "--images", str(tmp_path / "in"), "--workers", "1",
            "--batch-size", "2"]
    assert predict.main(argv) == 0
    out, error = capsys.readouterr()
    told = [line for line in error.splitlines() if line.startswith("warning: ")]
    words = [f"warning: 16-bit grey in 3 pictures, {words.format(tmp_path)}"] if words else []
    assert told == words == error.splitlines()[:len(words)], "before what it bears on"
    assert len(out.splitlines()) == 5


def test_one_picture_is_one():
    seen = GreySeen({"float": (0, 1)})
    seen.add(Values("float", 0, 2))
    one = GreySeen({"float": (0, 1)})
    one.add(Values("float", 0, 2), "a.tif")
    assert one.lines() == [f"{line}: a.tif" for line in seen.lines()]
    assert seen.lines() == ["floating grey in 1 picture, values 0 to 2: those of the training pictures are 0 to 1; "
                            "1 picture is cut off there"]
