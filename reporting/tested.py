"""The blocks of a final test: what is right and wrong, by class, and the mistakes with what the network looked at."""

import base64
import io
from typing import Any

from artifacts.figures import percent, right_of, span
from pictures.listing import below
from reporting.blocks import Block, Cell, Gallery, Heading, Heat, Picture, Table, Text
from reporting.final_test import FinalTest, Mistake, final_test
from reporting.findings import Run, tests
from reporting.words import reason, recipe, slug

MANY = 30  # classes of which only the worst are listed
NUMBERS = 20  # classes up to which there is a confusion matrix; above, the pairs that are taken for each other
FIT = 12  # classes up to which the matrix fits a telephone, where above that the pairs stand for it
PAIRS = 20


def read(run: Run, predict: bool, device: str) -> tuple[FinalTest | None, str]:
    """What the run's model says about the test pictures, and why it cannot be told if it cannot."""
    why = "told not to"
    if predict:
        try:
            return final_test(run, device), ""
        except (ValueError, OSError) as error:
            why = reason(error, run.origin.data)
    return None, why


def told(run: Run) -> FinalTest | None:
    """What result.json has of it, without mistakes."""
    test = tests(run)
    if "confusion" not in test:
        return None
    names = test.get("class_accuracy") or test.get("recall")
    classes = list(names) if isinstance(names, dict) else [str(i) for i in range(len(test["confusion"]))]
    return FinalTest(classes, test["confusion"], [])


def test_blocks(run: Run, found: FinalTest | None, why: str) -> list[Block]:
    """`found` and `why` as `read` gives them."""
    result, test = run.result, tests(run)
    blocks: list[Block] = [Heading(3, f"Final test: {run.name}")]
    if found is None:
        blocks.append(Text(f"Mistakes cannot be shown: {why}.", "note"))
        if (found := told(run)) is None:
            return [*blocks, *_balanced(test)]
    elif abs(found.correct / found.images - test["accuracy"]) > 0.5 / found.images:
        blocks.append(Text(
            f"The run says {percent(test['accuracy'], found.images)}; model.pt, read again here in fp32, "
            f"{found.correct} of {found.images}, {percent(found.correct / found.images, found.images)}.", "warning"))
    about = f"{recipe(result)}; {right_of(found.correct, found.images, 'test pictures')}"
    return [*blocks, *_balanced(test), *_confusion(found, about), *_per_class(found), *_mistakes(run, found)]


def _balanced(test: dict[str, Any]) -> list[Block]:
    value = test.get("balanced_accuracy")
    return [Text("Balanced accuracy, the mean of the classes' own: "
                 f"{percent(value, test.get('images'))}. It counts each class alike, however many "
                 "pictures it has.")] if isinstance(value, int | float) else []


# ---- which classes


def _confusion(found: FinalTest, about: str) -> list[Block]:
    if len(found.classes) > NUMBERS:
        return [Text(f"The matrix of {len(found.classes)} classes is too large to read: what is taken for what most "
                     f"often. {about}."), _pairs(found)]
    return [Heat("true class (rows), prediction (columns)", found.classes, [
        (name, [_cell(count, sum(row), i == j) for j, count in enumerate(row)])
        for i, (name, row) in enumerate(zip(found.classes, found.confusion, strict=True))],
        f"Confusion matrix of the test pictures. Row: true class, column: prediction. {about}.",
        _pairs(found) if len(found.classes) > FIT else None)]


def _cell(count: int, of: int, right: bool) -> Cell | None:
    share = count / max(of, 1)
    return Cell(str(count), share if right else max(share, 0.15), "" if right else "wrong") if count else None


def _pairs(found: FinalTest) -> Table:
    """The classes that are taken for each other most often."""
    pairs = [(count, i, j) for i, row in enumerate(found.confusion) for j, count in enumerate(row) if count and i != j]
    rows = [[found.classes[i], found.classes[j], str(count), f"{count / sum(found.confusion[i]):.0%}"]
            for count, i, j in sorted(pairs, key=lambda pair: -pair[0])[:PAIRS]]
    return Table(["true class", "taken for", "pictures", "of the class"], rows, (2, 3))


def _per_class(found: FinalTest) -> list[Block]:
    rows = [(row[i] / max(sum(row), 1), found.classes[i], row[i], sum(row)) for i, row in enumerate(found.confusion)]
    worst = sorted(rows)[:MANY]
    note = [Text(f"The {MANY} weakest of {len(rows)} classes:", "note")] if len(rows) > MANY else []
    return [*note, Table(["class", "test accuracy", "95% interval", "right", "pictures"],
                         [[name, percent(share, count), f"{span(right, count)}%" if count else "", str(right),
                           str(count)]
                          for share, name, right, count in worst], (1, 2, 3, 4), (1, [row[0] for row in worst]))]


# ---- mistakes


def _mistakes(run: Run, found: FinalTest) -> list[Block]:
    wrong = found.images - found.correct
    if not found.mistakes:
        return []
    looked = (" Beside each picture what the network looked at: the redder, the more it spoke for the wrong class "
              "(LayerCAM, Jiang et al. 2021)." if found.mistakes[0].heat else "")
    shown = (f"The {len(found.mistakes)} most confident of {wrong} mistakes" if wrong > len(found.mistakes)
             else f"All {wrong} mistakes, the most confident first" if wrong > 1 else "The only mistake")
    return [Text(f"{shown}.{looked}"),
            Gallery([_mistake(mistake, found, run) for mistake in found.mistakes], "photographs")]


def _mistake(mistake: Mistake, found: FinalTest, run: Run) -> Picture:
    """With its path within the data set, if the picture is a file."""
    import numpy as np
    from PIL import Image

    from reporting.photographs import jpeg, picture, preprocessing, with_heat

    def opened(png: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))

    image = picture(mistake.file, opened(mistake.png), **preprocessing(run.result["data"]))
    if mistake.heat:
        image = with_heat(image, opened(mistake.heat) / 255)
    true, predicted = found.classes[mistake.true], found.classes[mistake.predicted]
    name, what = mistake.file and below(mistake.file, run.origin.data), f"{true} taken for {predicted}"
    title, named = (name, f"`{name}`") if name else (f"test picture {mistake.index}",) * 2
    return Picture(f"{slug(run.name)}-mistake-{mistake.index}.jpg", jpeg(image), f"{title}, {what}",
                   f"{named}: {what} ({mistake.probability:.1%} sure)")
