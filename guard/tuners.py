"""NNI's TPE tuner for more than one trial at a time, and for experiments that are resumed:

    tuner:
      codeDirectory: guard
      className: tuners.TPE
      classArgs: {optimize_mode: maximize}
"""

import json
import os
from pathlib import Path
from typing import Any

from nni.algorithms.hpo.tpe_tuner import TpeTuner

STATE = "tpe_tuner.json"


class TPE(TpeTuner):
    """TPE that survives NNI 3.0's mixed-up trials, and goes on after a resume as if there had been no stop.

    When a trial ends, NNI names the parameters that it submitted with that trial, which may be those that another
    trial runs. TpeTuner then forgets them, and dies of a KeyError as soon as the other trial reports.
    On a resume TpeTuner is told all results, but draws its first random numbers again. NNI calls `load_checkpoint`
    then, and `save_checkpoint` never.
    """

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict:
        parameters = super().generate_parameters(parameter_id, **kwargs)
        self.save_checkpoint()
        return parameters

    def save_checkpoint(self) -> None:
        if folder := self.get_checkpoint_path():
            file = Path(folder) / STATE
            file.with_suffix(".new").write_text(json.dumps(self.rng.bit_generator.state), encoding="utf-8")
            os.replace(file.with_suffix(".new"), file)

    def load_checkpoint(self) -> None:
        file = Path(self.get_checkpoint_path() or ".") / STATE
        if file.is_file():
            self.rng.bit_generator.state = json.loads(file.read_text(encoding="utf-8"))

    def receive_trial_result(self, parameter_id: int, parameters: dict, value: Any, **kwargs: Any) -> None:
        self._running_params.setdefault(parameter_id, self._params[parameter_id])
        super().receive_trial_result(parameter_id, parameters, value, **kwargs)
