from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hierderm.embeddings import EmbeddingTable, Provenance, unit_length
from hierderm.errors import EmbeddingError


def table(n: int = 3) -> EmbeddingTable:
    frame = pd.DataFrame({"image_id": [f"i{k}" for k in range(n)], "case_id": [f"-{k}" for k in range(n)]})
    return EmbeddingTable(unit_length(np.eye(n, 4)), frame, Provenance(model="m"), np.full((n, 2), 0.5, np.float32))


def test_save_and_load(tmp_path: Path) -> None:
    first = table()
    first.save(tmp_path / "e")
    again = EmbeddingTable.load(tmp_path / "e")
    np.testing.assert_array_equal(again.embeddings, first.embeddings)
    assert again.provenance == first.provenance
    assert again.case_ids.tolist() == ["-0", "-1", "-2"]
    assert again.probabilities is not None
    assert again.select(np.array([True, False, True])).frame["image_id"].tolist() == ["i0", "i2"]


def test_damage_is_named(tmp_path: Path) -> None:
    table().save(tmp_path / "e")
    with (tmp_path / "e" / "embeddings.npy").open("r+b") as handle:
        handle.seek(-1, 2)
        handle.write(b"!")
    with pytest.raises(EmbeddingError, match=r"embeddings\.npy is missing or damaged"):
        EmbeddingTable.load(tmp_path / "e")
    with pytest.raises(EmbeddingError, match=r"has no embeddings\.json"):
        EmbeddingTable.load(tmp_path)


def test_refusals() -> None:
    frame = table().frame
    with pytest.raises(EmbeddingError, match=r"got \(4,\). For one image use embeddings\[None\]"):
        EmbeddingTable(np.ones(4, np.float32), frame)
    with pytest.raises(EmbeddingError, match=r"unit length, row 0 has 2\.0000"):
        EmbeddingTable(np.ones((3, 4), np.float32), frame)
    broken = table().embeddings.copy()
    broken[1, 0] = np.nan
    with pytest.raises(EmbeddingError, match="the first is row 1"):
        EmbeddingTable(broken, frame)
    with pytest.raises(EmbeddingError, match="row 1 is"):
        unit_length(np.array([[1.0], [0.0]]))
    with pytest.raises(EmbeddingError, match="probabilities must have a row an image"):
        EmbeddingTable(table().embeddings, frame, probabilities=np.ones((2, 2), np.float32))
