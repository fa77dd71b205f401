from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hierderm.data.condition_names import proposed_names, read_names, unknown_names, with_synonyms
from hierderm.delimited import format_delimited
from hierderm.errors import CaseTableError, TaxonomyError
from hierderm.taxonomy.file import load_taxonomy
from hierderm.taxonomy.tree import taxonomy_from_paths

TREE = load_taxonomy("scin")


def test_unknown_names_and_their_nearest(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "condition": ["Eczma", "Eczma ", "eczema", "zzz", "Psoriasys"],
            "weights": ["", '{"Shingels": 0.5, "Eczma": 0.5}', "no json", "", ""],
        }
    )
    unknown = unknown_names(frame, TREE)
    assert unknown == {"Eczma": 2, "zzz": 1, "Psoriasys": 1, "Shingels": 0}
    rows = proposed_names(unknown, TREE)
    assert rows[0] == ("name", "condition", "images", "closest")
    assert [(row[0], row[1], row[2]) for row in rows[1:]] == [
        ("Eczma", "Eczema", "2"), ("zzz", "", "1"), ("Psoriasys", "Psoriasis", "1"), ("Shingels", "Herpes Zoster", "0"),
    ]  # fmt: skip
    (tmp_path / "names.csv").write_text(format_delimited(rows), encoding="utf-8")
    names = read_names(tmp_path / "names.csv", TREE)
    assert names == {"Eczma": "Eczema", "Psoriasys": "Psoriasis", "Shingels": "Herpes Zoster"}
    tree = with_synonyms(TREE, names)
    assert tree.index("PSORIASYS") == TREE.index("Psoriasis") and tree.content_hash == TREE.content_hash
    assert set(unknown_names(frame, tree)) == {"zzz"}


def test_faults_of_an_edited_table(tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    path.write_text("name,condition\nx,Eczma\ny,hives\ny,Eczema\ny,Urticaria\nz,\n", encoding="utf-8")
    with pytest.raises(CaseTableError) as caught:
        read_names(path, TREE)
    message = str(caught.value)
    assert message.startswith("n.csv has 2 fault(s):")
    assert "n.csv row 2: condition 'Eczma' is not in taxonomy 'scin'. Closest: 'Eczema'" in message
    assert "n.csv row 4: 'y' is already 'Urticaria'; a name must have one condition." in message
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(
        CaseTableError, match=r"n\.csv must have the columns name and condition; \['name', 'condition'\]"
    ):
        read_names(path, TREE)


def test_more_synonyms_leave_the_tree_as_it_is() -> None:
    tree = taxonomy_from_paths([("A", "x"), ("B", "y")], ("c", "f"), id="t")
    more = with_synonyms(tree, {"ex": "X", "x ": "x", "why": "y"})
    assert (more.index("EX"), more.index("why")) == (0, 1) and more.content_hash == tree.content_hash
    assert more.levels[-1][0].synonyms == ("ex",)
    with pytest.raises(TaxonomyError, match=r"'y' must not stand for 'x': it is 'y'\."):
        with_synonyms(tree, {"y": "x"})
    with pytest.raises(TaxonomyError, match="f 'z' is not in taxonomy 't'"):
        with_synonyms(tree, {"a": "z"})
