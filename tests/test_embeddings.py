from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hierderm.artifacts import HEADER
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable, Provenance, embeddings_of, unit_length
from hierderm.errors import EmbeddingError, OutputError
from hierderm.taxonomy.tree import taxonomy_from_paths
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
    assert again.looks is None


def test_looks_are_kept_with_their_rows(tmp_path: Path) -> None:
    looks = np.array([[1, 2], [np.nan, np.nan], [5, 6]], dtype=np.float32)
    replace(table(), looks=looks).save(tmp_path / "e")
    again = EmbeddingTable.load(tmp_path / "e")
    assert again.looks is not None
    np.testing.assert_array_equal(again.looks, looks)
    np.testing.assert_array_equal(again.select(np.array([False, True, True])).looks, looks[1:])
    with pytest.raises(EmbeddingError, match=r"looks must have a row an image \(3\), got \(2, 2\)"):
        replace(table(), looks=looks[:2])


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


@pytest.mark.together("processes")
def test_whatever_the_moment_of_a_kill_the_old_or_the_new_embeddings_are_whole(tmp_path: Path) -> None:
    paths = kill_at_every_change(tmp_path, save_old, save_new)
    found = [len(EmbeddingTable.load(path)) for path in paths]
    assert found == sorted(found, reverse=True) and found.count(3) > 5 and found.count(2) > 5
    for path in paths:
        save_new(path)


def test_a_header_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    table().save(tmp_path / "e")
    header = json.loads((tmp_path / "e" / HEADER).read_text())
    (tmp_path / "e" / HEADER).write_text(json.dumps({**header, "content": {"provenance": {"camera": "x"}}}))
    with pytest.raises(
        EmbeddingError, match=r"json is damaged: 'provenance.camera' is not known; 'key' is missing. Res"
    ):
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


class Lengths:
    """A model of two numbers an image: anything with `encode`."""

    def encode(self, images: list[Path]) -> list[list[float]]:
        return [[float(len(path.name)), 1.0] for path in images]


class Embedder(Lengths):
    """A model that makes its own table, with probabilities and provenance."""

    def embed(self, images: CaseTable) -> EmbeddingTable:
        return table(len(images.frame))


def cases(tmp_path: Path) -> CaseTable:
    tree = taxonomy_from_paths([("C", "F0"), ("C", "F1")], ("category", "condition"), id="t")
    names = ["a.png", "bb.png", "ccc.png"]
    frame = pd.DataFrame({"image_path": names, "image_id": names, "case_id": names, "condition": "F0"})
    return CaseTable(frame, tree, tmp_path)


def test_embeddings_of_anything(tmp_path: Path) -> None:
    images, vectors = cases(tmp_path), np.array([[5.0, 1], [6, 1], [7, 1]])
    np.save(tmp_path / "x.npy", vectors)
    table().save(tmp_path / "saved")
    for source in (vectors, vectors.tolist(), tmp_path / "x.npy", str(tmp_path / "x.npy"), Lengths()):
        found = embeddings_of(source, images)
        np.testing.assert_allclose(found.embeddings, unit_length(vectors), atol=1e-6)
        assert found.case_ids.tolist() == images.case_ids.tolist() and found.probabilities is None
    for source in (table(), tmp_path / "saved", Embedder()):
        assert embeddings_of(source, images).provenance.model == "m"
    np.save(tmp_path / "p.npy", np.full((3, 2), 0.5))
    given = embeddings_of(vectors, images, tmp_path / "p.npy").probabilities
    assert given is not None and given.dtype == np.float32 and given.tolist() == [[0.5, 0.5]] * 3
    with pytest.raises(
        EmbeddingError, match=r"a row for each of the 3 rows of the table, in their order, got \(2, 2\)"
    ):
        embeddings_of(vectors[:2], images)
    with pytest.raises(EmbeddingError, match="must be an .npy file of numbers"):
        embeddings_of(tmp_path / "none.npy", images)
    with pytest.raises(EmbeddingError, match="probabilities must have a row an image"):
        embeddings_of(vectors, images, np.ones((2, 2)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([["1", "2"]] * 3), "embeddings must be real numbers, got <U1"),
        (np.array([[1j, 2]] * 3), "embeddings must be real numbers, got complex128"),
        ([[1, 2], [3], [4, 5]], "embeddings must be an array of numbers"),
        (np.array([[True, False]] * 3), "embeddings must be real numbers, got bool"),
    ],
)
def test_what_is_no_embedding(tmp_path: Path, values: Any, message: str) -> None:
    with pytest.raises(EmbeddingError, match=message):
        embeddings_of(values, cases(tmp_path))


def test_files_that_are_no_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "several.npy.npz", a=np.ones(3))
    (tmp_path / "several.npy.npz").rename(tmp_path / "several.npy")
    (tmp_path / "damaged.npy").write_bytes(
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': Fal(se, }\n" + b" " * 90
    )
    np.save(tmp_path / "texts.npy", np.array([["a"]]))
    for name in ("several", "damaged", "texts"):
        with pytest.raises(
            EmbeddingError, match=rf"{name}\.npy must (hold one array|be an \.npy file|be real numbers)"
        ):
            embeddings_of(str(tmp_path / f"{name}.npy"), cases(tmp_path))


@pytest.mark.parametrize("row", [[0.5, 0.4], [1.5, -0.5], [np.nan, 1.0], [np.inf, 0.0]])
def test_probabilities_that_are_none(row: list[float]) -> None:
    with pytest.raises(
        EmbeddingError, match=r"must be finite, from 0, and sum to 1 in each row; 1 row\(s\) .* is row 1"
    ):
        EmbeddingTable(
            table().embeddings, table().frame, probabilities=np.array([[1, 0], row, [0, 1]], dtype=np.float32)
        )


def test_a_file_without_a_hash_is_not_read(tmp_path: Path) -> None:
    table().save(tmp_path / "e")
    header = json.loads((tmp_path / "e" / HEADER).read_text())
    for left, message in (
        ([], r"'files' has no hash of cases\.parquet\. Restore"),
        (["cases.parquet"], r"'files' has no hash of embeddings\.npy"),
        (["cases.parquet", "embeddings.npy"], r"'files' has no hash of probabilities\.npy"),
    ):
        files = {name: header["files"][name] for name in left}
        (tmp_path / "e" / HEADER).write_text(json.dumps({**header, "files": files}))
        with pytest.raises(EmbeddingError, match=message):
            EmbeddingTable.load(tmp_path / "e")
