"""What a user's own data set is before any picture is read: its classes, and its files with class and split."""

import dataclasses
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SPLITS = ("", "train", "val", "test")  # empty: not split
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}  # in any capitals
TEST_SHARE = 0.2  # the default of DataConfig, which cannot tell whether it was given
FORMS = ("a folder with a folder for each class, or with train/ and test/ (and val/) of such, or a CSV or TSV file of "
         "path and label")


class File(NamedTuple):
    path: str  # below the root of the listing
    label: str
    split: str  # train, val or test; empty: of a data set that is not split


@dataclasses.dataclass(frozen=True)
class Listing:
    """A user's own data set, found by one walk. Files are sorted by split and path."""

    data: str  # the folder or table, as the user names it
    root: str  # where the paths of the files begin
    files: tuple[File, ...]
    split_names: Mapping[str, str]  # what the user calls the splits that there are
    not_pictures: int = 0  # files that are none
    broken: tuple[str, ...] = ()  # a line for what should be a picture and is known to be none: a link, a row
    problems: tuple[str, ...] = ()  # what forbids its use
    notes: tuple[str, ...] = ()  # what does not
    test_share: float = 0.0  # of the test set that was set aside; 0: it was given
    subfolders: int = 0  # of classes whose pictures lie in several

    @property
    def classes(self) -> list[str]:
        return sorted({file.label for file in self.files})

    def of(self, *splits: str) -> list[File]:
        return [file for split in splits for file in self.files if file.split == split]

    def path(self, file: File) -> str:
        return os.path.join(self.root, file.path)

    def labels(self, files: Iterable[File]) -> list[int]:
        numbers = {name: number for number, name in enumerate(self.classes)}
        return [numbers[file.label] for file in files]

    def counts(self) -> dict[str, Any]:
        """What was left out or set aside, as in `Pictures.counts`."""
        found = {"test_share": self.test_share, "not_pictures": self.not_pictures,
                 "subfolders": self.subfolders if self.test_share else 0}  # which a test set that is given may respect
        return {key: count for key, count in found.items() if count}

    def fingerprint(self) -> str:
        """Another one as soon as a file is changed, added, removed or put into another class or split."""
        facts = [(*file, stat.st_size, stat.st_mtime_ns) for file in self.files
                 for stat in [os.stat(self.path(file))]] + list(self.broken)
        text = repr((os.path.realpath(self.data), facts))  # names need not be valid Unicode
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def in_order(files: Iterable[File]) -> tuple[File, ...]:
    return tuple(sorted(files, key=lambda file: (SPLITS.index(file.split), file.path)))


def assert_usable(listing: Listing, skip_broken: bool) -> None:
    """ValueError names all that is wrong with a data set. What is broken, and no more, is told with broken pictures."""
    found = [*listing.problems, *lacking(listing)]
    if (count := len(listing.classes)) < 2:
        where = f" in {listing.split_names['train']}" if "train" in listing.split_names else ""
        found.insert(0, f"{count} class{'' if count == 1 else 'es'} with pictures{where}; at least 2 are needed")
        found += [f"wanted: {FORMS}", *listing.notes]
    if found:
        found += [] if skip_broken else some(listing, listing.broken)
        raise ValueError(f"data = {shown(listing.data)}: {'; '.join(found)}")


def lacking(listing: Listing) -> list[str]:
    """The classes that are not in each of the splits that were given."""
    splits_of = defaultdict(set)
    for file in listing.files:
        splits_of[file.label].add(file.split)
    return [f"class {label!r} has no pictures in {name}" for label in listing.classes
            for split, name in listing.split_names.items() if split not in splits_of[label]]


# ---- the test set of a data set that has none


def set_aside(listing: Listing, share: float, known: Mapping[str, str]) -> Listing:
    """With a test set of that share of each class, at least one picture: those whose names have the smallest hashes.

    `known`: path -> split of an earlier call. What was in the test set then stays there, and so does what was not.
    """
    if "test" in listing.split_names:
        return dataclasses.replace(listing, notes=(*listing.notes, *unused_share(share)))
    classes, chosen, problems = defaultdict(list), set(), list(listing.problems)
    for file in listing.files:
        if file.split in ("", "train"):
            classes[file.label].append(file.path)
    for label, paths in classes.items():
        if len(paths) > 1:
            chosen |= _chosen(paths, share, known)
        else:
            problems.append(f"class {label!r} has 1 picture, too few by 1 to train on and to test by, by 2 with "
                            "validation")
    files = [file._replace(split="test" if file.path in chosen else file.split or "train") for file in listing.files]
    return dataclasses.replace(listing, files=in_order(files), problems=tuple(problems), test_share=share)


def unused_share(share: float) -> tuple[str, ...]:
    """What to tell of a share that is wanted of a data set with a test set."""
    return (f"--test-share {share:g} not used: the data has a test set",) if share != TEST_SHARE else ()


def _chosen(paths: list[str], share: float, known: Mapping[str, str]) -> set[str]:
    """Those for the test, of one class."""
    paths = sorted(paths, key=lambda path: hashlib.sha256(os.fsencode(path)).digest())
    before = [path for path in paths if known.get(path) == "test"]
    new = [path for path in paths if path not in known]
    wanted = min(max(1, round(share * len(paths))), len(paths) - 1)
    return {*before, *new[: max(0, wanted - len(before))]} or set(paths[:1])


# ---- for messages


def named(data: str) -> str:
    """A data set's name to show to others: without the folders above it, but for that of a table."""
    return "/".join(Path(data).parts[-2:]) if _is_table(data) else Path(data).name


def below(path: str, data: str) -> str:
    """The path of a picture within its data set; of one outside of it the name alone."""
    inside = os.path.relpath(path, (os.path.dirname(data) if _is_table(data) else data) or ".")
    return shown(os.path.basename(path) if inside.startswith("..") else inside)


def _is_table(data: str) -> bool:
    return Path(data).suffix.lower() in (".csv", ".tsv")


def without_folders(text: str, data: str) -> str:
    """On one line, without the folders above the data set."""
    return " ".join(text.replace(data, named(data)).split())


def some(listing: Listing, lines: Sequence[str], most: int = 10) -> list[str]:
    """The first lines, which begin with a path, as text, paths below the root; and how many more there are."""
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    below = (line.removeprefix(os.path.join(listing.root, "")) for line in lines[:most])
    return [*(shown(" ".join(line.split())) for line in below), *more]


def alike(classes: Iterable[str]) -> list[str]:
    """A note about classes whose names differ in capitals or blanks alone."""
    groups = defaultdict(list)
    for name in classes:
        groups["".join(name.casefold().split())].append(name)
    return [f"{len(names)} classes with nearly the same name: {', '.join(map(repr, names))}"
            for names in groups.values() if len(names) > 1]


def quoted(name: str) -> str:
    """A name of a file among others, in quotes where it would not be clear where it ends."""
    return repr(shown(name)) if set(name) & set(",=;") else shown(name)


def shown(name: str) -> str:
    """A name of a file, which need not be valid Unicode, as text that can be printed."""
    return os.fsencode(name).decode(errors="backslashreplace")
