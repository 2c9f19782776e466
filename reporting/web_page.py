"""Blocks as one HTML page that needs no other file and no network; scripts make its charts answer, but nothing waits
for them: without them, and on paper, each chart is a picture."""

import base64
import functools
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from html import escape
from importlib.util import find_spec
from pathlib import Path

from reporting.blocks import Block, Bullets, Cell, Details, Facts, Gallery, Heading, Heat, Picture, Table, Text

WIDEST = 1.25  # times the width that a picture is drawn for
MANY = 5  # columns up to which a table fits a telephone; with more each row becomes a list there
SHORT = 3  # letters of a name that need not stand on its side above a narrow column
KINDS = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg"}


def page(title: str, blocks: list[Block]) -> str:
    """`blocks`: what stands before the first heading is the answer, and comes before the contents."""
    start = next((i for i, block in enumerate(blocks) if isinstance(block, Heading)), len(blocks))
    body = [line for block in blocks[start:] for line in _written(block)]
    return "\n".join([
        "<!doctype html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">', '<link rel="icon" href="data:,">',
        f"<title>{escape(title)}</title>", f"<style>\n{_own('page.css')}</style>", "</head>", "<body>", "<main>",
        f"<h1>{escape(title)}</h1>", *(line for block in blocks[:start] for line in _written(block)),
        *_contents(blocks), *body, "</main>",
        *_scripts(any('<figure class="chart' in line for line in body)), "</body>", "</html>", ""])


def _own(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _contents(blocks: list[Block]) -> Iterator[str]:
    yield '<nav aria-label="Contents">'
    yield from (f'<a class="level{block.level}" href="#{anchor(block.text)}">{escape(block.text)}</a>'
                for block in blocks if isinstance(block, Heading))
    yield "</nav>"


def _scripts(charts: bool) -> Iterator[str]:
    """plotly, packed (a third of its size), and what unpacks it once a chart comes into view."""
    if charts and find_spec("plotly"):
        yield f'<script type="text/plain" id="plotly">{packed_plotly()}</script>'
    yield f"<script>\n{_own('page.js')}</script>"


@functools.cache
def packed_plotly() -> str:
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def anchor(text: str) -> str:
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-")


def _written(block: Block) -> Iterator[str]:
    match block:
        case Heading(level, text):
            yield f'<h{level} id="{anchor(text)}">{_inline(text)}</h{level}>'
        case Text(text, kind):
            yield f'<p class="{kind}">{_inline(text)}</p>' if kind else f"<p>{_inline(text)}</p>"
        case Facts(pairs):
            yield '<dl class="facts">'
            yield from (f"<div><dt>{_inline(what)}</dt><dd>{_inline(value)}</dd></div>" for value, what in pairs)
            yield "</dl>"
        case Table():
            yield from _table(block)
        case Heat():
            yield from _heat(block)
        case Bullets(items, kind):
            yield f"<ul{_kinds([kind] if kind else [])}>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</ul>"
        case Picture():
            yield from _figure(block)
        case Gallery(pictures, kind):
            yield f'<div class="{f"{kind} gallery" if kind else "gallery"}">'
            for picture in pictures:
                yield from _figure(picture)
            yield "</div>"
        case Details(summary, blocks):
            yield f"<details><summary>{_inline(summary)}</summary>"
            for part in blocks:
                yield from _written(part)
            yield "</details>"


# ---- tables


def _table(table: Table) -> Iterator[str]:
    numbers = [' class="number"' if column in table.numbers else "" for column in range(len(table.header))]
    yield f'<div class="{"many scroll" if len(table.header) > MANY else "scroll"}" tabindex="0"><table>'
    cells = (f'<th scope="col"{kind}>{_inline(text)}</th>' for kind, text in zip(numbers, table.header, strict=True))
    yield f"<thead><tr>{''.join(cells)}</tr></thead><tbody>"
    for number, row in enumerate(table.rows):
        cells = (f'<td data-of="{escape(name)}"{kind}{_bar(table, number, column)}>{_inline(text)}</td>'
                 for column, (name, kind, text) in enumerate(zip(table.header, numbers, row, strict=True)))
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


def _bar(table: Table, row: int, column: int) -> str:
    return f' style="--bar: {table.bars[1][row]:.1%}"' if table.bars and table.bars[0] == column else ""


def _heat(heat: Heat) -> Iterator[str]:
    upright = ' class="upright"' if max(map(len, heat.columns)) <= SHORT else ""
    yield f'<figure{_kinds(["heat", *(["wide"] if heat.narrow else [])])}><table{upright}>'
    names = "".join(f'<th scope="col"><span>{_inline(name)}</span></th>' for name in heat.columns)
    yield f'<thead><tr><th class="corner">{_inline(heat.corner)}</th>{names}</tr></thead><tbody>'
    for name, cells in heat.rows:
        yield f'<tr><th scope="row">{_inline(name)}</th>{"".join(map(_shaded, cells))}</tr>'
    yield f"</tbody></table>{_caption(heat.caption)}</figure>"
    yield from _narrow(heat.narrow)


def _shaded(cell: Cell | None) -> str:
    if cell is None:
        return "<td></td>"
    kinds = _kinds(kind for kind in (cell.tone, "deep" if cell.shade > 0.55 else "") if kind)
    text = _inline(cell.text).replace("\n", "<br>")
    return f'<td{kinds} style="--shade: {cell.shade:.2f}">{text}</td>'


# ---- pictures


def _kinds(names: Iterable[str]) -> str:
    return f' class="{kinds}"' if (kinds := " ".join(names)) else ""


def _caption(text: str) -> str:
    return f"<figcaption>{_inline(text)}</figcaption>" if text else ""


def _figure(picture: Picture) -> Iterator[str]:
    data = base64.b64encode(picture.content).decode()
    style = f' style="max-width: {WIDEST * picture.width:.0f}px"' if picture.width else ""
    image = f'<img src="data:{KINDS[Path(picture.name).suffix]};base64,{data}" alt="{escape(picture.alt)}"{style}>'
    kinds = _kinds(kind for kind, wanted in (("chart", picture.chart), ("wide", picture.narrow)) if wanted)
    yield f"<figure{kinds}>{image}{_chart(picture)}{_caption(picture.caption)}</figure>"
    yield from _narrow(picture.narrow)


def _narrow(block: Block | None) -> Iterator[str]:
    if block:
        yield '<div class="narrow">'
        yield from _written(block)
        yield "</div>"


def _chart(picture: Picture) -> str:
    if not picture.chart:
        return ""
    told = json.dumps(picture.chart, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<div class="plot"></div><script type="application/json">{told}</script>'


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
