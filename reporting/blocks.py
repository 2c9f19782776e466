"""What a report consists of. sections.py makes blocks; web_page.py and markdown.py write them down.

In all texts `...` is code.
"""

from typing import Any, NamedTuple


class Heading(NamedTuple):
    level: int  # 2 or 3; the page's title is 1
    text: str


class Text(NamedTuple):
    text: str
    kind: str = ""  # lead: the answer, large; note: quieter; warning: not to be missed


class Facts(NamedTuple):
    """The few figures that matter most."""

    pairs: list[tuple[str, str]]  # value, what it is


class Table(NamedTuple):
    header: list[str]
    rows: list[list[str]]
    numbers: tuple[int, ...] = ()  # columns that are aligned to the right
    bars: tuple[int, list[float]] | None = None  # a column, and how long the bar behind each of its cells is, 0..1


class Cell(NamedTuple):
    text: str
    shade: float  # 0..1
    tone: str = ""  # wrong: in the colour of mistakes


class Heat(NamedTuple):
    """A table of shaded cells, with names as text: any script, and no formula in them."""

    corner: str  # what rows and columns are
    columns: list[str]
    rows: list[tuple[str, list[Cell | None]]]  # name, a cell for each column
    caption: str = ""
    narrow: Table | None = None  # says the same on a telephone, which has no room for many columns


class Bullets(NamedTuple):
    items: list[str]
    kind: str = ""  # as of Text


class Picture(NamedTuple):
    name: str  # of its file, with suffix .svg, .png or .jpg
    content: bytes
    alt: str  # for those who cannot see it
    caption: str = ""
    width: int = 0  # CSS pixels that it is drawn for, and not shown much wider; 0: as the page is
    narrow: "Heat | Table | None" = None  # says the same where the picture would be too small to read
    chart: dict[str, Any] | None = None  # for plotly, which replaces the picture where scripts run: see charts.py


class Gallery(NamedTuple):
    """Pictures side by side."""

    pictures: list[Picture]
    kind: str = ""  # photographs, or faces: small ones


class Details(NamedTuple):
    """What only some want to know, folded away."""

    summary: str
    blocks: list["Block"]


Block = Heading | Text | Facts | Table | Heat | Bullets | Picture | Gallery | Details
