"""AutoAugment in batches, against Pillow one image at a time and torchvision's table of the policy."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms import AutoAugment

import plain_autoaugment
from benchmarks.counting import Launches, launches
from pictures import autoaugment
from pictures.augmentation import Augmentation, channels, words
from pictures.autoaugment import OPERATIONS, POLICY, SIGNED, Drawn, strength

GREY = (128, 128, 128)


def made(number, side):
    """(number, 3, side, side) uint8: smooth colours with noise, blank ones, and some of few levels."""
    rng = np.random.default_rng(0)
    coarse = torch.tensor(rng.random((number, 3, 5, 5)), dtype=torch.float32)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").numpy()
    pixels = (smooth * 180 + 20 + rng.normal(0, 10, smooth.shape)).clip(0, 255).astype(np.uint8)
    pixels[0], pixels[1], pixels[2, :, :16] = 7, 255, 0
    pixels[3] = pixels[3] // 100 * 100
    return torch.from_numpy(pixels)


@pytest.fixture(scope="module")
def images():
    return made(96, 32)


@pytest.fixture(scope="module", params=[(96, 32), (24, 48), (4, 224)], ids=str)
def of_any_size(request):
    return made(*request.param)


def affine(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=GREY)


ORACLE = {  # of Pillow; p is the strength with its sign
    "Identity": lambda image, p: image,
    "ShearX": lambda image, p: affine(image, 1, p, 0, 0, 1, 0),
    "ShearY": lambda image, p: affine(image, 1, 0, 0, p, 1, 0),
    "TranslateX": lambda image, p: affine(image, 1, 0, int(p * image.width), 0, 1, 0),
    "TranslateY": lambda image, p: affine(image, 1, 0, 0, 0, 1, int(p * image.height)),
    "Rotate": lambda image, p: image.rotate(p, Image.Resampling.NEAREST, fillcolor=GREY),
    "Brightness": lambda image, p: ImageEnhance.Brightness(image).enhance(1 + p),
    "Color": lambda image, p: ImageEnhance.Color(image).enhance(1 + p),
    "Contrast": lambda image, p: ImageEnhance.Contrast(image).enhance(1 + p),
    "Sharpness": lambda image, p: ImageEnhance.Sharpness(image).enhance(1 + p),
    "Posterize": lambda image, p: ImageOps.posterize(image, 8 - int(p)),
    "Solarize": lambda image, p: ImageOps.solarize(image, math.ceil(255 + p)),
    "AutoContrast": lambda image, p: ImageOps.autocontrast(image),
    "Equalize": lambda image, p: ImageOps.equalize(image),
    "Invert": lambda image, p: ImageOps.invert(image),
}


def with_pillow(name, p, images):
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    return torch.stack([torch.from_numpy(np.array(ORACLE[name](picture, p))).permute(2, 0, 1) for picture in pictures])


def once(name, p, size):
    """`name` on all images, then nothing."""
    codes = torch.tensor([[OPERATIONS.index(name)] * size, [0] * size])
    return Drawn(codes, torch.tensor([[p] * size, [0.0] * size]))


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_at_every_magnitude_equals_pillow(of_any_size, name):
    """Levels may differ by one, where a real number is within rounding of a whole one. Movements are the same pixels;
    from the border of two, as with a shear of 1/5, either: that of a movement stronger or weaker by 1 in 10 000.
    """
    images = of_any_size
    for magnitude in range(10):
        for sign in (1, -1) if name in SIGNED else (1,):
            p = sign * strength(name, magnitude)
            ours = autoaugment.apply(images, once(name, p, len(images))).int()
            if name in ("ShearX", "ShearY", "Rotate"):
                either = [ours == with_pillow(name, p * factor, images).int() for factor in (1 - 1e-4, 1 + 1e-4)]
                wrong = ~(either[0] | either[1])
                # Pillow steps through a row in 65536ths of a pixel, which add up in larger pictures.
                assert wrong.float().mean() <= (0 if images.shape[-1] == 32 else 1e-3), (magnitude, sign)
            else:
                assert (ours - with_pillow(name, p, images).int()).abs().max() <= 1, (magnitude, sign)
            no_effect = name == "Identity" or (strength(name, magnitude) == 0 and name not in OPERATIONS[11:])
            assert no_effect == torch.equal(ours, images.int()), (magnitude, sign)


@pytest.mark.parametrize(("seed", "images"), [*((seed, made(96, 32)) for seed in range(20)), (0, made(24, 48)),
                                              (1, made(24, 48)), (0, made(4, 224)), (1, made(4, 224))])
def test_the_images_are_those_of_the_plain_form(images, seed):
    """Bit for bit, whatever is drawn, the policy's strengths and any others."""
    generator = torch.Generator().manual_seed(seed)
    drawn = autoaugment.draw(len(images), generator)
    assert torch.equal(autoaugment.apply(images, drawn), plain_autoaugment.apply(images, drawn))
    operation = torch.randint(len(OPERATIONS), (2, len(images)), generator=generator)
    share = torch.rand(2, len(images), generator=generator) * 2 - 1
    largest = torch.tensor([strength(name, 9) for name in OPERATIONS])[operation]
    power = torch.where((operation >= 1) & (operation <= len(SIGNED)), share, share.abs()) * largest
    any_other = Drawn(operation, torch.where(operation == OPERATIONS.index("Posterize"), power.round(), power))
    assert torch.equal(autoaugment.apply(images, any_other), plain_autoaugment.apply(images, any_other))


def test_a_batch_is_few_launches(images):
    """In plain form there are 340; nothing is waited for."""
    generator = torch.Generator().manual_seed(0)
    drawn = autoaugment.draw(96, generator)
    autoaugment.apply(images, drawn)  # what is made once for all batches
    with Launches() as drawing:
        autoaugment.draw(96, generator)
    with Launches() as applying:
        autoaugment.apply(images, drawn)
    assert drawing.total <= 8 and applying.total <= 131 and not drawing.waits and not applying.waits
    assert launches(lambda: plain_autoaugment.apply(images, drawn)) > 300


def test_the_policy_is_that_of_torchvision():
    """The table and what its magnitudes mean; theirs are for 32 pixels, and a sign is drawn for the same operations."""
    theirs = AutoAugment()
    theirs = AutoAugment(policy=type(theirs.policy).CIFAR10)
    assert len(POLICY) == 25
    assert [tuple((name, p, m or 0) for name, p, m in pair) for pair in theirs.policies] == list(POLICY)
    meaning = theirs._augmentation_space(10, (32, 32))
    for name, (magnitudes, signed) in meaning.items():
        ours = [strength(name, magnitude) for magnitude in range(10)]
        if name.startswith("Translate"):
            ours = [32 * share for share in ours]
        ours = [8 - p for p in ours] if name == "Posterize" else [255 + p for p in ours] if name == "Solarize" else ours
        assert signed == (name in SIGNED), name
        if magnitudes.ndim:
            assert ours == pytest.approx(magnitudes.tolist(), abs=1e-4), name


def test_each_image_gets_its_own_operation_in_the_order_drawn(images):
    generator = torch.Generator().manual_seed(3)
    drawn = autoaugment.draw(len(images), generator)
    assert len(set(drawn.operation.flatten().tolist())) > 10
    together = autoaugment.apply(images, drawn)
    for i in range(len(images)):
        alone = images[i : i + 1]
        for code, p in zip(drawn.operation[:, i].tolist(), drawn.strength[:, i].tolist(), strict=True):
            alone = autoaugment.apply(alone, once(OPERATIONS[code], p, 1))
        assert torch.equal(alone[0], together[i])


def test_sub_policies_probabilities_and_signs_are_drawn_as_the_paper_says():
    """Expected numbers of each (first operation, strength) of 50 000 draws, to 5 standard deviations."""
    n = 50_000
    drawn = autoaugment.draw(n, torch.Generator().manual_seed(0))
    for row in range(2):
        expected = Counter()
        for pair in POLICY:
            name, chance, magnitude = pair[row]
            p = strength(name, magnitude)
            expected["Identity"] += (1 - chance) / 25
            for sign in (1, -1) if name in SIGNED else (1,):
                expected[name, round(sign * p, 4) + 0.0] += chance / 25 / (2 if name in SIGNED else 1)
        pairs = zip(drawn.operation[row].tolist(), drawn.strength[row].tolist(), strict=True)
        seen = Counter((OPERATIONS[code], round(p, 4) + 0.0) if code else "Identity" for code, p in pairs)
        assert set(seen) == {key for key, share in expected.items() if share > 0}
        for key, share in expected.items():
            assert abs(seen[key] - n * share) <= 5 * math.sqrt(n * share) + 1, (row, key)


def test_the_generator_decides():
    first, again, other = (autoaugment.draw(64, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(map(torch.equal, first, again)) and not all(map(torch.equal, first, other))


def test_in_the_published_order_crop_flip_policy_cutout(images):
    """Against the steps one after another, with the same draws."""
    pixels = words(torch.cat([images, torch.zeros(96, 1, 32, 32, dtype=torch.uint8)], 1)
                   .permute(0, 2, 3, 1).contiguous())
    fill = words(torch.tensor([9, 8, 7, 0], dtype=torch.uint8))
    whole = Augmentation(4, True, 16, "autoaugment")
    draws, index = whole.draw(96, torch.Generator().manual_seed(5)), torch.arange(96)
    cropped = Augmentation(4, True, 0)(pixels, index, draws._replace(policy=None), fill)
    expected = autoaugment.apply(channels(cropped).permute(0, 3, 1, 2), draws.policy).permute(0, 2, 3, 1).clone()
    for i, (y, x) in enumerate(zip(draws.cut_y.tolist(), draws.cut_x.tolist(), strict=True)):
        expected[i, max(y - 8, 0) : y + 8, max(x - 8, 0) : x + 8] = torch.tensor([9, 8, 7], dtype=torch.uint8)
    assert torch.equal(channels(whole(pixels, index, draws, fill)), expected)


def test_the_basic_augmentation_draws_what_it_drew_before():
    """A policy draws after all else, and none draws nothing."""
    basic, more = (Augmentation(4, True, 8, policy).draw(32, torch.Generator().manual_seed(1))
                   for policy in ("basic", "autoaugment"))
    assert basic.policy is None and all(map(torch.equal, basic[:-1], more[:-1]))


def test_a_part_of_the_draws_is_that_of_these_images(images):
    draws = Augmentation(4, True, 8, "autoaugment").draw(96, torch.Generator().manual_seed(1))
    part = draws.part(slice(10, 20))
    assert torch.equal(part.top, draws.top[10:20])
    together = autoaugment.apply(images, draws.policy)[10:20]
    assert torch.equal(autoaugment.apply(images[10:20], part.policy), together)
