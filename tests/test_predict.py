"""predict.py: what it reads, what it says, what it refuses; against a plain oracle in float64."""

import errno
import itertools
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import psutil
import pytest
import torch
from PIL import Image, ImageOps

import hpo_trial
import predict
import small_models
from artifacts.model_card import write_model_card
from conftest import ROOT
from pictures import dataset
from pictures.decoding import AHEAD, Decoder
from pictures.folders import find_pictures
from pictures.reading import read_picture
from training import hardware

KINDS = (("a.png", "RGB", (40, 20)), ("b.jpg", "L", (32, 32)), ("c.gif", "P", (9, 70)), ("d.bmp", "RGB", (32, 32)),
         ("e.tiff", "CMYK", (33, 31)), ("f.webp", "RGBA", (200, 100)), ("inner/a.png", "RGB", (1, 1)),
         ("inner/no_ending", "LA", (50, 50)), ("inner/deeper/z.png", "1", (32, 64)))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.pt"
    small_models.write(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of all kinds, and hidden files that are none."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, mode, (width, height) in KINDS:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        blocks = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((width, height))
        blocks.convert(mode).save(root / name, format=None if "." in name else "png")
    (root / ".hidden").write_text("no picture")
    (root / ".folder").mkdir()
    (root / ".folder" / "a.png").write_text("no picture")
    (root / "inner" / "up").symlink_to(root)  # following it would never end
    return root


def call(model_file, *argv):
    return predict.main(["--model", str(model_file), "--workers", "1", "--precision", "fp32", *map(str, argv)])


def oracle(model_file, path, mirror=False):
    """Probabilities (classes,) of one picture, in float64."""
    trained = small_models.load_model(model_file, torch.device("cpu"))
    with Image.open(path) as image:
        image = image.convert("RGB")
        image = image if image.size == (32, 32) else image.resize((32, 32), Image.Resampling.LANCZOS)
    pixels = np.asarray(ImageOps.mirror(image) if mirror else image).astype(np.float64) / 255
    mean, std = (value.double().numpy() for value in (trained.normalization.mean, trained.normalization.std))
    x = torch.from_numpy(((pixels - mean) / std).transpose(2, 0, 1)[None])
    with torch.no_grad():
        return trained.model.double()(x).softmax(1)[0].numpy()


def records(text):
    return [json.loads(line) for line in text.splitlines()]


def test_the_table(model_file, folder, capsys):
    assert call(model_file, "--images", folder) == 0
    header, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert header == ["path", "class", "probability"]
    assert [row[0] for row in rows] == sorted(str(folder / name) for name, *_ in KINDS)
    for path, name, probability in rows:
        expected = oracle(model_file, path)
        assert name == small_models.CLASSES[expected.argmax()]
        assert float(probability) == pytest.approx(expected.max(), abs=1e-4)


@pytest.mark.parametrize("tta", [False, True])
def test_json_has_the_probabilities_of_all_classes(model_file, folder, capsys, tta):
    assert call(model_file, "--images", folder, "--json", *(["--tta"] if tta else [])) == 0
    found = records(capsys.readouterr().out)
    assert len(found) == len(KINDS)
    for record in found:
        expected = oracle(model_file, record["path"])
        if tta:
            expected = (expected + oracle(model_file, record["path"], mirror=True)) / 2
        assert list(record["probabilities"]) == list(small_models.CLASSES)
        assert list(record["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
        assert record["probability"] == max(record["probabilities"].values())
        assert record["probabilities"][record["class"]] == record["probability"]
    spread = np.std([list(record["probabilities"].values()) for record in found], axis=0)
    assert spread.max() > 0.01  # else any picture would do


@pytest.mark.parametrize("facts", [{"data": {"name": "digits"}, "config": {"flip": "auto"}},
                                   {"config": {"flip": "off"}}])
def test_tta_is_refused_where_the_training_knew_no_mirror_images(folder, tmp_path, capsys, facts):
    small_models.write(tmp_path / "model.pt", facts=facts)
    assert call(tmp_path / "model.pt", "--images", folder) == 0
    capsys.readouterr()
    assert call(tmp_path / "model.pt", "--images", folder, "--tta") == 2
    assert "tta = True" in capsys.readouterr().err


def test_mirrored_pictures_differ(model_file, folder):
    plain, mirrored = (oracle(model_file, folder / "f.webp", mirror) for mirror in (False, True))
    assert np.abs(plain - mirrored).max() > 1e-3  # what the test of --tta rests on


def test_float32_is_computed_where_nobody_asks_for_less(model_file, folder, capsys, monkeypatch):
    """As an export does; although a training would take bf16 here."""
    monkeypatch.setattr(hardware, "_cpu_has_bf16", lambda: True)
    found = []
    for more in ([], ["--precision", "auto"]):
        assert predict.main(["--model", str(model_file), "--images", str(folder), "--json", *more]) == 0
        found.append(np.array([list(record["probabilities"].values()) for record in records(capsys.readouterr().out)]))
    expected = [oracle(model_file, path) for path in find_pictures(str(folder))]
    assert np.abs(found[0] - expected).max() < 1e-5 < 1e-4 < np.abs(found[1] - expected).max()


def test_the_size_of_a_batch_does_not_matter(model_file, folder, capsys):
    found = []
    for size in (1, 4, 256):
        assert call(model_file, "--images", folder, "--json", "--batch-size", size) == 0
        found.append([list(record["probabilities"].values()) for record in records(capsys.readouterr().out)])
    assert np.allclose(found[0], found[1], atol=1e-5) and np.allclose(found[0], found[2], atol=1e-5)


def test_one_picture_with_two_workers(model_file, folder, capsys):
    assert call(model_file, "--images", folder / "b.jpg", "--json", "--workers", 2) == 0
    [record] = records(capsys.readouterr().out)
    assert record["path"] == str(folder / "b.jpg")


def test_broken_pictures_are_listed_at_the_end_and_the_others_predicted(model_file, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"{i}.jpg")
    (tmp_path / "0.jpg").write_bytes((tmp_path / "1.jpg").read_bytes()[:700])
    (tmp_path / "2.jpg").write_bytes(b"")
    (tmp_path / "3.jpg").write_text("a text")
    assert call(model_file, "--images", tmp_path, "--batch-size", 2) == 1  # of the second batch nothing is left
    out, error = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()[1:]] == [str(tmp_path / f"{i}.jpg") for i in (1, 4)]
    lines = [line for line in error.splitlines() if line.startswith(str(tmp_path))]
    assert [line.split(":")[0] for line in lines] == [str(tmp_path / f"{i}.jpg") for i in (0, 2, 3)]
    assert "3 of 5 pictures could not be used" in error.splitlines()[-1]


# ---- the summary


def summary(capsys):
    return capsys.readouterr().err.splitlines()


def classes_of(out):
    return [line.split("\t")[1] for line in out.splitlines()[1:]]


def test_a_summary_goes_to_standard_error(model_file, folder, capsys):
    assert call(model_file, "--images", folder) == 0
    out, error = capsys.readouterr()
    found = re.fullmatch(rf"{len(KINDS)} pictures in \d+\.\d s, start and decoding included; (.*)\n", error)
    counts = Counter(classes_of(out))
    assert dict(part.split(": ") for part in found[1].split(", ")) == {name: str(n) for name, n in counts.items()}


@pytest.fixture
def by_class(tmp_path):
    """Noise in folders of two of the classes, three and two pictures; some deeper."""
    rng = np.random.default_rng(1)
    for name in ("ant/0.png", "ant/1.png", "ant/deeper/2.png", "dog/0.png", "dog/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


def test_folders_named_as_classes_give_accuracy_and_confusion(model_file, by_class, capsys):
    assert call(model_file, "--images", by_class) == 0
    out, error = capsys.readouterr()
    pairs = list(zip(["ant"] * 3 + ["dog"] * 2, classes_of(out), strict=True))
    right = sum(true == predicted for true, predicted in pairs)
    lines = error.splitlines()
    assert lines[1] == f"accuracy {right / 5:.1%}: {right} of 5 are what their folder or table says"
    header, *rows = [line.split() for line in lines[2:]]
    assert header[0] == "true" and header[-1] == "(predicted)"
    names = sorted({name for pair in pairs for name in pair})
    assert header[1:-1] == names and [row[0] for row in rows] == names
    for name, *numbers in rows:
        expected = [pairs.count((name, predicted)) for predicted in names]
        assert [int(number.replace(".", "0")) for number in numbers] == expected


@pytest.mark.parametrize("words", [["{}/ant", "{}/dog"], ["{}/*"], ["{}/**/*.png"], ["{}/ant", "{}/dog/*.png"],
                                   ["{}/labels.csv"], ["{}/dog", "{}/labels.csv"]])
def test_several_places_patterns_and_tables(model_file, by_class, capsys, words):
    """Given one by one or by a pattern, a class's folder still is one; a table says what its pictures are."""
    rows = [f"{path.relative_to(by_class)},{path.relative_to(by_class).parts[0]}" for path in by_class.rglob("*.png")]
    if "labels" in words[-1]:
        (by_class / "labels.csv").write_text("\n".join(["file,class", *rows]))
    if "**" in words[0]:
        (by_class / "ant/deeper/2.png").rename(by_class / "ant/2.png")
    assert call(model_file, "--images", *(word.format(by_class) for word in words)) == 0
    out, error = capsys.readouterr()
    number = 7 if words == ["{}/dog", "{}/labels.csv"] else 5
    assert len(out.splitlines()) == 1 + number and f" of {number} are what their folder or table says" in error


def test_bad_rows_of_a_table_are_told_and_the_others_predicted(model_file, by_class, capsys):
    rows = ["path,label,split", "ant/0.png,ant,test", "none.png,dog,test", "dog/0.png,wolf,val"]
    (by_class / "labels.csv").write_text("\n".join(rows))
    assert call(model_file, "--images", by_class / "labels.csv") == 1
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == 3 and "accuracy not known: 1 of 2 pictures" in error
    assert error.splitlines()[-2:] == ["line 3 of labels.csv: no file 'none.png'", "1 of 3 pictures could not be used"]


def test_nothing_that_can_be_decoded(model_file, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"")
    assert call(model_file, "--images", tmp_path) == 1
    assert re.match(r"0 pictures in \d+\.\d s, start and decoding included\n", capsys.readouterr().err)


@pytest.mark.parametrize("stranger", ["wolf/0.png", "0.png"])
def test_pictures_of_no_class_give_no_accuracy(model_file, by_class, capsys, stranger):
    (by_class / stranger).parent.mkdir(exist_ok=True)
    Image.new("RGB", (9, 9)).save(by_class / stranger)
    assert call(model_file, "--images", by_class) == 0
    assert summary(capsys)[1:] == [
        "accuracy not known: 1 of 6 pictures are in no folder, and no table, that names a class of the model"]


# ---- names, and what must not be overwritten


def test_tabs_and_line_ends_in_names_do_no_harm(model_file, tmp_path, capsys):
    names = sorted(["a\tb.png", "c\nd.png", "e\\f.png", "g\rh.png", "i j.png"])
    for name in names:
        Image.new("RGB", (9, 9), "red").save(tmp_path / name)
    (tmp_path / "k\nl.png").write_text("no picture")
    assert call(model_file, "--images", tmp_path) == 1
    out, error = capsys.readouterr()
    rows = [line.split("\t") for line in out.split("\n")[1:-1]]
    assert [len(row) for row in rows] == [3] * 5
    plain = {r"\\": "\\", r"\t": "\t", r"\n": "\n", r"\r": "\r"}
    assert [re.sub(r"\\.", lambda found: plain[found[0]], row[0]) for row in rows] == [str(tmp_path / n) for n in names]
    assert len(error.splitlines()) == 3  # the summary, one broken picture, how many
    assert call(model_file, "--images", tmp_path, "--json") == 1
    assert [record["path"] for record in records(capsys.readouterr().out)] == [str(tmp_path / name) for name in names]


def test_names_that_are_not_unicode_are_told_apart(model_file, tmp_path, capsys):
    names = ["a\udcfe.png", "a\udcff.png", r"b\xff.png"]
    for name in names:
        Image.new("RGB", (9, 9), "red").save(tmp_path / name)
    assert call(model_file, "--images", tmp_path) == 0
    paths = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert paths == [f"{tmp_path}/{name}" for name in (r"a\xfe.png", r"a\xff.png", r"b\\xff.png")]
    assert call(model_file, "--images", tmp_path, "--json") == 0
    assert [record["path"] for record in records(capsys.readouterr().out)] == [str(tmp_path / name) for name in names]


@pytest.mark.parametrize(("out", "words"), [
    ("{model}", "the model itself"), ("{link to model}", "the model itself"), ("{folder}/a.png", "one of the files of"),
    ("{folder}/.hidden", "one of the files of"), ("{hard link}", "one of the files of"),
    ("{folder}/inner", "a folder; give a file"), ("/dev/null", "a device or pipe"),
    ("{elsewhere}/b.png", "no earlier output (a picture)"), ("{elsewhere}/b.pt", "no earlier output (something else)"),
])
@pytest.mark.parametrize("export", [[], ["--export", "onnx"]])
def test_out_overwrites_neither_pictures_nor_the_model(model_file, folder, tmp_path, capsys, out, words, export):
    (tmp_path / "model").symlink_to(model_file)
    (tmp_path / "picture").hardlink_to(folder / "a.png")
    (tmp_path / "b.png").write_bytes((folder / "a.png").read_bytes())
    (tmp_path / "b.pt").write_bytes(model_file.read_bytes())
    out = out.format(**{"model": model_file, "folder": folder, "link to model": tmp_path / "model",
                        "hard link": tmp_path / "picture", "elsewhere": tmp_path})
    files = model_file, folder / "a.png", folder / ".hidden", tmp_path / "b.png", tmp_path / "b.pt"
    before = {path: path.read_bytes() for path in files}
    assert call(model_file, "--images", folder, "--out", out, *export) == 2
    error = capsys.readouterr().err
    assert f"out = '{out}': " in error and words in error and error.count("\n") == 1
    assert all(path.read_bytes() == content for path, content in before.items()) and os.path.exists("/dev/null")


def test_out_may_be_an_earlier_output_or_new_among_the_pictures(model_file, by_class, tmp_path_factory, capsys):
    out = tmp_path_factory.mktemp("out") / "p.tsv"
    for _ in range(2):
        assert call(model_file, "--images", by_class, "--out", out) == 0
    assert len(out.read_text().splitlines()) == 6
    assert call(model_file, "--images", by_class, "--out", by_class / "p.tsv") == 0
    assert (by_class / "p.tsv").read_text() == out.read_text()


# ---- what a person would see


def grey(levels):
    """A row of blocks of 8x8 pixels, uint8."""
    return np.repeat(np.repeat(np.array([levels], np.uint8), 8, 0), 8, 1)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bits_are_not_cut_off_at_255(tmp_path, suffix):
    eight = grey([0, 64, 128, 255])
    Image.fromarray(eight.astype(np.uint16) * 257).save(tmp_path / f"16.{suffix}")
    Image.fromarray(eight).save(tmp_path / f"8.{suffix}")
    assert Image.open(tmp_path / f"16.{suffix}").mode == "I;16"
    assert np.array_equal(*(read_picture(str(tmp_path / f"{bits}.{suffix}"), 32) for bits in (16, 8)))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(tmp_path, mode):
    """And not the colour behind it; what is half transparent is half white."""
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:, 16:, 3] = 255
    pixels[:, 24:, 3] = 255 if mode == "P" else 128
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a.png")
    row = read_picture(str(tmp_path / "a.png"), 32)[0]
    assert (row[:16] == 255).all() and (row[16:24] == 0).all()
    assert (row[24:] == (0 if mode == "P" else 127)).all()


def test_a_photograph_is_turned_as_its_camera_says(tmp_path):
    upright = Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_picture(str(tmp_path / "a.png"), 32), np.asarray(upright))


def test_an_animation_is_its_first_picture(tmp_path):
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (read_picture(str(tmp_path / "a.gif"), 32) == (255, 0, 0)).all()


def test_colours_of_a_printed_picture(tmp_path):
    Image.new("RGB", (40, 40), (200, 30, 90)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_picture(str(tmp_path / "a.jpg"), 32).astype(int) - (200, 30, 90)).max() < 6


def test_what_cannot_be_judged_is_told(tmp_path):
    """Too large for a bound on memory, not on what Pillow thinks large; grey values of 32 bits can be judged."""
    Image.fromarray(np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32)).save(tmp_path / "a.tiff")
    levels = read_picture(str(tmp_path / "a.tiff"), 32)
    assert (levels[0, 0] == 0).all() and (levels[-1, -1] == 255).all() and len(np.unique(levels)) == 256
    head = Image.new("1", (20_000, 14_000))
    head.save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b.png: too large, 20000 x 14000 pixels: .* more than the 1 GiB"):
        read_picture(str(tmp_path / "b.png"), 32)


def test_a_file_of_predictions_is_what_standard_output_would_be(model_file, folder, tmp_path, capsys):
    assert call(model_file, "--images", folder, "--json") == 0
    expected = capsys.readouterr().out
    assert call(model_file, "--images", folder, "--json", "--out", tmp_path / "new" / "p.jsonl") == 0
    assert capsys.readouterr().out == "" and (tmp_path / "new" / "p.jsonl").read_text() == expected


def test_a_full_disk_is_one_line_and_leaves_the_old_file(model_file, folder, tmp_path, capsys, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "p.tsv").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    assert call(model_file, "--images", folder, "--out", tmp_path / "p.tsv") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "No space left" in error
    assert [path.name for path in tmp_path.iterdir()] == ["p.tsv"] and (tmp_path / "p.tsv").read_text() == "old"


@pytest.mark.parametrize(("argv", "words"), [
    (["--images", "{folder}", "--model", "{folder}/a.png"], ["a.png"]),
    (["--images", "{folder}", "--model", "{folder}/none.pt"], ["none.pt"]),
    (["--images", "{folder}", "--model", "{folder}"], ["pictures"]),
    (["--images", "{folder}", "--model", ""], ["model is missing", "--model"]),
    ([], ["images is missing", "--images"]),
    (["--images", "nowhere"], ["images = 'nowhere'", "no such file or folder"]),
    (["--images", "{folder}", "nowhere", "{folder}/*.none"], ["images = 'nowhere', '", "*.none': no such file"]),
    (["--images", "{folder}", "--model", "{model}"], ["a folder; give the file in it, ", "model.pt"]),
    (["--images", "{empty}"], ["no pictures in this folder"]),
    (["--export", "tflite"], ["export = 'tflite'", "onnx, torch"]),
    (["--export", "onnx", "--out", "/dev/null/x/model.onnx"], ["/dev/null/x"]),
    (["--images", "{folder}", "--out", "/dev/null/x/p.tsv"], ["/dev/null/x"]),
    (["--images", "{folder}", "--batch-size", "0"], ["batch_size = 0", "at least 1"]),
    (["--images", "{folder}", "--batchsize", "8"], ["--batchsize"]),
    (["--images", "{folder}", "--tolerance", "nan"], ["tolerance = nan", "finite"]),
])
def test_bad_input_is_one_line_with_exit_code_2(model_file, folder, tmp_path, capsys, argv, words):
    argv = [text.format(folder=folder, empty=tmp_path, model=model_file.parent) for text in argv]
    assert call(model_file, *argv) == 2
    out, error = capsys.readouterr()
    assert error.startswith("error: ") and error.count("\n") == 1 and all(word in error for word in words), error
    assert "\t" not in out.partition("\n")[2] and not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="checks what is said where there is no CUDA device")
def test_cuda_where_there_is_none(model_file, folder, capsys):
    assert call(model_file, "--images", folder, "--device", "cuda") == 2
    assert "device = 'cuda'" in capsys.readouterr().err


def test_look_ahead_is_bounded(folder):
    """Endless pictures: only so many are taken before the first batch comes out."""
    taken = []
    with Decoder(32, workers=1) as decoder:
        batches = decoder.batches((taken.append(1) or str(folder / "a.png") for _ in itertools.count()), 8)
        for number in range(1, 4):
            batch = next(batches)
            assert batch.images.shape == (8, 32, 32, 4) and len(taken) <= (AHEAD + number) * 8


def test_a_killed_worker_is_told_and_nothing_hangs(folder):
    with Decoder(32, workers=1) as decoder:
        batches = decoder.batches([str(folder / "a.png")] * 1000, 8)
        next(batches)
        for worker in multiprocessing.active_children():
            worker.kill()
        with pytest.raises(OSError, match="a process that decodes pictures has died"):
            list(batches)


def test_order_of_files(tmp_path):
    for name in ("b/2.png", "b/10.png", "a.png", "c.png", "b/d/1.png", ".x/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [os.path.relpath(path, tmp_path) for path in find_pictures(str(tmp_path))]
    assert found == ["a.png", "b/10.png", "b/2.png", "b/d/1.png", "c.png"]


def test_a_killed_process_leaves_no_workers(folder):
    script = ("import sys, time; from pictures.decoding import Decoder; d = Decoder(32, 2);"
              "print(next(d.batches([sys.argv[1]] * 200, 100)).images.shape, flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", script, str(folder / "a.png")], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith("(100, 32, 32, 4)")
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        process.kill()
    deadline = time.monotonic() + 10
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < deadline, workers
        time.sleep(0.05)


def test_a_reader_that_has_seen_enough_is_no_mistake(model_file, folder):
    """As with `| head -0`: a real process whose standard output is closed at once."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([sys.executable, "predict.py", "--model", str(model_file), "--images", str(folder)],
                              cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONWARNINGS": "ignore"})
    finally:
        os.close(writer)
    assert done.returncode == 0 and done.stderr == ""


def test_the_range_of_a_data_set_comes_with_its_model(call_trial, tmp_path, capsys):
    """16-bit files with a camera's 12 bits: trained, predicted and exported with one range, that of the training."""
    rng, data = np.random.default_rng(0), tmp_path / "data"
    folders = [f"{split}/{label}" for split in ("train", "test") for label in ("ant", "bee")]
    for name in (f"{folder}/{i}.png" for folder in folders for i in range(8)):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        scale = 16 if "train" in name else 20  # which the range of the training pictures cuts off
        Image.fromarray((rng.integers(0, 256, (32, 32)) * scale).astype(np.uint16)).save(data / name)
    small = ["--data", str(data), "--data-dir", str(tmp_path), "--runs-dir", str(tmp_path), "--name", "m", "--epochs",
             "1", "--batch-size", "4", "--precision", "fp32", "--model", "shufflenetg2"]
    assert call_trial(hpo_trial.main, small)[0] == 0
    assert "16-bit grey: values 0 to 4095 in this data set, shown as 0 to 255" in capsys.readouterr().out
    model = next(tmp_path.glob("*/m/model.pt"))
    trained = small_models.load_model(model, torch.device("cpu"))
    assert trained.preprocess["grey_range"] == {"integer": [0, 4095]}
    card = write_model_card(tmp_path, trained).read_text()  # elsewhere, without result.json
    assert not re.search(r"\| (trained|versions|hardware|commit|training time, s|seed) \| not known", card)
    packed = dataset.load(str(data), tmp_path)
    assert call(model, "--images", data / "test", "--json", "--workers", "1") == 0
    found = [list(record["probabilities"].values()) for record in records(capsys.readouterr().out)]
    expected = predict.classifier(trained, "fp32", tta=False)(np.array(packed.test_images))
    assert np.allclose(found, expected, atol=1e-6) and packed.test_images[..., :3].max() == 255
    levels = np.asarray(Image.open(data / "train" / "ant" / "0.png")) // 16
    assert np.array_equal(packed.train_images[0, :, :, 0], levels)
