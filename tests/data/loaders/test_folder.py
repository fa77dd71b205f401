from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hierderm import columns as c
from hierderm.data.image_files import SUFFIXES, find_images
from hierderm.data.loaders.folder import read_folder
from hierderm.errors import CaseTableError
from hierderm.taxonomy.file import write_taxonomy
from hierderm.taxonomy.tree import taxonomy_from_paths

_BUFFER = io.BytesIO()
Image.new("RGB", (4, 4)).save(_BUFFER, "JPEG")
JPEG = _BUFFER.getvalue()


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


def test_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "A" / "x" / "1.jpg")
    monkeypatch.chdir(tmp_path)
    for name in (".", "./A/..", str(tmp_path) + "/"):
        assert read_folder(name).frame[c.CONDITION].tolist() == ["x"]  # type: ignore[arg-type]


def test_conditions_alone_need_a_taxonomy(tmp_path: Path) -> None:
    image(tmp_path / "images" / "Impetigo" / "a.jpg")
    with pytest.raises(CaseTableError, match=r"lie \[1\] folder\(s\) deep \(Impetigo/a.jpg\) and no taxonomy"):
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
    with pytest.raises(CaseTableError, match=r"the case pattern '\(' is no regular expression"):
        read_folder(tmp_path, case_pattern="(")
    image(tmp_path / "A" / "x.jpg")
    with pytest.raises(CaseTableError, match=r"lie \[1, 2\] folder\(s\) deep"):
        read_folder(tmp_path)


def test_everything_in_a_folder_is_taken_or_named(tmp_path: Path) -> None:
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    image(photos / "A" / "x" / "1.JPG")
    image(elsewhere / "2.png")
    (photos / "A" / "linked").symlink_to(elsewhere)  # a linked folder is a condition like any other
    for name in ("3.jfif", "no suffix", "4.odd"):  # known by suffix or content
        (photos / "A" / "x" / name).write_bytes((photos / "A" / "x" / "1.JPG").read_bytes())
    (photos / "A" / "x" / "._1.JPG").write_bytes(b"\0\5\x16\7")
    (photos / "A" / "x" / "Thumbs.db").write_bytes(b"x")
    (photos / "A" / "x" / "gone.jpg").symlink_to("nowhere")
    (photos / "A" / "x" / "back").symlink_to(photos / "A")
    (photos / "A" / "empty").mkdir()
    (photos / "A" / "damaged").mkdir()
    (photos / "A" / "damaged" / "5.jpg").write_bytes(b"no image")  # by its suffix it is one: the check will say
    os.mkfifo(photos / "A" / "x" / "pipe.jpg")
    Path(os.fsdecode(os.fsencode(photos / "A" / "x") + b"/\xff.jpg")).write_bytes(JPEG)
    found = read_folder(photos)
    assert found.frame[c.IMAGE_PATH].tolist() == [
        "A/damaged/5.jpg", "A/linked/2.png", "A/x/1.JPG", "A/x/3.jfif", "A/x/4.odd", "A/x/no suffix",
    ]  # fmt: skip
    assert found.left_out == {
        "link(s) that lead back to a folder above": ["A/x/back"],
        "folder(s) without an image": ["A/empty"],
        "hidden": ["A/x/._1.JPG"],
        "no image(s)": ["A/x/Thumbs.db"],
        "link(s) that lead nowhere": ["A/x/gone.jpg"],
        "pipe(s), socket(s) or device(s)": ["A/x/pipe.jpg"],
        "file(s) whose names are not UTF-8": [r"'A/x/\udcff.jpg'"],
    }


@settings(max_examples=25)
@given(st.sets(st.tuples(st.sampled_from(["a", ".h", "B"]), st.sampled_from(["1", "._2", "3.x", "é"]),
                         st.sampled_from(["", ".jpg", ".JPEG", ".Webp", ".txt", ".jpg_large"]), st.booleans()), max_size=12))  # fmt: skip
def test_images_and_what_is_left_out_are_all_files(files: set[tuple[str, str, str, bool]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for place, stem, suffix, is_image in files:
            (folder / place).mkdir(exist_ok=True)
            (folder / place / (stem + suffix)).write_bytes(JPEG if is_image else b"text")
        found = find_images(folder)
        left_out = {folder / path for names in found.left_out.values() for path in names}
        everything = {path for path in folder.rglob("*") if path.is_file()}
        assert {p for p in everything if p not in found.images} == {
            p for p in everything if p in left_out or p.parent in left_out
        }
        assert all(p.suffix.lower() in SUFFIXES or p.read_bytes() == JPEG for p in found.images)


def test_files_that_differ_in_their_suffix_alone_are_two_images(tmp_path: Path) -> None:
    for name in ("1.jpg", "1.png", "2.jpg"):
        image(tmp_path / "A" / "x" / name)
    ids = read_folder(tmp_path).frame[c.IMAGE_ID].tolist()
    assert ids == ["A/x/1.jpg", "A/x/1.png", "A/x/2"]
