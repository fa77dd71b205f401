"""Files whose names are spelt another way in a table."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from hierderm.data.image_files import Anywhere, Spellings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / unicodedata.normalize("NFD", "Ekzém")
    place.mkdir()
    for name in ("a.JPG", "b.jpg", "b.png", "c.x.jpeg", "d.png", "E.png", "e.png"):
        (place / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Ekzém\\a.jpg", "a.JPG"),
        ("ekzém/A.jpg", "a.JPG"),
        ("./Ekzém//d", "d.png"),
        ("Ekzém/../Ekzém/a", "a.JPG"),
        ("Ekzém/c.x", "c.x.jpeg"),
        ("Ekzém/b", ""),  # two files
        ("Ekzém/d.jpg", ""),  # another suffix may be another image
        ("Ekzém/e.PNG", ""),
        ("Ekzém/E.png", "E.png"),
        ("Ekzém", ""),
        ("none/a.jpg", ""),
    ],
)
def test_the_only_file_that_a_name_can_mean(folder: Path, name: str, found: str) -> None:
    for spelt in (unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)):
        given = Spellings().find(folder, spelt)
        assert (given is not None) == bool(found)
        assert given is None or (folder / given).samefile(folder / unicodedata.normalize("NFD", "Ekzém") / found)


def test_absolute_names_and_other_suffixes(folder: Path) -> None:
    place = next(folder.iterdir())
    assert Spellings().find(Path("/nowhere"), f"{place}/a.jpg") == str(place / "a.JPG")
    assert Spellings().beside(place / "d.jpg") == ["d.png"]
    assert Spellings().beside(Path("/nowhere/d.jpg")) == []


def test_a_name_may_lie_in_any_folder(tmp_path: Path) -> None:
    for place, content in (("p1/a.jpg", b"1"), ("p1/b.PNG", b"2"), ("p2/b.png", b"3"), ("p2/c/d.jpg", b"4"),
                           ("p1/same.jpg", b"5"), ("p2/same.jpg", b"5"), ("p1/e.jpg", b"6"), ("p1/e.png", b"6")):  # fmt: skip
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(content)
    anywhere = Anywhere(tmp_path)
    assert anywhere.find("a") == anywhere.find("A.jpg") == anywhere.find("/old/disk/a.jpg") == ["p1/a.jpg"]
    assert anywhere.find("b") == anywhere.find("b.png") == ["p1/b.PNG", "p2/b.png"]
    assert anywhere.find("p2\\b.png") == anywhere.find("x/P2/b") == ["p2/b.png"]
    assert anywhere.find("c/d") == ["p2/c/d.jpg"]
    assert anywhere.find("same") == ["p1/same.jpg"]  # the same file in two folders, as archives have it
    assert anywhere.find("e") == ["p1/e.jpg"]
    assert anywhere.find("a.png") == anywhere.find("") == anywhere.find("p1") == []
