"""Who chooses the parameters of a run and hears of its metrics: nobody, of a run by hand, or a tuner."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Reporter:
    """Of a run by hand: nobody chooses, nobody is told, and its folder is runs/<stage>/<name>."""

    tuned = False  # a tuner's run writes into `folder()`, goes on from a checkpoint there, and leaves signals alone

    def ask(self) -> dict[str, Any]:
        """The parameters that the tuner chose, where these come by asking."""
        return {}

    def epoch(self, metric: float) -> None:
        """The metric after each epoch; that of the last one once all files are written."""

    def final(self, metric: float, facts: Mapping[str, float], ran: Mapping[str, Any]) -> None:
        """The final metric, other figures, and all settings and choices that really ran."""


class NniReporter(Reporter):
    """Of a trial of NNI."""

    tuned = True

    def __init__(self) -> None:
        import nni  # slow

        self.nni = nni

    def ask(self) -> dict[str, Any]:
        """Exactly once, before anything slow or able to fail: NNI hands parameters out in the order of asking, and a
        trial that dies before, or asks twice, shifts those of all trials after it."""
        self.asked = self.nni.get_next_parameter()
        return self.asked

    def folder(self) -> Path:
        return Path(os.environ["NNI_OUTPUT_DIR"])

    def epoch(self, metric: float) -> None:
        self.nni.report_intermediate_result(metric)

    def final(self, metric: float, facts: Mapping[str, float], ran: Mapping[str, Any]) -> None:
        """With what it ran, since NNI's own record of the parameters may be wrong."""
        self.nni.report_final_result({"default": metric, **facts, **{f"run.{key}": ran[key] for key in self.asked}})
