"""What the page says of a table of pictures, of what is missing, and of times."""

import shlex

import pytest
import yaml
from test_report import build, everything, result, write_run

from conftest import ROOT
from reporting.sections import COMMANDS, TRIALS


def test_a_table_is_named_with_its_folder_and_its_notes_are_told(tmp_path):
    """Nothing of the folders above it: a page is shown to others."""
    told = result(data="/home/me/birds/labels.csv")
    told["data"] |= {"broken": 4, "notes": ["the table is no UTF-8 and was read as Windows-1252",
                                            "not used, since in no class: 1 in /home/me/birds/labels.csv itself"]}
    write_run(tmp_path / "runs", "hpo/x", told)
    page, text = build(tmp_path / "runs")
    assert text.startswith("# Results: birds/labels.csv\n") and "birds/labels.csv, 80 training and 20" in text
    assert ("\n\n> - left out: 4 pictures that cannot be used\n\n- the table is no UTF-8 and was read as Windows-1252\n"
            "- not used, since in no class: 1 in birds/labels.csv itself\n" in text)
    assert "/home" not in page + text


def test_nothing_is_missing_of_the_results(tmp_path):
    """Pictures may be, which is told with these."""
    _, text = build(everything(tmp_path / "runs"))
    assert "## Broken or unfinished results\n\n- No result is broken or unfinished.\n\n## Where" in text


def test_what_was_not_run_is_offered_for_the_same_pictures(tmp_path, capsys):
    """And is no problem: a pipeline may have left it out on purpose."""
    told = result("retrain", data="/home/me/My photos", test={"accuracy": 0.9, "loss": 1.0, "images": 10})
    told["config"] |= {"skip_broken": True, "test_share": 0.3, "fit": "pad"}
    write_run(tmp_path, "retrain/x", told)
    _, text = build(tmp_path)
    options = "--data 'My photos' --test-share 0.3 --skip-broken"
    left = text[text.index("- No result is broken"):text.index("## Where")]
    assert f"\n- DARTS search: `python darts_search.py {options}`\n" in left and "final training" not in left
    [words] = [shlex.split(line.split("`")[1]) for line in left.splitlines() if line.startswith("- hyper-parameters")]
    assert words[-1] == f"trialCommand=python hpo_trial.py --epochs 30 {options}"
    assert "0 experiments, 1 run, 0 problems" in capsys.readouterr().out


def test_what_is_offered_is_what_the_files_run():
    for stage, trial in TRIALS.items():
        command = yaml.safe_load((ROOT / COMMANDS[stage].split()[-1]).read_text())["trialCommand"]
        assert trial == command.replace(" --data cifar10", "")


@pytest.mark.parametrize(("counts", "told"), [
    ({"subfolders": 12}, "12 folders within classes: their pictures are split at random"),
    ({"duplicates_across": 1}, "1 picture is in two of training, validation and test"), ({"duplicates": 3}, "")])
def test_why_an_accuracy_may_say_too_much_stands_beside_it(tmp_path, counts, told):
    """On the page's first lines, before and after the test."""
    for stage, test in (("hpo", {}), ("retrain", {"test": {"accuracy": 0.9, "loss": 1.0, "images": 10}})):
        one = result(stage, **test)
        one["data"] |= counts
        write_run(tmp_path / stage, f"{stage}/x", one)
        first, second = build(tmp_path / stage)[1].split("\n\n")[1:3]
        assert "right" in first and second.startswith(f"> Caution: {told}") == bool(told)


def test_each_time_says_of_what_it_is(tmp_path):
    _, text = build(everything(tmp_path / "runs"))
    assert "| time of its process |" in text and "| seconds of training |" in text
    assert "Seconds: without the start of its process, which the times in the tables of trials contain." in text
