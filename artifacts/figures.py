"""Figures for people: shares in percent and how sure they are, durations, and counts with their nouns."""

import math
from typing import Any

UNKNOWN = "not told"
Z = 1.959964  # standard deviations to either side that hold 95% of a normal distribution
MANY = 1000  # pictures from which on a share is told to a hundredth of a percent, and its interval to a tenth
FEW = 50  # pictures: 80% right of these is 67 to 89 with 95% confidence, and of fewer tells still less


def percent(value: Any, of: int | None = None) -> str:
    """A share of `of` pictures, if that is known: no more digits than they can tell."""
    return f"{value:.{_places(of)}%}" if isinstance(value, int | float) else UNKNOWN


def _places(of: int | None) -> int:
    return 2 if (of or 0) >= MANY else 1


def interval(right: float, of: int) -> tuple[float, float]:
    """In which the share truly lies, as far as `right` of `of` tell: 95%, by the score of Wilson (1927)."""
    share, scale = right / of, 1 + Z**2 / of
    middle = (share + Z**2 / (2 * of)) / scale
    half = Z / scale * math.sqrt(share * (1 - share) / of + Z**2 / (4 * of**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def span(right: float, of: int) -> str:
    """That interval in percent, such as 88 to 99."""
    return " to ".join(f"{100 * end:.{_places(of) - 1}f}" for end in interval(right, of))


def right_of(right: int, of: int, what: str) -> str:
    """Such as: 58 of 60 test pictures right (96.7%, 95% interval 89 to 99)"""
    return f"{right:,} of {of:,} {what} right ({percent(right / of, of)}, 95% interval {span(right, of)})"


def accuracy(share: Any, of: int | None = None) -> str:
    """With what it is worth, such as: 96.7% (58 of 60 pictures, 95% interval 89 to 99)"""
    if not of or not isinstance(share, int | float):
        return percent(share)
    return f"{percent(share, of)} ({round(share * of):,} of {of:,} pictures, 95% interval {span(share * of, of)})"


def with_error(share: float, error: float, of: int) -> str:
    """Such as: 96.7% ± 2.3"""
    return f"{percent(share, of)} ± {100 * error:.{_places(of)}f}"


def duration(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return UNKNOWN
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def counted(number: int, noun: str) -> str:
    """Such as: 1 run, 2 runs"""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
