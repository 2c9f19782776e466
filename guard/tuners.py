"""NNI's TPE tuner for more than one trial at a time, and for experiments that are resumed:

    tuner:
      codeDirectory: guard
      className: tuners.TPE
      classArgs: {optimize_mode: maximize}
"""

import contextlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nni.algorithms.hpo.tpe_tuner import TpeTuner
from nni.common.hpo_utils import format_parameters

STATE = "tpe_tuner.json"


class TPE(TpeTuner):
    """TPE that survives NNI 3.0's mixed-up trials, and goes on after a resume as if there had been no stop.

    When a trial ends, NNI names the parameters that it submitted with that trial, which may be those that another
    trial runs. TpeTuner then forgets them, and dies of a KeyError as soon as the other trial reports.
    On a resume TpeTuner is told all results, but draws its first random numbers again. NNI calls `load_checkpoint`
    then, and `save_checkpoint` never.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.drawn: list[dict] = []  # every suggestion, in order
        self.lost: list[dict] = []  # those among them that NNI had not yet begun when it was stopped

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict:
        if self.lost:
            parameters = self.lost.pop(0)
            self._params[parameter_id] = self._running_params[parameter_id] = format_parameters(parameters, self.space)
            self.dedup.add_history(self._params[parameter_id])
            return parameters
        self.drawn.append(super().generate_parameters(parameter_id, **kwargs))
        self.save_checkpoint()
        return self.drawn[-1]

    def save_checkpoint(self) -> None:
        if folder := self.get_checkpoint_path():
            file = Path(folder) / STATE
            state = {"rng": self.rng.bit_generator.state, "drawn": self.drawn}
            file.with_suffix(".new").write_text(json.dumps(state), encoding="utf-8")
            os.replace(file.with_suffix(".new"), file)

    def load_checkpoint(self) -> None:
        file = Path(self.get_checkpoint_path() or ".") / STATE
        if file.is_file():
            state = json.loads(file.read_text(encoding="utf-8"))
            self.rng.bit_generator.state, self.drawn = state["rng"], state["drawn"]
            self.lost = never_begun(file.parent, self.drawn)

    def receive_trial_result(self, parameter_id: int, parameters: dict, value: Any, **kwargs: Any) -> None:
        self._running_params.setdefault(parameter_id, self._params[parameter_id])
        super().receive_trial_result(parameter_id, parameters, value, **kwargs)


def never_begun(checkpoint: Path, suggested: list[dict]) -> list[dict]:
    """Those suggestions that NNI has made no trial of, by the database beside the experiment's checkpoint folder.

    In a resume NNI asks for the next suggestion while it repeats the interrupted trial, and keeps it in memory: if it
    is stopped before that trial has ended, it never begins what was suggested.
    """
    file = checkpoint.parent / "db" / "nni.sqlite"
    if not file.is_file():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=5)) as connection:
        rows = connection.execute("select data from TrialJobEvent where trialJobId != '' and data like '{%'").fetchall()
    begun = [json.loads(row[0]).get("parameters") for row in rows]
    return [parameters for parameters in suggested if parameters not in begun]
