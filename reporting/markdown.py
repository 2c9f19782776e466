"""Blocks as Markdown, with the pictures as files in a folder beside it."""

from collections.abc import Iterator
from pathlib import Path

from files import atomic_write
from reporting.blocks import Block, Bullets, Facts, Gallery, Heading, Picture, Table, Text


def write(title: str, blocks: list[Block], file: Path, pictures: Path) -> None:
    """`pictures` is the folder of the pictures, a neighbour of `file`."""
    for picture in _pictures(blocks):
        with atomic_write(pictures / picture.name, "wb") as stream:
            stream.write(picture.content)
    with atomic_write(file) as stream:
        stream.write("\n\n".join([f"# {title}", *("\n".join(_lines(block, pictures.name)) for block in blocks)]) + "\n")


def _pictures(blocks: list[Block]) -> Iterator[Picture]:
    for block in blocks:
        if isinstance(block, Picture):
            yield block
        elif isinstance(block, Gallery):
            yield from block.pictures


def _lines(block: Block, folder: str) -> Iterator[str]:
    match block:
        case Heading(level, text):
            yield f"{'#' * level} {_plain(text)}"
        case Text(text, kind):
            yield f"> {_plain(text)}" if kind == "warning" else _plain(text)
        case Facts(pairs):
            yield from (f"- **{_plain(value)}**: {_plain(what)}" for value, what in pairs)
        case Table(header, rows, numbers):
            yield _row(header)
            yield _row(["---:" if column in numbers else "---" for column in range(len(header))])
            yield from map(_row, rows)
        case Bullets(items):
            yield from (f"- {_plain(item)}" for item in items)
        case Picture():
            yield from _picture(block, folder)
        case Gallery(pictures, small):
            if small:  # in a row each
                yield _row(["", ""])
                yield _row(["---", "---"])
                yield from (_row([_image(picture, folder), picture.caption]) for picture in pictures)
            else:
                yield "\n\n".join("\n".join(_picture(picture, folder)) for picture in pictures)


def _picture(picture: Picture, folder: str) -> Iterator[str]:
    yield _image(picture, folder)
    if picture.caption:
        yield f"\n*{_plain(picture.caption)}*"


def _image(picture: Picture, folder: str) -> str:
    return f"![{_plain(picture.alt)}]({folder}/{picture.name})"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    """On one line, without what Markdown would take for HTML."""
    return " ".join(text.split()).replace("<", "&lt;")
