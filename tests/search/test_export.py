from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from hierderm.errors import OutputError
from hierderm.search.case_index import CaseIndex
from hierderm.search.export import export
from tests.search.toy import TREE, circle, table


def test_what_other_tools_read(tmp_path: Path) -> None:
    images = table(circle(0, 30, 90), ["a", "b", "c"], [0, 4, 8])
    gallery = CaseIndex.from_embeddings(images, TREE, image_root="/root").gallery
    columns = export(gallery, tmp_path / "index.parquet", np.array([[0.5, 1], [2, 3], [4, 5]]))
    found = pq.read_table(tmp_path / "index.parquet")
    assert found.column_names == columns == [
        "image_path", "image_id", "case_id", "condition", "fitzpatrick", "category", "x", "y", "vector",
    ]  # fmt: skip
    assert str(found.schema.field("vector").type).startswith("fixed_size_list<") and found["vector"].type.list_size == 2
    np.testing.assert_array_equal(np.array(found["vector"].to_pylist(), dtype=np.float32), images.embeddings)
    first = found.slice(0, 1).to_pylist()[0]
    assert (first["image_path"], first["category"], first["condition"]) == ("/root/0.png", "C0", "F0")
    assert found["y"].to_pylist() == [1, 3, 5]
    by_pandas = pd.read_parquet(tmp_path / "index.parquet")
    np.testing.assert_array_equal(np.stack(by_pandas["vector"].tolist()), images.embeddings)
    assert "x" not in export(gallery, tmp_path / "flat.parquet")


def test_a_column_is_never_replaced(tmp_path: Path) -> None:
    images = table(circle(0, 30), ["a", "b"], [0, 4])
    for name, columns in (("vector", None), ("x", np.zeros((2, 2)))):
        named = replace(images, frame=images.frame.assign(**{name: 1}))
        gallery = CaseIndex.from_embeddings(named, TREE).gallery
        with pytest.raises(OutputError, match=rf"has columns \['{name}'\], which the export adds"):
            export(gallery, tmp_path / "x.parquet", columns)
    named = replace(images, frame=images.frame.assign(category="mine"))
    export(CaseIndex.from_embeddings(named, TREE).gallery, tmp_path / "x.parquet")
    frame = pd.read_parquet(tmp_path / "x.parquet")
    assert list(frame["category"]) == ["mine"] * 2 and list(frame["category (level)"]) == ["C0", "C1"]
