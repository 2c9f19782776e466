"""An NNI experiment's folder, made up: for all that reads one."""

import json
import sqlite3
from pathlib import Path

from guard import results
from guard.trials import Trial

PARAMETERS = {0: {"lr": 0.1, "model": "vgg"}, 1: {"lr": 0.01, "model": "vgg"}, 2: {"lr": 0.001, "model": "dpn92"}}


class Fake:
    """An experiment's folder, filled step by step; the clock advances one second a line."""

    def __init__(self, folder: Path, mode: str = "maximize") -> None:
        self.folder, self.clock, self.log = folder, 1_000_000_000_000, []
        (folder / "db").mkdir(parents=True)
        (folder / "log").mkdir()
        self.database = sqlite3.connect(folder / "db" / "nni.sqlite")
        self.database.executescript(
            "create table TrialJobEvent (timestamp integer, trialJobId text, event text, data text,"
            " logPath text, sequenceId integer, message text, environmentId text);"
            "create table MetricData (timestamp integer, trialJobId text, parameterId text, type text,"
            " sequence integer, data text);"
            "create table ExperimentProfile (params text, id text, execDuration integer, startTime integer,"
            " endTime integer, logDir text, nextSequenceId integer, revision integer);")
        settings = {"experimentName": "hpo", "searchSpace": {"lr": {}, "model": {}}, "maxTrialNumber": 9,
                    "tuner": {"name": "TPE", "classArgs": {"optimize_mode": mode}}}
        self.database.execute("insert into ExperimentProfile values (?,?,0,0,0,'',0,1)", (json.dumps(settings), "abc"))

    def trial_folder(self, trial: str) -> Path:
        folder = self.folder / "environments" / "local-env" / "trials" / trial
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def event(self, trial: str, event: str, parameter_id: int | None = None, parameters: dict | None = None) -> None:
        self.clock += 1000
        data = None
        if parameter_id is not None:
            data = json.dumps({"parameter_id": parameter_id, "parameters": parameters or PARAMETERS[parameter_id]})
        self.database.execute("insert into TrialJobEvent values (?,?,?,?,?,0,null,'local-env')",
                              (self.clock, trial, event, data, str(self.trial_folder(trial))))

    def metric(self, trial: str, parameter_id: int, value: object, kind: str = "FINAL", sequence: int = 0) -> None:
        self.clock += 1000
        self.database.execute("insert into MetricData values (?,?,?,?,?,?)",
                              (self.clock, trial, str(parameter_id), kind, sequence, json.dumps(json.dumps(value))))

    def trial(self, trial: str, parameter_id: int, value: object, end: str = "SUCCEEDED") -> None:
        self.event(trial, "RUNNING", parameter_id)
        self.metric(trial, parameter_id, value)
        self.event(trial, end)

    def load(self, alive: bool = False) -> results.Results:
        self.database.commit()
        (self.folder / "log" / "nnimanager.log").write_text("\n".join(["[now] INFO (main) Start", *self.log]))
        return results.load(self.folder, alive)

    def one(self, alive: bool = False) -> Trial:
        (trial,) = self.load(alive).trials
        return trial
