"""What the page says of a table of pictures, of what is missing, and of times."""

from test_report import build, everything, result, write_run


def test_a_table_is_named_with_its_folder_and_its_notes_are_told(tmp_path):
    """Nothing of the folders above it: a page is shown to others."""
    told = result(data="/home/me/birds/labels.csv")
    told["data"] |= {"broken": 4, "notes": ["the table is no UTF-8 and was read as Windows-1252",
                                            "not used, since in no class: 1 in /home/me/birds/labels.csv itself"]}
    write_run(tmp_path / "runs", "hpo/x", told)
    page, text = build(tmp_path / "runs")
    assert text.startswith("# Results: birds/labels.csv\n") and "birds/labels.csv, 80 training and 20" in text
    assert ("> Of the files: 4 pictures that cannot be used left out; the table is no UTF-8 and was read as Windows-"
            "1252; not used, since in no class: 1 in birds/labels.csv itself." in text)
    assert "/home" not in page + text


def test_nothing_is_missing_of_the_results(tmp_path):
    """Pictures may be, which is told with these."""
    _, text = build(everything(tmp_path / "runs"))
    assert "## Missing or broken results\n\n- No result is missing or broken.\n" in text


def test_each_time_says_of_what_it_is(tmp_path):
    _, text = build(everything(tmp_path / "runs"))
    assert "| time of its process |" in text and "| seconds of training |" in text
    assert "Seconds: without the start of its process, which the times in the tables of trials contain." in text
