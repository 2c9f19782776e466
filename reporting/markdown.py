"""Blocks as Markdown, with the pictures as files in a folder beside it."""

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from files import atomic_write
from reporting.blocks import Block, Bullets, Details, Facts, Gallery, Heading, Heat, Picture, Table, Text

CODE = re.compile("(`[^`]+`)")


def write(title: str, blocks: list[Block], file: Path, pictures: Path) -> None:
    """`pictures` is the folder of the pictures, a neighbour of `file`."""
    for picture in _pictures(blocks):
        with atomic_write(pictures / picture.name, "wb") as stream:
            stream.write(picture.content)
    with atomic_write(file) as stream:
        stream.write("\n\n".join([f"# {_plain(title)}", *("\n".join(_lines(block, pictures.name)) for block in blocks)])
                     + "\n")


def _pictures(blocks: list[Block]) -> Iterator[Picture]:
    for block in blocks:
        if isinstance(block, Picture):
            yield block
        elif isinstance(block, Gallery):
            yield from block.pictures
        elif isinstance(block, Details):
            yield from _pictures(block.blocks)


def _lines(block: Block, folder: str) -> Iterator[str]:
    match block:
        case Heading(level, text):
            yield f"{'#' * level} {_plain(text)}"
        case Text(text, kind):
            yield {"warning": "> {}", "lead": "**{}**"}.get(kind, "{}").format(_plain(text))
        case Facts(pairs):
            yield from (f"- **{_plain(value)}**: {_plain(what)}" for value, what in pairs)
        case Table(header, rows, numbers):
            yield _plain_row(header)
            yield _row(["---:" if column in numbers else "---" for column in range(len(header))])
            yield from map(_plain_row, rows)
        case Heat(corner, columns, rows, caption, _):
            yield _plain_row([corner, *columns])
            yield _row(["---", *["---:"] * len(columns)])
            yield from (_plain_row([name, *(cell.text if cell else "" for cell in cells)]) for name, cells in rows)
            yield from ["", f"*{_plain(caption)}*"] if caption else []
        case Bullets(items, kind):
            yield from (f"{'> ' if kind == 'warning' else ''}- {_plain(item)}" for item in items)
        case Picture():
            yield from _picture(block, folder)
        case Details(summary, parts):
            yield f"**{_plain(summary)}**"
            yield from ("\n" + "\n".join(_lines(part, folder)) for part in parts)
        case Gallery(pictures, kind):
            if kind:  # in a row each
                yield _row(["", ""])
                yield _row(["---", "---"])
                yield from (_row([_image(picture, folder), _plain(picture.caption)]) for picture in pictures)
            else:
                yield "\n\n".join("\n".join(_picture(picture, folder)) for picture in pictures)


def _picture(picture: Picture, folder: str) -> Iterator[str]:
    yield _image(picture, folder)
    if picture.caption:
        yield f"\n*{_plain(picture.caption)}*"


def _image(picture: Picture, folder: str) -> str:
    return f"![{_plain(picture.alt)}]({folder}/{picture.name})"


def _plain_row(cells: Iterable[str]) -> str:
    return _row(map(_plain, cells))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    """On one line, without what Markdown would take for HTML or for a formula; in code it takes nothing for that."""
    parts = CODE.split(" ".join(text.split()))
    return "".join(part if code else part.replace("<", "&lt;").replace("$", "\\$") for code, part in
                   zip(itertools.cycle((False, True)), parts, strict=False))
