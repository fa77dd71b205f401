from __future__ import annotations

from pathlib import Path

import pytest

from hierderm.errors import OutputError
from hierderm.files import require_free


def test_what_a_command_reads_is_never_its_output(tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    table.write_text("mine")
    with pytest.raises(OutputError, match=r"cases\.csv is read by this command and would be overwritten"):
        require_free(table, replace=True, inputs=[None, "scin", tmp_path / "." / "cases.csv"])
    with pytest.raises(OutputError, match="exists and would be overwritten. Choose another path, or replace it"):
        require_free(table, inputs=["scin"])
    require_free(table, replace=True, inputs=["scin", tmp_path / "other.csv"])


def test_a_file_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"photo\.jpg must end in \.html or \.htm to be replaced"):
        require_free(photo, replace=True, suffixes=(".html", ".htm"))
    assert photo.read_bytes() == b"mine"
    require_free(tmp_path / "page.HTML", suffixes=(".html", ".htm"))
