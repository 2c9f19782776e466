"""Settings: one frozen dataclass per script, the only home of defaults.

    config = merge(HpoConfig, command_line(HpoConfig, argv), nni.get_next_parameter())

A setting states its default, its meaning with unit, and what is allowed, once. Whoever gives a value (default <
command line < tuner), an unknown name, a wrong type or a value out of range raises Mistakes with a line for each that
names the setting, the value and what is allowed. How that is done: settings.py; command lines: parsing.py.
"""

import dataclasses
from typing import Any

from config.parsing import command_line, parse, run_script, to_copy
from config.settings import Mistakes, check, merge, setting

__all__ = ["Mistakes", "check", "command_line", "merge", "parse", "run_script", "setting", "to_copy"]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which pictures, and what to do about some of them."""

    data: str = setting("cifar10", "cifar10 (downloaded), digits (built in), a folder with a folder for each class, or "
                        "with train/ and test/ (and val/) of such, or a CSV or TSV file of path and label")
    data_dir: str = setting(".data", "folder of downloads and of the packed cache")
    test_share: float = setting(0.2, "of each class, set aside as the test set where none is given", above=0, below=1)
    skip_broken: bool = setting(False, "go on without the pictures that cannot be read")
    drop_duplicates: bool = setting(False, "leave out pictures that equal another one, in the training data first")
    image_size: str = setting("auto", "side in pixels to which pictures are brought; auto: 32 for cifar10 and digits, "
                              "else the largest up to 128 that half of the pictures have on their shorter side",
                              choices=("auto", "32", "48", "64", "96", "128", "192", "224"))
    fit: str = setting("pad", "how: pad, all of the picture, with grey beside it; crop, the largest square in it; "
                       "stretch, all of it, not keeping its proportions", choices=("pad", "crop", "stretch"))

    @property
    def data_set(self) -> dict[str, Any]:
        """The arguments of pictures.dataset.load."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(DataConfig)}


@dataclasses.dataclass(frozen=True)
class TrainingConfig(DataConfig):
    """What every script that trains one network has in common."""

    train_size: int = setting(0, "training images, a stratified subset; 0: all that validation leaves", minimum=0)
    val_size: int = setting(0, "validation images, taken from the training data; 0: a tenth of it, or all of val/; "
                            "-1: none, all of them are trained on", minimum=-1)
    held_out: int = setting(0, "images of the training data that no training sees, of which the first val_size are "
                            "those of validation; 0: as many as these. Not where val/ is given", minimum=0)
    crop_padding: int = setting(4, "random crop: padding on each side, in 32nds of the picture's; 0: off", minimum=0,
                                maximum=16)
    flip: str = setting("auto", "random horizontal flip; auto: on, but off for digits", choices=("auto", "on", "off"))
    cutout: int = setting(8, "side of the square that cutout blanks, in 32nds of the picture's; 0: off", minimum=0,
                          maximum=32)

    optimizer: str = setting("Adam", "name of a torch.optim class")
    lr: float = setting(0.001, "peak learning rate", above=0)
    weight_decay: float = setting(0.0, "L2 penalty on kernels and matrices; 5e-4 is usual for SGD", minimum=0)
    momentum: float = setting(0.9, "momentum, for SGD alone", minimum=0, below=1)
    epochs: int = setting(30, "passes over the training images", minimum=1)
    batch_size: int = setting(128, "images a step", minimum=2)
    warmup: float = setting(0.1, "share of all steps in which the learning rate rises linearly", minimum=0, below=1)
    label_smoothing: float = setting(0.1, "share of each target spread over all classes", minimum=0, below=1)
    clip: float = setting(0.0, "largest norm of the gradient; 0: no clipping", minimum=0)
    balance: bool = setting(False, "for unequal classes: each counts alike in the loss, however few its pictures")
    ema: float = setting(0.0, "decay a step of averaged weights, which are then evaluated; 0: off", minimum=0, below=1)

    device: str = setting("auto", "auto: cuda where there is one", choices=("auto", "cpu", "cuda"))
    precision: str = setting("auto", "auto: bf16 where it is faster", choices=("auto", "fp32", "bf16"))
    compile: bool = setting(False, "torch.compile the network")
    seed: int = setting(0, "seed of split, weights, order and augmentation; with one number of threads a CPU then "
                        "repeats a run bitwise, a GPU does not", minimum=0, maximum=2**31 - 1)

    graph: bool = setting(True, "on a GPU, record a step once and repeat it as one CUDA graph, where that is possible")
    runs_dir: str = setting("runs", "where a run without NNI puts its folder")
    name: str = setting("", "name of that folder; empty: made from the data set and the settings")
    resume: bool = setting(False, "go on from the checkpoint in the run's folder")
    overwrite: bool = setting(False, "begin anew in a folder that holds a run already, which is then lost")
    checkpoint_minutes: float = setting(5.0, "between checkpoints: what a kill may cost", above=0)

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True)
class HpoConfig(TrainingConfig):
    """hpo_trial.py: one network of the zoo, one optimizer, one learning rate."""

    model: str = setting("resnet18", "network of the zoo")
    best: str = setting("", "train the model, optimizer and lr of the best trial in this best.json of stage 1, as far "
                        "as the command line does not name them")


@dataclasses.dataclass(frozen=True)
class ClassicNasConfig(TrainingConfig):
    """classic_nas_trial.py: one network of the MobileNet space. lr and optimizer: see hpo_best."""

    arch: str = setting("", "train the architecture in this JSON file: labels and choices, or a best.json of stage 2")
    baseline: bool = setting(False, "train plain MobileNet")
    max_params: int = setting(0, "refuse networks of more parameters; 0: no limit", minimum=0)
    max_macs: int = setting(0, "refuse networks of more multiply-adds an image; 0: no limit", minimum=0)
    hpo_best: str = setting("runs/hpo/best.json", "stage 1's result: lr and optimizer, where it exists and the command "
                            "line does not name them; empty: not used")
    test: bool = setting(False, "evaluate the test set, once, after the last epoch; not under NNI")
    write_search_space: bool = setting(False, "write search_space_classic_nas.json, train nothing")


def branches() -> bool:
    return setting(True, "of a network of cells, on a GPU of 20 GB or more: what can runs side by side in the graph; "
                   "up to a fifth less time, a third to a half more memory")


@dataclasses.dataclass(frozen=True)
class DartsSearchConfig(TrainingConfig):
    """darts_search.py: a bilevel search. The settings of training are those of the supernet's weights."""

    preset: str = setting("", "published: the paper's; alphas never wait, any number of skips, no images kept to judge "
                          "by; empty: not so, since such a search tends to collapse", choices=("", "published"))
    val_size: int = setting(0, "validation images, taken from the training data; 0: a tenth of it; -1: none, the "
                            "alphas' half judges the search", minimum=-1)
    order: int = setting(1, "1: alphas as if the weights were trained; 2: looks a step of theirs ahead, and is slower. "
                         "On a GPU 1 computes in TF32, its gradients some percent off, and 2 in true float32",
                         minimum=1, maximum=2)
    channels: int = setting(16, "channels of the supernet's first cells", minimum=4)
    layers: int = setting(8, "cells of the supernet", minimum=3)
    partial_channels: int = setting(1, "4: operations see a quarter of the channels, and edges compete (PC-DARTS)",
                                    minimum=1, maximum=16)
    optimizer: str = setting("SGD", "of the weights; that of the alphas is Adam", choices=("SGD",))
    lr: float = setting(0.025, "peak learning rate of the weights", above=0)
    weight_decay: float = setting(3e-4, "L2 penalty on the weights", minimum=0)
    epochs: int = setting(50, "passes over the half of the training images that the weights see", minimum=1)
    batch_size: int = setting(64, "images a step, of each half", minimum=2)
    warmup: float = setting(0.0, "share of all steps in which the learning rate rises linearly", minimum=0, below=1)
    label_smoothing: float = setting(0.0, "of the weights' loss", minimum=0, below=1)
    clip: float = setting(5.0, "largest norm of the weights' gradient; 0: no clipping", minimum=0)
    cutout: int = setting(0, "side of the square that cutout blanks, in 32nds of the picture's; 0: off", minimum=0,
                          maximum=32)
    alpha_lr: float = setting(3e-4, "learning rate of the alphas", above=0)
    alpha_weight_decay: float = setting(1e-3, "L2 penalty on the alphas", minimum=0)
    frozen: float = setting(0.3, "share of the epochs in which the alphas wait for the weights", minimum=0, below=1)
    beta_decay: float = setting(0.0, "beta-decay's weight in the last epoch, growing from 0; 0: off, the paper's is 50",
                                minimum=0)
    max_skips: int = setting(2, "skip connections that a normal cell may have; 8: any number", minimum=0, maximum=8)
    recompute: bool = setting(False, "compute cells again for the gradient: less memory, a third more time")
    branches: bool = branches()
    form: str = setting("auto", "of the supernet, all of which compute the same: plain, the reference; stored, in few "
                        "launches; fused, with little memory traffic; auto: stored on a GPU, fused on a CPU",
                        choices=("auto", "plain", "stored", "fused"))
    fused: bool = setting(True, "no: --form plain, as earlier versions call it")
    precision: str = setting("auto", "of the trainings of the choice, as of others; the search is in fp32",
                             choices=("auto", "fp32", "bf16"))
    ema: float = setting(0.0, "not in a search", minimum=0, maximum=0)
    balance: bool = setting(False, "in the trainings of the choice each class counts alike; not in the search itself")
    compile: bool = setting(False, "torch.compile the networks of the choice, not the supernet")
    seeds: int = setting(1, "searches, from `seed` on; the best is chosen by a complete training of each", minimum=1)
    choice_epochs: int = setting(50, "of that training; 0, with one seed: none", minimum=0)
    choice_channels: int = setting(16, "channels of its network", minimum=4)
    choice_layers: int = setting(8, "cells of its network", minimum=3)
    format: str = setting("json", "of the genotype; quark0: genotype.py beside genotype.json, as the code of DARTS and "
                          "PC-DARTS has it", choices=("json", "quark0"))


@dataclasses.dataclass(frozen=True)
class RetrainConfig(TrainingConfig):
    """retrain.py: one network from scratch, by a recipe. The defaults are the standard recipe's."""

    genotype: str = setting("", "cells to train: DARTS_V1, DARTS_V2, PC_DARTS, random:SEED, a JSON file, or, as other "
                            "code has them, Genotype(normal=...), a .txt file of it or FILE.py:NAME")
    model: str = setting("", "a network of the zoo instead, by the same recipe")
    recipe: str = setting("standard", "standard; long: 1500 epochs, AutoAugment, averaged weights; quick: 10 epochs, "
                          "for quicknet alone")
    channels: int = setting(36, "channels of the network's first cells", minimum=1)
    layers: int = setting(20, "cells of the network", minimum=3)
    all_data: bool = setting(True, "train on all training images; no: set val_size aside, and validate each epoch")
    augment: str = setting("basic", "basic: crop, flip, cutout; autoaugment: its CIFAR-10 policy too",
                           choices=("basic", "autoaugment"))
    alternate: bool = setting(False, "flip each image in every other epoch; no: by a draw")
    crop_border: str = setting("mean", "what a crop sees outside of the picture: mean, its mean color; reflect, its "
                               "mirror image", choices=("mean", "reflect"))
    optimizer: str = setting("SGD", "name of a torch.optim class")
    lr: float = setting(0.025, "peak learning rate; 0, for recipe quick: 1.5 for 1024 images a step, less for fewer",
                        minimum=0)
    schedule: str = setting("cosine", "of the rate: half a cosine after the warm-up; triangle: straight lines, "
                            "from 0.2 of the peak up and down to 0.07", choices=("cosine", "triangle"))
    bias_factor: float = setting(1.0, "how many times that learning rate the biases of batch norm have", above=0)
    weight_decay: float = setting(3e-4, "L2 penalty on kernels and matrices", minimum=0)
    epochs: int = setting(600, "passes over the training images; all schedules stretch over them", minimum=1)
    batch_size: int = setting(96, "images a step, of all processes together; 0, for recipe quick: 1024, fewer where "
                              "there are few", minimum=0)
    warmup: float = setting(0.0, "share of all steps in which the learning rate rises linearly", minimum=0, below=1)
    label_smoothing: float = setting(0.0, "share of each target spread over all classes", minimum=0, below=1)
    clip: float = setting(5.0, "largest norm of the gradient; 0: no clipping", minimum=0)
    cutout: int = setting(16, "side of the square that cutout blanks, in 32nds of the picture's; 0: off", minimum=0,
                          maximum=32)
    test: bool = setting(True, "test the network after its last epoch; no: the test pictures are not read")
    tta: bool = setting(False, "test by the mean of several views of each picture too, shifted and mirrored: "
                        "result.json has both")
    branches: bool = branches()
    auxiliary: float = setting(0.4, "weight of the auxiliary head's loss; 0: no such head", minimum=0)
    drop_path: float = setting(0.2, "probability of a dropped path that is approached from 0", minimum=0, below=1)


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """predict.py: a trained network over pictures, or its export."""

    model: str = setting("", "trained model file, such as the model.pt of a run's folder, or its export as .onnx")
    images: tuple = setting((), "pictures, folders of them with their subfolders, patterns such as '*.jpg', or CSV or "
                            "TSV files of path and label as for training; for an export, to verify it on")
    json: bool = setting(False, "a JSON line a picture with the probabilities of all classes, instead of a table")
    tta: bool = setting(False, "mean of the probabilities of each picture and of its mirror image")
    out: str = setting("", "file for the predictions or the exported network, never one of the pictures or the model; "
                       "empty: standard output, and beside model")
    batch_size: int = setting(256, "pictures a forward pass", minimum=1)
    workers: int = setting(0, "processes that decode pictures; 0: one a core, less one; never more than half of the "
                           "memory holds", minimum=0)
    device: str = setting("auto", "auto: cuda where there is one", choices=("auto", "cpu", "cuda"))
    precision: str = setting("fp32", "fp32: as an export, the same on every machine; auto: as training, faster where "
                             "that is bf16, whose probabilities differ by some 0.003", choices=("auto", "fp32", "bf16"))
    export: str = setting("none", "write the network in this format and verify it", choices=("none", "onnx", "torch"))
    tolerance: float = setting(0.001, "largest difference of a logit that an export may have, on random pictures over "
                               "the largest logit; 0.001 changes no probability of your pictures by more than 0.0005, "
                               "those of --precision fp32", above=0)

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True)
class LeaderboardConfig:
    """leaderboard.py: the finalists of a pipeline, judged by the same pictures."""

    runs: str = setting("runs/pipeline", "folder of the results of pipeline.py")
    test: bool = setting(True, "read the test pictures, after the choice, for all networks at once")
    tta: bool = setting(True, "judge by the mean of several views of each picture too; up to six times as long")
    device: str = setting("auto", "auto: cuda where there is one", choices=("auto", "cpu", "cuda"))
    precision: str = setting("auto", "auto: as for training", choices=("auto", "fp32", "bf16"))

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """report.py: one page with all results."""

    runs: str = setting("runs", "folder of the results")
    out: str = setting("", "the page, ending in .html; the same as .md beside it; empty: report.html in that folder")
    predict: bool = setting(True, "confusion matrix and mistakes on the test pictures, where model.pt is there")
    device: str = setting("auto", "of these predictions; auto: cuda if there is one", choices=("auto", "cpu", "cuda"))

    def __post_init__(self) -> None:
        check(self)


# What says where and how to run, not what is computed: a run may be resumed with another value of these. (The data
# set is recognised by its checksum, wherever it lies, and an architecture by its choices, wherever they come from.)
NOT_COMPUTED = frozenset({"data", "data_dir", "test_share", "skip_broken", "drop_duplicates", "image_size", "fit",
                          "device", "runs_dir", "name", "resume", "overwrite", "arch", "baseline", "max_params",
                          "max_macs", "hpo_best", "best", "test", "write_search_space", "form", "fused", "graph",
                          "branches", "recompute", "seeds", "genotype", "recipe", "preset", "checkpoint_minutes",
                          "format", "tta"})


# Settings that checkpoints of earlier versions do not have, and what those computed.
ADDED = {"balance": False, "alternate": False, "crop_border": "mean", "schedule": "cosine", "bias_factor": 1.0,
         "held_out": 0}


def identity(config: TrainingConfig) -> dict[str, Any]:
    """The settings that a checkpoint must share with the run that resumes it; of ADDED those with another value."""
    return {key: value for key, value in dataclasses.asdict(config).items()
            if key not in NOT_COMPUTED and not (key in ADDED and value == ADDED[key])}
