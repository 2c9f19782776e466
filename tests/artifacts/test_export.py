"""Exports of all three families: run by onnxruntime and by PyTorch alone, against an oracle in float64."""

import errno
import functools
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import predict
import small_models
from artifacts import export
from conftest import ROOT
from models import MODELS
from pictures import preprocess
from pictures.decoding import decode

QUICK = [("darts", "onnx"), ("darts", "torch"), ("classic_nas", "onnx")]
FACTS = {"data": {"name": "x", "grey_range": {"integer": [0, 4095]}}}
SLOW = [("classic_nas", "torch"), ("resnet18", "torch"), ("quicknet", "torch"), ("quicknet", "onnx"),
        *((family, "onnx") for family in MODELS)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Call predict.py --export once for a family and a format; returns the model file, beside which the export lies."""
    @functools.cache
    def model_file(family):
        path = tmp_path_factory.mktemp(family) / "model.pt"
        small_models.write(path, family, FACTS)
        return path

    @functools.cache
    def call(family, format):
        assert predict.main(["--model", str(model_file(family)), "--export", format]) == 0
        return model_file(family)
    return call


@pytest.fixture(scope="module")
def darts_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.pt"
    small_models.write(path)
    return path


@pytest.fixture(scope="module")
def program(darts_file):
    return export._program(small_models.load_model(darts_file, torch.device("cpu")))


@pytest.fixture
def traced(monkeypatch, program):
    """Tracing takes a second; tests of what comes after it share one."""
    monkeypatch.setattr(export, "_program", lambda trained: program)


def pictures(n):
    """(n, 3, 32, 32) float32 in 0..1."""
    return np.random.default_rng(n).random((n, 3, 32, 32), dtype=np.float32)


def oracle(model_file, x):
    """Logits in float64, the normalisation written out."""
    trained = small_models.load_model(model_file, torch.device("cpu"))
    mean, std = (value.double().view(1, 3, 1, 1) for value in (trained.normalization.mean, trained.normalization.std))
    with torch.no_grad():
        return trained.model.double()((torch.from_numpy(x).double() - mean) / std).numpy()


def by_onnxruntime(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    return metadata, lambda x: session.run(None, {"pictures": x})[0]


def by_torch(path):
    metadata = {"classes": "", "network": ""}
    model = torch.export.load(path, extra_files=metadata).module()
    return metadata, lambda x: model(torch.from_numpy(x)).detach().numpy()


@pytest.mark.parametrize(("family", "format"),
                         [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)])
def test_an_export_computes_what_the_network_does(exported, family, format):
    model_file = exported(family, format)
    name, reader = {"onnx": ("model.onnx", by_onnxruntime), "torch": ("model.pt2", by_torch)}[format]
    metadata, run = reader(model_file.with_name(name))
    trained = small_models.load_model(model_file, torch.device("cpu"))
    assert tuple(json.loads(metadata["classes"])) == small_models.CLASSES
    assert json.loads(metadata["network"]) == trained.network
    for n in (1, 2, 9):
        x = pictures(n)
        expected = oracle(model_file, x)
        assert run(x).shape == (n, len(small_models.CLASSES)) and np.abs(run(x) - expected).max() < 1e-3
    assert expected.std(0).max() > 1e-2  # else any pictures would have these logits


@pytest.mark.parametrize("file", ["model.pt", "model.onnx", "model.pt2"])
def test_the_code_in_the_model_card_runs(exported, monkeypatch, capsys, file):
    exported("darts", "torch")
    model_file = exported("darts", "onnx")  # the card of the later one names both
    monkeypatch.chdir(model_file.parent)
    monkeypatch.syspath_prepend(model_file.parent)  # for preprocess.py
    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("picture.jpg", quality=95)
    blocks = re.findall(r"```python\n(.*?)```", Path("MODEL_CARD.md").read_text(encoding="utf-8"), re.DOTALL)
    [code] = [block for block in blocks if f'"{file}"' in block]
    capsys.readouterr()  # what the exports said
    exec(code, {})
    name, probability = capsys.readouterr().out.split()
    with Image.open("picture.jpg") as image:
        small = np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS), np.float32) / 255
    [logits] = oracle(model_file, small.transpose(2, 0, 1)[None])
    expected = np.exp(logits) / np.exp(logits).sum()
    assert name == small_models.CLASSES[expected.argmax()]
    assert float(probability) == pytest.approx(expected.max(), abs=1e-4)


RUN = """
import re, sys
blocks = re.findall("```python\\n(.*?)```", open("MODEL_CARD.md").read(), re.DOTALL)
[code] = [block for block in blocks if f'"{sys.argv[1]}"' in block]
for path in sys.argv[2:]:
    exec(code.replace("picture.jpg", path))
"""


@pytest.fixture(scope="module")
def pictures_of_all_kinds(tmp_path_factory):
    """A large JPEG, which is read at a fraction; transparent; turned by its EXIF data; 16 bits of grey; broken EXIF."""
    folder, exif, rng = tmp_path_factory.mktemp("kinds"), Image.Exif(), np.random.default_rng(0)
    exif[0x0112] = 6
    blocks = Image.fromarray(rng.integers(0, 256, (7, 9, 4), dtype=np.uint8)).resize((900, 500))
    blocks.convert("RGB").save(folder / "large.jpg")
    blocks.save(folder / "transparent.png")
    blocks.convert("P").save(folder / "palette.gif", transparency=3)
    blocks.convert("RGB").save(folder / "turned.jpg", exif=exif)
    blocks.convert("RGB").save(folder / "bad_exif.png", exif=b"no EXIF data")
    Image.fromarray(np.asarray(blocks.convert("L")).astype(np.uint16) * 16).save(folder / "grey.png")
    return sorted(map(str, folder.iterdir()))


@pytest.fixture(scope="module")
def both(exported):
    """A folder with a network in all three formats."""
    exported("darts", "torch")
    return exported("darts", "onnx").parent


def predicted(capsys, model, images, *more):
    """What predict.py says of a folder: path -> record; in fp32."""
    capsys.readouterr()
    argv = ["--model", str(model), "--images", str(images), "--json", "--workers", "1", "--precision", "fp32", *more]
    assert predict.main(argv) == 0
    return {record["path"]: record for record in map(json.loads, capsys.readouterr().out.splitlines())}


@pytest.mark.parametrize("file", ["model.onnx", "model.pt2"])
def test_the_model_card_gives_what_predict_gives(both, pictures_of_all_kinds, capsys, file):
    """In a process that knows nothing of this repository."""
    folder, paths = both, pictures_of_all_kinds
    expected = predicted(capsys, folder / "model.pt", Path(paths[0]).parent)
    done = subprocess.run([sys.executable, "-c", RUN, file, *paths], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, _ in found] == [expected[path]["class"] for path in paths]
    assert [float(p) for _, p in found] == pytest.approx([expected[path]["probability"] for path in paths], abs=1e-4)


def test_the_shipped_preprocessing_is_that_of_predict_bit_by_bit(both, pictures_of_all_kinds):
    shipped = both / "preprocess.py"
    assert shipped.read_bytes() == (ROOT / "pictures" / "preprocess.py").read_bytes()
    spec = importlib.util.spec_from_file_location("shipped", shipped)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    metadata, _ = by_onnxruntime(both / "model.onnx")
    how = json.loads(metadata["preprocess"])
    assert how == {"side": 32, "fit": "stretch", "grey_range": {"integer": [0, 4095]}}
    for fit in preprocess.FITS:
        pictures = module.batch(pictures_of_all_kinds, **how | {"fit": fit})
        decoded = decode(pictures_of_all_kinds, **how | {"fit": fit})
        assert not decoded.broken and pictures.dtype == np.float32
        assert np.array_equal(pictures.transpose(0, 2, 3, 1), decoded.images[..., :3] / np.float32(255))
        assert all(image.std() > 0.1 for image in pictures)  # nothing is black


@pytest.mark.parametrize("tta", [[], ["--tta"]])
def test_predict_takes_the_export(both, pictures_of_all_kinds, capsys, tta):
    """The same lines as of model.pt."""
    images = Path(pictures_of_all_kinds[0]).parent
    expected, found = (predicted(capsys, both / name, images, *tta) for name in ("model.pt", "model.onnx"))
    assert list(found) == list(expected)
    for path, record in expected.items():
        assert list(found[path]) == list(record) and found[path]["class"] == record["class"]
        assert found[path]["probabilities"] == pytest.approx(record["probabilities"], abs=1e-5)


def unsealed(model, path):
    """As others write it, and as it was written before there was a digest."""
    model.doc_string = ""
    for entry in [entry for entry in model.metadata_props if entry.key == "sha256"]:
        model.metadata_props.remove(entry)
    onnx.save(model, path)


def test_an_export_of_a_network_without_mirror_images_refuses_tta(traced, tmp_path, capsys, pictures_of_all_kinds):
    small_models.write(tmp_path / "model.pt", facts={"config": {"flip": "off"}})
    assert predict.main(["--model", str(tmp_path / "model.pt"), "--export", "onnx"]) == 0
    argv = ["--model", str(tmp_path / "model.onnx"), "--images", pictures_of_all_kinds[0], "--tta"]
    assert predict.main(argv) == 2
    assert "tta = True: its network was trained without mirrored pictures" in capsys.readouterr().err
    model = onnx.load(tmp_path / "model.onnx")  # as it was written before
    for entry in [entry for entry in model.metadata_props if entry.key in ("mirrored", "preprocess")]:
        model.metadata_props.remove(entry)
    unsealed(model, tmp_path / "model.onnx")
    assert predict.main(argv) == 2
    assert "tta = True: the file does not tell whether" in capsys.readouterr().err
    assert predict.main(argv[:-1]) == 0


@pytest.mark.parametrize(("content", "argv", "words"), [
    (b"<html><title>Sign in", [], "not a model file (it is a web page"),
    (b"\x08\x0a\x12\x07pytorch\xff\xff", [], "not a whole ONNX file"),
    (None, [], "no such file"),
    (b"", ["--precision", "bf16"], "precision = 'bf16'"),
    (b"", ["--device", "cuda"], "device = 'cuda'"),
    (b"", ["--export", "torch"], "it is exported already"),
])
def test_what_cannot_be_done_with_an_onnx_file(tmp_path, capsys, content, argv, words, pictures_of_all_kinds):
    if content is not None:
        (tmp_path / "a.onnx").write_bytes(content)
    assert predict.main(["--model", str(tmp_path / "a.onnx"), "--images", pictures_of_all_kinds[0], *argv]) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("error: ") and error.count("\n") == 1


def test_an_onnx_file_of_others_has_no_classes(both, tmp_path, capsys, pictures_of_all_kinds):
    model = onnx.load(both / "model.onnx")
    onnx.save(model, tmp_path / "a.onnx")
    assert predict.main(["--model", str(tmp_path / "a.onnx"), "--images", pictures_of_all_kinds[0]]) == 0
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "a.onnx")
    assert predict.main(["--model", str(tmp_path / "a.onnx"), "--images", pictures_of_all_kinds[0]]) == 2
    assert "changed by another program" in capsys.readouterr().err
    unsealed(model, tmp_path / "a.onnx")
    assert predict.main(["--model", str(tmp_path / "a.onnx"), "--images", pictures_of_all_kinds[0]]) == 2
    assert "its metadata have no classes" in capsys.readouterr().err


def test_predicting_with_an_export_takes_no_torch():
    code = "import sys, predict, artifacts.onnx_file, reporting.predictions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_preprocess_py_of_somebody_else_stays(traced, darts_file, tmp_path, capsys):
    (tmp_path / "preprocess.py").write_text("# mine")
    argv = ["--model", str(darts_file), "--export", "torch", "--out", str(tmp_path / "net.pt2")]
    assert predict.main(argv) == 2
    assert "preprocess.py is there and would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "preprocess.py").read_text() == "# mine" and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "preprocess.py").unlink()
    assert predict.main(argv) == 0 and predict.main(argv) == 0  # but our own is written anew


def test_an_export_is_verified_on_real_pictures_too(traced, darts_file, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (50, 40, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_text("no picture")
    argv = ["--model", str(darts_file), "--export", "torch", "--images", str(tmp_path)]
    assert predict.main([*argv, "--out", str(tmp_path / "new" / "net.pt2")]) == 0
    out = capsys.readouterr().out
    for kind in ("random", "your"):
        assert re.search(rf"^largest difference of the logits on {kind} pictures: \S+ \(tolerance 0.001\)$", out, re.M)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["MODEL_CARD.md", "net.pt2", "preprocess.py"]


def test_a_difference_above_the_tolerance_is_a_failure_and_writes_nothing(traced, darts_file, tmp_path, capsys):
    argv = ["--model", str(darts_file), "--export", "torch", "--tolerance", "1e-12"]
    assert predict.main([*argv, "--out", str(tmp_path / "net.pt2")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("failed: ") and "more than the tolerance 1e-12" in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [
    lambda logits: logits + 0.002,
    lambda logits: logits[:, ::-1],
    lambda logits: logits * float("nan"),
])
def test_verification_sees_wrong_logits(traced, darts_file, tmp_path, monkeypatch, wrong):
    trained = small_models.load_model(darts_file, torch.device("cpu"))
    right = export.FORMATS["torch"]

    def opened(content):
        run = right.open(content)
        return lambda pictures: wrong(run(pictures))

    monkeypatch.setitem(export.FORMATS, "torch", right._replace(open=opened))
    with pytest.raises(export.ExportDiffers, match="random pictures"):
        export.export(trained, "torch", tmp_path / "net.pt2", tolerance=1e-3)
    assert not list(tmp_path.iterdir())


def test_verification_catches_a_forgotten_normalization(darts_file, tmp_path, monkeypatch):
    trained = small_models.load_model(darts_file, torch.device("cpu"))
    monkeypatch.setattr(export.WithNormalization, "forward", lambda self, pictures: self.network(pictures))
    with pytest.raises(export.ExportDiffers):
        export.export(trained, "torch", tmp_path / "net.pt2", tolerance=1e-3)


def test_an_export_leaves_the_original_as_it_was(darts_file):
    trained = small_models.load_model(darts_file, torch.device("cpu"))
    before, images = copy_of(trained.model), torch.rand(2, 3, 32, 32)
    logits = trained.model(images)
    export._program(trained)
    assert torch.equal(trained.model(images), logits) and not trained.model.training
    assert all(torch.equal(value, before[key]) for key, value in trained.model.state_dict().items())


def copy_of(model):
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


def test_a_full_disk_is_one_line_and_leaves_the_old_file(traced, darts_file, tmp_path, capsys, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as earlier:
        earlier.writestr("net/archive_format", "pt2")
    old = (tmp_path / "net.pt2").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    assert predict.main(["--model", str(darts_file), "--export", "torch", "--out", str(tmp_path / "net.pt2")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "No space left" in error
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"] and (tmp_path / "net.pt2").read_bytes() == old
