from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierderm.errors import SearchError
from hierderm.search.filters import RowFilter, Where, Within, as_text
from tests.search.toy import TREE

FRAME = pd.DataFrame(
    {"condition": ["F0", "F4", "F8"], "fitzpatrick": [1.0, float("nan"), 5.0], "body_site": ["arm", "", "leg"]}
)


def rows(within: Within | None = None, where: Where | None = None) -> list[bool]:
    found = RowFilter(FRAME, TREE, TREE.encode(FRAME["condition"])).rows(within, where)
    return [found is None or row in found for row in range(3)]


def test_by_node_and_by_column() -> None:
    assert rows() == rows(within=[], where={}) == [True, True, True]
    assert rows(within="C1") == rows(within=["C1"]) == [False, True, False]
    assert rows(within=["c0", "F8"]) == [True, False, True]  # names fold case, levels mix
    assert rows(where={"fitzpatrick": ["1", "5.0"]}) == [True, False, True]
    assert rows(where={"fitzpatrick": 5}) == rows(where={"fitzpatrick": "5"}) == [False, False, True]
    assert rows(where={"fitzpatrick": [""]}) == [False, True, False]  # unknown tone, asked for by name
    assert rows(within=["C0"], where={"body_site": ["leg"]}) == [False, False, False]


def test_cells_as_text() -> None:
    assert [as_text(value) for value in (3, 3.0, "3.0", 2.5, " arm ", None, float("nan"), pd.NA)] == [
        "3", "3", "3", "2.5", "arm", "", "", "",
    ]  # fmt: skip


def test_refusals_name_the_closest() -> None:
    with pytest.raises(SearchError, match="'F10' is not a node of taxonomy 't'. Closest: 'F"):
        rows(within=["F10"])
    with pytest.raises(SearchError, match="no column 'bodysite'. Closest: 'body_site'"):
        rows(where={"bodysite": ["arm"]})
    with pytest.raises(
        SearchError, match=r"column 'body_site' has no value 'arms'. Closest: 'arm'. It has \['arm', 'leg'\]"
    ):
        rows(where={"body_site": ["arms"]})


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_against_comparing_each_row(seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    frame = pd.DataFrame(
        {
            "condition": [f"F{k}" for k in rng.integers(0, 9, n)],
            "tone": rng.choice([1.0, 2.0, 3.5, np.nan], n),
            "site": rng.choice(["arm", "leg", ""], n),
            "mixed": pd.Series(rng.choice(np.array([1, True, "1", None, "x"], dtype=object), n), dtype=object),
        }
    )
    where = {
        column: data.draw(st.lists(st.sampled_from(sorted({as_text(cell) for cell in frame[column]})), min_size=1))
        for column in data.draw(st.lists(st.sampled_from(["tone", "site", "mixed"]), unique=True))
    }
    within = data.draw(st.lists(st.sampled_from(["C0", "C2", "F4"])))
    under = {"C0": ("F0", "F1", "F2"), "C2": ("F6", "F7", "F8"), "F4": ("F4",)}
    expected = [
        row
        for row in range(n)
        if (not within or any(frame["condition"][row] in under[name] for name in within))
        and all(as_text(frame[column][row]) in values for column, values in where.items())
    ]
    found = RowFilter(frame, TREE, TREE.encode(frame["condition"])).rows(within, where)
    assert found is None or found.tolist() == expected
    assert (found is None) == (not within and not where)
