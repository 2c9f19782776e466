"""Settings: what is given wins in the right order, what is wrong is named in one line."""

import dataclasses

import pytest

from config import HpoConfig, Mistakes, command_line, identity, merge, parse, run_script


def settings(argv=(), tuner=None, **choices):
    return merge(HpoConfig, command_line(HpoConfig, list(argv), ""), tuner, **choices)


def test_default_then_command_line_then_tuner():
    assert settings().lr == HpoConfig.lr
    assert settings(["--lr", "0.5"]).lr == 0.5
    assert settings(["--lr", "0.5"], {"lr": 0.25}).lr == 0.25


def test_every_setting_can_be_given_on_the_command_line():
    for field in dataclasses.fields(HpoConfig):
        flag = "--" + field.name.replace("_", "-")
        given = [flag] if field.type is bool else [flag, str(field.default)]
        assert field.name in command_line(HpoConfig, given, "")
    assert settings(["--compile"]).compile and not settings(["--no-compile"]).compile


def test_a_whole_number_is_a_good_learning_rate():
    assert type(settings(tuner={"lr": 1}).lr) is float


@pytest.mark.parametrize(("argv", "tuner", "words"), [
    (["--lr=-0.1"], {}, ["lr", "-0.1", "above 0"]),
    (["--lr", "0"], {}, ["lr", "0.0", "above 0"]),
    (["--lr", "nan"], {}, ["lr", "nan", "finite"]),
    (["--lr", "inf"], {}, ["lr", "inf", "finite"]),
    (["--lr", "fast"], {}, ["lr", "'fast'", "number"]),
    (["--epochs", "0"], {}, ["epochs", "0", "at least 1"]),
    (["--epochs", "2.5"], {}, ["epochs", "'2.5'", "whole number"]),
    (["--device", "tpu"], {}, ["device", "'tpu'", "auto, cpu, cuda"]),
    (["--learning-rate", "1"], {}, ["--learning-rate"]),
    ([], {"lr": "0.01"}, ["lr", "'0.01'", "number"]),
    ([], {"lr": True}, ["lr", "True", "number"]),
    ([], {"lr": None}, ["lr", "None", "number"]),
    ([], {"lr": float("nan")}, ["lr", "nan", "finite"]),
    ([], {"epochs": 3.0}, ["epochs", "3.0", "whole number"]),
    ([], {"model": 18}, ["model", "18", "text"]),
    ([], {"optimiser": "Adam"}, ["optimiser", "did you mean optimizer?"]),
    ([], {"zzz": 1}, ["zzz", "not a setting", "allowed", "batch_size"]),
    ([], {"model": "resnet19"}, ["model", "'resnet19'", "must be one of resnet18, vgg"]),
])
def test_bad_settings_are_one_line_with_exit_code_2(argv, tuner, words, capsys):
    assert run_script(lambda: settings(argv, tuner, model=["resnet18", "vgg"])) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert all(word in err for word in words), err


def test_identity_leaves_out_where_a_run_lives():
    there, here = settings(["--runs-dir", "x", "--resume"]), settings(["--name", "y"])
    assert identity(there) == identity(here)
    assert identity(settings(["--lr", "0.5"])) != identity(here)


def test_all_mistakes_are_told_at_once():
    argv = ["--lr", "fast", "--epoch", "3", "--batch-sise=8", "x", "--seed", "-1"]
    given, lines = parse(HpoConfig, argv, "")
    assert given == {"seed": -1} and lines == [
        "unrecognized arguments: --epoch 3; did you mean --epochs?",
        "unrecognized arguments: --batch-sise=8 x; did you mean --batch-size?", "lr = 'fast': must be a number"]
    with pytest.raises(Mistakes) as error:
        command_line(HpoConfig, argv, "")
    assert error.value.lines == lines and str(error.value) == "; ".join(lines)
    with pytest.raises(Mistakes) as error:
        merge(HpoConfig, {"lr": -1, "epochs": 0, "modell": "vgg"}, {"model": "resnet19", "seed": "a"}, model=["vgg"])
    assert error.value.lines == [
        "modell: not a setting; did you mean model?", "lr = -1.0: must be above 0", "epochs = 0: must be at least 1",
        "seed = 'a': must be a whole number", "model = 'resnet19': must be one of vgg"]
