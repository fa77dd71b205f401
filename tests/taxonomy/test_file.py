from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hierderm.errors import TaxonomyError
from hierderm.taxonomy.file import (
    format_taxonomy,
    load_taxonomy,
    parse_taxonomy,
    read_taxonomy,
    shipped_taxonomies,
    write_taxonomy,
)
from hierderm.taxonomy.names import fold
from hierderm.taxonomy.nodes import Node
from hierderm.taxonomy.tree import Taxonomy

HEAD = "# id: t\n# version: 1\n# levels: category, condition\nlevel,name,parent,synonyms\n"
TABS = "# id: t\n# version: 1\n# levels: category, condition\n" + (
    "level\tname\tparent\ncategory\tA\t\ncategory\tB\t\ncondition\tx, y\tA\ncondition\tz\tB\n"
)
GOOD = HEAD + 'category,A,,\ncategory,B,,\ncondition,"x, y",A,ex|why\ncondition,z,B,\n'


def faults(text: str) -> str:
    with pytest.raises(TaxonomyError) as caught:
        parse_taxonomy(text, source="t.csv")
    return str(caught.value)


def test_a_good_file() -> None:
    tree = parse_taxonomy(GOOD)
    assert tree.names() == ("x, y", "z")
    assert tree.index("WHY") == 0
    assert parse_taxonomy(format_taxonomy(tree)) == tree


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("condition,z,A,\n", "line 9: 'z' has two parents: 'B' (line 8), 'A'."),
        ("condition, Ź ,B,\n", "line 9: 'Ź' is a duplicate of line 8."),
        ("condition,w,B,z\n", "line 9: the synonym 'z' already belongs to 'z' (line 8)."),
        ("condition,w,B,EX\n", "line 9: the synonym 'EX' already belongs to 'x, y' (line 7)."),
        ("condition,w,Bb,\n", "line 9: unknown parent 'Bb' of 'w'. Closest: 'B'."),
        ("condition,w,z,\n", "line 9: unequal depth: the parent 'z' of 'w' is on level 'condition' (line 8)"),
        (
            "category,C,,\n",
            "line 9: unequal depth: 'C' has no condition under it. If it is a condition itself, let it repeat itself there: add the row 'condition,C,C'.",
        ),
        ("category,C,A,\n", "line 9: 'C' is on the top level 'category' and must have no parent."),
        ("condition,w,,\n", "line 9: 'w' must have a parent on level 'category'."),
        ("condition,,A,\n", "line 9: the name must not be empty."),
        ("kind,w,A,\n", "line 9: level must be one of ['category', 'condition'], got 'kind'."),
        ("condition,w,w,\n", "line 9: cycle: w -> w."),
        ("condition,w,v,\ncondition,v,w,\n", "line 9: cycle: w -> v -> w."),
        ("condition,a, b,A,x\n", "row 9: 5 cells, the header has 4. A cell that holds a separator must be quoted."),
    ],
)
def test_each_fault_with_its_line(rows: str, message: str) -> None:
    assert message in faults(GOOD + rows)


def test_all_faults_at_once() -> None:
    message = faults(GOOD + "condition,,A,\ncondition,w,Q,\ncondition,z,A,\n")
    assert message.startswith("t.csv has 3 fault(s):")
    assert all(f"line {line}" in message for line in (9, 10, 11))


def test_faults_of_the_head() -> None:
    message = faults("# id: t\nlevel,nam\n")
    assert "the file must begin with a line '# version: ...'" in message
    assert "the file must begin with a line '# levels: ...'" in message
    message = faults("# id: t\n# version: 1\n# levels: a\nlevel,nam,parent\n")
    assert "line 4: unknown column 'nam'. Closest: 'name'." in message
    assert "line 4: the column 'name' is missing." in message
    assert "a taxonomy must have at least one node" in faults(HEAD)


def test_a_spreadsheet_may_pad_and_quote_the_head() -> None:
    padded = GOOD.replace("# levels: category, condition", '"# levels: category, condition"')
    assert parse_taxonomy(padded) == parse_taxonomy(GOOD)
    assert parse_taxonomy(GOOD.replace("# version: 1", "# version: 1,,,")).version == "1"
    semicolons = GOOD.replace(",", ";").replace('"x; y"', "x, y").replace("category; cond", "category, cond")
    for text in (semicolons, semicolons.replace("\n", "\r\n")):
        assert parse_taxonomy(text).names() == ("x, y", "z")


def test_write_and_read(tmp_path: Path) -> None:
    tree = parse_taxonomy(GOOD)
    write_taxonomy(tree, tmp_path / "new" / "t.csv")
    assert read_taxonomy(tmp_path / "new" / "t.csv") == tree
    (tmp_path / "latin.csv").write_bytes(GOOD.encode() + "condition,é,A,\n".encode("latin-1"))
    assert read_taxonomy(tmp_path / "latin.csv").names()[-1] == "é"
    (tmp_path / "latin.csv").write_bytes(GOOD.encode() + "condition,łuszczyca,A,\n".encode("cp1250"))
    with pytest.raises(TaxonomyError, match="must be UTF-8"):
        read_taxonomy(tmp_path / "latin.csv")


NAME = st.text(min_size=1, max_size=8).filter(lambda t: t == t.strip() and fold(t) and not set("\r\n\0|") & set(t))


@example(["Atopic\u2028dermatitis", "Nummular\x0beczema", 'the "real" one', "sep=;", "#x", "a;b", "x\x85y"])
@given(st.lists(NAME, min_size=1, max_size=6, unique_by=fold))
def test_every_tree_is_read_as_it_was_written(names: list[str]) -> None:
    nodes = tuple(
        Node(name, 0, synonyms=(f"other {name}", "x" * number + name)) for number, name in enumerate(names, 3)
    )
    tree = Taxonomy("t", "1", ("category", "condition"), ((Node(names[0]),), nodes))
    assert parse_taxonomy(format_taxonomy(tree)) == tree


def test_what_is_read_as_another_encoding_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.csv").write_bytes(TABS.encode("utf-16"))
    assert read_taxonomy(str(tmp_path / "t.csv")).names() == ("x, y", "z")
    assert "UTF-16" in caplog.text and "separated by tabs" in caplog.text


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(TaxonomyError, match=re.escape("'scinn' is neither. Closest: 'scin'.")):
        load_taxonomy("scinn")


@pytest.mark.parametrize("name", sorted(shipped_taxonomies()))
def test_shipped_trees_are_written_as_read(name: str) -> None:
    tree = load_taxonomy(name)
    assert tree.id == name
    assert parse_taxonomy(format_taxonomy(tree)) == tree


def test_scin_has_the_seeds_categories() -> None:
    tree = load_taxonomy("scin")
    assert (tree.size(0), tree.size(1)) == (16, 230)
    notes = [node.note for node in tree.levels[1]]
    assert sum(note == "seed" for note in notes) == 83
    assert all(note == "seed" or (note.startswith("placed: ") and len(note) > len("placed: ")) for note in notes)
    kinds = {node.name: node.kind for node in tree.levels[1]}
    assert kinds["O/E - pustules"] == kinds["Koebner phenomenon"] == "finding"
    assert kinds["Inflammatory dermatosis"] == "group"
    assert tree.names(0)[tree.to_level(tree.index("shingles"), 0)] == "Viral Infections"


def test_scin_resolves_the_published_names() -> None:
    published = Path(__file__).parents[3] / "shared" / "scin" / "conditions.csv"
    if not published.is_file():
        pytest.skip("needs ../shared/scin/conditions.csv, which is not part of the project")
    import csv

    tree = load_taxonomy("scin")
    for row in csv.DictReader(published.read_text(encoding="utf-8").splitlines()):
        number = tree.index(row["condition"])
        if row["seed_category"]:
            assert tree.names(0)[tree.to_level(number, 0)] == row["seed_category"]


def test_fitzpatrick17k_has_three_levels() -> None:
    tree = load_taxonomy("fitzpatrick17k")
    assert [tree.size(level) for level in range(3)] == [3, 9, 114]
    assert tree.lca_height[tree.index("melanoma"), tree.index("malignant melanoma")] == 1
    assert tree.lca_height[tree.index("melanoma"), tree.index("basal cell carcinoma")] == 2


def test_ham10000_knows_its_codes() -> None:
    tree = load_taxonomy("ham10000")
    malignant = [tree.names()[i] for i in range(7) if tree.to_level(i, 0) == 1]
    assert malignant == ["actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma", "melanoma"]
    assert [tree.index(code) for code in ("bkl", "df", "nv", "vasc", "akiec", "bcc", "mel")] == list(range(7))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("isic", [3, 44, 244]),
        ("pad_ufes", [2, 6]),
        ("ddi", [2, 11, 78]),
        ("derm7pt", [2, 5, 20]),
        ("ham10000", [2, 7]),
        ("isic_challenge", [2, 9]),
    ],
)
def test_each_condition_says_why_it_is_placed_there(name: str, sizes: list[int]) -> None:
    tree = load_taxonomy(name)
    assert [tree.size(level) for level in range(tree.n_levels)] == sizes
    assert all(node.note for node in tree.levels[-1])
    codes = [code for node in tree.levels[-1] for code in node.icd10]
    assert codes and all(re.fullmatch(r"[A-Z]\d{2}(\.\d)?", code) for code in codes)
    assert all(code.isdecimal() for node in tree.levels[-1] for code in node.snomed)


def test_codes_of_one_disease_are_the_same_in_all_shipped_trees() -> None:
    found: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    for name in shipped_taxonomies():
        for node in load_taxonomy(name).levels[-1]:
            for kind, codes in (("snomed", node.snomed), ("icd10", node.icd10)):
                if codes:
                    found.setdefault((fold(node.name), kind), set()).add(codes)
    # PAD-UFES-20 counts Bowen's disease, a carcinoma in situ, among them.
    wider = {("squamous cell carcinoma", "icd10"): {("C44.9",), ("C44.9", "D04.9")}}
    assert {key: codes for key, codes in found.items() if len(codes) > 1} == wider


def test_what_the_data_sets_write_is_known() -> None:
    def path(tree: str, label: str) -> list[str]:
        found = load_taxonomy(tree)
        return [found.names(level)[number] for level, number in enumerate(found.ancestors[found.index(label)])]

    assert path("isic", "melanoma") == ["Malignant", "Malignant melanocytic proliferations (Melanoma)", "Melanoma, NOS"]
    assert path("isic", "Benign") == ["Benign"] * 3
    assert path("pad_ufes", "BOD") == ["skin cancer", "squamous cell carcinoma"]
    assert path("ddi", "nodular-melanoma-(nm)") == ["malignant", "melanoma", "nodular melanoma"]
    assert path("derm7pt", "reed or spitz nevus") == ["benign", "nevus", "reed or spitz nevus"]
    assert path("derm7pt", "melanoma (0.76 to 1.5 mm)")[:2] == ["malignant", "melanoma"]


LINES = ["# id: t", "# version: 1", "# levels: a, b", "level,name,parent", "a,A,", "b,x,A"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quoted", [False, True])
def test_any_line_ends_and_quotes_of_a_spreadsheet(end: str, quoted: bool) -> None:
    """As a spreadsheet that quotes all cells writes the head: the levels are two cells."""
    head = ['"# id: t",""', '"# version: 1",""', '"# levels: a"," b"'] if quoted else LINES[:3]
    tree = parse_taxonomy(end.join([*head, *LINES[3:]]) + end)
    assert (tree.id, tree.level_names, tree.names()) == ("t", ("a", "b"), ("x",))


@pytest.mark.parametrize("n_lines", range(6))
@pytest.mark.parametrize("end", ["", "\n", "\r"])
def test_a_file_that_ends_early_is_refused(n_lines: int, end: str) -> None:
    with pytest.raises(TaxonomyError, match=r"must (begin|have)|unequal depth"):
        parse_taxonomy((end or "\n").join(LINES[:n_lines]) + end)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(TaxonomyError, match=rf"^{path}: "):
            read_taxonomy(path)
