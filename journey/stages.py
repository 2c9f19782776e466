"""The stages of pipeline.py that are NNI experiments, and its last ones: the command of each, how far its results are.

How far a stage is, is read from what it has computed, never from a note about it: an experiment is finished if its
best.json says that NNI came to its end. The stages that train or search by themselves: trainings.py.
"""

import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from artifacts.figures import percent
from files import read_json, read_object
from guard import experiment_file, processes, results
from guard.moved import renamed
from guard.registry import Experiment
from guard.trials import BAD
from journey.budgets import EXPERIMENTS, is_training
from journey.finalists import BOARD, finalists, made_of
from journey.plan import ABSENT, BEGUN, FINISHED, PLACES, ROOT, Plan, Stage, assert_pictures, assert_same

# ---- hpo and classic_nas


class ExperimentStage(Stage):
    """An NNI experiment: its results in the stage's folder, NNI's own files in nni/ there."""

    @property
    def folder(self) -> Path:
        return self.plan.runs / self.name

    def command(self, go_on: bool = False) -> list[str]:
        found = self.found() if go_on else None
        if found:
            return [sys.executable, "experiment.py", "resume", str(found.folder), "--out", str(self.folder)]
        pairs = [word for key, value in self.overrides().items() for word in ("--set", f"{key}={value}")]
        return [sys.executable, "experiment.py", "run", self.file, "--out", str(self.folder), *pairs]

    @property
    def file(self) -> str:
        return EXPERIMENTS[self.plan.budget][self.name]

    def overrides(self) -> dict[str, str]:
        """Keys of the experiment's file and their values."""
        seed = self.plan.seed + 1  # 1 is that of the files
        tpe = {"codeDirectory": str(ROOT / "guard"), "className": "tuners.TPE",
               "classArgs": {"optimize_mode": "maximize", "seed": seed}}
        tuner = {"tuner": json.dumps(tpe, ensure_ascii=False)} if self.name == "hpo" else {"tuner.classArgs.seed": seed}
        keys = {key: value for key, value in self.given.items() if not is_training(self.name, key)}
        trial = shlex.join(["python", f"{self.name}_trial.py", *self.words(self.settings())])
        given = {"trialCommand": trial, "experimentWorkingDirectory": self.home, **tuner, **keys}  # text as it is
        return {key: str(value) for key, value in given.items()}

    def settings(self) -> dict[str, Any]:
        """Those of every trial."""
        more: dict[str, Any] = {}
        if self.name == "classic_nas":
            from models.mobilenet_space.space import BASELINE, count_parameters

            best = self.plan.runs / "hpo/best.json"
            more = {"max_params": count_parameters(BASELINE, self.plan.classes, self.plan.side),
                    "hpo_best": best if self.plan.after_hpo else ""}
        return {**self.plan.shared(), **more, **{k: v for k, v in self.given.items() if is_training(self.name, k)}}

    def config(self) -> dict[str, Any]:
        """The experiment as NNI will get it; ValueError for a key or a setting that there is not."""
        config = experiment_file.load_config(ROOT / self.file, self.overrides())
        self.computes(shlex.split(config["trialCommand"])[2:])
        return config

    def before_start(self) -> dict[str, Any]:
        """The experiment as it can be checked before the start: what stage 1 will leave is not there yet."""
        config, best = self.config(), str(self.plan.runs / "hpo/best.json")
        if not Path(best).exists():
            words = ["" if word == best else word for word in shlex.split(config["trialCommand"])]
            config["trialCommand"] = shlex.join(words)
        return config

    @property
    def home(self) -> Path:
        return (self.folder / "nni").resolve()

    def experiments(self) -> list[Experiment]:
        """All that NNI has begun here, the newest first."""
        folders = [path for path in self.home.glob("*") if path.is_dir() and not path.is_symlink()]
        return [Experiment(path.name, path.name, path)
                for path in sorted(folders, key=lambda path: path.stat().st_ctime, reverse=True)]

    def found(self) -> Experiment | None:
        """The newest experiment that can be gone on with: not one that was killed while it started, nor one of which
        every trial failed, since NNI repeats none."""
        for experiment in self.experiments():
            with contextlib.suppress(ValueError):
                state = results.load(experiment.folder, alive=False)
                if state.settings and not (state.trials and state.count(*BAD) == len(state.trials)):
                    return experiment
        return None

    def stop_leftovers(self) -> None:
        """End what a killed pipeline has left running."""
        for experiment in self.experiments():
            if left := processes.all_of(experiment):
                print(f"{self.name}: stopping {len(left)} processes of NNI experiment {experiment.id}, left by an "
                      "earlier run", flush=True)
                for note in processes.stop(experiment):
                    print(f"note: {note}", flush=True)

    def progress(self) -> str:
        found = self.found()
        if found is None:
            return ABSENT
        self._assert_wanted(results.load(found.folder, alive=False))
        best = read_object(self.folder / "best.json") or {}
        return FINISHED if best.get("finished") and best.get("experiment") == found.id else BEGUN

    def _assert_wanted(self, state: results.Results) -> None:
        made, wanted = renamed(experiment_file.read_yaml(self.folder / "config.yml")), self.config()
        assert_same(self.folder, *(self.computes(shlex.split(one["trialCommand"])[2:]) for one in (made, wanted)))
        assert_same(self.folder, made, {key: value for key, value in wanted.items() if key not in PLACES})
        for trial in state.trials:
            result = read_object(trial.folder / "result.json") or {}
            assert_pictures(self.folder, self.plan, result)
            assert_same(self.folder, result.get("config") or {}, self._of_hpo() if "config" in result else {},
                        whole=False)

    def _of_hpo(self) -> dict[str, Any]:
        """lr and optimizer that stage 1 hands to stage 2's trials."""
        best = read_object(self.plan.runs / "hpo/best.json") if self.name == "classic_nas" else None
        parameters = (best or {}).get("parameters") or {}
        return {key: parameters[key] for key in ("lr", "optimizer") if key in parameters and key not in self.given}

    def seconds(self) -> float | None:
        """That its trials took."""
        found = self.found()
        trials = results.load(found.folder, alive=False).trials if found else []
        return sum(trial.seconds or 0.0 for trial in trials) or None

    def outcome(self) -> str:
        best = read_json(self.folder / "best.json")
        size = (best.get("result") or {}).get("parameters")
        chosen = (", ".join(str(value) for value in best["parameters"].values()) if self.name == "hpo" else
                  "a MobileNet with blocks of its own" + (f", {size:,} parameters" if size else ""))
        failed = best["trials"].get("failed", 0)
        of = ((best.get("result") or {}).get("data") or {}).get("val_images")
        return f"best validation accuracy {percent(best['value'], of)} ({chosen})" + (
            f"; {failed} of {best['trials']['total']} trials failed" if failed else "")

    def model(self) -> Path | None:
        """The best trial's trained network."""
        found = self.found()
        best = results.load(found.folder, alive=False).best if found else None
        return best.folder / "model.pt" if best else None


# ---- leaderboard


class LeaderboardStage:
    """The finalists by validation and, unless `tested` is false, by the test pictures; the winner is exported."""

    def __init__(self, plan: Plan, tested: bool = True) -> None:
        self.plan, self.tested, self.views = plan, tested, tested  # the choice is by each picture as it is
        self.name = "leaderboard" if tested else "choice"

    def command(self, go_on: bool = False) -> list[str]:
        words = [flag for flag, wanted in (("--no-test", not self.tested), ("--no-tta", not self.views)) if wanted]
        return [sys.executable, "leaderboard.py", "--runs", str(self.plan.runs), *words]

    def config(self) -> dict[str, Any]:
        return {}

    def progress(self) -> str:
        board = read_object(self.plan.runs / BOARD) or {}
        same = board.get("made_of") == made_of(self.plan.runs, finalists(self.plan.runs))
        return FINISHED if same and (board.get("tested") or not self.tested) else ABSENT

    def seconds(self) -> float | None:
        return None

    def outcome(self) -> str:
        board = read_json(self.plan.runs / BOARD)
        best = board["rows"][0]
        value = percent(best["validation"]["accuracy"], best["validation"].get("images"))
        return f"{best['network']} ({best['stage']}), validation accuracy {value}"

    def model(self) -> Path | None:
        return None


# ---- report


class ReportStage:
    """One page of all results; made again as soon as there are newer ones."""

    name = "report"

    def __init__(self, plan: Plan) -> None:
        self.plan, self.page = plan, plan.runs / "report.html"

    def command(self, go_on: bool = False) -> list[str]:
        return [sys.executable, "report.py", "--runs", str(self.plan.runs)]

    def config(self) -> dict[str, Any]:
        return {}

    def progress(self) -> str:
        sources = [file for name in ("*/best.json", "*/*/result.json", BOARD) for file in self.plan.runs.glob(name)]
        newest = max((file.stat().st_mtime for file in sources), default=0.0)
        return FINISHED if self.page.exists() and self.page.stat().st_mtime > newest else ABSENT

    def seconds(self) -> float | None:
        return None

    def outcome(self) -> str:
        return str(self.page)

    def model(self) -> Path | None:
        return None
