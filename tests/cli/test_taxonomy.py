"""taxonomy list, show, find and from-csv as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.commands import fails, run


def test_taxonomy_commands(tmp_path: Path) -> None:
    assert "16 x category, 230 x condition" in run("taxonomy", "list")
    shown = run("taxonomy", "show", "scin")
    assert "Viral Infections\n" in shown and "  Herpes Zoster  [ICD-10 B02.9, SNOMED 4740000]" in shown
    assert len(json.loads(run("taxonomy", "show", "scin", "--json"))["nodes"]) == 246
    assert run("taxonomy", "find", "fitzpatrick17k", "Scabies") == "non-neoplastic > inflammatory > scabies\n"
    mine = tmp_path / "mine.csv"
    mine.write_text("diagnosis,group\nEczema,Eczemas\nImpetigo,Infections\nEczema,Eczemas\n")
    tree = tmp_path / "tree.csv"
    assert "2 x group, 2 x diagnosis" in run("taxonomy", "from-csv", mine, "--levels", "group,diagnosis", "-o", tree)
    assert run("taxonomy", "find", tree, "impetigo") == "Infections > Impetigo\n"
    assert "has no column 'grup'. Closest: 'group'" in fails(
        "taxonomy", "from-csv", mine, "--levels", "grup,diagnosis", "-o", tmp_path / "no.csv"
    )
    mine.write_text("diagnosis,group\nEczema,Eczemas\nEczema,Infections\nAcne,\n")
    assert "row(s) 4 have an empty one" in fails(
        "taxonomy", "from-csv", mine, "--levels", "group,diagnosis", "-o", tmp_path / "no.csv"
    )
    mine.write_text("diagnosis,group\nEczema,Eczemas\n,Scabies\n")
    run("taxonomy", "from-csv", mine, "--levels", "group,diagnosis", "-o", tmp_path / "short.csv")
    assert run("taxonomy", "find", tmp_path / "short.csv", "scabies") == "Scabies > Scabies\n"
    mine.write_text("diagnosis,group\nEczema,Eczemas\nEczema,Infections\n")
    assert "has two parents" in fails(
        "taxonomy", "from-csv", mine, "--levels", "group,diagnosis", "-o", tmp_path / "no.csv"
    )
