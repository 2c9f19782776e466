"""The blocks of a data set: how many pictures of each class, what they look like, and as what a training saw them."""

from typing import TYPE_CHECKING, Any

from pictures.listing import without_folders
from pictures.preprocess import FITS
from pictures.summary import facts, warnings
from reporting.blocks import Block, Bullets, Gallery, Heading, Picture, Table, Text
from reporting.final_test import FinalTest, data_set
from reporting.findings import Origin
from reporting.words import data_title, reason, slug

if TYPE_CHECKING:
    from pictures.dataset import Pictures

FACES = 20  # classes up to which one picture of each is shown
SIZE = 110  # pixels of the longer side of these
SETTINGS = ("crop_padding", "flip", "cutout")  # of augmentation, without which none is shown
LATER = ("augment", "alternate", "crop_border")  # and those that older results do not tell


def data_blocks(origin: Origin, result: dict[str, Any], config: dict[str, Any],
                tested: FinalTest | None) -> list[Block]:
    """`result`: any of this data set; `config`: of the training whose augmentation is shown; `tested`: for the sizes of
    the test classes. Only training pictures are read."""
    blocks: list[Block] = [Heading(3, f"The pictures: {data_title(origin.data)}"), *_counts(result["data"], tested)]
    try:
        pictures = data_set(origin, config)
    except (ValueError, OSError) as error:
        return [*blocks, Text(f"The pictures cannot be shown: {reason(error, origin.data)}.", "note")]
    if not len(pictures.train_labels):
        return blocks
    return [*blocks, *_faces(pictures, origin), *_sizes(pictures, tested), *_augmented(pictures, origin, config)]


def _counts(data: dict[str, Any], tested: FinalTest | None) -> list[Block]:
    parts = [f"{data[f'{part}_images']:,} {words}" for part, words in
             (("train", "pictures to train on"), ("val", "to validate by")) if data.get(f"{part}_images")]
    parts += [f"{tested.images:,} to test with, which no choice has seen"] if tested else []
    size = f"; each brought to {data['side']}x{data['side']} pixels" if data.get("side") else ""
    size += f", {FITS[data['fit']]}" if size and data.get("fit") in FITS else ""
    worst = warnings(data)
    more = [*(without_folders(note, str(data.get("name"))) for note in data.get("notes") or ()), *facts(data)]
    return [Text(f"{data.get('classes', 'Unknown')} classes; {', '.join(parts)}{size}."),
            *([Bullets(worst, "warning")] if worst else []), *([Bullets(more, "note")] if more else [])]


def _faces(pictures: "Pictures", origin: Origin) -> list[Block]:
    from reporting.photographs import jpeg, one_of_each, picture

    if len(pictures.classes) > FACES:
        return []
    files = pictures.paths("train") or [""] * len(pictures.train_labels)
    ranges = pictures.counts.get("grey_range")
    return [Gallery([Picture(f"{slug(data_title(origin.data))}-class-{label}.jpg",
                             jpeg(picture(files[i], pictures.train_images[i], SIZE, grey_range=ranges)),
                             f"a training picture of {name}", name)
                     for label, (name, i) in enumerate(zip(pictures.classes, one_of_each(pictures), strict=True))],
                    "faces")]


def _sizes(pictures: "Pictures", tested: FinalTest | None) -> list[Block]:
    import numpy as np

    counts = np.bincount(pictures.train_labels, minlength=len(pictures.classes)).tolist()
    tests = [str(sum(row)) for row in tested.confusion] if tested else [""] * len(counts)
    rows = [[name, str(count), f"{count / sum(counts):.1%}", test]
            for name, count, test in zip(pictures.classes, counts, tests, strict=True)]
    return [Table(["class", "training and validation", "share", "test"], rows, (1, 2, 3),
                  (1, [count / max(counts) for count in counts]))]


def _augmented(pictures: "Pictures", origin: Origin, config: dict[str, Any]) -> list[Block]:
    from pictures.dataset import augmentation
    from reporting.photographs import SHEET, augmented, png

    if not all(key in config for key in SETTINGS):
        return []
    used = augmentation(pictures, **{key: config[key] for key in (*SETTINGS, *LATER) if key in config})
    border = "its mirror image" if used.reflect else "the mean colour"
    told = ", ".join(filter(None, (
        f"shifted by up to {used.crop_padding} pixels (beside it {border})" if used.crop_padding else "",
        f"mirrored{' in every other epoch' * used.alternate}" if used.flip else "",
        f"a square of {used.cutout} pixels blanked" if used.cutout else "",
        "changed by AutoAugment's policy for CIFAR-10" if used.policy == "autoaugment" else "")))
    if not told:
        return [Text("No picture was changed at random in training.", "note")]
    sheet = augmented(pictures, used, config.get("seed", 0))
    return [Picture(f"{slug(data_title(origin.data))}-augmented.png", png(sheet),
                    "Training pictures, each augmented several times",
                    f"What the network is trained on: at the left a training picture as it is kept, then {SHEET[1]} of "
                    f"the random changes that it meets in other epochs: {told}.", 600)]
