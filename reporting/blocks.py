"""What a report consists of. sections.py makes blocks; web_page.py and markdown.py write them down.

In all texts `...` is code.
"""

from typing import NamedTuple


class Heading(NamedTuple):
    level: int  # 2 or 3; the page's title is 1
    text: str


class Text(NamedTuple):
    text: str
    kind: str = ""  # note: quieter; warning: not to be missed


class Facts(NamedTuple):
    """The few figures that matter most."""

    pairs: list[tuple[str, str]]  # value, what it is


class Table(NamedTuple):
    header: list[str]
    rows: list[list[str]]
    numbers: tuple[int, ...] = ()  # columns that are aligned to the right


class Bullets(NamedTuple):
    items: list[str]


class Picture(NamedTuple):
    name: str  # of its file, with suffix .svg or .png
    content: bytes
    alt: str  # for those who cannot see it
    caption: str = ""
    width: int = 0  # CSS pixels below which it is unreadable: a narrower page scrolls it; 0: as the page is


class Gallery(NamedTuple):
    """Pictures side by side."""

    pictures: list[Picture]
    small: bool = False  # photographs of 32x32 pixels


Block = Heading | Text | Facts | Table | Bullets | Picture | Gallery
