"""What the stages of pipeline.py share: the plan, how settings become command lines, whether results are what is asked.

Results that were made with other pictures or settings raise ValueError: they are never taken for what is asked for.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from config import ADDED, TrainingConfig, command_line, identity, merge
from journey.budgets import SETTINGS

ABSENT, BEGUN, FINISHED = "absent", "begun", "finished"
PLACES = ("trialCommand", "experimentWorkingDirectory", "trialCodeDirectory", "searchSpaceFile")
OURS = ("data", "data_dir", "test_share", "skip_broken", "drop_duplicates", "image_size", "fit", "seed", "runs_dir",
        "name", "resume", "overwrite", "held_out", "all_data", "test", "hpo_best", "best", "arch", "baseline",
        "genotype", *PLACES[:2])
ROOT = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Plan:
    """What all stages share; paths as the scripts see them, which run in the root of the project."""

    runs: Path
    data: str
    data_dir: str
    budget: str
    seed: int
    checksum: str  # of the data set; empty: not known, and not compared
    classes: int
    images: int  # of the training data
    after_hpo: bool  # whether stage 2 takes lr and optimizer from stage 1
    data_set: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # settings of it that are not the defaults
    side: int = 32  # of the pictures
    held_out: int = 0  # of the training data, for the leaderboard: no stage trains on them

    def shared(self) -> dict[str, Any]:
        held_out = {"held_out": self.held_out} if self.held_out else {}
        return {"data": self.data, "data_dir": self.data_dir, **self.data_set, "seed": self.seed, **held_out}


def assert_same(where: Path, made: Mapping[str, Any], wanted: Mapping[str, Any], whole: bool = True) -> None:
    """ValueError names the first setting in which results differ from what is wanted; of which, unless it is `whole`,
    other settings are not known."""
    made, wanted = {**ADDED, **made}, {**(ADDED if whole else {}), **wanted}
    for key in wanted:
        if made.get(key) != wanted[key]:
            raise ValueError(f"{where}: made with {key} = {made.get(key)!r}, wanted is {wanted[key]!r}; give the "
                             "options that it was begun with, or another --runs-dir")


def assert_pictures(where: Path, plan: Plan, result: Mapping[str, Any] | None) -> None:
    checksum = ((result or {}).get("data") or {}).get("checksum")
    if checksum and plan.checksum and checksum != plan.checksum:
        raise ValueError(f"{where}: made with other pictures, of checksum {checksum[:12]}, than {plan.data}, of "
                         f"{plan.checksum[:12]}; give another --runs-dir")


def truth(key: str, value: Any) -> bool:
    """Of a word such as yes; ValueError for any other."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if (word := str(value).lower()) not in words:
        raise ValueError(f"set = {key}={value}: must be true or false")
    return words[word]


class Stage:
    """What the stages have in common: a name, settings for their script, and a command line made of them."""

    def __init__(self, name: str, plan: Plan, settings: Mapping[str, Any]) -> None:
        if reserved := [key for key in settings if key in OURS]:
            raise ValueError(f"set = {name}.{reserved[0]}: the pipeline sets that itself")
        self.name, self.plan, self.given = name, plan, dict(settings)

    def words(self, settings: Mapping[str, Any]) -> Iterator[str]:
        """Settings as words of a command line."""
        for key, value in settings.items():
            flag, field = key.replace("_", "-"), SETTINGS[self.name].__dataclass_fields__.get(key)
            if field and field.type is bool:
                yield f"--{flag}" if truth(f"{self.name}.{key}", value) else f"--no-{flag}"
            elif str(value).startswith("-"):  # or it would be taken for the next option
                yield f"--{flag}={value}"
            else:
                yield from (f"--{flag}", str(value))

    def training(self) -> TrainingConfig:
        """The settings of its script."""
        words = list(self.words(self.settings()))
        return merge(SETTINGS[self.name], command_line(SETTINGS[self.name], words, ""))

    def computes(self, words: list[str]) -> dict[str, Any]:
        """What decides over the results, of a command line; ValueError for a setting that there is not."""
        return identity(merge(SETTINGS[self.name], command_line(SETTINGS[self.name], words, "")))
