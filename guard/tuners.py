"""NNI's TPE tuner for more than one trial at a time:

    tuner:
      codeDirectory: guard
      className: tuners.TPE
      classArgs: {optimize_mode: maximize}
"""

from typing import Any

from nni.algorithms.hpo.tpe_tuner import TpeTuner


class TPE(TpeTuner):
    """TPE that survives NNI 3.0's mixed-up trials.

    When a trial ends, NNI names the parameters that it submitted with that trial, which may be those that another
    trial runs. TpeTuner then forgets them, and dies of a KeyError as soon as the other trial reports.
    """

    def receive_trial_result(self, parameter_id: int, parameters: dict, value: Any, **kwargs: Any) -> None:
        self._running_params.setdefault(parameter_id, self._params[parameter_id])
        super().receive_trial_result(parameter_id, parameters, value, **kwargs)
