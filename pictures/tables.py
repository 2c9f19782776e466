"""A table of pictures: a CSV or TSV file of path, label and, if it likes, split; paths are relative to the file."""

import csv
import io
import os
import tarfile
import zipfile
from collections.abc import Iterator

from pictures.listing import FORMS, SPLIT_NAMES, File, Listing, in_order, shown

SHOWN = 50  # bad rows that are named


def in_table(data: str) -> Listing:
    """The data set that a table lists; ValueError names every bad row at once."""
    rows = list(_rows(data))
    root = os.path.dirname(data) or "."
    splits = bool(rows) and len(rows[0][1]) > 2
    if rows and _is_header(root, rows[0][1]):
        del rows[0]
    files, lines, bad = [], {}, []
    for line, row in rows:
        file, problem = _file(root, row, splits)
        if not problem and file.path in lines:
            problem = f"{shown(file.path)} is in line {lines[file.path]} already"
        if problem:
            bad.append(f"line {line}: {problem}")
        else:
            lines[file.path] = line
            files.append(file)
    if bad:
        named = SHOWN if files else 3  # what is no table at all need not be told line by line
        more = f"; and {len(bad) - named} more" if len(bad) > named else ""
        more += "" if files else f"; wanted: path, label and, if you like, split; paths relative to {shown(root)}"
        raise ValueError(f"data = {shown(data)}: {len(bad)} bad rows of {len(rows)}: {'; '.join(bad[:named])}{more}")
    found = {file.split for file in files} - {""}
    if found and "train" not in found:
        raise ValueError(f"data = {shown(data)}: no row is of train, all are of {' and '.join(sorted(found))}")
    return Listing(data, root, in_order(files), {split: split for split in sorted(found)})


def _rows(data: str) -> Iterator[tuple[int, list[str]]]:
    """Number of the line, and cells, of all rows that are not empty."""
    if zipfile.is_zipfile(data) or tarfile.is_tarfile(data):
        raise ValueError(f"data = {shown(data)}: unpack it first, and give the folder")
    with open(data, "rb") as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
        delimiter = next((sign for sign in "\t,;" if sign in text.lstrip().partition("\n")[0]), None)
        if "\0" in text or delimiter is None:
            raise ValueError
    except ValueError:
        raise ValueError(f"data = {shown(data)}: no table of path and label in UTF-8; wanted: {FORMS}") from None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in reader:
            if any(cells := [cell.strip() for cell in row]):
                yield reader.line_num, cells
    except csv.Error as error:
        raise ValueError(f"data = {shown(data)}: line {reader.line_num}: {error}") from None


def _is_header(root: str, row: list[str]) -> bool:
    """Whether the first cell is a word, and no file."""
    return not os.path.splitext(row[0])[1] and os.path.basename(row[0]) == row[0] and not os.path.isfile(
        os.path.join(root, row[0]))


def _file(root: str, row: list[str], splits: bool) -> tuple[File | None, str]:
    """What a row stands for, or what is wrong with it."""
    if len(row) != 2 + splits:
        return None, f"{len(row)} columns, wanted are path, label{' and split' if splits else ''}"
    path, label = os.path.normpath(row[0]), row[1]
    split = SPLIT_NAMES.get(row[2].lower()) if splits else ""
    if split is None:
        return None, f"split {row[2]!r}, must be one of {', '.join(SPLIT_NAMES)}"
    if not label:
        return None, "no label"
    if not os.path.isfile(os.path.join(root, path)):
        return None, f"no file {row[0]!r}"
    return File(path, label, split), ""
