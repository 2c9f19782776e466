"""Places of a parameter's values on an axis."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator


class Scale:
    """Places of a parameter's values on an axis: numbers far apart by their logarithm, names in their order."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.numeric = all(isinstance(value, int | float) for value in values)
        self.options = sorted(set(values), key=lambda value: value if self.numeric else str(value))
        low, high = (self.options[0], self.options[-1]) if self.numeric else (0, 0)
        self.log = self.numeric and low > 0 and high / low >= 20
        self.continuous = self.numeric and len(self.options) > 8

    def place(self, value: Any) -> float:
        if not self.numeric:
            return float(self.options.index(value))
        return math.log10(value) if self.log else float(value)

    def ticks(self) -> list[tuple[float, str]]:
        """(place, label): every option, or round numbers where there are many."""
        if not self.continuous:
            return [(self.place(option), f"{option:g}" if self.numeric else str(option)) for option in self.options]
        low, high = self.ends()
        places = [float(place) for place in MaxNLocator(5, integer=self.log).tick_values(low, high)]
        inside = [place for place in places if low <= place <= high]
        if self.log and len(inside) < 2:  # within a decade
            inside = [low, (low + high) / 2, high]
        return [(place, f"{10**place if self.log else place:.2g}") for place in inside]

    def ends(self) -> tuple[float, float]:
        return self.place(self.options[0]), self.place(self.options[-1])

    def share(self, place: float) -> float:
        """0 at the lowest place, 1 at the highest."""
        low, high = self.ends()
        return (place - low) / (high - low) if high > low else 0.5
