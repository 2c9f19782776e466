"""A CSV or TSV file of path and label as a data set."""

import tarfile
import zipfile

import numpy as np
import pytest

from own_pictures import left_out, make, make_classes
from pictures.dataset import load
from pictures.tables import in_table


@pytest.fixture
def images(tmp_path):
    """10 pictures of two classes, in one folder."""
    for number in range(10):
        make(tmp_path / "images" / f"{number}.png")
    return tmp_path


def table(folder, rows, name="labels.csv", encoding="utf-8", end="\n"):
    (folder / name).write_bytes((end.join(rows) + end).encode(encoding))
    return str(folder / name)


ROWS = [f"images/{number}.png,{'cat' if number < 6 else 'dog'}" for number in range(10)]


@pytest.mark.parametrize("header", [[], ["path,label"], ["image,species"]])
@pytest.mark.parametrize(("encoding", "end"), [("utf-8", "\n"), ("utf-8-sig", "\r\n")])
@pytest.mark.parametrize(("name", "sign"), [("labels.csv", ","), ("labels.tsv", "\t"), ("labels.csv", ";")])
def test_path_and_label(images, header, encoding, end, name, sign):
    rows = [row.replace(",", sign) for row in [*header, *ROWS]]
    pictures = load(table(images, rows, name, encoding, end), images / "cache")
    assert pictures.classes == ("cat", "dog") and left_out(pictures) == {"test_share": 0.2}
    assert np.bincount(pictures.train_labels).tolist() == [5, 3]
    assert np.bincount(pictures.test_labels).tolist() == [1, 1]


@pytest.mark.parametrize("val", ["val", "Valid", "VALIDATION"])
def test_a_column_for_the_split(images, val):
    splits = ["train", "train", val, "Train", "test", "train", "train", val, "TEST", "train"]
    rows = [f"{row},{split}" for row, split in zip(ROWS, splits, strict=True)]
    pictures = load(table(images, ["file,class,split", *rows]), images / "cache")
    assert pictures.train_labels.tolist() == [0, 0, 0, 0, 1, 1, 0, 1] and pictures.given_val == 2
    assert pictures.test_labels.tolist() == [0, 1] and left_out(pictures) == {}


def test_without_test_rows_it_is_set_aside_from_train(images):
    rows = [f"{row},{'val' if number in (0, 9) else 'train'}" for number, row in enumerate(ROWS)]
    pictures = load(table(images, rows), images / "cache", test_share=0.4)
    assert (len(pictures.train_labels), pictures.given_val, len(pictures.test_labels)) == (10 - 3, 2, 3)


def test_quotes_spaces_and_letters(images):
    make(images / "images/a, \"b\".png")
    make(images / "images/ü.png")
    rows = [*ROWS, '"images/a, ""b"".png",cat', "images/ü.png , eule", "images/0.png,eule"]
    found = in_table(table(images, ["", *rows[:-1], ",", ""]))
    assert found.classes == ["cat", "dog", "eule"] and len(found.files) == 12
    assert {file.path for file in found.files} >= {'images/a, "b".png', "images/ü.png"}


def test_every_bad_row_is_named_at_once(images):
    rows = [f"{row},train" for row in ROWS]
    rows[1], rows[3], rows[4], rows[6] = "images/1.png,cat", "images/none.png,cat,train", "images/4.png,,train", (
        "images/6.png,dog,dev")
    rows += ["images/2.png,dog,train", "./images/9.png,dog,train"]
    (images / "images/7.png").write_bytes(b"no picture")
    file = table(images, ["path,label,split", *rows])
    with pytest.raises(ValueError) as error:
        load(file, images / "cache")
    message = str(error.value)
    for words in ("7 of 12 pictures cannot be used: ", "line 3 of labels.csv: 2 columns, wanted are the 3 path, label, "
                  "split; nothing for split; ", "line 5 of labels.csv: no file 'images/none.png'",
                  "line 6 of labels.csv: no label",
                  "line 8 of labels.csv: split 'dev', must be one of train, val, valid, validation, test",
                  "line 4 of labels.csv: images/2.png is 'cat', but 'dog' in line 12",
                  "line 12 of labels.csv: images/2.png is 'dog', but 'cat' in line 4",
                  "images/7.png: not a picture", "--skip-broken goes on without them"):
        assert words in message, message
    assert "\n" not in message and message.count("9.png") == 1
    assert "; 1 picture is there once more in the same class and part (images/9.png); --drop-dup" in message
    pictures = load(file, images / "cache", skip_broken=True)
    assert pictures.counts["broken"] == 7 and pictures.counts["duplicates"] == 1
    assert pictures.classes == ("cat", "dog") and len(pictures.train_labels) + pictures.test_size == 12 - 7


def test_pictures_twice_in_a_table(images):
    """Rows of one label are duplicates as in a folder; of two labels none is kept, since no one knows which."""
    file = table(images, [*ROWS, ROWS[1], ROWS[9], "images/2.png,dog"])
    with pytest.raises(ValueError, match=r"2 of 13 pictures cannot be used: .*'cat', but 'dog' in line 13"):
        load(file, images / "cache")
    pictures = load(file, images / "cache", drop_duplicates=True)
    assert left_out(pictures) | {"test_share": 0.2} == {
        "test_share": 0.2, "duplicates_dropped": 2, "two_classes_dropped": 2,
        "two_classes_files": [["images/2.png", "images/2.png"]]}
    assert len(pictures.train_labels) + pictures.test_size == 9
    assert "2 files dropped, since the same pictures are in two classes (images/2.png)" in pictures.summary()


@pytest.mark.parametrize(("header", "order", "unused"), [
    ("filename,label", "pl", None), ("label,filename", "lp", None), ("image,class", "pl", None),
    ("Class,Image Path", "lp", None), ("id,label,img,width", "xlpx", "columns not used: 'id', 'width'"),
    ("species,file_name", "lp", None), ("kind,picture", "lp", None), ("image,wording,split", "pls", None),
    ("split,photo,category,note", "splx", "column not used: 'note'"), 
    ("name,kind", "pl", "columns taken in order as path, label: 'name', 'kind'")])
def test_columns_are_found_by_their_names(images, header, order, unused):
    values = [{"p": path, "l": label, "s": "test" if number % 2 else "train", "x": str(number)}
              for number, (path, label) in enumerate(row.split(",") for row in ROWS)]
    pictures = load(table(images, [header, *(",".join(row[role] for role in order) for row in values)]),
                    images / "cache")
    assert pictures.classes == ("cat", "dog") and len(pictures.train_labels) == (5 if "s" in order else 8)
    assert pictures.notes == ((unused,) if unused else ())


def test_a_header_that_leaves_columns_open_is_refused(images):
    with pytest.raises(ValueError, match="no column is named as the label, such as label or classname; there are "
                                         "'image', 'x', 'y'"):
        in_table(table(images, ["image,x,y", *(f"{row},1" for row in ROWS)]))


@pytest.mark.parametrize(("header", "order"), [("Klasse;Ort;Datei", "lxp"), ("Datei;Klasse;Ort", "plx"),
                                               ("Klasse;Datei", "lp")])
def test_a_header_that_is_not_understood_is_told_by_its_names(images, header, order):
    """Its columns are not taken in an order that the rows contradict."""
    rows = [{"p": path, "l": label, "x": "Ulm"} for path, label in (row.split(",") for row in ROWS)]
    file = table(images, [header, *(";".join(row[role] for role in order) for row in rows)])
    told = ", ".join(map(repr, header.split(";")))
    with pytest.raises(ValueError, match="line 1 looks like a header, but no column is named as the path, such as path "
                                         f"or filename; there are {told}"):
        in_table(file)


def test_a_bad_row_is_told_in_the_order_of_the_header(images):
    rows = [f"{label},train,{path}" for path, label in (row.split(",") for row in ROWS)]
    file = table(images, ["class,set,image", *rows[:8], "dog,train", f"{rows[9]},x"])
    with pytest.raises(ValueError) as error:
        load(file, images / "cache")
    for words in ("line 10 of labels.csv: 2 columns, wanted are the 3 class, set, image; nothing for image; ",
                  "line 11 of labels.csv: 4 columns, wanted are the 3 class, set, image. "):
        assert words in str(error.value)
    with pytest.raises(ValueError, match="wanted: as its header says, label, file; paths relative to"):
        in_table(table(images, ["label,file", *ROWS]))
    with pytest.raises(ValueError, match="no column is named as the path, such as path or filename; there are 'a'"):
        in_table(table(images, ["a,b,c,d", *(f"{row},1,2" for row in ROWS)]))


def test_a_table_of_windows(images):
    (images / "images/0.png").rename(images / "images/gr\u00fcn.png")
    rows = ["images/gr\u00fcn.png,V\u00f6gel", *ROWS[1:5], "images/5.png,V\u00f6gel", *ROWS[6:]]
    pictures = load(table(images, rows, encoding="cp1252"), images / "cache")
    assert pictures.classes == ("V\u00f6gel", "cat", "dog")
    assert pictures.notes == ("the table is no UTF-8 and was read as Windows-1252",)
    assert pictures.counts["notes"] == list(pictures.notes), "which results keep"
    with pytest.raises(ValueError, match="in UTF-8"):
        load(table(images, rows, encoding="utf-16"), images / "cache")


@pytest.mark.parametrize(("on_disk", "in_table_"), [("gr\u00fcn", "gru\u0308n"), ("gru\u0308n", "gr\u00fcn")])
def test_an_umlaut_is_found_however_it_is_written(images, on_disk, in_table_):
    (images / "images/0.png").rename(images / f"images/{on_disk}.png")
    found = in_table(table(images, [f"images/{in_table_}.png,K\u00e4fer", "images/1.png,Ka\u0308fer", *ROWS[2:]]))
    assert not found.broken and found.classes == ["K\u00e4fer", "cat", "dog"]


def test_paths_are_relative_to_the_file(images, monkeypatch, tmp_path):
    make_classes(images / "images/more", cat=3)
    file = table(images / "images", [*(f"more/cat/{n}.png,cat" for n in range(3)),
                                     *(f"../images/{n}.png,dog" for n in "123"),
                                     *(f"{images}/images/{n}.png,dog" for n in "456")])
    monkeypatch.chdir(images / "images")
    assert load("labels.csv", images / "cache").checksum == load(file, images / "cache").checksum
    assert len(list((images / "cache/cache").glob("labels.csv-*[!k]"))) == 1  # besides the lock


def test_rows_that_change_make_another_data_set(images):
    before = load(table(images, ROWS), images / "cache").checksum
    assert load(table(images, [*ROWS[:5], "images/5.png,dog", *ROWS[6:]]), images / "cache").checksum != before


@pytest.mark.parametrize(("content", "words"), [
    (b"", "no table of path and label"), (b"\x89PNG\r\n\x1a\n\0\0", "no table of path and label in UTF-8; wanted: a "
                                          "folder with a folder for each class"),
    ("path,label\na.png,b\n".encode("utf-16"), "in UTF-8"), (b"one\ncolumn\n", "no table of path and label"),
    (b"path,label\n", "0 classes with pictures"),
    (b"a.png,cat,test\n", "no row of 1 is a picture: line 1 of x.csv: no "),
    (b"Dear reader,\nthis is, as you see,\nno table\n\nat all, is it\nno\n", "wanted: path, label and, if you like"),
    (b"x.png,cat\n" * 9, "line 3 of x.csv: no file 'x.png'; and 6 more; wanted: "), (b'a,"b\n\n', "0 classes")])
def test_what_is_no_table_is_told(tmp_path, content, words):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(ValueError) as error:
        load(str(tmp_path / "x.csv"), tmp_path / "cache")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_only_test_rows(images):
    with pytest.raises(ValueError, match="no row is of train, all are of test and val"):
        load(table(images, [f"{row},{'val' if number % 2 else 'test'}" for number, row in enumerate(ROWS)]),
             images / "cache")


def test_an_archive_is_to_be_unpacked(images):
    with zipfile.ZipFile(images / "a.zip", "w") as archive:
        archive.write(images / "images/0.png")
    with tarfile.open(images / "a.tar.gz", "w:gz") as archive:
        archive.add(images / "images")
    for name in ("a.zip", "a.tar.gz"):
        with pytest.raises(ValueError, match="unpack it first, and give the folder"):
            load(str(images / name), images / "cache")


def test_nothing_there(tmp_path):
    with pytest.raises(ValueError, match="no such folder or file; allowed: cifar10, digits, a folder with a folder"):
        load(str(tmp_path / "none.csv"), tmp_path / "cache")
