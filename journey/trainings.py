"""The stages of pipeline.py that are one run of a script: the search of DARTS, and the training of each finalist.

How far a stage is, is read from what it has computed: it is finished if it has its result.json, which is written last.
What diverged is finished too; the leaderboard names it.
"""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifacts.figures import percent
from config import merge
from files import read_json, read_object
from journey.budgets import SETTINGS, is_training
from journey.finalists import BOARD, FOLDERS
from journey.plan import ABSENT, BEGUN, FINISHED, Plan, Stage, assert_pictures, assert_same

SCRIPTS = {"baseline": "retrain.py", "hpo_final": "hpo_trial.py", "nas_final": "classic_nas_trial.py",
           "plain_mobilenet": "classic_nas_trial.py", "darts": "darts_search.py", "retrain": "retrain.py",
           "random_cell": "retrain.py"}


class RunStage(Stage):
    """A search or a training by a script of its own, in one run's folder; `refit`: once more, on all pictures."""

    def __init__(self, name: str, plan: Plan, settings: Mapping[str, Any], refit: bool = False) -> None:
        super().__init__(name, plan, settings)
        self.refit, self.script = refit, SCRIPTS[name]

    @property
    def path(self) -> Path:
        place = Path(FOLDERS[self.name])
        return self.plan.runs / (place.parent / f"refit_{self.name}" if self.refit else place)

    @property
    def genotype(self) -> Path:
        return self.plan.runs / FOLDERS["darts"] / "genotype.json"

    def command(self, go_on: bool = False) -> list[str]:
        half = ["--overwrite"] if go_on and (self.path / "result.json").exists() else []  # what has lost its checkpoint
        how = ["--resume"] if go_on and self._begun() else half
        return [sys.executable, self.script, *self.words(self.settings()), *how]

    def _begun(self) -> bool:
        """Whether there is a checkpoint, of several searches that of any."""
        return any(self.path.glob("checkpoint.pt")) or any(self.path.glob("seed*/checkpoint.pt"))

    def settings(self) -> dict[str, Any]:
        place = {"runs_dir": self.plan.runs, "name": self.path.name}
        return {**self._network(), **self.plan.shared(), **self.given, **self._pictures(), **place}

    def _network(self) -> dict[str, Any]:
        """What is trained, by the results of the stages before."""
        hpo = self.plan.runs / "hpo/best.json" if self.plan.after_hpo else ""
        return {"baseline": {"model": "quicknet", "recipe": "quick"}, "hpo_final": {"best": hpo},
                "nas_final": {"arch": self.plan.runs / "classic_nas/best.json", "hpo_best": hpo},
                "plain_mobilenet": {"baseline": True, "hpo_best": hpo}, "darts": {},
                "retrain": {"genotype": self.genotype}, "random_cell": {"genotype": f"random:{self.plan.seed}"},
                }[self.name]

    def _pictures(self) -> dict[str, Any]:
        """None of the test; of the others all but those that are held out, or all."""
        if self.script == "retrain.py":
            return {"all_data": self.refit, "test": False}
        return {"val_size": -1} if self.refit else {}

    def config(self) -> dict[str, Any]:
        """The settings that decide over the results; ValueError for one that there is not."""
        for key in self.given:
            if not is_training(self.name, key):
                merge(SETTINGS[self.name], {key: None})  # which names the nearest one
        return self.computes(list(self.words(self.settings())))

    def diverged(self) -> bool:
        """Itself, or the search that it is about."""
        searched = self.name == "retrain" and not self.refit
        return any((read_object(path / "result.json") or {}).get("diverged")
                   for path in (self.path, *([self.genotype.parent] if searched else [])))

    def progress(self) -> str:
        if self.diverged() and not (self.path / "result.json").exists():
            return FINISHED  # there is nothing to train
        result, wanted = read_object(self.path / "result.json"), self.config()
        if result is None:
            return BEGUN if self._begun() else ABSENT
        stated = self.settings()
        if sets := {key: stated[key] for key in ("recipe", "preset") if stated.get(key, "") not in ("", "standard")}:
            # which settings these stand for the scripts alone know
            wanted = {key: value for key, value in wanted.items() if key in stated} | sets
        assert_same(self.path, result["config"], wanted | self._handed(), whole=not sets)
        assert_pictures(self.path, self.plan, result)
        found = self._chosen()
        assert_same(self.path, result.get("architecture") or {}, {key: found[key] for key in found
                                                                  if key in (result.get("architecture") or {})})
        left = self.genotype if self.name == "darts" else self.path / "model.pt"
        return FINISHED if result.get("diverged") or left.exists() else BEGUN

    def _handed(self) -> dict[str, Any]:
        """What stage 1 hands to this one."""
        keys = {"hpo_final": ("model", "optimizer", "lr"), "nas_final": ("optimizer", "lr"),
                "plain_mobilenet": ("optimizer", "lr")}.get(self.name, ())
        best = (read_object(self.plan.runs / "hpo/best.json") or {}) if keys and self.plan.after_hpo else {}
        found = best.get("parameters") or {}
        return {key: found[key] for key in keys if key in found and key not in self.given}

    def _chosen(self) -> dict[str, Any]:
        """The architecture that a search has found for it."""
        if self.name == "retrain":
            return read_object(self.genotype) or {}
        best = read_object(self.plan.runs / "classic_nas/best.json") if self.name == "nas_final" else None
        return (best or {}).get("parameters") or {}

    def seconds(self) -> float | None:
        return (read_object(self.path / "result.json") or {}).get("wall_seconds")

    def outcome(self) -> str:
        if self.diverged():
            which = "" if (self.path / "result.json").exists() else "not trained, its search "
            return f"{which}diverged, the loss is not finite; the leaderboard goes without it"
        result = read_json(self.path / "result.json")
        found = "cells found, " if self.name == "darts" else ""
        value = percent(result["value"], (result.get("data") or {}).get("val_images"))
        return f"{found}{result['metric'].removesuffix(' after the last epoch')} {value}"

    def model(self) -> Path | None:
        model = self.path / "model.pt"
        return model if self.name != "darts" and model.exists() else None


class RefitStage:
    """The training of the winner once more, on all pictures of the training data."""

    name = "refit"

    def __init__(self, plan: Plan, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """settings: those of each stage of the leaderboard."""
        self.plan, self.of = plan, settings

    def stage(self) -> RunStage:
        """The training; ValueError before the choice."""
        winner = read_json(self.plan.runs / BOARD)["winner"]
        trained = {"hpo": "hpo_final", "classic_nas": "nas_final", "darts": "retrain"}.get(winner, winner)
        recipe = self.of.get(trained) or self.of[winner]  # of a trial that won, that of all trials
        given = {key: value for key, value in recipe.items()
                 if is_training(trained, key) and key not in ("train_size", "val_size")}
        return RunStage(trained, dataclasses.replace(self.plan, held_out=0), given, refit=True)

    def command(self, go_on: bool = False) -> list[str]:
        return self.stage().command(go_on)

    def config(self) -> dict[str, Any]:
        return {}

    def progress(self) -> str:
        return self.stage().progress() if (self.plan.runs / BOARD).exists() else ABSENT

    def seconds(self) -> float | None:
        return self.stage().seconds()

    def outcome(self) -> str:
        return f"{self.stage().path}: trained on all pictures, which leaves none to validate it by"

    def model(self) -> Path | None:
        return None
