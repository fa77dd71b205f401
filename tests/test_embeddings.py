from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hierderm.artifacts import HEADER
from hierderm.embeddings import EmbeddingTable, Provenance, unit_length
from hierderm.errors import EmbeddingError, OutputError
from tests.killing import kill_at_every_change


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
    with pytest.raises(EmbeddingError, match=r"embeddings\.npy is damaged: its checksum differs"):
        EmbeddingTable.load(tmp_path / "e")
    with pytest.raises(EmbeddingError, match=r"must be a hierderm embeddings folder, it has no hierderm\.json"):
        EmbeddingTable.load(tmp_path)


def test_embeddings_that_lie_there_are_kept_unless_asked(tmp_path: Path) -> None:
    table(3).save(tmp_path / "e")
    with pytest.raises(OutputError, match=r"holds a hierderm embeddings folder"):
        table(2).save(tmp_path / "e")
    table(2).save(tmp_path / "e", replace=True)
    assert len(EmbeddingTable.load(tmp_path / "e")) == 2


def save_old(path: Path) -> None:
    table(3).save(path)


def save_new(path: Path) -> None:
    table(2).save(path, replace=True)


def test_whatever_the_moment_of_a_kill_the_old_or_the_new_embeddings_are_whole(tmp_path: Path) -> None:
    paths = kill_at_every_change(tmp_path, __name__, "save_old", "save_new")
    found = [len(EmbeddingTable.load(path)) for path in paths]
    assert found == sorted(found, reverse=True) and found.count(3) > 5 and found.count(2) > 5
    for path in paths:
        save_new(path)


def test_a_header_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    table().save(tmp_path / "e")
    header = json.loads((tmp_path / "e" / HEADER).read_text())
    (tmp_path / "e" / HEADER).write_text(json.dumps({**header, "content": {"provenance": {"camera": "x"}}}))
    with pytest.raises(EmbeddingError, match=r"can't be read as a hierderm embeddings folder \(.*camera.*\). Make the"):
        EmbeddingTable.load(tmp_path / "e")


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
