"""What a folder of pictures is: one walk for training and for predictions, and what its folders mean.

A data set is root/<class>/*, not split, or root/train/<class>/* with test/ and val/ beside it. Below a class any
folders; links are followed.
"""

import os
import shlex
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pictures.listing import FORMS, SPLIT_NAMES, File, Listing, in_order, shown

PICTURE, OTHER, DANGLING, CLOSED, FOLDER = "picture", "other", "dangling link", "closed folder", "folder"
SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "__macosx", "__pycache__"}  # besides hidden ones
NO_PICTURES = {  # what lies beside pictures; of any other file Pillow decides
    ".txt", ".md", ".rst", ".rtf", ".pdf", ".doc", ".docx", ".html", ".htm", ".css", ".js", ".xml", ".json", ".jsonl",
    ".csv", ".tsv", ".xls", ".xlsx", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".log", ".db", ".sqlite", ".py", ".pyc",
    ".ipynb", ".sh", ".m", ".mat", ".npy", ".npz", ".pkl", ".pt", ".pth", ".h5", ".zip", ".tar", ".gz", ".tgz", ".7z",
    ".rar", ".mp4", ".mov", ".avi", ".mkv", ".wav", ".mp3", ".url", ".lnk", ".lock", ".md5", ".sha256"}


class Found(NamedTuple):
    path: str
    kind: str  # PICTURE, OTHER, DANGLING or CLOSED


def find_pictures(root: str) -> Iterator[str]:
    """`root` itself if it is a file, else all pictures below it, as `walk` finds them.

    A link that leads nowhere is one too, so that it is missed. OSError names a folder that cannot be read.
    """
    if not os.path.isdir(root):
        yield root
        return
    for path, kind in walk(root):
        if kind == CLOSED:
            raise OSError(f"{shown(path)}: this folder cannot be read")
        if kind in (PICTURE, DANGLING):
            yield path


def walk(folder: str, above: tuple = ()) -> Iterator[Found]:
    """All files below a folder in the order of their names; only one folder a level is held in memory.

    `above`: the folders on the way down to it. A link back to one of them ends there.
    """
    try:
        here, entries = identity(folder), entries_of(folder)
    except OSError:
        yield Found(folder, CLOSED)
        return
    if here in above:
        return
    for entry in entries:
        kind = kind_of(entry)
        if kind == FOLDER:
            yield from walk(entry.path, (*above, here))
        else:
            yield from files_of(entry, kind)


def identity(folder: str) -> tuple[int, int]:
    """Of the real folder, whatever links lead to it."""
    facts = os.stat(folder)
    return facts.st_dev, facts.st_ino


def entries_of(folder: str) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def kind_of(entry: os.DirEntry) -> str:
    if entry.name[0] == "." or entry.name.lower() in SYSTEM:
        return OTHER
    try:
        if entry.is_dir():
            return FOLDER
        if os.path.splitext(entry.name)[1].lower() in NO_PICTURES:
            return OTHER
        if entry.is_file():
            return PICTURE
        return OTHER if os.path.exists(entry.path) else DANGLING  # a socket, say
    except OSError:  # links that lead round in circles
        return DANGLING


def files_of(entry: os.DirEntry, kind: str) -> Iterator[Found]:
    """The entry itself; of a folder that is left out, such as __MACOSX, all files in it."""
    if kind == OTHER and entry.is_dir(follow_symlinks=False):
        yield from (Found(os.path.join(above, name), OTHER) for above, _, names in os.walk(entry.path)
                    for name in names)
    else:
        yield Found(entry.path, kind)


# ---- a data set


def class_name(folder: str) -> str:
    """Of the class that a folder is; umlauts, which may be one sign or two, are one."""
    return unicodedata.normalize("NFC", shown(folder))


def is_table(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in (".csv", ".tsv") and name[0] != "."


def in_folder(data: str) -> Listing:
    """The data set in a folder, without the test set that may have to be set aside."""
    found = _Findings(data)
    folders = found.folders_in(data)
    splits = _splits(data, [entry.name for entry in folders])
    if splits:
        for entry in folders:
            if entry.name in splits:
                found.add_classes(found.folders_in(entry.path), splits[entry.name],
                                  (identity(data), identity(entry.path)))
            else:
                found.leave_out(entry)
    else:
        found.add_classes(folders, "", (identity(data),))
        if len(folders) == 1:
            found.notes.append(f"is {shlex.quote(shown(folders[0].path))} meant?")
    return found.listing({split: f"{shown(name)}/" for name, split in splits.items()})


def _splits(data: str, names: list[str]) -> dict[str, str]:
    """Which folders are splits; ValueError if that is not clear."""
    splits = {name: SPLIT_NAMES[name.lower()] for name in names if name.lower() in SPLIT_NAMES}
    for split in set(splits.values()):
        if len(same := [f"{name}/" for name in splits if splits[name] == split]) > 1:
            raise ValueError(f"data = {shown(data)}: {' and '.join(same)} are both there; one is wanted")
    if splits and "train" not in splits.values():
        raise ValueError(f"data = {shown(data)}: no folder train/ beside {', '.join(splits)}/; wanted: {FORMS}")
    return splits


@dataclass
class _Findings:
    """Of one walk over a data set."""

    data: str
    files: list[File] = field(default_factory=list)
    not_pictures: int = 0
    broken: list[str] = field(default_factory=list)  # lines
    closed: list[str] = field(default_factory=list)
    empty: dict[str, str] = field(default_factory=dict)  # class -> its folder, in which nothing is at all
    notes: list[str] = field(default_factory=list)

    def below(self, path: str) -> str:
        return path.removeprefix(os.path.join(self.data, ""))

    def folders_in(self, folder: str) -> list[os.DirEntry]:
        """The folders in a folder whose files belong to no class."""
        try:
            entries = [(entry, kind_of(entry)) for entry in entries_of(folder)]
        except OSError:
            self.closed.append(folder)
            return []
        loose = [self.take(found, "", None) for entry, kind in entries if kind != FOLDER
                 for found in files_of(entry, kind)]
        if pictures := sum(loose):
            self.notes.append(f"not used, since in no class: {pictures} in {shown(folder)} itself")
        tables = (shown(entry.path) for entry, kind in entries if kind == OTHER and is_table(entry.name))
        self.notes += [f"not read: {path}; if it is a table of the pictures, --data {shlex.quote(path)} takes it"
                       for path in tables]
        return [entry for entry, kind in entries if kind == FOLDER]

    def take(self, found: Found, split: str, label: str | None) -> bool:
        """Keep what was found of a class (None: of none); whether it is a picture."""
        path = self.below(found.path)
        if found.kind == PICTURE and label is not None:
            self.files.append(File(path, label, split))
        elif found.kind == DANGLING:
            self.broken.append(f"{found.path}: a link that leads nowhere")
        elif found.kind == CLOSED:
            self.closed.append(path)
        self.not_pictures += found.kind == OTHER
        return found.kind == PICTURE

    def add_classes(self, folders: list[os.DirEntry], split: str, above: tuple) -> None:
        """Every folder is a class, but for one that has files and no pictures, and a link back up."""
        for entry in (entry for entry in folders if identity(entry.path) not in above):
            label = class_name(entry.name)
            if not [self.take(found, split, label) for found in walk(entry.path, above)]:
                self.empty.setdefault(label, self.below(entry.path))

    def leave_out(self, entry: os.DirEntry) -> None:
        """A folder beside train/ that is no split."""
        kinds = [found.kind for found in walk(entry.path)]
        self.not_pictures += kinds.count(OTHER)
        if pictures := kinds.count(PICTURE):
            self.notes.append(f"not used, since in neither train, val nor test: {pictures} in {shown(entry.name)}/")

    def listing(self, split_names: dict[str, str]) -> Listing:
        classes = {file.label for file in self.files}
        problems = [f"{shown(path)}/ cannot be read" for path in self.closed]
        problems += [f"{shown(path)}/, a class, has no pictures" for label, path in self.empty.items()
                     if label not in classes]
        return Listing(self.data, self.data, in_order(self.files), split_names, self.not_pictures,
                       tuple(self.broken), tuple(problems), tuple(self.notes), subfolders=self.subfolders())

    def subfolders(self) -> int:
        """Folders of those classes whose pictures lie in several."""
        places = defaultdict(set)
        for file in self.files:
            places[file.split, file.label].add(os.path.dirname(file.path))
        return sum(len(found) for found in places.values() if len(found) > 1)
