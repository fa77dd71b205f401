from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from hierderm import columns as c
from hierderm.data.loaders.folder import read_folder
from hierderm.errors import CaseTableError
from hierderm.taxonomy.file import write_taxonomy
from hierderm.taxonomy.tree import taxonomy_from_paths


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def test_categories_and_conditions_make_their_own_tree(tmp_path: Path) -> None:
    image(tmp_path / "Infections" / "Impetigo" / "p1_a.jpg")
    image(tmp_path / "Infections" / "Impetigo" / "p1_b.JPG")
    image(tmp_path / "Eczemas" / "Eczema" / "p2_a.png")
    (tmp_path / "notes.txt").write_text("no image")
    found = read_folder(tmp_path, case_pattern=r"^(p\d+)_")
    frame, tree = found.frame, found.taxonomy
    assert found.brings_tree
    assert frame[c.CASE_ID].tolist() == ["p2", "p1", "p1"]
    assert frame[c.IMAGE_ID].tolist() == ["Eczemas/Eczema/p2_a", "Infections/Impetigo/p1_a", "Infections/Impetigo/p1_b"]
    assert tree.names(0) == ("Eczemas", "Infections")


def test_conditions_alone_need_a_taxonomy(tmp_path: Path) -> None:
    image(tmp_path / "images" / "Impetigo" / "a.jpg")
    with pytest.raises(CaseTableError, match=r"lie \[1\] folder\(s\) deep and no taxonomy is given"):
        read_folder(tmp_path / "images")
    tree = taxonomy_from_paths([("I", "Impetigo")], ("c", "f"), id="t")
    write_taxonomy(tree, tmp_path / "tree.csv")
    found = read_folder(tmp_path / "images", taxonomy=str(tmp_path / "tree.csv"))
    assert not found.brings_tree
    assert found.frame[c.CONDITION].tolist() == ["Impetigo"]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(CaseTableError, match="it is not a folder"):
        read_folder(tmp_path / "none")
    with pytest.raises(CaseTableError, match="holds no images"):
        read_folder(tmp_path)
    image(tmp_path / "A" / "B" / "x.jpg")
    with pytest.raises(CaseTableError, match="the case pattern 'q' finds nothing"):
        read_folder(tmp_path, case_pattern="q")
    image(tmp_path / "A" / "x.jpg")
    with pytest.raises(CaseTableError, match=r"lie \[1, 2\] folder\(s\) deep"):
        read_folder(tmp_path)
