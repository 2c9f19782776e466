"""A trial script in place of its training: would it take what an experiment gives it? guard/settings_check.py asks."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from config import DataConfig, Mistakes, TrainingConfig, parse
from files import read_json, write_json

Config = TypeVar("Config", bound=TrainingConfig)
SAMPLES = "CHECK_SAMPLES"  # in the environment: a file of samples of the search space


def check(cls: type[Config], settings: Callable[[dict, dict], Config], also: Callable[[Config, dict], Any],
          argv: list[str] | None, file: Path) -> None:
    """Write every mistake that the samples in `file` and the command line hold into that file, a line each."""
    given, mistakes = parse(cls, argv, "")
    mistakes += mistakes_in(lambda: look_at_pictures(given))
    for sample in read_json(file):
        mistakes += mistakes_in(partial(lambda sample: also(settings(given, sample), sample), sample))
    write_json(file, list(dict.fromkeys(mistakes)))


def mistakes_in(look: Callable[[], Any]) -> list[str]:
    """What a look at something raises, a line each."""
    try:
        look()
    except (ValueError, OSError) as error:
        return error.lines if isinstance(error, Mistakes) else [" ".join(str(error).split())]
    return []


def look_at_pictures(given: Mapping[str, Any]) -> None:
    """ValueError if the data set of the command line cannot be one, as far as the names of its files tell."""
    from pictures.known import DATASETS
    from pictures.own import SKIP, listed, told

    data = DataConfig(**{key: value for key, value in given.items() if key in DataConfig.__dataclass_fields__})
    if data.data in DATASETS:
        return
    found = listed(data.data, Path(data.data_dir), data.test_share, data.skip_broken, data.drop_duplicates,
                   remember=False)
    if found.broken and not data.skip_broken:
        raise ValueError(f"{told(found, found.broken)}; {SKIP}")
