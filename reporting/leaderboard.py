"""The leaderboard of a pipeline as a table, for the page and for the terminal."""

from collections.abc import Iterator
from typing import Any

from artifacts.figures import duration, percent, with_error
from reporting.blocks import Block, Heading, Table, Text
from reporting.words import millions

COLUMNS = ("rank", "network", "stage", "validation", "validation_error", "validation_several_views", "test",
           "test_error", "test_several_views", "parameters", "multiply_adds", "images_per_second", "train_minutes",
           "search_minutes")
SPEED = "of the network alone, its input ready in memory; predict.py starts and decodes too"
HEADER = ("rank", "network", "stage", "validation", "validation by views", "test", "test by views", "parameters",
          "multiply-adds", "pictures/s", "training", "search")


def cells(row: dict[str, Any]) -> dict[str, Any]:
    """The figures of a row by COLUMNS; accuracies in 0..1, None where there is none."""
    val, test = row.get("validation") or {}, row.get("test") or {}
    return dict(zip(COLUMNS, (
        row.get("rank"), row["network"], row["stage"],
        *(part.get(key) for part in (val, test) for key in ("accuracy", "standard_error", "several_views_accuracy")),
        row["parameters"], row["multiply_adds"], round(row["images_per_second"], 1),
        *(None if row[key] is None else round(row[key] / 60, 2) for key in ("train_seconds", "search_seconds"))),
        strict=True))


def board_table(board: dict[str, Any]) -> Table:
    """The winner first; what it became, trained on all pictures, right below it."""
    rows = []
    for row in board["rows"]:
        rows.append([str(row["rank"]), *_told(row)])
        if row["rank"] == 1 and board.get("refit"):
            rows.append(["", f"{row['network']}, once more on all pictures", *_told(board["refit"])[1:]])
    return Table(list(HEADER), rows, (0, *range(3, len(HEADER))))


def _told(row: dict[str, Any]) -> list[str]:
    accuracies = [text for part in ("validation", "test") for text in _accuracy(row.get(part))]
    return [row["network"], row["stage"], *accuracies, millions(row["parameters"]), millions(row["multiply_adds"]),
            f"{row['images_per_second']:,.0f}", duration(row["train_seconds"]),
            duration(row["search_seconds"]) if row["search_seconds"] else ""]


def _accuracy(found: dict[str, Any] | None) -> tuple[str, str]:
    if not found:
        return "", ""
    of, several = found["images"], found["several_views_accuracy"]
    return with_error(found["accuracy"], found["standard_error"], of), "" if several is None else percent(several, of)


def chosen_by(board: dict[str, Any]) -> str:
    """A sentence; of one finalist nothing was chosen."""
    why = board["chosen"]
    return f"{why[0].upper()}{why[1:]}." if len(board["rows"]) == 1 else f"Chosen by the leaderboard: {why}."


def notes(board: dict[str, Any]) -> Iterator[str]:
    """What has to be said about the table."""
    yield chosen_by(board)
    for one in board["left_out"]:
        yield f"Not ranked: {one['stage']}, {one['reason']}."


def board_blocks(board: dict[str, Any]) -> list[Block]:
    text = ("±: one standard error. By views: the mean of several views of each picture, shifted and, if the network "
            f"was trained so, mirrored. Pictures/s: {SPEED}. ")
    tested = ("The test pictures were read once, after the choice, by all of them at the same time." if board["tested"]
              else "The test pictures have not been read yet.")
    return [Heading(2, "Leaderboard"), board_table(board), *(Text(line) for line in notes(board)),
            Text(text + tested, "note")]


# ---- for a terminal

SHORT = ("rank", "network", "stage", "validation %", "test %", "params", "mult-adds", "images/s", "training", "search")


def as_text(board: dict[str, Any]) -> str:
    """Narrower: in brackets by several views."""
    rows = [list(SHORT)]
    for row in board["rows"]:
        rows.append([str(row["rank"]), *_line(row)])
        if row["rank"] == 1 and board.get("refit"):
            rows.append(["", f"{row['network']}, on all", *_line(board["refit"])[1:]])
    widths = [max(len(row[column]) for row in rows) for column in range(len(SHORT))]
    lines = ["  ".join(cell.ljust(width) if column in (1, 2) else cell.rjust(width)
                       for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]
    marks = f"±: one standard error; in brackets: by several views of each picture; images/s: {SPEED}."
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], marks, *notes(board)])


def _line(row: dict[str, Any]) -> list[str]:
    search = duration(row["search_seconds"]) if row["search_seconds"] else ""
    return [row["network"], row["stage"], _brief(row.get("validation")), _brief(row.get("test")),
            f"{row['parameters'] / 1e6:.2f} M", f"{row['multiply_adds'] / 1e6:.0f} M",
            f"{row['images_per_second']:,.0f}", duration(row["train_seconds"]), search]


def _brief(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    of, several = found["images"], found["several_views_accuracy"]
    single = with_error(found["accuracy"], found["standard_error"], of)
    return (single if several is None else f"{single} ({percent(several, of)})").replace("%", "")
