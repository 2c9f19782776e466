"""The side that pictures are packed with when nobody names one."""

import pytest
from PIL import Image

from pictures.dataset import load
from pictures.sizes import SIZES, automatic, shorter_side


def files(folder, *sizes):
    paths = []
    for number, size in enumerate(sizes):
        Image.new("RGB", size).save(folder / f"{number}.png")
        paths.append(str(folder / f"{number}.png"))
    return paths


@pytest.mark.parametrize(("sizes", "side"), [
    ([(32, 32)] * 3, 32), ([(20, 400)], 32), ([(95, 300)], 64), ([(96, 96)], 96), ([(3000, 2000)] * 2, 128),
    ([(40, 40), (70, 70), (500, 500)], 64)], ids=str)
def test_the_largest_that_the_median_picture_has(tmp_path, sizes, side):
    assert automatic(files(tmp_path, *sizes), len(sizes))[0] == side


def test_what_cannot_be_opened_does_not_count(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    paths = [*files(tmp_path, (64, 64)), str(tmp_path / "broken.png"), str(tmp_path / "not there.png")]
    assert (automatic(paths, 3), automatic(paths[1:], 2), automatic([], 0)) == ((64, ""), (32, ""), (32, ""))


@pytest.mark.parametrize(("pictures", "side"), [(50_000, 128), (100_000, 96), (1_000_000, 32), (10**8, 32)])
def test_the_packed_pictures_stay_small(tmp_path, pictures, side):
    assert automatic(files(tmp_path, (500, 500)), pictures)[0] == side


@pytest.mark.parametrize(("size", "pictures", "told"), [
    ((100, 80), 2, "64 pixels: half of the pictures have 80 or more on their shorter side, and the next size is 96"),
    ((300, 200), 2, "128 pixels: half of the pictures have 200 or more on their shorter side, and more than 128 takes "
                    "--image-size"),
    ((300, 200), 100_000, "96 pixels: half of the pictures have 200 or more on their shorter side, and at 128 all of "
                          "them would take more than 4 GB"), ((64, 70), 2, ""), ((9, 9), 2, "")])
def test_why_it_is_no_larger(tmp_path, size, pictures, told):
    assert automatic(files(tmp_path, size, size), pictures)[1] == told


def test_only_some_heads_are_read(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr("pictures.sizes.shorter_side", lambda path: looked.append(path) or 50)
    assert automatic([str(number) for number in range(100_000)], 100_000)[0] == 48 and len(looked) <= 65


def test_a_huge_picture_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6_000)
    assert shorter_side(files(tmp_path, (100, 100))[0]) == 100
    assert sorted(SIZES) == list(SIZES)


def test_a_side_that_changes_with_the_pictures_is_told(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (70, 70), (number, 0, ord(label[0]))).save(tmp_path / f"set/{label}/{number}.png")
    found = load(str(tmp_path / "set"), tmp_path)
    assert found.side == 64 and "\n  64 pixels: half of the pictures have 70 or more" in found.summary()
    load(str(tmp_path / "set"), tmp_path, image_size="32")  # of the same pictures
    assert "earlier_side" not in load(str(tmp_path / "set"), tmp_path, drop_duplicates=True).counts
    for number in range(20):
        Image.new("RGB", (130, 140), (number, 9, 0)).save(tmp_path / f"set/cat/large{number}.png")
    for _ in range(2):
        pictures = load(str(tmp_path / "set"), tmp_path)
        words = "brought to 64x64 pixels when these were other or fewer pictures (--image-size 64 keeps that)"
        assert pictures.side == 128 and f"\n  {words}" in pictures.summary()
    assert "earlier_side" not in load(str(tmp_path / "set"), tmp_path, image_size="64").counts
