"""Anybody's picture files: what they become, bit by bit, what stops none of them, what is refused and why."""

import io
import re
import struct
import sys
import threading
import types
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from pictures import reading
from pictures.decoding import Decoder
from pictures.preprocess import pixels, spanning
from pictures.reading import grey_range, read_picture
from pictures.sizes import shorter_side

SIDE = 32
RNG = np.random.default_rng(0)
STEPS = np.repeat(np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16), 2, 0), 2, 1)  # every level, 32x32


def picture(width, height, mode="RGB"):
    """Blocks of colours, some of them transparent."""
    blocks = Image.fromarray(RNG.integers(0, 256, (5, 5, 4), dtype=np.uint8)).resize((width, height))
    return blocks.quantize(64) if mode == "PA" else blocks.convert(mode)


def oracle(path, side=SIDE):
    """What a picture of 8 bits has always been."""
    with Image.open(path) as image:
        image.draft("RGB", (2 * side, 2 * side))
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
        return np.asarray(image if image.size == (side, side) else image.resize((side, side), Image.Resampling.LANCZOS))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK"])
def test_8_bits_are_bitwise_what_they_were(tmp_path, format, mode):
    """The checksums of packed data sets, which checkpoints name, rest on it."""
    path, tried = tmp_path / "a", 0
    turned = [((40, 20), orientation) for orientation in range(1, 9)]
    for size, orientation in (*turned, ((32, 32), 1), ((1, 1), 1), ((400, 300), 1), ((9, 300), 1)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        try:
            picture(*size, mode).save(path, format, exif=exif)
        except (OSError, ValueError):  # a mode that the format does not have
            continue
        tried += 1
        assert np.array_equal(read_picture(str(path), SIDE), oracle(path))
    assert tried or (format, mode) not in (("JPEG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("TIFF", "CMYK"))


# ---- grey values of more than 8 bits


def pgm(path, values, largest):
    path.write_bytes(b"P5 %d %d %d\n" % (*values.shape[::-1], largest) + values.astype(">u2").tobytes())


def tiff(path, values, bits, sample_format=1, order="<", photometric=1):
    """An uncompressed TIFF with one strip, of `values` as they are."""
    data = values if isinstance(values, bytes) else values.tobytes()
    height, width = (SIDE, SIDE) if isinstance(values, bytes) else values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8 + 2 + 12 * 10 + 4, 277: 1, 278: height,
            279: len(data), 339: sample_format}
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8) + struct.pack(order + "H", len(tags))
    long = b"".join(struct.pack(order + "HHI", tag, 4, 1) + struct.pack(order + "I", value)
                    for tag, value in tags.items())
    path.write_bytes(head + long + bytes(4) + data)


def twelve_bits(values):
    """Two values in three bytes, as TIFF packs them."""
    first, second = values.astype(int).ravel()[::2], values.astype(int).ravel()[1::2]
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8).tobytes()


def grey(path, **how):
    found = read_picture(str(path), SIDE, **how)
    assert (found[..., :1] == found).all()  # no colour
    return found[..., 0]


@pytest.mark.parametrize("largest", [300, 1023, 4095, 16383, 65535])
def test_a_pgm_has_the_range_that_it_names(tmp_path, largest):
    pgm(tmp_path / "a.pgm", np.round(STEPS / 255 * largest), largest)
    assert np.abs(grey(tmp_path / "a.pgm").astype(int) - STEPS).max() <= (1 if largest < 65535 else 0)
    assert grey_range([str(tmp_path / "a.pgm")]) == ({"integer": (0, 65535)} if largest == 65535 else {})


def test_a_tiff_of_12_bits_has_the_range_of_12_bits(tmp_path):
    tiff(tmp_path / "a.tiff", twelve_bits(STEPS.astype(int) * 16 + 7), 12)
    assert np.array_equal(grey(tmp_path / "a.tiff"), STEPS)
    assert np.array_equal(grey(tmp_path / "a.tiff", grey_range={"integer": (0, 255)}), STEPS)  # the file knows better
    assert grey_range([str(tmp_path / "a.tiff")]) == {}


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bits_of_both_byte_orders(tmp_path, order):
    tiff(tmp_path / "a.tiff", (STEPS.astype(int) * 257).astype(f"{order}u2"), 16, order=order)
    Image.fromarray(STEPS.astype(np.uint16) * 257).save(tmp_path / "a.png")
    assert np.array_equal(grey(tmp_path / "a.tiff"), STEPS) and np.array_equal(grey(tmp_path / "a.png"), STEPS)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_a_camera_of_fewer_bits_in_a_file_of_16(tmp_path, bits, suffix):
    """The file does not tell: as it stands it would be nearly black. The data set tells."""
    values = (STEPS.astype(int) << bits - 8) + 1
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / f"a.{suffix}")
    Image.fromarray((values // 4).astype(np.uint16)).save(tmp_path / f"b.{suffix}")
    (tmp_path / "broken.png").write_bytes((tmp_path / f"a.{suffix}").read_bytes()[:100])
    picture(20, 20).save(tmp_path / "c.png")
    found = grey_range([str(path) for path in tmp_path.iterdir()])
    assert found == {"integer": (0, 2**bits - 1)}
    assert np.array_equal(grey(tmp_path / f"a.{suffix}", grey_range=found), STEPS)
    assert np.array_equal(grey(tmp_path / f"b.{suffix}", grey_range=found), STEPS // 4)
    assert len(np.unique(grey(tmp_path / f"a.{suffix}"))) <= 64 and grey(tmp_path / f"a.{suffix}").max() < 64
    assert np.array_equal(read_picture(str(tmp_path / "c.png"), SIDE, grey_range=found), oracle(tmp_path / "c.png"))


@pytest.mark.parametrize(("values", "sample_format"), [
    ((STEPS / 255).astype("<f4"), 3), (STEPS.astype("<f4"), 3), ((STEPS / 2550 - 0.5).astype("<f4"), 3),
    (STEPS.astype("<i4") * 1000 - 70_000, 2), (STEPS.astype("<u4") * 8_000_000, 1), (STEPS.astype("<i2") * 2 - 300, 2),
])
def test_values_of_no_usual_range_are_seen(tmp_path, values, sample_format):
    """Floating values, whole ones of 32 bits, and such below 0."""
    tiff(tmp_path / "a.tiff", values, 8 * values.itemsize, sample_format)
    known = grey_range([str(tmp_path / "a.tiff")])
    for found in (grey(tmp_path / "a.tiff"), grey(tmp_path / "a.tiff", grey_range=known)):
        assert len(np.unique(found)) >= 120 and found.max() - found.min() >= 120
        assert (np.diff(found.ravel()[np.argsort(STEPS.ravel())].astype(int)) >= 0).all()  # what is brighter stays so


def test_floating_values_that_are_none_are_black(tmp_path):
    values = (STEPS / 255).astype("<f4")
    values[0, :3] = np.nan, np.inf, -np.inf
    tiff(tmp_path / "a.tiff", values, 32, 3)
    assert grey_range([str(tmp_path / "a.tiff")]) == {"float": (0, 1)}
    assert grey(tmp_path / "a.tiff")[0, :3].tolist() == [0, 255, 0]
    assert np.array_equal(grey(tmp_path / "a.tiff")[1:], STEPS[1:])


def test_integer_and_floating_pictures_of_one_data_set_have_a_range_each(tmp_path):
    tiff(tmp_path / "a.tiff", (STEPS / 255).astype("<f4"), 32, 3)
    Image.fromarray(STEPS.astype(np.uint16) * 16).save(tmp_path / "b.png")
    found = grey_range([str(tmp_path / name) for name in ("a.tiff", "b.png")])
    assert found == {"float": (0, 1), "integer": (0, 4095)}
    assert all(np.array_equal(grey(tmp_path / name, grey_range=found), STEPS) for name in ("a.tiff", "b.png"))


@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero(tmp_path, bits):
    values = (STEPS.astype(int) * (257 if bits == 16 else 1)).astype(f"<u{bits // 8}")
    tiff(tmp_path / "a.tiff", values, bits, photometric=0)
    assert np.array_equal(grey(tmp_path / "a.tiff"), 255 - STEPS)


@pytest.mark.parametrize(("low", "high", "expected"), [
    (0, 1, (0, 1)), (0.0, 0.9, (0, 1)), (0, 255, (0, 255)), (3, 3000, (0, 4095)), (0, 4096, (0, 8191)),
    (0, 65535, (0, 65535)), (7000, 9000, (7000, 9000)), (0, 0.01, (0, 0.01)), (0, 1.2, (0, 1.2)),
    (-1024, 3071, (-1024, 3071)), (0, 0, (0, 1)), (5, 5, (0, 7)), (-5, -5, (-5, -4)),
])
def test_the_range_of_values(low, high, expected):
    assert spanning(low, high) == expected


# ---- what stops no sound picture


def png(path, *chunks, after=()):
    """The colours of `picture`, with more chunks before and after the pixels."""
    buffer = io.BytesIO()
    picture(40, 30).save(buffer, "PNG")
    data = buffer.getvalue()
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    path.write_bytes(data[:start] + b"".join(chunks) + data[start:end] + b"".join(after) + data[end:])
    return pixels(Image.open(buffer), SIDE)


def chunk(name, content, checksum=None):
    checksum = zlib.crc32(name + content) if checksum is None else checksum
    return len(content).to_bytes(4, "big") + name + content + checksum.to_bytes(4, "big")


TOO_LONG = b"words\0\0" + zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1))


@pytest.mark.parametrize("bad", [
    chunk(b"zTXt", TOO_LONG), chunk(b"iTXt", b"words\0\1\0\0\0" + TOO_LONG[7:]),
    chunk(b"iCCP", b"profile\0\0" + TOO_LONG[7:]),
    chunk(b"zTXt", b"words\0\5"), chunk(b"iCCP", b"profile"), chunk(b"iCCP", b"profile\0\7x"),
    chunk(b"tEXt", b"a\0b", checksum=1), chunk(b"gAMA", b""), chunk(b"tIME", bytes(7), checksum=2),
    chunk(b"fcTL", b""), chunk(b"eXIf", b"no EXIF data"), chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff"),
], ids=lambda bad: bad[4:8].decode())
def test_a_bad_chunk_of_a_png_stops_no_picture(tmp_path, bad):
    expected = png(tmp_path / "before.png", bad)
    assert np.array_equal(read_picture(str(tmp_path / "before.png"), SIDE), expected)
    expected = png(tmp_path / "after.png", after=[bad])
    assert np.array_equal(read_picture(str(tmp_path / "after.png"), SIDE), expected)


def segment(marker, content):
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def turned_exif(*more):
    exif = Image.Exif()
    exif[0x0112] = 6
    for tag, value in more:
        exif[tag] = value
    return exif.tobytes()


@pytest.mark.parametrize("bad", [
    segment(0xE1, b"Exif\0\0nothing of the kind"), segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
    segment(0xE2, b"ICC_PROFILE\0"), segment(0xE2, b"ICC_PROFILE\0\1\2half"), segment(0xE2, b"MPF\0MM\0*\0\0"),
    segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4"), segment(0xED, b"Photoshop 3.0\0008BIM\3\xed\0\0\0\0\0\x10"),
    segment(0xEE, b"Adobe"), segment(0xE0, b"JFIF\0"), segment(0xFE, b"\xff\xfe"),
])
def test_a_bad_segment_of_a_jpeg_stops_no_picture(tmp_path, bad):
    buffer = io.BytesIO()
    picture(40, 30).save(buffer, "JPEG")
    data = buffer.getvalue()
    (tmp_path / "a.jpg").write_bytes(data[:2] + bad + data[2:])
    assert np.array_equal(read_picture(str(tmp_path / "a.jpg"), SIDE), pixels(Image.open(buffer), SIDE))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_turned_picture_is_turned_though_the_rest_of_its_exif_is_broken(tmp_path, format):
    """Pillow's own way to turn it writes the whole of the EXIF data anew, and fails."""
    exif = turned_exif((0x0131, "software"))
    entry = exif.index(struct.pack(">HH", 0x0131, 2))
    broken = exif[: entry + 2] + struct.pack(">H", 99) + exif[entry + 4 :]
    picture(40, 30).save(tmp_path / "a", format, exif=broken)
    picture(40, 30).save(tmp_path / "b", format, exif=turned_exif())
    a, b = (read_picture(str(tmp_path / name), SIDE) for name in "ab")
    assert a.shape == b.shape
    with Image.open(tmp_path / "a") as image:
        upright = pixels(image, SIDE)
        assert image.getexif()[0x0112] == 6
    assert np.array_equal(a, upright)


def test_a_picture_that_is_cut_off_is_broken_still(tmp_path):
    for format in ("JPEG", "PNG", "GIF", "BMP", "TIFF"):
        picture(300, 300).save(tmp_path / "a", format)
        whole = (tmp_path / "a").read_bytes()
        (tmp_path / "a").write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(ValueError, match=r"a: (broken picture|not a picture)"):
            read_picture(str(tmp_path / "a"), SIDE)
    picture(300, 300).save(tmp_path / "a", "JPEG")
    with open(tmp_path / "a", "ab") as file:
        file.write(b"what a camera left behind the picture")
    assert np.array_equal(read_picture(str(tmp_path / "a"), SIDE), oracle(tmp_path / "a"))


# ---- how large a picture may be


def test_a_huge_jpeg_is_read_at_a_fraction(tmp_path):
    """Pillow by itself refuses 180 million pixels."""
    Image.new("L", (15_000, 12_000), 77).save(tmp_path / "a.jpg", quality=50)
    assert np.abs(read_picture(str(tmp_path / "a.jpg"), SIDE).astype(int) - 77).max() <= 1


def head_of_png(path, width, height):
    """One that claims its size, without the pixels."""
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b""))


def test_what_takes_too_much_memory_is_refused_with_size_and_bound(tmp_path):
    head_of_png(tmp_path / "a.png", 20_000, 14_000)
    with pytest.raises(ValueError, match=r"a.png: too large, 20000 x 14000 pixels: 1.04 GiB .* more than the 1 GiB"):
        read_picture(str(tmp_path / "a.png"), SIDE)
    head_of_png(tmp_path / "b.png", 19_000, 14_000)
    with pytest.raises(ValueError, match=r"b\.png: broken picture"):  # tried, and found to be cut off
        read_picture(str(tmp_path / "b.png"), SIDE)


def test_a_progressive_jpeg_counts_as_a_whole(tmp_path):
    """Its coefficients are all in memory, at whatever fraction it is read."""
    Image.new("L", (64, 64)).save(tmp_path / "a.jpg", progressive=True)
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    size = data.index(b"\xff\xc2") + 5
    data[size : size + 4] = struct.pack(">HH", 60_000, 60_000)
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(ValueError, match=r"too large, 60000 x 60000 pixels: 20.1\d GiB"):
        read_picture(str(tmp_path / "a.jpg"), SIDE)


def test_large_pictures_are_decoded_one_after_another(tmp_path, monkeypatch):
    picture(200, 200).save(tmp_path / "a.png")
    monkeypatch.setattr(reading, "LARGE", 1000)
    at_once, most, whole = [], [], pixels

    def counted(*how):
        at_once.append(1)
        most.append(len(at_once))
        found = whole(*how)
        at_once.pop()
        return found

    monkeypatch.setattr(reading.preprocess, "pixels", counted)
    threads = [threading.Thread(target=read_picture, args=(str(tmp_path / "a.png"), SIDE)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


@pytest.mark.parametrize(("gibibytes", "workers"), [(2, 1), (6, 1), (8, 4), (16, 20), (128, 244)])
def test_decoders_take_at_most_half_of_the_memory(monkeypatch, gibibytes, workers):
    monkeypatch.setattr(reading, "_memory", lambda: gibibytes * 2**30)
    assert reading.most_workers() == workers
    with Decoder(SIDE, workers=3) as decoder:
        assert decoder.workers == min(3, workers)


# ---- HEIC and AVIF

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(30)


@pytest.fixture
def forgetful():
    """Whether pillow-heif is there is asked anew."""
    reading._register_heif.cache_clear()
    yield
    reading._register_heif.cache_clear()


def test_heic_without_its_package_names_it(tmp_path, monkeypatch, forgetful):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(HEIC)
    with pytest.raises(ValueError, match=r"a.heic: not a picture that Pillow can read; HEIC .*pip install pillow-heif"):
        read_picture(str(tmp_path / "a.heic"), SIDE)
    (tmp_path / "a.jpg").write_text("a text")
    with pytest.raises(ValueError, match=r"a\.jpg: not a picture that Pillow can read$"):
        read_picture(str(tmp_path / "a.jpg"), SIDE)


def test_pillow_heif_is_registered_when_it_is_needed(tmp_path, monkeypatch, forgetful):
    """With a package that only looks like it."""
    asked, known = [], Image.open
    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=lambda: asked.append(1)))

    def opened(file, *more):
        return known(file, *more) if file != str(tmp_path / "a.heic") or not asked else Image.new("RGB", (9, 9), "red")

    monkeypatch.setattr(Image, "open", opened)
    picture(20, 20).save(tmp_path / "b.png")
    (tmp_path / "a.heic").write_bytes(HEIC)
    read_picture(str(tmp_path / "b.png"), SIDE)
    assert not asked
    assert (read_picture(str(tmp_path / "a.heic"), SIDE) == (255, 0, 0)).all() and asked == [1]


def test_heic_of_a_camera(tmp_path, forgetful):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif, which writes and reads HEIC, is not installed")
    upright = picture(64, 40)
    heif.from_pillow(upright).save(tmp_path / "a.heic", quality=95)
    heif.from_pillow(upright).save(tmp_path / "b.heic", quality=95, exif=turned_exif())
    assert shorter_side(str(tmp_path / "a.heic")) == 40  # by which the size of the packed pictures is chosen
    expected, turned = np.asarray(upright.resize((SIDE, SIDE))), upright.transpose(Image.Transpose.ROTATE_270)
    assert np.abs(read_picture(str(tmp_path / "a.heic"), SIDE).astype(int) - expected).mean() < 6
    expected = np.asarray(turned.resize((SIDE, SIDE)))
    assert np.abs(read_picture(str(tmp_path / "b.heic"), SIDE).astype(int) - expected).mean() < 6


def test_avif(tmp_path):
    from PIL import features

    if not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    picture(64, 40).save(tmp_path / "a.avif", quality=95)
    assert np.array_equal(read_picture(str(tmp_path / "a.avif"), SIDE), oracle(tmp_path / "a.avif"))


# ---- how a picture becomes a square


@pytest.mark.parametrize(("width", "height"), [(90, 30), (30, 90), (40, 40), (32, 32), (1000, 1), (7, 64)])
def test_fit(tmp_path, width, height):
    """A red picture with a blue square in its middle."""
    edge = min(width, height)
    image = Image.new("RGB", (width, height), "red")
    left, top = (width - edge) // 2, (height - edge) // 2
    image.paste("blue", (left, top, left + edge, top + edge))
    image.save(tmp_path / "a.png")
    assert (read_picture(str(tmp_path / "a.png"), SIDE, fit="crop") == (0, 0, 255)).all()
    padded = read_picture(str(tmp_path / "a.png"), SIDE, fit="pad")
    beside = (padded == 128).all(2)
    wanted = max(1, round(SIDE * edge / max(width, height)))
    assert beside.all(1 if width > height else 0).sum() == SIDE - wanted
    assert (padded[SIDE // 2, SIDE // 2] == (0, 0, 255)).all() or edge == 1
    assert np.array_equal(read_picture(str(tmp_path / "a.png"), SIDE, fit="stretch"), oracle(tmp_path / "a.png"))
    for fit in ("stretch", "crop", "pad"):
        assert read_picture(str(tmp_path / "a.png"), 48, fit=fit).shape == (48, 48, 3)


def test_all_workers_wait_for_one_another_with_large_pictures():
    with Decoder(SIDE, workers=1) as decoder:
        kind = decoder.pool.submit(eval, "type(__import__('pictures.reading').reading.turn).__module__").result()
    assert kind == "multiprocessing.synchronize"  # a lock between processes, not that of threads


def test_a_decoder_does_the_same(tmp_path):
    picture(90, 30).save(tmp_path / "a.png")
    Image.fromarray(STEPS.astype(np.uint16) * 16).save(tmp_path / "b.png")
    how = {"fit": "crop", "grey_range": {"integer": [0, 4095]}}
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")]
    with Decoder(48, workers=1, **how) as decoder:
        [batch] = decoder.batches(paths, 8)
    assert np.array_equal(batch.images[..., :3], np.stack([read_picture(path, 48, **how) for path in paths]))
    assert not re.search("grey", str(batch.broken))
