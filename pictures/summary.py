"""A few lines about a data set: what there is, what was left out, what was set aside; the worst first."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pictures.grey import NAMES
from pictures.listing import quoted
from pictures.preprocess import GreyRange

UNEQUAL = 3  # times the smallest class: the largest one, from where it is told


def summary(classes: Sequence[str], train: np.ndarray, test: int, validation: int, counts: Mapping[str, Any],
            notes: Sequence[str] = ()) -> str:
    """`train`: labels of the training images, without a validation set that was given. `counts`: as in Pictures."""
    sizes = np.bincount(train, minlength=len(classes))
    head = [f"{len(classes)} classes, {len(train)} + {test} pictures, smallest class {sizes.min()}"]
    head += [f"validation {validation}"] if validation else []
    if side := counts.get("side"):
        head.append(f"brought to {side}x{side} pixels" + (f" ({counts['fit']})" if "fit" in counts else ""))
    most, least = sizes.argmax(), sizes.argmin()
    unequal = f"unequal classes: {classes[most]!r} has {sizes[most]} pictures, {classes[least]!r} {sizes[least]}"
    told = [*warnings(counts), *([unequal] if sizes[most] > UNEQUAL * sizes[least] else []), *notes, *facts(counts)]
    return "\n  ".join(" ".join(line.split()) for line in ("; ".join(head), *told))


def grey_words(ranges: GreyRange) -> list[str]:
    """What becomes of grey values of more than 8 bits, for people."""
    return [f"{NAMES[kind]} grey: values {low:.10g} to {high:.10g} in this data set, shown as 0 to 255"
            for kind, (low, high) in ranges.items()]


def warnings(counts: Mapping[str, Any]) -> list[str]:
    """What the owner of the pictures may want to mend, the worst first."""
    cure = [CURE] if any(counts.get(key) for key in COPIES) else []
    unlike = [f"validation and test: {line}" for line in counts.get("grey_unlike") or ()]
    return [*_told(WARNINGS, counts), *cure, *unlike]


def cautions(counts: Mapping[str, Any]) -> list[str]:
    """Why accuracies on such pictures may say too much: what belongs beside each of them."""
    return _told({key: WARNINGS[key] for key in FLATTERING}, counts)


def facts(counts: Mapping[str, Any]) -> list[str]:
    """What else was left out or set aside."""
    return _told(FACTS, counts) + grey_words(counts.get("grey_range") or {})


def _told(texts: Mapping[str, str], counts: Mapping[str, Any]) -> list[str]:
    return [_number(text, counts[key], _pairs(counts.get(f"{key.removesuffix('_dropped')}_files") or ()))
            for key, text in texts.items() if counts.get(key)]


def _pairs(files: Sequence[Sequence[str]]) -> str:
    """Files that show it, such as (cat/1.jpg = dog/7.jpg)."""
    told = ", ".join(" = ".join(dict.fromkeys(map(quoted, pair))) for pair in files)
    return f" ({told})" if told else ""


def _number(text: str, n: float, pairs: str) -> str:
    return text.format(n=n, pairs=pairs, s="" if n == 1 else "s", are="is" if n == 1 else "are")


WARNINGS = {
    "duplicates_across": "{n} picture{s} {are} in two of training, validation and test{pairs}, whose accuracies then "
                         "say too much",
    "two_classes": "{n} picture{s} {are} in two classes{pairs}",
    "two_classes_dropped": "{n} file{s} dropped, since the same pictures are in two classes{pairs}",
    "broken": "left out: {n} picture{s} that cannot be used",
    "duplicates": "{n} picture{s} {are} there once more in the same class and part{pairs}",
    "subfolders": "{n} folder{s} within classes: their pictures are split at random, and if those of a folder look "
                  "alike (one session), accuracies say too much; give train/ and test/, or a table with a column split",
    "earlier_side": "brought to {n}x{n} pixels when these were other or fewer pictures (--image-size {n} keeps that)",
}
COPIES = ("duplicates_across", "two_classes", "duplicates")
CURE = "--drop-duplicates keeps one of equal pictures, and none of those that are in two classes"
FLATTERING = ("duplicates_across", "subfolders")
FACTS = {
    "test_share": "no test set was given: {n:.0%} of each class set aside as one",
    "not_pictures": "{n} file{s} {are} no picture{s}",
    "duplicates_dropped": "{n} duplicate{s} dropped",
}
