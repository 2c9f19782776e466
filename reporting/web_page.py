"""Blocks as one HTML page that needs no other file, no network and no script."""

import base64
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

from reporting.blocks import Block, Bullets, Facts, Gallery, Heading, Picture, Table, Text

WIDEST = 1.4  # times the width from which on a picture is readable
KINDS = {".svg": "image/svg+xml", ".png": "image/png"}


def page(title: str, blocks: list[Block]) -> str:
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return "\n".join([
        "<!doctype html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">', '<link rel="icon" href="data:,">',
        f"<title>{escape(title)}</title>", f"<style>\n{style}</style>", "</head>", "<body>", "<main>",
        f"<h1>{escape(title)}</h1>", *_contents(blocks), *(line for block in blocks for line in _written(block)),
        "</main>", "</body>", "</html>", ""])


def _contents(blocks: list[Block]) -> Iterator[str]:
    yield '<nav aria-label="Contents">'
    yield from (f'<a href="#{anchor(block.text)}">{escape(block.text)}</a>' for block in blocks
                if isinstance(block, Heading) and block.level == 2)
    yield "</nav>"


def anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _written(block: Block) -> Iterator[str]:
    match block:
        case Heading(level, text):
            name = f' id="{anchor(text)}"' if level == 2 else ""
            yield f"<h{level}{name}>{_inline(text)}</h{level}>"
        case Text(text, kind):
            yield f'<p class="{kind}">{_inline(text)}</p>' if kind else f"<p>{_inline(text)}</p>"
        case Facts(pairs):
            yield '<dl class="facts">'
            yield from (f"<div><dt>{_inline(what)}</dt><dd>{_inline(value)}</dd></div>" for value, what in pairs)
            yield "</dl>"
        case Table():
            yield from _table(block)
        case Bullets(items):
            yield f"<ul>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</ul>"
        case Picture():
            yield _figure(block)
        case Gallery(pictures, small):
            yield f'<div class="{"small gallery" if small else "gallery"}">'
            yield from map(_figure, pictures)
            yield "</div>"


def _table(table: Table) -> Iterator[str]:
    kinds = [' class="number"' if column in table.numbers else "" for column in range(len(table.header))]
    yield '<div class="scroll" tabindex="0"><table>'
    cells = (f'<th scope="col"{kind}>{_inline(text)}</th>' for kind, text in zip(kinds, table.header, strict=True))
    yield f"<thead><tr>{''.join(cells)}</tr></thead><tbody>"
    for row in table.rows:
        cells = (f"<td{kind}>{_inline(text)}</td>" for kind, text in zip(kinds, row, strict=True))
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.content).decode()
    style = f' style="min-width: {picture.width}px; max-width: {WIDEST * picture.width:.0f}px"' if picture.width else ""
    image = (f'<img src="data:{KINDS[Path(picture.name).suffix]};base64,{data}" alt="{escape(picture.alt)}"{style}>')
    box = f'<div class="scroll" tabindex="0">{image}</div>' if picture.width else image
    caption = f"<figcaption>{_inline(picture.caption)}</figcaption>" if picture.caption else ""
    return f"<figure>{box}{caption}</figure>"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
