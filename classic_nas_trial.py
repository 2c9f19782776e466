"""Stage 2, one trial: train one network of the MobileNet search space, models/mobilenet_space/space.py.

    python experiment.py run config_classic_nas.yml                            as trials of an NNI experiment
    python classic_nas_trial.py --arch runs/classic_nas/best.json --epochs 90  the best one alone, for longer
    python classic_nas_trial.py --baseline --epochs 90 --test                  plain MobileNet, by the same recipe
    python classic_nas_trial.py --write-search-space                           after a change of the space

The tuner's parameters are the architecture. Learning rate and optimizer are those of stage 1, runs/hpo/best.json, if
there is one; the command line wins over it. Reports validation accuracy, after each epoch and at the end, then with
parameters, multiply-adds and images per second. A network over a limit is refused: under NNI it reports 0 and ends.
With --test, alone, the trained network is evaluated on the test set, once, into result.json.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from config import ClassicNasConfig, merge
from files import atomic_write, read_json, write_json
from training import place, trial
from training.best import best_parameters, of_stage1
from training.reporter import Reporter

if TYPE_CHECKING:
    from models.mobilenet_space.space import Cost

SEARCH_SPACE = "search_space_classic_nas.json"


def main(argv: list[str] | None = None) -> int:
    return trial.main(ClassicNasConfig, settings, run, argv, also=architecture)


def run(argv: list[str] | None, parameters: dict[str, Any], reporter: Reporter) -> float | None:
    """One trial, of the architecture in a tuner's parameters or that of the command line; its validation accuracy after
    the last epoch, 0 if it is refused, none if nothing is to be trained."""
    config = trial.configured(ClassicNasConfig, __doc__, settings, argv, parameters, reporter)

    from models.mobilenet_space.space import build, cost
    from pictures.dataset import final_batches, load, training_batches  # torch and what stands on it: slow to import
    from training.hardware import pick_device
    from training.loop import set_seed

    if config.write_search_space:
        return write_search_space(Path(SEARCH_SPACE))
    name, sample = architecture(config, parameters)
    path = place.run_path(config, reporter, "classic_nas", f"{name}-{config.optimizer}-{config.lr:g}-seed{config.seed}")
    device = pick_device(config.device)

    pictures = load(**config.data_set)
    config = trial.fitted(config, pictures)
    loaders = training_batches(
        pictures, device, train_size=config.train_size, val_size=config.val_size, batch_size=config.batch_size,
        crop_padding=config.crop_padding, flip=config.flip, cutout=config.cutout, seed=config.seed,
        held_out=config.held_out)

    size = len(pictures.classes), pictures.side
    price = cost(sample, *size)
    if reason := over_limit(price, config, *size):
        return refuse(reason, price, sample, path, reporter)
    set_seed(config.seed)
    model = build(sample, *size).to(device)

    test = final_batches(pictures, loaders.train.normalization, config.batch_size) if config.test else None
    return trial.train(model, loaders, pictures, config, path, "classic_nas", reporter,
                       {"family": "classic_nas", "architecture": dict(sample)}, price._asdict(), sample, test)


# ---- settings: lr and optimizer of stage 1


def settings(given: dict[str, Any], tuner: Mapping[str, Any] = MappingProxyType({}),
             tuned: bool = False) -> ClassicNasConfig:
    """Default < stage 1's result < `given`, the command line; says where lr and optimizer come from.

    What the tuner gives is the architecture.
    """
    from training.optimizers import OPTIMIZERS

    if given.get("write_search_space"):
        return merge(ClassicNasConfig, given)

    source = given.get("hpo_best", ClassicNasConfig.hpo_best)
    wanted = source and ("hpo_best" in given or Path(source).exists()) and not {"lr", "optimizer"} <= given.keys()
    found = stage1(source) if wanted else {}
    config = merge(ClassicNasConfig, {**found, **given}, optimizer=OPTIMIZERS)
    if config.test and tuned:
        raise ValueError("test: not for a trial of a tuner, which would choose by it; train the best network alone, "
                         "by --arch")
    trial.assert_judged(config, tuned)
    origin = {**dict.fromkeys(found, source), **dict.fromkeys(given, "command line")}
    print(", ".join(f"{key} {getattr(config, key)} ({origin.get(key, 'default')})" for key in ("lr", "optimizer")))
    return config


def stage1(file: str) -> dict[str, Any]:
    """lr and optimizer of stage 1's best.json; ValueError names the file."""
    from training.optimizers import OPTIMIZERS

    found = of_stage1(file, ("lr", "optimizer"))
    try:
        merge(ClassicNasConfig, found, optimizer=OPTIMIZERS)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return found


# ---- the architecture


def architecture(config: ClassicNasConfig, tuner: dict) -> tuple[str, dict[str, str]]:
    """A name for the run, and the sample: the tuner's, plain MobileNet, or what a file holds; checked."""
    from models.mobilenet_space.space import BASELINE, check_sample

    if bool(tuner) + config.baseline + bool(config.arch) != 1:
        raise ValueError("give either --arch FILE or --baseline to train one network; under NNI neither of them, "
                         "since the tuner chooses")
    if tuner:
        check_sample(tuner)
        return "trial", tuner
    return ("baseline", dict(BASELINE)) if config.baseline else (Path(config.arch).stem, from_file(config.arch))


def from_file(file: str) -> dict[str, str]:
    from models.mobilenet_space.space import check_sample

    content = read_json(file)
    sample = best_parameters(file) if isinstance(content, dict) and "schema" in content else content
    try:
        check_sample(sample)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return sample


def over_limit(price: "Cost", config: ClassicNasConfig, num_classes: int, side: int) -> str | None:
    """Which limit the network breaks; ValueError if every network of the space breaks it."""
    from models.mobilenet_space.space import smallest

    smallest_one = smallest(num_classes, side)
    limits = (("max_params", price.parameters, smallest_one.parameters, "parameters"),
              ("max_macs", price.macs, smallest_one.macs, "multiply-adds"))
    for key, has, least, unit in limits:
        limit = getattr(config, key)
        if limit and least > limit:
            raise ValueError(f"{key} = {limit}: no network of the space meets it, the smallest has {least} {unit}")
        if limit and has > limit:
            return f"{key} = {limit}: the network has {has} {unit}"
    return None


def refuse(reason: str, price: "Cost", sample: Mapping[str, str], path: Path, reporter: Reporter) -> float:
    """The worst metric, so that a tuner goes on; alone a user's mistake."""
    if not reporter.tuned:
        raise ValueError(reason)
    write_json(path / "result.json", {"schema": 1, "stage": "classic_nas", "value": 0.0, "refused": reason,
                                      **price._asdict(), "architecture": dict(sample)})
    reporter.final(0.0, price._asdict(), sample)
    print(f"refused: {reason}")
    return 0.0


def write_search_space(file: Path) -> None:
    """The space for NNI's tuners, a line for each label."""
    from models.mobilenet_space.space import search_space

    lines = [f"    {json.dumps(label)}: {json.dumps(spec)}" for label, spec in search_space().items()]
    with atomic_write(file) as stream:
        stream.write("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"wrote {file}: {len(lines)} labels")


if __name__ == "__main__":
    sys.exit(main())
