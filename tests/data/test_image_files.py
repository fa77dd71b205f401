"""Files whose names are spelt another way in a table."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from hierderm.data.image_files import Spellings


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
