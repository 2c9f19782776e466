"""What the budgets of pipeline.py mean: trials, epochs and sizes of every stage, in one table.

demo    minutes on two CPU cores, for digits; of other pictures it gives a first look
small   an evening on a CPU, or a short run on a GPU
full    the sizes of the published experiments, for a GPU

A budget has the stages that its table names, then leaderboard and report. Where it has no hpo_final or nas_final the
best trial's own weights go into the leaderboard: all that `demo` has time for. Where the trials see a part of the
pictures for a few epochs, their best is trained on all of them: what it is worth shows only then.
A setting that a stage's dataclass in config/ has is one of its trainings; any other is a key of the NNI experiment's
file. `--set STAGE.KEY=VALUE` changes one of either kind.
"""

import dataclasses
from typing import Any

from config import (
    ClassicNasConfig,
    DartsSearchConfig,
    DataConfig,
    HpoConfig,
    RetrainConfig,
    TrainingConfig,
    check,
    setting,
)
from pictures.split import validation_size

SETTINGS: dict[str, type[TrainingConfig]] = {
    "baseline": RetrainConfig, "hpo": HpoConfig, "hpo_final": HpoConfig, "classic_nas": ClassicNasConfig,
    "nas_final": ClassicNasConfig, "plain_mobilenet": ClassicNasConfig, "darts": DartsSearchConfig,
    "retrain": RetrainConfig, "random_cell": RetrainConfig}
STAGES = (*SETTINGS, "leaderboard", "report")
CONTROLS = {"plain_mobilenet": "nas_final", "random_cell": "retrain"}  # what they compare, whose settings they have
EXPERIMENTS = {  # the file of each NNI experiment, whose search space, assessor and further keys hold
    "demo": {"hpo": "journey/config_demo.yml", "classic_nas": "journey/config_demo_nas.yml"},
    "small": {"hpo": "config_hpo.yml", "classic_nas": "config_classic_nas.yml"},
    "full": {"hpo": "config_hpo.yml", "classic_nas": "config_classic_nas.yml"},
}
_DIGITS = {"batch_size": 32, "crop_padding": 2, "cutout": 0}  # 1437 small pictures
BUDGETS: dict[str, dict[str, dict[str, Any]]] = {
    "demo": {
        "baseline": {"epochs": 4},
        "hpo": {"maxTrialNumber": 4, "train_size": 500, "epochs": 3, **_DIGITS},
        "classic_nas": {"maxTrialNumber": 3, "train_size": 500, "epochs": 3, **_DIGITS},
        "darts": {"train_size": 400, "batch_size": 50, "channels": 4, "layers": 3, "epochs": 3, "frozen": 0.25,
                  "alpha_lr": 0.01},
        "retrain": {"channels": 8, "layers": 4, "epochs": 5, "batch_size": 32, "lr": 0.05, "cutout": 0,
                    "auxiliary": 0.0, "drop_path": 0.0},
    },
    # About 3 hours of 2 CPU cores for 50 000 pictures, by the estimates below; a large network as the winner of stage 1
    # takes longer. Most goes to what is trained on all pictures: what the searches see is too little to tell more.
    "small": {  # epochs of 50 000 images, or of so many as train_size says; fewer images get more epochs, see `fitted`
        "baseline": {"epochs": 12},
        "hpo": {"maxTrialNumber": 8, "maxExperimentDuration": "20m", "train_size": 2000, "val_size": 1000, "epochs": 3,
                "batch_size": 64},
        "hpo_final": {"epochs": 3, "batch_size": 64},
        "classic_nas": {"maxTrialNumber": 8, "maxExperimentDuration": "20m", "train_size": 2000, "val_size": 1000,
                        "epochs": 3, "batch_size": 64},
        "nas_final": {"epochs": 3, "batch_size": 64},
        "darts": {"train_size": 2000, "val_size": 1000, "batch_size": 50, "channels": 8, "layers": 5, "epochs": 12,
                  "frozen": 0.25, "alpha_lr": 0.01},
        "retrain": {"channels": 16, "layers": 8, "epochs": 3, "batch_size": 64, "drop_path": 0.0},
    },
    "full": {
        "baseline": {"epochs": 40},
        "hpo": {"maxTrialNumber": 40, "epochs": 30},
        "hpo_final": {"epochs": 200},
        "classic_nas": {"maxTrialNumber": 50, "epochs": 30},
        "nas_final": {"epochs": 200},
        "plain_mobilenet": {},
        "darts": {"epochs": 50},
        "retrain": {"epochs": 600},
        "random_cell": {},
    },
}
IMAGES = 50_000  # that the epochs of `small` are meant for, where train_size does not say
STRETCH = 10  # times as many epochs at most, for a small data set


@dataclasses.dataclass(frozen=True)
class PipelineConfig(DataConfig):
    """pipeline.py: all stages in order."""

    budget: str = setting("small", "demo: minutes; small: an evening; full: as published", choices=tuple(BUDGETS))
    stages: tuple = setting((), f"only these, of {' '.join(STAGES)}; none named: all that the budget has")
    refit: bool = setting(False, "train the winner of the leaderboard once more, on all training pictures, and export "
                          "that; by itself in budget full, where --no-refit does not")
    set: tuple = setting((), "STAGE.KEY=VALUE, a setting of a stage's script or a key of its experiment's file, in "
                         "place of the budget's; such as retrain.epochs=50 or hpo.maxTrialNumber=8")
    balance: bool = setting(False, "for unequal classes: each counts alike in the loss of every training")
    minutes: float = setting(0.0, "fit stages, epochs, trials and sizes to so many, by a measurement at the start; 0: "
                             "as the budget has them", minimum=0)
    seed: int = setting(0, "seed of every stage", minimum=0, maximum=2**31 - 2)
    runs_dir: str = setting("runs/pipeline", "folder of all results")
    resume: bool = setting(False, "go on with what is there; finished stages are skipped")
    dry_run: bool = setting(False, "print the commands, run nothing; pictures of one's own are read and packed")

    def __post_init__(self) -> None:
        check(self)
        if unknown := [name for name in self.stages if name not in STAGES]:
            raise ValueError(f"stages = {unknown[0]!r}: must be of {' '.join(STAGES)}")
        if absent := [name for name in self.stages if name not in stages_of(self.budget)]:
            raise ValueError(f"stages = {absent[0]!r}: budget {self.budget} has none, but "
                             f"{' '.join(stages_of(self.budget))}")


def stages_of(budget: str) -> tuple[str, ...]:
    return (*BUDGETS[budget], "leaderboard", "report")


def overrides(pairs: tuple[str, ...], budget: str) -> dict[str, dict[str, str]]:
    """stage -> key -> value of each STAGE.KEY=VALUE; ValueError names what is none."""
    found: dict[str, dict[str, str]] = {stage: {} for stage in SETTINGS}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        stage, dot, key = name.partition(".")
        if not (equals and dot and key) or stage not in SETTINGS:
            raise ValueError(f"set = {pair!r}: must be STAGE.KEY=VALUE, with a stage of {' '.join(SETTINGS)}")
        if stage not in BUDGETS[budget]:
            raise ValueError(f"set = {pair!r}: budget {budget} has no stage {stage}, but {' '.join(BUDGETS[budget])}")
        found[stage][key] = value
    return found


def is_training(stage: str, key: str) -> bool:
    """Whether a key of the table is a setting of the stage's trainings, not of its NNI experiment."""
    return key in SETTINGS[stage].__dataclass_fields__


def fitted(budget: str, stage: str, images: int, classes: int = 1, given_val: int = 0) -> dict[str, Any]:
    """The table's settings of a stage for a data set of so many training images, without a given validation set.

    A control has those of what it is compared with. A train_size that is not there, or is too small for the classes,
    becomes all images but those held out for the leaderboard; a validation set that was given is used as it is; batches
    leave at least four steps an epoch; and the small budget, whose epochs are meant for more images, gets more of them.
    """
    settings = dict(BUDGETS[budget].get(CONTROLS.get(stage, stage), {}) | BUDGETS[budget][stage])
    asked, aside = settings.get("train_size", 0), 0 if given_val else validation_size(images, classes)
    if not classes <= settings.get("val_size", 0) <= aside:
        settings.pop("val_size", None)
    there = images - aside
    if asked and not classes <= asked <= there:
        settings["train_size"] = 0
    used = min(asked or there, there)
    if budget == "small":
        stretch = min(STRETCH, (asked or IMAGES) / used)
        settings["epochs"] = round(settings["epochs"] * max(1.0, stretch))
    return batches_fit(stage, settings, there)


def batches_fit(stage: str, settings: dict[str, Any], there: int) -> dict[str, Any]:
    """With a batch that leaves at least four steps an epoch, of `there` images or of so many as train_size says."""
    used = min(settings.get("train_size") or there, there)
    batch = 0 if stage == "baseline" else settings.get("batch_size", SETTINGS[stage].batch_size)  # finds its own
    steps_of = used // 2 if stage == "darts" else used  # weights and alphas have a half each
    return {**settings, "batch_size": max(2, steps_of // 4)} if batch > steps_of // 4 else settings


# ---- how long it takes

START = 9.0  # seconds from one trial of an experiment to the next, over its training
EXPERIMENT = 15.0  # seconds to start and stop NNI
ENDS = {"choice": 15.0, "refit": 0.0, "leaderboard": 20.0, "report": 15.0}
JUDGED = 0.028  # seconds of leaderboard more for each training image: test and validation pictures, by several views
# Seconds of training an image on 2 CPU cores, from docs/history.md: the mean of the networks of hpo's search space, a
# network of stage 2, a step of the published search and retrain.
SECONDS_AN_IMAGE = {"baseline": 0.004, "hpo": 0.030, "hpo_final": 0.011, "classic_nas": 0.012, "nas_final": 0.012,
                    "plain_mobilenet": 0.004, "darts": 0.083, "retrain": 0.085, "random_cell": 0.085}
TWO_NETWORKS = 0.005  # the same for hpo in journey/config_demo.yml, whose networks are small


def cores_seconds(budget: str, stage: str, settings: dict[str, Any], images: int) -> float:
    """A rough guess of a stage's seconds on 2 CPU cores; once a stage has ended, only the ratio to it is used."""
    if stage in ENDS:
        return ENDS[stage] + JUDGED * images * (stage == "leaderboard")
    full = {**{f.name: f.default for f in dataclasses.fields(SETTINGS[stage])}, **settings}
    seen = int(full["epochs"]) * (int(full["train_size"]) or images)
    each = TWO_NETWORKS if (budget, stage) == ("demo", "hpo") else SECONDS_AN_IMAGE[stage]
    if stage == "darts":  # weights and alphas have half of the images each; small networks are slower than their size
        return START + seen / 2 * each * (int(full["channels"]) * int(full["layers"]) / (16 * 8)) ** 0.5
    if stage in ("retrain", "random_cell"):
        return START + seen * each * int(full["channels"]) * int(full["layers"]) / (36 * 20)
    if stage not in ("hpo", "classic_nas"):
        return START + seen * each
    return EXPERIMENT + int(full["maxTrialNumber"]) * (START + seen * each)
