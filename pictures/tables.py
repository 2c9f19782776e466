"""A table of pictures: a CSV or TSV file of path, label and, if it likes, split; paths are relative to the file."""

import csv
import io
import os
import re
import tarfile
import unicodedata
import zipfile
from collections import defaultdict
from typing import NamedTuple

from pictures.listing import FORMS, SPLIT_NAMES, File, Listing, in_order, shown

NAMES = {  # of columns, as headers have them in small letters and without other signs; the first that is there counts
    "path": ("path", "filepath", "filename", "file", "imagepath", "imagefile", "imagename", "image", "img", "picture",
             "photo"),
    "label": ("label", "labels", "classname", "class", "category", "target", "species"),
    "split": ("split", "set", "subset", "partition")}
TOLD = 3  # bad rows that are named of what is no table at all


class Columns(NamedTuple):
    """Numbers of the columns, and the names of all."""

    path: int
    label: int
    split: int | None
    names: list[str]


class Row(NamedTuple):
    line: int
    cells: list[str]


def in_table(data: str, drop_duplicates: bool = False) -> Listing:
    """The data set that a table lists; rows that stand for no picture are among its `broken`.

    A picture with several labels is broken too, unless `drop_duplicates`, which leaves out all of such.
    """
    rows, notes = _rows(data)
    root = os.path.dirname(data) or "."
    header = rows.pop(0) if rows and _is_header(root, rows[0].cells) else Row(0, [])
    columns = _of_header(data, header, root, rows) if header.cells else _by_position(rows[0].cells if rows else [])
    header = header.cells
    notes += _unused(header, columns)
    files, bad = _files(root, rows, columns)
    if not drop_duplicates:
        files, more = _without_contradictions(files)
        bad = sorted([*bad, *more])
    lines = tuple(f"line {line} of {shown(os.path.basename(data))}: {problem}" for line, problem in bad)
    if bad and not files:  # what is no table at all need not be told line by line
        more = f"; and {len(bad) - TOLD} more" if len(bad) > TOLD else ""
        raise ValueError(f"data = {shown(data)}: no row of {len(rows)} is a picture: {'; '.join(lines[:TOLD])}{more}; "
                         f"wanted: {_told(header)}; paths relative to {shown(root)}")
    found = {file.split for _, file in files} - {""}
    return Listing(data, root, in_order(file for _, file in files), {split: split for split in sorted(found)},
                   broken=lines, notes=tuple(notes))


# ---- its text


def _rows(data: str) -> tuple[list[Row], list[str]]:
    """All rows that are not empty, with the numbers of their lines, and what is to be told of the file."""
    if zipfile.is_zipfile(data) or tarfile.is_tarfile(data):
        raise ValueError(f"data = {shown(data)}: unpack it first, and give the folder")
    with open(data, "rb") as file:
        content = file.read()
    try:
        text, notes = _decoded(content)
        delimiter = next((sign for sign in "\t,;" if sign in text.lstrip().partition("\n")[0]), None)
        if "\0" in text or delimiter is None:
            raise ValueError
    except ValueError:
        raise ValueError(f"data = {shown(data)}: no table of path and label in UTF-8; wanted: {FORMS}") from None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [Row(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise ValueError(f"data = {shown(data)}: line {reader.line_num}: {error}") from None
    return [row for row in rows if any(row.cells)], notes


def _decoded(content: bytes) -> tuple[str, list[str]]:
    """UTF-8, else what spreadsheets on Windows write in western Europe; ValueError if it is neither."""
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        return content.decode("cp1252"), ["the table is no UTF-8 and was read as Windows-1252"]


# ---- its columns


def _is_header(root: str, cells: list[str]) -> bool:
    """Whether no cell is a file, and one names a column or the first is a word."""
    if any(os.path.isfile(os.path.join(root, cell)) for cell in cells):
        return False
    word = not os.path.splitext(cells[0])[1] and os.path.basename(cells[0]) == cells[0]
    return word or "path" in _roles(cells)


def _roles(header: list[str]) -> dict[str, int]:
    """path, label and split -> number of the column that is called so, if one is."""
    words = [re.sub(r"[\W_]", "", cell.lower()) for cell in header]
    found = {role: next((words.index(name) for name in names if name in words), None) for role, names in NAMES.items()}
    return {role: number for role, number in found.items() if number is not None}


def _of_header(data: str, line: Row, root: str, rows: list[Row]) -> Columns:
    """By the names in a header; what they leave open is clear if one column is left. If none has such a name, in order,
    unless pictures are in other columns."""
    header, roles = line.cells, _roles(line.cells)
    if not roles and len(header) < 4 and (any(_file(root, cells, _by_position(header))[0] for _, cells in rows)
                                          or not any(_on_disk(root, cell) for _, cells in rows for cell in cells)):
        return _by_position(header)
    left = [number for number in range(len(header)) if number not in roles.values()]
    for role in ("path", "label"):
        if role not in roles and len(left) == 1:
            roles[role] = left.pop()
        elif role not in roles:
            raise ValueError(f"data = {shown(data)}: line {line.line} looks like a header, but no column is named as "
                             f"the {role}, such as {NAMES[role][0]} or {NAMES[role][2]}; there are "
                             f"{', '.join(map(repr, header))}")
    return Columns(roles["path"], roles["label"], roles.get("split"), header)


def _by_position(cells: list[str]) -> Columns:
    return Columns(0, 1, 2, ["path", "label", "split"]) if len(cells) > 2 else Columns(0, 1, None, ["path", "label"])


def _told(header: list[str]) -> str:
    """What the columns are, for people."""
    return f"as its header says, {', '.join(header)}" if _roles(header) else "path, label and, if you like, split"


def _unused(header: list[str], columns: Columns) -> list[str]:
    names = [repr(name) for number, name in enumerate(header[: len(columns.names)]) if number not in columns[:3]]
    if header and not _roles(header):
        return [f"columns taken in order as {', '.join(columns.names)}: {', '.join(map(repr, header))}"]
    return [f"column{'' if len(names) == 1 else 's'} not used: {', '.join(names)}"] if names else []


# ---- its rows


def _files(root: str, rows: list[Row], columns: Columns) -> tuple[list[tuple[int, File]], list[tuple[int, str]]]:
    """Pictures, and what is wrong with the other rows, each with its line."""
    files, bad = [], []
    for line, cells in rows:
        file, problem = _file(root, cells, columns)
        if file:
            files.append((line, file))
        else:
            bad.append((line, problem))
    return files, bad


def _file(root: str, cells: list[str], columns: Columns) -> tuple[File | None, str]:
    """What a row stands for, or what is wrong with it."""
    if len(cells) != len(columns.names):
        lacks = f"; nothing for {', '.join(columns.names[len(cells):])}" if len(cells) < len(columns.names) else ""
        return None, (f"{len(cells)} column{'' if len(cells) == 1 else 's'}, wanted are the {len(columns.names)} "
                      f"{', '.join(columns.names)}{lacks}")
    path, label = _on_disk(root, cells[columns.path]), unicodedata.normalize("NFC", cells[columns.label])
    split = "" if columns.split is None else SPLIT_NAMES.get(cells[columns.split].lower())
    if split is None:
        return None, f"split {cells[columns.split]!r}, must be one of {', '.join(SPLIT_NAMES)}"
    if not label:
        return None, "no label"
    if path is None:
        return None, f"no file {cells[columns.path]!r}"
    return File(path, label, split), ""


def _on_disk(root: str, path: str) -> str | None:
    """The path as the disk has it, where an umlaut may be one sign or two; None if there is no such file."""
    forms = (os.path.normpath(form) for form in (path, *(unicodedata.normalize(f, path) for f in ("NFC", "NFD"))))
    return next((form for form in forms if os.path.isfile(os.path.join(root, form))), None)


def _without_contradictions(files: list[tuple[int, File]]) -> tuple[list[tuple[int, File]], list[tuple[int, str]]]:
    """Without pictures of several labels, of which no one knows the right one; and a line about each of their rows."""
    rows = defaultdict(list)
    for line, file in files:
        rows[file.path].append((line, file.label))
    doubtful = {path: labels for path, labels in rows.items() if len({label for _, label in labels}) > 1}
    bad = [(line, f"{shown(file.path)} is {file.label!r}, but "
                  + ", ".join(f"{label!r} in line {other}" for other, label in doubtful[file.path]
                              if label != file.label))
           for line, file in files if file.path in doubtful]
    return [(line, file) for line, file in files if file.path not in doubtful], bad
