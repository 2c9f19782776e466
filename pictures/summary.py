"""One line about a data set: what there is, what was left out, what was set aside."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pictures.grey import NAMES
from pictures.listing import shown
from pictures.preprocess import GreyRange

UNEQUAL = 3  # times the smallest class: the largest one, from where it is told


def summary(classes: Sequence[str], train: np.ndarray, test: int, validation: int, counts: Mapping[str, Any],
            notes: Sequence[str] = ()) -> str:
    """`train`: labels of the training images, without a validation set that was given. `counts`: as in Pictures."""
    sizes = np.bincount(train, minlength=len(classes))
    side = counts.get("side")
    told = [f"{len(classes)} classes, {len(train)} + {test} pictures, smallest class {sizes.min()}"]
    if sizes.max() > UNEQUAL * sizes.min():
        most, least = classes[sizes.argmax()], classes[sizes.argmin()]
        told.append(f"unequal classes: {most!r} has {sizes.max()} pictures, {least!r} {sizes.min()}")
    if side:
        told.append(f"brought to {side}x{side} pixels" + (f" ({counts['fit']})" if "fit" in counts else ""))
    told += of_counts(counts)
    told += notes
    if validation:
        told.append(f"validation {validation}")
    return "; ".join(" ".join(part.split()) for part in told)


def grey_words(ranges: GreyRange) -> list[str]:
    """What becomes of grey values of more than 8 bits, for people."""
    return [f"{NAMES[kind]} grey: values {low:.10g} to {high:.10g} in this data set, shown as 0 to 255"
            for kind, (low, high) in ranges.items()]


def of_counts(counts: Mapping[str, Any]) -> list[str]:
    """What was left out or set aside, in words; other keys do not matter."""
    pairs = ", ".join(" = ".join(map(shown, pair)) for pair in counts.get("two_classes_files") or ())
    found = [_number(text, counts[key], f" ({pairs})" if pairs else "") for key, text in TEXTS.items()
             if counts.get(key)]
    unlike = (f"validation and test: {line}" for line in counts.get("grey_unlike") or ())
    return [*found, *grey_words(counts.get("grey_range") or {}), *unlike]


def _number(text: str, n: float, pairs: str) -> str:
    return text.format(n=n, pairs=pairs, s="" if n == 1 else "s", are="is" if n == 1 else "are")


TEXTS = {
    "test_share": "no test set was given: {n:.0%} of each class set aside as one",
    "not_pictures": "{n} file{s} {are} no picture{s}",
    "broken": "{n} broken picture{s} left out",
    "duplicates": "{n} picture{s} {are} there twice or more (--drop-duplicates drops such)",
    "duplicates_across": "{n} of these in two of training, validation and test",
    "two_classes": "{n} picture{s} {are} in two classes{pairs}",
    "duplicates_dropped": "{n} duplicate{s} dropped",
    "two_classes_dropped": "{n} file{s} dropped, since the same pictures are in two classes{pairs}",
}
