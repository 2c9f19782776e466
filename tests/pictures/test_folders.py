"""What a folder of pictures is: a test for each thing that people have."""

import hashlib
import os
import socket

import numpy as np
import pytest

from own_pictures import left_out, make, make_classes, refused, sizes
from pictures.dataset import load
from pictures.folders import find_pictures, in_folder
from pictures.listing import Listing
from pictures.own import listed


@pytest.fixture
def root(tmp_path):
    return tmp_path / "pictures"


@pytest.fixture
def opened(root, tmp_path):
    """Open the data set in `root`."""
    return lambda data=root, **settings: load(str(data), tmp_path / "cache", **settings)


@pytest.fixture
def listing(root, tmp_path):
    """What there is in `root`."""
    return lambda share=0.2, **settings: listed(str(root), tmp_path / "cache", share, False, **settings)


def split_of(found: Listing) -> dict[str, str]:
    return {file.path: file.split for file in found.files}


# ---- root/<class>/*, nothing split


def test_classes_alone_get_a_test_set(root, opened):
    make_classes(root, cat=20, dog=12, owl=3)
    pictures = opened()
    assert pictures.classes == ("cat", "dog", "owl") and sizes(pictures) == ([16, 10, 2], [4, 2, 1], 0)
    assert pictures.summary(3) == (
        "3 classes, 28 + 7 pictures, smallest class 2; validation 3; brought to 32x32 pixels (pad)\n"
        "  unequal classes: 'cat' has 16 pictures, 'owl' 2\n"
        "  no test set was given: 20% of each class set aside as one")
    assert left_out(pictures) == {"test_share": 0.2}
    assert sizes(opened(test_share=0.5)) == ([10, 6, 1], [10, 6, 2], 0)


def test_the_test_set_stays_when_pictures_are_added(root, listing):
    """Whatever is added, in any order, also where it is very few pictures."""
    make_classes(root, cat=3, dog=4, owl=30)
    before = split_of(listing())
    for number in (7, 0, 20, 1, 60):
        for name in ("cat", "dog", "owl"):
            for more in range(number):
                make(root / name / f"{number}-{more}.png")
        now = split_of(listing())
        assert {path: now[path] for path in before} == before and len(now) == len(before) + 3 * number
        before = now
    tests = [path.partition("/")[0] for path, split in now.items() if split == "test"]
    assert {name: tests.count(name) for name in ("cat", "dog", "owl")} == {"cat": 18, "dog": 18, "owl": 24}


def test_the_test_set_is_that_of_the_names_alone(root, listing, tmp_path):
    """On another machine, from another place, with other pictures under the same names."""
    make_classes(root, cat=20, dog=12)
    make_classes(tmp_path / "other", cat=20, dog=12)
    assert split_of(listing()) == split_of(listed(str(tmp_path / "other"), tmp_path / "cache 2", 0.2, False))


def test_a_picture_that_went_and_came_back_is_where_it_was(root, listing, tmp_path):
    make_classes(root, cat=10, dog=10)
    before = split_of(listing())
    (root / "cat").rename(tmp_path / "cat")
    make_classes(root, owl=10)
    listing()
    (tmp_path / "cat").rename(root / "cat")
    make(root / "cat/another.png")
    assert split_of(listing()).items() >= before.items()


def test_looking_remembers_nothing(root, listing, tmp_path):
    make_classes(root, cat=10, dog=10)
    listing(remember=False)
    assert not (tmp_path / "cache").exists()


# ---- train/, val/, test/


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val", "VALID"])
@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Train", "TEST")])
def test_splits_are_used_as_what_they_are(root, opened, val, train, test):
    for split, size in ((train, 5), (val, 3), (test, 2)):
        make_classes(root / split, cat=size, dog=size)
    pictures = opened()
    assert sizes(pictures) == ([8, 8], [2, 2], 6) and pictures.train_labels[-6:].tolist() == [0, 0, 0, 1, 1, 1]
    assert pictures.summary() == (
        "2 classes, 10 + 4 pictures, smallest class 5; validation 6; brought to 32x32 pixels (pad)")


def test_without_test_it_is_set_aside_from_train(root, opened):
    make_classes(root / "train", cat=10, dog=5)
    make_classes(root / "val", cat=3, dog=3)
    pictures = opened()
    assert sizes(pictures) == ([8 + 3, 4 + 3], [2, 1], 6)
    assert "; validation 6; " in pictures.summary() and "\n  no test set was given: 20% of each" in pictures.summary()


def test_a_validation_set_belongs_to_the_data(root, opened):
    """Another one is another data set, for checkpoints."""
    for split in ("train", "val", "test"):
        make_classes(root / split, cat=4, dog=4)
    before = opened().checksum
    (root / "val/dog/3.png").rename(root / "train/dog/x.png")
    assert opened().checksum != before


def test_unclear_splits_are_refused(root, opened):
    make_classes(root / "val", cat=2, dog=2)
    assert "no folder train/ beside val/; wanted: a folder with a folder for each class" in refused(opened)
    make_classes(root / "train", cat=2, dog=2)
    make_classes(root / "Valid", cat=2, dog=2)
    message = refused(opened)
    assert "val/" in message and "Valid/" in message and "are both there" in message


def test_what_is_in_no_split_or_class_is_told(root, opened):
    make_classes(root / "train", cat=5, dog=5)
    make_classes(root / "unlabelled", some=3)
    make(root / "train/cover.png")
    (root / "unlabelled/list.txt").write_text("no picture")
    (root / "unlabelled/link").symlink_to("nowhere")
    assert opened().summary().split("\n  ")[1:] == [
        f"not used, since in no class: 1 in {root}/train itself",
        "not used, since in neither train, val nor test: 3 in unlabelled/",
        "no test set was given: 20% of each class set aside as one", "1 file is no picture"]


# ---- below a class


def test_subfolders_and_links_are_used(root, opened, tmp_path):
    make_classes(root, cat=4, dog=4)
    make(root / "cat/2024/summer/a.png")
    make(tmp_path / "elsewhere/b.png")
    make(tmp_path / "elsewhere/deep/c.png")
    (root / "cat/link.png").symlink_to(tmp_path / "elsewhere/b.png")
    (root / "dog/more").symlink_to(tmp_path / "elsewhere")
    (root / "owl").symlink_to(tmp_path / "elsewhere")  # a class
    pictures = opened()
    assert pictures.classes == ("cat", "dog", "owl")
    assert (np.array(sizes(pictures)[0]) + sizes(pictures)[1]).tolist() == [6, 6, 2]


def test_sessions_that_are_split_at_random_are_told(root, opened):
    """Neighbours look alike; where the owner has split, the owner knows."""
    for session in "abc":
        make_classes(root / "cat" / session, monday=2)
    make_classes(root, dog=6)
    make_classes(root / "owl", all=6)
    assert opened().summary().splitlines()[1].startswith(
        "  3 folders within classes: their pictures are split at random, and if those of a folder look alike")
    (root / "train").mkdir()
    for name in ("cat", "dog", "owl"):
        (root / name).rename(root / "train" / name)
    assert opened().counts["subfolders"] == 3
    make_classes(root / "test", cat=1, dog=1, owl=1)
    assert "subfolders" not in opened().counts


def test_loops_end(root):
    make_classes(root, cat=2, dog=2)
    (root / "round").symlink_to(root)
    (root / "cat/up").symlink_to(root)
    (root / "cat/self").symlink_to("self")
    (root / "dog/deep").mkdir()
    (root / "dog/deep/back").symlink_to(root / "dog")
    (root / "dog/other").symlink_to(root / "cat")  # no loop, but to one
    found = in_folder(str(root))
    assert sorted(file.path for file in found.files) == [
        "cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png", "dog/other/0.png", "dog/other/1.png"]
    assert [line.partition(":")[0] for line in found.broken] == [f"{root}/cat/self", f"{root}/dog/other/self"]
    assert found.problems == ()


def test_one_walk_for_training_and_predictions(root):
    make_classes(root, cat=2, dog=1)
    make(root / "cat/deep/x.png")
    for other in ("Thumbs.db", "cat/notes.txt", "cat/.hidden.png", "cat/@eaDir/0.png"):
        (root / other).parent.mkdir(exist_ok=True)
        (root / other).write_text("")
    (root / "dog/up").symlink_to(root)
    found = [os.path.relpath(path, root) for path in find_pictures(str(root))]
    assert found == ["cat/0.png", "cat/1.png", "cat/deep/x.png", "dog/0.png"]
    assert sorted(found) == sorted(file.path for file in in_folder(str(root)).files)


def test_predictions_hold_one_folder_a_level(root, monkeypatch):
    make_classes(root, **{f"c{number}": 1 for number in range(20)})
    opened, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: opened.append(path) or scandir(path))
    first = next(find_pictures(str(root)))
    assert first.endswith("c0/0.png") and len(opened) == 2


# ---- files that are no pictures


def test_system_files_are_neither_pictures_nor_classes(root, opened):
    make_classes(root, cat=5, dog=5)
    for name in ("Thumbs.db", "cat/desktop.ini", "cat/ehthumbs.db", "cat/@eaDir/0.png/SYNO.jpg", "dog/._0.png",
                 ".DS_Store", ".ipynb_checkpoints/0.png", "__MACOSX/cat/._0.png", "__pycache__/x.pyc", "cat/0.xml",
                 "README.md", "labels.csv", "dog/list.TXT", "index.html", "annotations/0.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"no picture")
    pictures = opened()
    assert pictures.classes == ("cat", "dog") and pictures.counts["not_pictures"] == 15
    assert "\n  15 files are no pictures" in pictures.summary()
    (root / "notes.txt").write_text("one more, and the cache is the same")
    assert opened().counts["not_pictures"] == 16


def test_other_things_are_no_pictures(root, opened):
    make_classes(root, cat=5, dog=5)
    os.mkfifo(root / "cat/pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        os.chdir(root)
        bound.bind("dog/socket")
        assert opened().counts["not_pictures"] == 2


# ---- broken files


@pytest.fixture
def broken(root):
    """14 broken ones of 2 times 20 pictures."""
    for split, size in (("train", 15), ("test", 5)):
        make_classes(root / split, cat=size, dog=size)
        for number in range(7):
            (root / split / "cat" / f"bad{number}.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more than that")
    return root


def test_all_broken_files_are_named_in_one_run(broken, opened, tmp_path):
    message = refused(opened)
    assert message.startswith(f"data = {broken}: 14 of 54 pictures cannot be used: ") and "; and 4 more" in message
    assert message.count("bad") == 10 and "--skip-broken goes on without them" in message
    [file] = (tmp_path / "cache").glob("*-broken.txt")
    lines = file.read_text().splitlines()
    assert str(file) in message and len(lines) == 14
    assert {line.partition(":")[0] for line in lines} == {
        str(broken / split / f"cat/bad{number}.jpg") for split in ("train", "test") for number in range(7)}


def test_broken_files_can_be_skipped(broken, opened):
    pictures = opened(skip_broken=True)
    assert sizes(pictures) == ([15, 15], [5, 5], 0) and left_out(pictures) == {"broken": 14}
    assert "\n  left out: 14 pictures that cannot be used" in pictures.summary()
    for path in broken.glob("*/cat/bad*"):
        path.unlink()
    whole = opened()
    assert whole.checksum == pictures.checksum and left_out(whole) == {}
    assert np.array_equal(whole.train_images, pictures.train_images)


def test_broken_ones_of_a_given_validation_set(broken, opened):
    make_classes(broken / "val", cat=3, dog=3)
    (broken / "val/cat/1.png").write_bytes(b"")
    pictures = opened(skip_broken=True)
    assert sizes(pictures) == ([15 + 2, 15 + 3], [5, 5], 5) and left_out(pictures) == {"broken": 15}
    assert pictures.train_labels[-5:].tolist() == [0, 0, 1, 1, 1]


def test_a_class_of_broken_pictures_is_named(root, opened):
    for split in ("train", "test"):
        make_classes(root / split, cat=2, dog=2)
    for path in (root / "test/dog").iterdir():
        path.write_bytes(b"")
    assert "class 'dog' has no picture left for test" in refused(lambda: opened(skip_broken=True))


# ---- names


@pytest.mark.parametrize("names", [("Cat", "cat"), ("New York", "NewYork")])
def test_classes_that_differ_in_capitals_alone_are_told(root, opened, names):
    make_classes(root, **dict.fromkeys(names, 5), dog=5)
    assert f"2 classes with nearly the same name: '{names[0]}', '{names[1]}'" in opened().summary()


def test_an_umlaut_is_one_letter_however_it_is_written(root, opened):
    make_classes(root / "train", **{"K\u00e4se": 3, "dog": 3})
    make_classes(root / "test", **{"Ka\u0308se": 2, "dog": 2})
    assert opened().classes == ("K\u00e4se", "dog") and sizes(opened()) == ([3, 3], [2, 2], 0)


@pytest.mark.parametrize("name", ["labels.csv", "Train.TSV"])
def test_a_table_beside_the_classes_is_told(root, opened, name):
    make_classes(root, images=5, masks=5)
    (root / name).write_text("path,label\n")
    assert f"not read: {root}/{name}; if it is a table of the pictures, --data {root}/{name} takes it" in (
        opened().notes)
    (root / "masks").rename(root / ".masks")
    assert f"is {root}/images meant?" in (message := refused(opened)) and f"--data {root}/{name} takes it" in message


def test_names_with_commas_are_told_apart(root, opened):
    make_classes(root, cat=5, dog=5)
    make(root / "cat/a, b.png", like=1)
    make(root / "dog/c.png", like=1)
    assert "'cat/a, b.png'" in opened().summary() and " = " in opened().summary()


def test_hints_can_be_copied(root, opened):
    make_classes(root / "a, b", cat=5, dog=5)
    assert f"is '{root}/a, b' meant?" in refused(opened)


# ---- named, all at once, in one message


def test_all_that_is_wrong_is_named_at_once(root, opened):
    for split, names in (("train", ("cat", "dog", "owl")), ("test", ("cat", "dog", "emu"))):
        make_classes(root / split, **dict.fromkeys(names, 2))
    (root / "train/cat/gone.png").symlink_to(root / "nowhere.png")
    (root / "test/dog/gone too").symlink_to(root / "nowhere")
    (root / "train/empty").mkdir()
    message = refused(opened)
    for words in ("; test/dog/gone too: a link that leads nowhere", "; train/cat/gone.png: a link that",
                  "train/empty/, a class, has no pictures", "class 'owl' has no pictures in test/",
                  "class 'emu' has no pictures in train/"):
        assert words in message, message


def test_dangling_links_are_skipped_with_the_broken_pictures(root, opened):
    make_classes(root, cat=5, dog=5)
    opened()
    (root / "cat/gone.png").symlink_to("nowhere.png")
    assert "1 of 11 pictures cannot be used: " in refused(opened), "although the others are packed"
    (root / "cat/bad.png").write_bytes(b"")
    message = refused(opened)
    for words in ("2 of 12 pictures cannot be used: ", "cat/gone.png: a link that leads nowhere; ", "cat/bad.png: not"):
        assert words in message
    assert left_out(opened(skip_broken=True)) == {"test_share": 0.2, "broken": 2}


def test_a_class_that_is_too_small_says_by_how_many(root, opened):
    make_classes(root, **{f"c{number:02}": 1 for number in range(20)})
    message = refused(opened)
    assert all(f"class 'c{number:02}' has 1 picture, too few by 1 to train on and to test by, by 2 with validation"
               in message for number in range(20))


@pytest.mark.parametrize("closed", ["cat", "dog/deep"])
def test_a_folder_that_cannot_be_read_is_named(root, opened, monkeypatch, closed):
    make_classes(root, cat=3, dog=3)
    make(root / "dog/deep/x.png")
    scandir = os.scandir

    def denied(path):  # the tests may run as one who may read everything
        if str(path) == str(root / closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert f"{closed}/ cannot be read" in refused(opened)
    with pytest.raises(OSError, match="this folder cannot be read"):
        list(find_pictures(str(root)))


def test_an_empty_folder_says_what_is_wanted(root, opened):
    root.mkdir()
    message = refused(opened)
    assert "0 classes with pictures; at least 2 are needed" in message and "a folder for each class" in message
    make(root / "a.png")
    assert f"not used, since in no class: 1 in {root} itself" in refused(opened)


def test_the_folder_above_is_told_from_the_data_set(root, opened):
    make_classes(root / "set", cat=5, dog=5)
    assert "1 class with pictures; at least 2 are needed" in (message := refused(opened))
    assert f"is {root}/set meant?" in message


# ---- one folder by several paths, and names of all kinds


def test_one_folder_by_several_paths_is_packed_once(root, opened, tmp_path, monkeypatch):
    make_classes(root, cat=5, dog=5)
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    paths = (root, f"{root}/", "pictures", "./pictures/", "pictures/../pictures", "link", tmp_path / "link")
    found = [opened(path) for path in paths]
    assert len({pictures.checksum for pictures in found}) == 1
    assert [pictures.name for pictures in found] == [str(path) for path in paths]
    assert len([path for path in (tmp_path / "cache/cache").iterdir() if path.suffix != ".lock"]) == 1


@pytest.mark.parametrize("name", ["my pictures", "# 1", "it's \"quoted\"", "two\nlines", "\udcff\udcfe", "ä" * 120,
                                  "-x"])
def test_names_of_all_kinds(tmp_path, opened, name):
    root = make_classes(tmp_path / name, **{name[:60]: 5, "dog": 5})
    make(root / "dog" / f"{name[:60]}.png")
    (root / "dog" / "bad\udcff.png").write_bytes(b"")
    message = refused(lambda: opened(root))
    message.encode()  # can be printed
    pictures = opened(root, skip_broken=True)
    assert sorted(np.array(sizes(pictures)[0]) + sizes(pictures)[1]) == [5, 6]
    (pictures.summary() + "".join(pictures.classes)).encode()


def test_the_cache_of_train_and_test_is_that_of_before(root, opened):
    """Its checksum, which checkpoints name: sha256 of pixels and labels, training first, in the order of the names."""
    for split, size in (("train", 4), ("test", 2)):
        make_classes(root / split, **{"a b": size, "a": size})
    pictures, checksum = opened(), hashlib.sha256()
    for array in (pictures.train_images, pictures.train_labels, pictures.test_images, pictures.test_labels):
        checksum.update(np.ascontiguousarray(array))
    assert pictures.checksum == checksum.hexdigest() and pictures.train_labels.tolist() == [1] * 4 + [0] * 4
