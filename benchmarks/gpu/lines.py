"""Figures, the lines of JSON that keep them, and the table that is made of these."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from files import atomic_write

MISSING, TOOK = "-", "took"  # the time of a case, for whoever plans; not in the table


class Figure(NamedTuple):
    """One number, or why there is none. `ok` is a check's verdict, None for a measurement."""

    name: str
    value: float | None
    unit: str = ""
    settings: Mapping[str, Any] = {}
    ok: bool | None = None
    note: str = ""
    spread: tuple[float, float] | None = None  # smallest and largest of the rounds whose median is the value

    def line(self, **where: Any) -> dict[str, Any]:
        """For JSON, which knows no NaN and no infinity."""
        finite = self.value is None or math.isfinite(self.value)
        return {**where, **self._asdict(), "value": self.value if finite else None,
                "note": self.note if finite else f"{self.value}; {self.note}", "settings": dict(self.settings)}


def append(path: Path, line: Mapping[str, Any]) -> None:
    """In one piece, and on the disk before anything else happens."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines of each section's last run."""
    found: dict[str, list[dict[str, Any]]] = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:  # a process was killed while it wrote
            continue
        before = found.get(line["section"], [])
        found[line["section"]] = [*(before if before and before[0]["run"] == line["run"] else ()), line]
    return [line for lines in found.values() for line in lines]


# ---- the table


def write_table(path: Path, lines: Iterable[Mapping[str, Any]]) -> str:
    text = table(list(lines))
    with atomic_write(path) as file:
        file.write(text)
    return text


def table(lines: list[Mapping[str, Any]]) -> str:
    """A row for all figures of a case that share their settings."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for line in (line for line in lines if line["name"] != TOOK):
        settings = ", ".join(f"{key} {value}" for key, value in line["settings"].items())
        rows.setdefault((line["section"], line["case"], settings), []).append(cell(line))
    head = ["| section | case | settings | figures |", "|---|---|---|---|"]
    body = [f"| {' | '.join(key)} | {'; '.join(cells)} |" for key, cells in rows.items()]
    return "\n".join([*environments(lines), "", *head, *body, ""])


def cell(line: Mapping[str, Any]) -> str:
    verdict = {None: "", True: " ok", False: " FAIL"}[line["ok"]]
    value = MISSING if line["value"] is None else f"{number(line['value'])} {line['unit']}".rstrip()
    note = f" ({line['note']})" if line["note"] else ""
    return f"{line['name']} {value}{verdict}{note}".replace("|", "/")


def number(value: float) -> str:
    """To four figures."""
    if value == round(value) and abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def environments(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the figures were measured on; one line, unless two runs share a folder."""
    keys = ("device", "torch", "cuda", "cudnn", "python", "commit")
    found = [", ".join(f"{key} {line[key]}" for key in keys if line.get(key)) for line in lines if line.get("torch")]
    return list(dict.fromkeys(found)) or ["Nothing was measured."]
