"""The finalists of all stages of pipeline.py on one leaderboard; the best of them becomes model.pt.

    python leaderboard.py --runs runs/pipeline             what pipeline.py does at its end
    python leaderboard.py --runs runs/pipeline --no-test   the choice alone: the test pictures are not read
    python leaderboard.py --runs runs/pipeline --no-tta    quicker: each picture as it is, and not shifted and mirrored

Every finalist is judged by the same validation pictures, which no training has seen, after its last epoch. The most
accurate wins; of those that differ from it by less than the standard error of the difference, counted by the pictures
that only one of the two gets right, the one with the fewest parameters. Only then are the test pictures read, for all
of them at once; nothing is chosen by these. Where the winner was trained once more on all pictures (pipeline.py
--refit), that network is exported.

Writes leaderboard.json, leaderboard.csv, model.pt and MODEL_CARD.md into the folder of the results. A finalist that
diverged, is missing, or has seen a validation picture is named, and the others are ranked.
"""

import csv
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.figures import counted
from config import DataConfig, LeaderboardConfig, command_line, merge, run_script
from files import atomic_write, read_json, write_json
from journey.finalists import BOARD, Finalist, finalists, made_of, refitted

if TYPE_CHECKING:
    import numpy as np
    import torch

    from pictures.cache import Pictures
    from training.judging import Answers, Judge

SCHEMA = 1


def main(argv: list[str] | None = None) -> int:
    return run_script(lambda: run(argv))


def run(argv: list[str] | None) -> None:
    config = merge(LeaderboardConfig, command_line(LeaderboardConfig, argv, __doc__.splitlines()[0]))
    runs = Path(config.runs)
    found = finalists(runs)
    there, left_out = sound(runs, found)

    print(f"loading PyTorch, then {counted(len(there), 'network')}", flush=True)
    from training.hardware import pick_device

    device = pick_device(config.device)
    pictures = data_of(there)

    board = judged(there, left_out, pictures, device, config, runs)
    board |= {"made_of": made_of(runs, found), "tested": config.test}

    write(board, runs)
    tell(board, runs)


# ---- data


def sound(runs: Path, found: list[Finalist]) -> tuple[list[Finalist], list[dict[str, str]]]:
    """Those that can be judged, and why others cannot; ValueError if there is none."""
    there = [one for one in found if not one.problem]
    left_out = [{"stage": one.stage, "reason": one.problem} for one in found if one.problem]
    if not there:
        why = "; ".join(f"{one['stage']}: {one['reason']}" for one in left_out)
        raise ValueError(f"runs = {str(runs)!r}: no finalist here that can be judged"
                         + (f" ({why})" if why else "; a folder of results of pipeline.py is wanted"))
    kinds = {(one.result["data"].get("classes"), one.result["data"].get("checksum")) for one in there}
    if len(kinds) > 1:
        told = ", ".join(f"{one.stage}: {one.result['data'].get('classes')} classes, checksum "
                         f"{str(one.result['data'].get('checksum'))[:12]}" for one in there)
        raise ValueError(f"runs = {str(runs)!r}: its networks are of different pictures ({told}); a leaderboard is of "
                         "the same ones")
    return there, left_out


def data_of(there: list[Finalist]) -> "Pictures":
    """The pictures that they were trained on; ValueError if these have changed since."""
    from pictures.dataset import load

    settings, data = there[0].result["config"], there[0].result["data"]
    pictures = load(**{field.name: settings[field.name] for field in fields(DataConfig) if field.name in settings})
    if pictures.checksum != data["checksum"]:
        raise ValueError(f"data = {settings['data']!r}: has changed since the networks were trained, its checksum is "
                         f"{pictures.checksum[:12]} and was {data['checksum'][:12]}")
    return pictures


# ---- model: the networks, judged


def judged(there: list[Finalist], left_out: list[dict[str, str]], pictures: "Pictures", device: "torch.device",
           config: LeaderboardConfig, runs: Path) -> dict[str, Any]:
    """The leaderboard: the winner first, then by validation."""
    import torch

    from training import judging

    index = judging.common_validation([one.result["config"] for one in there], pictures)
    unseen = []
    for one in there:
        if count := judging.seen(one.result["config"], pictures, index):
            left_out.append({"stage": one.stage, "reason": f"it was trained on {count} of the validation pictures"})
        else:
            unseen.append(one)
    if not unseen:
        raise ValueError(f"runs = {str(runs)!r}: every finalist has seen validation pictures of another one")
    judges = [judging.Judge(one.folder / "model.pt", pictures, device, config.precision, config.tta) for one in unseen]
    answers = [judge.validation(index) for judge in judges]
    labels = pictures.train_labels[index]
    rows = [row(one, judge, runs) | {"validation": judging.figures(answer, labels)}
            for one, judge, answer in zip(unseen, judges, answers, strict=True)]
    hits = [answer.single == torch.from_numpy(labels) for answer in answers]
    winner, behind = judging.choose(hits, [one["parameters"] for one in rows])
    for one, found in zip(rows, behind, strict=True):
        one["behind"] = {"lost": found.lost, "won": found.won, "tied": found.tied}

    again = refitted(runs, rows[winner]["stage"])
    exported, refit = (unseen[winner].folder, judges[winner]), None
    if again:
        exported = again, judging.Judge(again / "model.pt", pictures, device, config.precision, config.tta)
        refit = row(unseen[winner]._replace(folder=again, result=read_json(again / "result.json")), exported[1], runs)
    of_test = test(rows, judges, refit, exported[1], pictures) if config.test else None

    chosen = reason(rows, winner, len(index), refit)
    export(*exported, runs, of_test, chosen, pictures.digests(index.tolist()))
    order = sorted(rows, key=lambda one: (one is not rows[winner], -one["validation"]["right"], one["parameters"]))
    return {"schema": SCHEMA, "data": {"name": pictures.name, "checksum": pictures.checksum},
            "winner": rows[winner]["stage"], "chosen": chosen,
            "exported": {"folder": exported[0].relative_to(runs).as_posix(), "test": of_test},
            "rows": [{"rank": rank, **one} for rank, one in enumerate(order, 1)], "refit": refit,
            "left_out": left_out, "hardware": there[0].result.get("hardware"),
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


def row(one: Finalist, judge: "Judge", runs: Path) -> dict[str, Any]:
    from reporting.words import network
    from training.judging import parameters

    return {"stage": one.stage, "network": network(one.stage, one.result),
            "folder": one.folder.relative_to(runs).as_posix(), "parameters": parameters(judge.trained.model),
            "multiply_adds": judge.multiply_adds(), "images_per_second": judge.images_per_second(),
            "train_seconds": one.result.get("wall_seconds"), "search_seconds": one.search_seconds}


def test(rows: list[dict[str, Any]], judges: list["Judge"], refit: dict[str, Any] | None, exported: "Judge",
         pictures: "Pictures") -> dict[str, Any]:
    """The only look at the test pictures, by all networks: figures of each into its row, of the exported one all."""
    from training.judging import figures, tested

    labels = pictures.test_labels
    for one, judge in [*zip(rows, judges, strict=True), *([(refit, exported)] if refit else [])]:
        answer: Answers = judge.test()
        one["test"] = figures(answer, labels)
        if judge is exported:
            whole = tested(answer, labels, pictures.classes)
    return whole


def reason(rows: list[dict[str, Any]], winner: int, images: int, refit: dict[str, Any] | None) -> str:
    """Why this one, for people."""
    from artifacts.figures import FEW, right_of

    best = max(rows, key=lambda one: (one["validation"]["right"], -one["parameters"]))
    won, tied = rows[winner], sum(one["behind"]["tied"] for one in rows)
    again = "; then trained once more on all training pictures, {} too, so that it has no validation of its own"
    if len(rows) == 1:
        return "the only finalist" + (again.format("those of validation") if refit else "")
    if won is best:
        why = f"the most accurate of {len(rows)}"
        why += f" and the smallest of {tied} within one standard error of it" if tied > 1 else ""
    else:
        why = f"the smallest of {tied} within one standard error of the most accurate, {best['network']}"
    told = f"{why}, by {images:,} validation pictures that no training had seen"
    if images < FEW:
        told += f"; so few tell little: {right_of(won['validation']['right'], images, 'of them')}"
    return told + (again.format("these") if refit else "")


# ---- report


def export(folder: Path, judge: "Judge", runs: Path, of_test: dict[str, Any] | None, chosen: str,
           judged: "np.ndarray") -> None:
    """model.pt, which tells how it was chosen and tested, and its card."""
    from artifacts.model_card import write_model_card
    from artifacts.model_file import save_model

    trained = judge.trained
    facts = {**trained.facts, "chosen": chosen, **({"test": of_test} if of_test else {})}
    save_model(runs / "model.pt", *trained._replace(facts=facts, judged=judged))
    write_model_card(runs, trained._replace(facts=facts), folder)


def write(board: dict[str, Any], runs: Path) -> None:
    from reporting.leaderboard import COLUMNS, cells

    with atomic_write(runs / "leaderboard.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, "folder"])
        for one in board["rows"]:
            writer.writerow([*cells(one).values(), one["folder"]])
    write_json(runs / BOARD, board)


def tell(board: dict[str, Any], runs: Path) -> None:
    from reporting.leaderboard import as_text

    print(as_text(board))
    print(f"exported: {runs / 'model.pt'}, {board['chosen']}")


if __name__ == "__main__":
    sys.exit(main())
