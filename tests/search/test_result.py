from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hierderm.embeddings import Provenance, unit_length
from hierderm.errors import SearchError
from hierderm.search.case_index import CaseIndex
from hierderm.search.result import SearchResult
from hierderm.taxonomy.tree import taxonomy_from_paths
from tests.search.toy import TREE, circle, random_table, table


@pytest.fixture
def index() -> CaseIndex:
    return CaseIndex.from_embeddings(table(circle(0, 30, 90), ["a", "b", "c"], [0, 4, 8]), TREE, image_root="/root")


def test_as_a_table(index: CaseIndex) -> None:
    # The queries at 80 and 10 degrees: c is 10, b 50 degrees from the first; a is 10, b 20 degrees from the second.
    found = index.search(unit_length(circle(80, 10)), k=2).to_pandas()
    assert list(found) == [
        "query", "rank", "case_id", "image_id", "condition", "category", "similarity", "image_path",
    ]  # fmt: skip
    assert found["query"].tolist() == [0, 0, 1, 1] and found["rank"].tolist() == [1, 2, 1, 2]
    assert found["case_id"].tolist() == ["c", "b", "a", "b"] and found["image_id"].tolist() == ["i2", "i1", "i0", "i1"]
    assert found["condition"].tolist() == ["F8", "F4", "F0", "F4"]
    assert found["category"].tolist() == ["C2", "C1", "C0", "C1"]
    assert found["similarity"].to_numpy() == pytest.approx(np.cos(np.radians([10, 50, 10, 20])), abs=1e-6)
    assert found["image_path"][0] == "/root/2.png"


def test_as_records_and_places_that_no_case_fills(index: CaseIndex) -> None:
    found = index.search(unit_length(circle(80, 10)), k=5, within="C1")
    assert len(found) == 2 and found.rows.tolist() == [[1, -1, -1, -1, -1]] * 2
    (hit,), (again,) = found.to_list()
    assert (hit.case_id, hit.path, hit.row, hit.image_path) == ("b", ("C1", "F4"), 1, Path("/root/1.png"))
    assert again.similarity > hit.similarity
    assert found.to_pandas()["query"].tolist() == [0, 1]
    nothing = index.search(np.zeros((0, 2)), k=3)
    assert len(nothing) == 0 and nothing.to_list() == [] and nothing.to_pandas().empty


def test_a_result_keeps_to_what_was_searched(index: CaseIndex) -> None:
    found = index.search(unit_length(circle(80)), k=1)
    index.remove(["c"])
    assert found.to_pandas()["case_id"].tolist() == [found.to_list()[0][0].case_id] == ["c"]


def test_shapes_must_agree(index: CaseIndex) -> None:
    with pytest.raises(SearchError, match=r"must both have shape \(n_queries, k\), got \(1, 2\) and \(1, 1\)"):
        SearchResult(np.array([[1, 2]]), np.array([[0.1]], dtype=np.float32), index.gallery)


def test_levels_never_replace_one_another() -> None:
    paths = [(f"A{k // 4}", f"B{k // 2}", f"F{k}") for k in range(9)]
    tree = taxonomy_from_paths(paths, ("similarity", "similarity (level)", "rank (level)"), id="t")
    index = CaseIndex.from_embeddings(replace(random_table(40), provenance=Provenance()), tree)
    found = index.search(index.vectors[:1], k=3).to_pandas()
    assert list(found)[5:-2] == ["similarity (level) (level)", "similarity (level)", "rank (level)"]
    assert [name[0] for name in found.iloc[0, 5:8]] == ["A", "B", "F"]


def test_levels_never_replace_a_column() -> None:
    """A middle level called as a column of the table, and the finest one called 'condition', which is that column."""
    paths = [(f"A{k // 4}", f"B{k // 2}", f"F{k}") for k in range(9)]
    tree = taxonomy_from_paths(paths, ("rank", "similarity", "condition"), id="t")
    images = random_table(40)
    index = CaseIndex.from_embeddings(replace(images, provenance=Provenance()), tree)
    found = index.search(index.vectors[:1], k=3).to_pandas()
    assert list(found) == [
        "query", "rank", "case_id", "image_id", "condition", "rank (level)", "similarity (level)", "similarity",
        "image_path",
    ]  # fmt: skip
    assert list(found["rank"]) == [1, 2, 3] and found["similarity"][0] == pytest.approx(1)
    assert all(found["similarity (level)"] == [f"B{int(name[1:]) // 2}" for name in found["condition"]])
