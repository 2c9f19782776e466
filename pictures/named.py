"""The pictures that a command line names: files, folders, patterns such as '*.jpg', and tables of path and label."""

import glob
import os
from collections.abc import Iterator, Sequence

from pictures.folders import class_name, find_pictures, is_table
from pictures.listing import Listing
from pictures.tables import in_table


class Named:
    """May be walked again and again; of folders only one a level is held in memory."""

    def __init__(self, words: Sequence[str]) -> None:
        """ValueError names all words that stand for no file or folder, or tells what is wrong with a table."""
        self.places = [place for word in words for place in _places(word)]
        if missing := [word for word in words if not _places(word)]:
            raise ValueError(f"images = {', '.join(map(repr, missing))}: no such file or folder")
        self.tables: dict[str, Listing] = {place: in_table(place) for place in self.places
                                           if is_table(os.path.basename(place)) and os.path.isfile(place)}
        self.labels = {found.path(file): file.label for found in self.tables.values() for file in found.files}
        self.broken = [line for found in self.tables.values() for line in found.broken]  # rows of tables

    def __iter__(self) -> Iterator[str]:
        for place in self.places:
            if found := self.tables.get(place):
                yield from (found.path(file) for file in found.files)
            else:
                yield from find_pictures(place)

    def names(self, path: str) -> tuple[str, ...]:
        """What its class may be: what its table says; else the folder below the one that was named, or that one."""
        if path in self.labels:
            return (self.labels[path],)
        place = next((place for place in self.places if path.startswith(os.path.join(place, ""))),
                     os.path.dirname(path))
        below = path.removeprefix(os.path.join(place, "")).split(os.sep)[0]
        return class_name(below), class_name(os.path.basename(os.path.normpath(place)))


def _places(word: str) -> list[str]:
    """`word` itself if it is there, else what it stands for as a pattern, in the order of the names."""
    return [word] if os.path.exists(word) else sorted(glob.glob(word, recursive=True))
