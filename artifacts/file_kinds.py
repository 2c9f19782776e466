"""What a file is that was given for one of torch's and is none."""

import os
import zipfile
from pathlib import Path

HEAD = 4096  # bytes that are looked at
ONNX = "an ONNX file; predict.py takes it if its name ends in .onnx"
WEB_PAGE = "a web page; the download may need another address, or a login"
BEGINNINGS = {  # in small letters, after blanks -> words
    b"version https://git-lfs": "a Git LFS pointer; git lfs pull fetches the file that it stands for",
    b"<!doctype": WEB_PAGE, b"<html": WEB_PAGE, b"<?xml": "an XML file",
    b"\x1f\x8b": "a gzip archive", b"%pdf": "a PDF file", b"\x89png": "a picture", b"\xff\xd8\xff": "a picture",
    b"gif8": "a picture",
}


def kind_of(path: str | os.PathLike) -> str | None:
    """Words for a file that is certainly not one of torch's; None if it may be one, whole or not."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    for beginning, words in BEGINNINGS.items():
        if head.lstrip().lower().startswith(beginning):
            return words
    if head[:1] == b"\x08" and head[2:3] == b"\x12":  # protobuf: a version, then who made it
        return ONNX
    return "a text file" if _is_text(head) else _kind_of_zip(Path(path))


def _is_text(head: bytes) -> bool:
    try:
        text = head[:-3].decode() if len(head) == HEAD else head.decode()  # a letter may be cut in two
    except UnicodeDecodeError:
        return False
    return bool(text) and all(letter.isprintable() or letter.isspace() for letter in text)


def _kind_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # none, or a damaged one, of whose directory errors of many kinds come
        return None
    if any(name.endswith("/data.pkl") for name in names):
        return None
    if any(name.endswith(("/archive_format", "/models/model.json")) for name in names):
        return "an export of torch.export; predict.py takes the model.pt that it was made from, or an ONNX export"
    return "a zip archive"
