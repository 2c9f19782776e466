"""Files and names of genotypes: what is shipped is what was published, that of other code is read and never run."""

import json
from collections import Counter

import pytest

from conftest import ROOT
from models.darts.genotype import CHOSEN, Genotype, count_skips
from models.darts.genotype_files import SHIPPED, genotype_name, load_genotype, save_genotype
from small_models import CELL, GENOTYPE


def cell_with(node, pair):
    return {"normal": [pair if i == node else old for i, old in enumerate(CELL)]}


# ---- what is shipped


def test_the_published_normal_cells():
    normal = {name: [[tuple(edge) for edge in pair] for pair in load_genotype(name).normal] for name in SHIPPED}
    sep, skip, dil = "sep_conv_3x3", "skip_connect", "dil_conv_3x3"
    assert normal["DARTS_V1"] == [[(sep, 0), (sep, 1)], [(skip, 0), (sep, 1)], [(skip, 0), (sep, 1)],
                                  [(sep, 0), (skip, 2)]]
    assert normal["DARTS_V2"] == [[(sep, 0), (sep, 1)], [(sep, 0), (sep, 1)], [(skip, 0), (sep, 1)],
                                  [(skip, 0), (dil, 2)]]
    assert normal["PC_DARTS"] == [[(skip, 0), (sep, 1)], [(sep, 0), (dil, 1)], [("sep_conv_5x5", 0), (sep, 1)],
                                  [("avg_pool_3x3", 0), (dil, 1)]]
    assert [count_skips(load_genotype(name)) for name in SHIPPED] == [3, 2, 1]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_is_as_saved(name, tmp_path):
    save_genotype(tmp_path / "again.json", load_genotype(name))
    assert (tmp_path / "again.json").read_text() == (ROOT / f"models/darts/genotypes/{name}.json").read_text()


def test_json_round_trip(tmp_path):
    for name in [*SHIPPED, *(f"random:{seed}" for seed in range(50))]:
        genotype = load_genotype(name)
        assert Genotype.from_json(json.loads(json.dumps(genotype.to_json()))) == genotype
        save_genotype(tmp_path / "g.json", genotype)
        assert load_genotype(str(tmp_path / "g.json")) == genotype


# ---- names


@pytest.mark.parametrize(("name", "shipped"), [("DARTS", "DARTS_V2"), ("darts", "DARTS_V2"), ("darts-v1", "DARTS_V1"),
                                               ("Darts_V2", "DARTS_V2"), ("pc-darts", "PC_DARTS")])
def test_the_letters_of_a_name_do_not_matter(name, shipped):
    assert load_genotype(name) == load_genotype(shipped) and genotype_name(name) == shipped


@pytest.mark.parametrize(("given", "name"), [
    ("PC_DARTS", "PC_DARTS"), ("random:7", "random:7"), ("a/mine.json", "mine"), ("runs/x/genotype.json", "x"),
    ("runs/x/genotype.py", "x"), ("cells.py:BEST", "BEST"), ("a/cells.txt", "cells"), ("genotype.json", "genotype")])
def test_what_a_run_is_called(given, name):
    assert genotype_name(given) == name


def test_a_file_comes_before_a_name_in_other_letters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("darts", "PC_DARTS"):
        save_genotype(name, load_genotype("random:0"))
    assert load_genotype("darts") == load_genotype("random:0") and load_genotype("PC_DARTS").normal[0][0].source == 0
    assert load_genotype("PC_DARTS") != load_genotype("random:0")


# ---- random ones


def test_random_genotypes_are_uniform_over_the_space():
    genotypes = [load_genotype(f"random:{seed}") for seed in range(2000)]
    assert len(set(genotypes)) == 2000
    for node, pairs in ((0, 1), (3, 10)):
        sources = Counter(tuple(edge.source for edge in g.normal[node]) for g in genotypes)
        assert len(sources) == pairs and min(sources.values()) > 0.75 * 2000 / pairs
        first = Counter(g.reduction[node][0].operation for g in genotypes)
        assert set(first) == set(CHOSEN) and min(first.values()) > 0.75 * 2000 / len(CHOSEN)
    both = Counter((g.normal[0][0].operation, g.normal[0][1].operation) for g in genotypes)
    assert len(both) == len(CHOSEN) ** 2  # an operation may come twice


def test_a_seed_is_the_same_genotype_for_everybody():
    assert [[tuple(edge) for edge in pair] for pair in load_genotype("random:0").normal] == [
        [("skip_connect", 0), ("max_pool_3x3", 1)], [("dil_conv_5x5", 1), ("sep_conv_3x3", 2)],
        [("sep_conv_5x5", 1), ("skip_connect", 2)], [("skip_connect", 1), ("avg_pool_3x3", 4)]]
    assert load_genotype("random:0") != load_genotype("random:1")


# ---- of other code

PUBLISHED = {  # word for word, but for line breaks
    "DARTS_V1": """Genotype(
        normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1),
                ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)],
        normal_concat=[2, 3, 4, 5],
        reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0),
                ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)],
        reduce_concat=[2, 3, 4, 5])""",
    "DARTS_V2": """Genotype(
        normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),
                ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)],
        normal_concat=[2, 3, 4, 5],
        reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1),
                ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)],
        reduce_concat=[2, 3, 4, 5])""",
    "PC_DARTS": """Genotype(
        normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), ('dil_conv_3x3', 1),
                ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), ('dil_conv_3x3', 1)],
        normal_concat=range(2, 6),
        reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_5x5', 2),
                ('sep_conv_3x3', 0), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)],
        reduce_concat=range(2, 6))"""}
MODULE = "\n".join([  # as such a file is, with cells that are not in our space
    "from collections import namedtuple", "import os", "",
    "Genotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')",
    "PRIMITIVES = ['none', 'skip_connect']", "open('was_run', 'w').write(os.getcwd())",
    "NASNet = Genotype(normal=[('sep_conv_7x7', 1)] * 10, normal_concat=[2, 3, 4, 5, 6], reduce=[], reduce_concat=[4])",
    *(f"{name} = {text}" for name, text in PUBLISHED.items()), "DARTS = DARTS_V2", "'about'"])


@pytest.mark.parametrize("name", SHIPPED)
def test_the_published_text_is_the_shipped_genotype(name, tmp_path):
    shipped, text = load_genotype(name), PUBLISHED[name]
    (tmp_path / "cells.txt").write_text(f"\n{text}\n")
    (tmp_path / "one.py").write_text(f"\ufeff# mine\nBEST = {text}\nALSO = BEST\n", encoding="utf-8")
    for given in (text, f" {text} ", " ".join(text.split()), tmp_path / "cells.txt", tmp_path / "one.py",
                  f"{tmp_path / 'one.py'}:BEST", f"{tmp_path / 'one.py'}:ALSO"):
        assert load_genotype(str(given)) == shipped
    assert genotype_name(text).startswith("genotype-") and len(genotype_name(text)) == 17


@pytest.mark.parametrize("name", [*SHIPPED, *(f"random:{seed}" for seed in range(5))])
def test_the_text_that_is_written_is_read_back_equal(name, tmp_path):
    genotype = load_genotype(name)
    save_genotype(tmp_path / "genotype.py", genotype)
    text = (tmp_path / "genotype.py").read_text()
    assert load_genotype(str(tmp_path / "genotype.py")) == load_genotype(text) == genotype
    assert text.startswith("Genotype(normal=[('") and text.count("_concat=[2, 3, 4, 5]") == 2 and text.count("\n") == 1


def test_one_of_several_in_a_file_that_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "genotypes.py").write_text(MODULE)
    for name in (*SHIPPED, "DARTS"):
        assert load_genotype(f"genotypes.py:{name}") == load_genotype(name)
    assert [path.name for path in tmp_path.iterdir()] == ["genotypes.py"]
    exec(MODULE, {})  # the test would see it
    assert (tmp_path / "was_run").exists()


def others(**changes):
    """As JSON of other code."""
    edges = [list(edge) for pair in load_genotype("DARTS_V2").normal for edge in pair]
    value = {"normal": edges, "normal_concat": [2, 3, 4, 5], "reduce": edges, "reduce_concat": [2, 3, 4, 5], **changes}
    return {key: value for key, value in value.items() if value is not None}


def test_json_of_other_code(tmp_path):
    (tmp_path / "g.json").write_text(json.dumps(others()))
    normal = load_genotype("DARTS_V2").normal
    assert load_genotype(str(tmp_path / "g.json")) == Genotype(normal, normal)


EDGES = [["skip_connect", 0], ["skip_connect", 1]]


@pytest.mark.parametrize(("change", "words"), [
    ({"normal_concat": [2, 3, 4]}, ["normal_concat = [2, 3, 4]: must be [2, 3, 4, 5]", "all four nodes"]),
    ({"reduce_concat": [2, 3, 4, 5, 6]}, ["reduce_concat = [2, 3, 4, 5, 6]", "all four nodes"]),
    ({"reduce_concat": "2345"}, ["reduce_concat = '2345'", "all four nodes"]),
    ({"reduce_concat": {"2": 3}}, ["reduce_concat = {'2': 3}", "all four nodes"]),
    ({"normal_concat": None}, ["normal_concat is missing", "reduce_concat"]),
    ({"normal": None}, ["normal is missing"]),
    ({"normal": EDGES * 3}, ["normal = [['skip", "8 edges"]),
    ({"normal": "ab" * 4}, ["normal = 'abab", "8 edges"]),
    ({"reduce": {}}, ["reduce = {}", "8 edges"]),
    ({"reduce": [3] * 8}, ["reduction, node 0", "edge 3"]),
    ({"reduce": [["skip_connect", 0]] * 8}, ["reduction, node 0", "both", "source 0"]),
    ({"normal": [["conv_7x1_1x7", 0], *(EDGES * 4)[1:]]}, ["normal, node 0", "'conv_7x1_1x7'", "sep_conv_5x5"]),
    ({"normal": [["skip_connect", 2], *(EDGES * 4)[1:]]}, ["normal, node 0", "source 2", "0 to 1"]),
    ({"reduction": EDGES * 4}, ["reduction: no such key", "reduce_concat"]),
])
def test_bad_json_of_other_code(change, words, tmp_path):
    assert_refused(tmp_path / "g.json", json.dumps(others(**change)), words)


def assert_refused(path, text, words, name=""):
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        load_genotype(f"{path}{name}")
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"{path}: ") and message.count(str(path)) == 1
    assert all(word in message for word in words), message


def text_with(**changes):
    keys = {"normal": f"{EDGES * 4}", "normal_concat": "range(2, 6)", "reduce": f"{EDGES * 4}",
            "reduce_concat": "range(2, 6)", **changes}
    return f"Genotype({', '.join(f'{key}={value}' for key, value in keys.items())})"


@pytest.mark.parametrize(("text", "words"), [
    (text_with(normal_concat="range(2, 5)"), ["normal_concat = range(2, 5)", "all four nodes"]),
    (text_with(normal_concat="range(9**99)"), ["normal_concat = range(9 ** 99)", "written out"]),
    (text_with(normal_concat=f"range({10**30})"), ["normal_concat = range(0, 1000000000", "all four nodes"]),
    (text_with(normal_concat="range(2, 6, 0)"), ["normal_concat = range(2, 6, 0)", "written out"]),
    (text_with(normal_concat="{2, 3, 4, 5}"), ["normal_concat = {2, 3, 4, 5}", "all four nodes"]),
    (text_with(normal=f"range({10**30})"), ["normal = range(0, 1", "8 edges"]),
    (text_with(normal="open('was_run', 'w')"), ["normal = open('was_run', 'w')", "written out"]),
    (text_with(normal=f"{EDGES} * 4"), ["normal = [['skip", "written out"]),
    (text_with(normal="{[]: 1}"), ["normal = {[]: 1}", "written out"]),
    (text_with(normal="-" * 9999 + "1"), ["nested too deeply"]),
    (text_with(normal="(" * 999), ["not Python", "line 1"]),
    (text_with(normal="cells"), ["normal = cells", "written out"]),
    (text_with(redution="[]"), ["redution: no such key", "reduce"]),
    (text_with(reduce="[], normal=[]"), ["normal, normal_concat, reduce, reduce_concat once"]),
    ("Genotype([], [], [], [])", ["normal, normal_concat, reduce, reduce_concat once"]),
    ("Genotype(**cells)", ["normal, normal_concat, reduce, reduce_concat once"]),
    ("Genotype(normal=[", ["not Python", "line 1"]),
    ("Genotype()", ["normal is missing"]),
])
def test_bad_text_of_other_code(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for suffix in ("txt", "py"):
        assert_refused(tmp_path / f"g.{suffix}", text, words)
    with pytest.raises(ValueError) as caught:
        load_genotype(text)
    assert str(caught.value).startswith("genotype: ") and all(word in str(caught.value) for word in words)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(("text", "name", "words"), [
    ("", "", ["no Genotype(...) in it"]), ("x = 3", "", ["no Genotype(...) in it"]),
    (MODULE, "", ["several", "NASNet, DARTS_V1, DARTS_V2, PC_DARTS, DARTS"]),
    (MODULE, ":DARTS_V3", ["no DARTS_V3 = Genotype(...) in it", "did you mean DARTS_V"]),
    (MODULE, ":Ours", ["no Ours = Genotype(...) in it", "allowed: NASNet, DARTS_V1"]),
    (MODULE, ":NASNet", ["normal = [('sep_conv_7x7', 1)] * 10", "written out"]),
    ("x = 3", ":x", ["no x = Genotype(...) in it", "allowed: nothing"]), ("if:", "", ["not Python", "line 1"]),
])
def test_a_file_without_the_wanted_genotype(text, name, words, tmp_path):
    assert_refused(tmp_path / "g.py", text, words, name)


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "g.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="decode"):
        load_genotype(str(tmp_path / "g.txt"))
    (tmp_path / "g.txt").write_text("Genotype(\0)")
    with pytest.raises(ValueError, match="null bytes"):
        load_genotype(str(tmp_path / "g.txt"))


# ---- bad input


@pytest.mark.parametrize(("change", "words"), [
    (cell_with(1, [["sep_conv_7x7", 0], ["skip_connect", 1]]), ["normal, node 1", "'sep_conv_7x7'", "sep_conv_5x5"]),
    (cell_with(1, [["none", 0], ["skip_connect", 1]]), ["normal, node 1", "'none'", "one of max_pool_3x3"]),
    (cell_with(1, [[3, 0], ["skip_connect", 1]]), ["normal, node 1", "operation 3"]),
    (cell_with(1, [[["none"], 0], ["skip_connect", 1]]), ["normal, node 1", "operation ['none']"]),
    (cell_with(0, [["skip_connect", 0], ["skip_connect", 2]]), ["normal, node 0", "source 2", "0 to 1"]),  # itself
    (cell_with(1, [["skip_connect", 4], ["skip_connect", 0]]), ["normal, node 1", "source 4", "0 to 2"]),  # a later one
    (cell_with(1, [["skip_connect", -1], ["skip_connect", 0]]), ["source -1"]),
    (cell_with(1, [["skip_connect", True], ["skip_connect", 0]]), ["source True"]),
    (cell_with(1, [["skip_connect", 1.0], ["skip_connect", 0]]), ["source 1.0"]),
    (cell_with(1, [["skip_connect", "1"], ["skip_connect", 0]]), ["source '1'"]),
    (cell_with(2, [["skip_connect", 1], ["sep_conv_3x3", 1]]), ["normal, node 2", "both", "source 1", "different"]),
    (cell_with(2, [["skip_connect", 1]]), ["normal, node 2", "two edges"]),
    (cell_with(2, [["skip_connect", 1, 2], ["skip_connect", 0]]), ["edge ['skip_connect', 1, 2]"]),
    (cell_with(2, ["ab", "cd"]), ["normal, node 2", "edge 'ab'"]),
    (cell_with(2, "ab"), ["normal, node 2", "two edges"]),
    (cell_with(2, None), ["normal, node 2 = None"]),
    ({"normal": CELL[:3]}, ["normal", "3 nodes", "4"]),
    ({"reduction": [*CELL, CELL[0]]}, ["reduction", "5 nodes"]),
    ({"reduction": None}, ["reduction = None", "pairs of edges"]),
    ({"reduction": {"0": CELL[0]}}, ["reduction = {", "pairs of edges"]),
    ({"schema": 2}, ["schema = 2", "newer than 1"]),
    ({"schema": "1"}, ["schema = '1'", "must be 1"]),
    ({"schema": True}, ["schema = True", "must be 1"]),
    ({"schema": 0}, ["schema = 0"]),
    ({"reduce": CELL}, ["reduce", "no such key", "reduction"]),
])
def test_a_bad_genotype_file_is_named_in_one_line(change, words, tmp_path):
    path = tmp_path / "genotype.json"
    path.write_text(json.dumps({**GENOTYPE, **change}))
    with pytest.raises(ValueError) as caught:
        load_genotype(str(path))
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"{path}: ") and message.count(str(path)) == 1
    assert all(word in message for word in words), message


@pytest.mark.parametrize(("text", "words"), [
    ("{", "not valid JSON"), ("[]", "no genotype"), ("3", "no genotype"), ("{}", "schema = None"), ("", "not valid"),
    (json.dumps({"schema": 1, "normal": CELL}), "reduction = None")])
def test_what_is_no_genotype_file_is_refused(text, words, tmp_path):
    path = tmp_path / "genotype.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        load_genotype(str(path))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "words"), [
    ("DARTS_V3", ["'DARTS_V3'", "DARTS_V1, DARTS_V2, PC_DARTS, random:SEED", "did you mean DARTS_V"]),
    ("pc-dart", ["'pc-dart'", "did you mean PC_DARTS?"]), ("genotypes.py:X", ["'genotypes.py:X'", "neither a file"]),
    ("genotype(normal=[])" * 50, ["neither a file"]),
    ("nowhere/genotype.json", ["'nowhere/genotype.json'", "neither a file"]), (".", ["'.'", "neither a file"]),
    ("random:", ["'random:'", "whole number"]), ("random:x", ["'random:x'"]), ("random:-1", ["'random:-1'"]),
    ("random:1.5", ["'random:1.5'"]), ("", ["''", "neither a file"]),
])
def test_a_bad_name_is_told_what_is_allowed(name, words):
    with pytest.raises(ValueError) as caught:
        load_genotype(name)
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words), caught.value
