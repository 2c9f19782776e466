"""What a bad disk or a torn copy does to a file, and what came of it: refused by name, equal content, or neither."""

import contextlib
import io
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch


def mutations(good: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` damaged forms of a file: flipped bits, other bytes, blocks of zeros, cut tails, parts that are torn."""
    rng = random.Random(f"{seed} {len(good)}")
    while count:
        bad, place = bytearray(good), rng.randrange(len(good))
        if rng.random() < 0.5:  # where the structure of a file lies, in its first or its last bytes
            place = rng.choice((place % 2048, max(len(good) - 1 - place % 2048, 0)))
        kind = rng.choice(("bit", "bit", "byte", "zeros", "cut", "torn"))
        length = rng.choice((4, 64, 512, 4096))
        if kind == "bit":
            bad[place] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            bad[place] = rng.randrange(256)
        elif kind == "zeros":
            place = place // length * length
            bad[place : place + length] = bytes(len(bad[place : place + length]))
        elif kind == "cut":
            del bad[place:]
        else:  # a block of another place in the file
            other = rng.randrange(len(good))
            block = good[other : other + length][: len(bad) - place]
            bad[place : place + len(block)] = block
        if bad != good:
            count -= 1
            yield bytes(bad)


def outcomes(file: Path, read: Callable[[], Any], count: int, seed: int = 0,
             checked: Callable[[Any], bool] | None = None) -> Counter:
    """How often a damaged `file` was refused, read again as it was, or had content that `checked` allows.

    `read` gives plain content and may say that it has mended something. Refused is a ValueError of one line that names
    the file. AssertionError for any other end, with what was done to the file beside it.
    """
    good = file.read_bytes()
    expected, found = plain(read()), Counter()
    for bad in mutations(good, count, seed):
        file.write_bytes(bad)
        told = io.StringIO()
        try:
            with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
                content = plain(read())
        except ValueError as error:
            assert file.name in str(error) and "\n" not in str(error) and type(error) is ValueError, (bad, error)
            found["refused"] += 1
        except BaseException:
            file.with_name(f"{file.name}.bad").write_bytes(bad)
            raise
        else:
            if content == expected:
                found["mended" if told.getvalue() else "equal"] += 1
            else:
                assert checked and checked(content), f"silent: {file.name} damaged, {told.getvalue()!r}"
                found["another value"] += 1
        finally:
            file.write_bytes(good)
    return found


def plain(value: Any) -> Any:
    """Something that can be compared, tensors and arrays by their bytes."""
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value
