from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hierderm.embeddings import EmbeddingTable
from hierderm.errors import OutputError
from hierderm.files import require_free
from hierderm.parquet import write_parquet


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


def test_cells_that_parquet_has_no_type_for_are_named(tmp_path: Path) -> None:
    """In every table that is written; a table of one type is what it was."""
    good = {"image_id": ["a", "b"], "seen": [True, None]}
    frame = pd.DataFrame({**good, "mixed": [1, "1"], "large": [10**30, 10**31], "pair": [1 + 2j, 1j]})
    wrong = r"must hold values of one type .*, \['mixed', 'large', 'pair'\] do\(es\) not\. Make it text"
    with pytest.raises(OutputError, match=wrong):
        write_parquet(frame, tmp_path / "a.parquet")
    with pytest.raises(OutputError, match=wrong):
        EmbeddingTable(np.eye(2, dtype=np.float32), frame).save(tmp_path / "e")
    assert not (tmp_path / "e").exists()
    write_parquet(pd.DataFrame(good), tmp_path / "b.parquet")
    assert pd.read_parquet(tmp_path / "b.parquet")["seen"].tolist() == [True, None]
