"""Grey values of more than 8 bits: what many pictures hold of them, and whether that is what a network has learnt."""

from typing import NamedTuple

from pictures.preprocess import GreyRange

NAMES = {"integer": "16-bit", "float": "floating"}
DARK = 4  # times what pictures reach is less than what was learnt: fewer bits, by two at least


class Values(NamedTuple):
    """The extremes of a picture whose file does not tell their range."""

    kind: str  # integer or float
    low: float
    high: float


class GreySeen:
    """Counts pictures that do not keep to the ranges of the training pictures, in constant memory."""

    def __init__(self, learnt: GreyRange | None) -> None:
        self.learnt = learnt or {}
        self.seen: dict[str, tuple[int, int, float, float]] = {}  # kind -> pictures, those outside, extremes of all
        self.first: dict[str, str] = {}  # kind -> the path of the first one outside, if it is told

    def add(self, values: Values | None, path: str = "") -> None:
        if values is None:
            return
        kind, low, high = values
        least, most = self.learnt.get(kind, (low, high))
        pictures, outside, lowest, highest = self.seen.get(kind, (0, 0, low, high))
        if low < least or high > most:
            self.first.setdefault(kind, path)
        self.seen[kind] = pictures + 1, outside + (low < least or high > most), min(lowest, low), max(highest, high)

    def lines(self) -> list[str]:
        """A sentence for each kind that differs, for people."""
        return [line for kind in sorted(self.seen) for line in self._lines(kind, *self.seen[kind])]

    def _lines(self, kind: str, pictures: int, outside: int, low: float, high: float) -> list[str]:
        one = pictures == 1
        which = f"{NAMES[kind]} grey in {pictures} picture{'' if one else 's'}, values {low:.10g} to {high:.10g}"
        if kind not in self.learnt:
            return [f"{which}: the training pictures had none such"]
        least, most = self.learnt[kind]
        learnt = f"those of the training pictures are {least:.10g} to {most:.10g}"
        if outside:
            path = f"{', the first' if outside > 1 else ':'} {self.first[kind]}" if self.first[kind] else ""
            return [f"{which}: {learnt}; {outside} picture{' is' if outside == 1 else 's are'} cut off there{path}"]
        return [f"{which}: {learnt}; what was learnt is brighter"] if high < least + (most - least) / DARK else []
