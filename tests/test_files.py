"""Files: what is wrong with JSON, and where."""

import json
from pathlib import Path

import pytest

from files import read_json, read_object


def test_json_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    for number, mark in enumerate((b"", b"\xef\xbb\xbf")):
        (tmp_path / f"{number}.json").write_bytes(mark + '{"ä": [1e-3, true]}'.encode())
        assert read_json(tmp_path / f"{number}.json") == {"ä": [0.001, True]}


@pytest.mark.parametrize(("content", "words"), [
    ('{\n  "a": 1,\n}', "not valid JSON (line 3, column 1: a comma before })"),
    ("[1, 2,]", "not valid JSON (line 1, column 7: a comma before ])"),
    ('{\n  "a": 1  // why\n}', "not valid JSON (line 2, column 11: it has no comments)"),
    ('# why\n{"a": 1}', "not valid JSON (line 1, column 1: it has no comments)"),
    ("{'a': 1}", "not valid JSON (line 1, column 2: Expecting property name enclosed in double quotes, found "),
    ('{"a": None}', "not valid JSON (line 1, column 7: Expecting value, found 'None}')"),
    ('{"a": 1', "not valid JSON (line 1, column 8: it ends too early)"),
    ("", "not valid JSON (line 1, column 1: it is empty)"),
    ('{"a": 1, "b": {"c": 1, "c": 2}}', "not valid JSON (key 'c' stands twice)"),
    (b'{"a": "\xe9"}', "not valid JSON (byte 8 is not UTF-8)"), ("[" * 100_000, "not valid JSON (nested too deeply)")],
    ids=lambda value: ascii(value)[:30])
def test_broken_json_says_what_and_where(tmp_path: Path, content: str | bytes, words: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as error:
        read_json(file)
    assert str(error.value).startswith(f"{file}: ") and words in str(error.value) and "\n" not in str(error.value)
    assert not isinstance(error.value, json.JSONDecodeError) and read_object(file) is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        read_json(tmp_path / "a.json")
