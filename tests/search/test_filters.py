from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierderm.data.table import as_text
from hierderm.errors import SearchError
from hierderm.search.filters import RowFilter, Where, Within, column_of, where_of
from hierderm.search.values import distinct_values, key_of
from hierderm.taxonomy.tree import Taxonomy, taxonomy_from_paths
from tests.search.toy import TREE

FRAME = pd.DataFrame(
    {"condition": ["F0", "F4", "F8"], "fitzpatrick": [1.0, float("nan"), 5.0], "body_site": ["arm", "", "leg"]}
)


def rows(within: Within | None = None, where: Where | None = None) -> list[bool]:
    return [bool(allowed) for allowed in allowed_rows(FRAME, TREE, within, where)]


def allowed_rows(
    frame: pd.DataFrame, tree: Taxonomy, within: Within | None = None, where: Where | None = None
) -> np.ndarray:
    found = RowFilter(frame, tree, tree.encode(frame["condition"])).rows(within, where)
    return np.ones(len(frame), dtype=bool) if found is None else np.isin(np.arange(len(frame)), found)


def test_by_node_and_by_column() -> None:
    assert rows() == rows(within=[], where={}) == [True, True, True]
    assert rows(within="C1") == rows(within=["C1"]) == [False, True, False]
    assert rows(within=["c0", "F8"]) == [True, False, True]  # names fold case, levels mix
    assert rows(where={"fitzpatrick": ["1", "5.0"]}) == [True, False, True]
    assert rows(where={"fitzpatrick": 5}) == rows(where={"fitzpatrick": "5"}) == [False, False, True]
    assert rows(where={"fitzpatrick": [""]}) == [False, True, False]  # unknown tone, asked for by name
    assert rows(within=["C0"], where={"body_site": ["leg"]}) == [False, False, False]


def test_a_19_digit_id_finds_its_own_row_alone() -> None:
    ids = [2**61 + number for number in range(6)]  # a float has one value for all of them
    for column in (pd.Series([str(i) for i in ids]), pd.Series(ids), pd.Series(ids, dtype="Int64")):
        frame = pd.DataFrame({"condition": "F0", "patient": column})
        for place, patient in enumerate(ids):
            for asked in (patient, str(patient)):
                found = allowed_rows(frame, TREE, where={"patient": asked})
                assert found.tolist() == [row == place for row in range(6)]


def test_text_that_looks_like_a_number_is_text() -> None:
    texts = ["1E5", "100000", "007", "7", "1_000", "1000", "nan", "inf", "-0", "0", "3.0", "3"]
    frame = pd.DataFrame({"condition": "F0", "lot": texts})
    for place, text in enumerate(texts):
        assert np.flatnonzero(allowed_rows(frame, TREE, where={"lot": text})).tolist() == [place]
    with pytest.raises(SearchError, match="column 'lot' has no value '00'"):
        allowed_rows(frame, TREE, where={"lot": "00"})


def test_alternatives_and_values_with_commas() -> None:
    frame = pd.DataFrame({"condition": ["F0", "F4", "F8"], "note": ["red, itchy", "red", "itchy"], "tone": [1, 2, 5]})

    def column_values(name: str) -> list[str]:
        return distinct_values(column_of(frame, name))

    assert where_of(["tone=1,2", "tone=5"], column_values) == {"tone": ["1", "2", "5"]}
    assert where_of(["note=red, itchy"], column_values) == {"note": ["red, itchy"]}
    assert allowed_rows(frame, TREE, where=where_of(["note=red,itchy"], column_values)).tolist() == [False, True, True]
    assert where_of(["note=a=b"], column_values) == {"note": ["a=b"]}
    with pytest.raises(SearchError, match="a filter must look like fitzpatrick=5 or fitzpatrick=5,6, got 'tone'"):
        where_of(["tone"], column_values)
    with pytest.raises(SearchError, match="no column 'tones'. Closest: 'tone'"):
        where_of(["tones=1,2"], column_values)


def test_a_name_on_two_levels() -> None:
    tree = taxonomy_from_paths(
        [("Psoriasis", "Psoriasis"), ("Psoriasis", "Guttate"), ("Acne", "Cyst")], ("a", "b"), id="t"
    )
    frame = pd.DataFrame({"condition": ["Psoriasis", "Guttate", "Cyst"]})
    assert allowed_rows(frame, tree, within="Psoriasis").tolist() == [True, True, False]
    assert allowed_rows(frame, tree, within="Psoriasis > Psoriasis").tolist() == [True, False, False]


def test_refusals_name_the_closest() -> None:
    with pytest.raises(SearchError, match="'F10' is not a node of taxonomy 't'. Closest: 'F"):
        rows(within=["F10"])
    with pytest.raises(SearchError, match="no column 'bodysite'. Closest: 'body_site'"):
        rows(where={"bodysite": ["arm"]})
    with pytest.raises(
        SearchError, match=r"column 'body_site' has no value 'arms'. Closest: 'arm'. It has \['arm', 'leg'\]"
    ):
        rows(where={"body_site": ["arms"]})


@settings(max_examples=40)
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
        and all(
            key_of(frame[column])(as_text(frame[column][row])) in map(key_of(frame[column]), values)
            for column, values in where.items()
        )
    ]
    found = RowFilter(frame, TREE, TREE.encode(frame["condition"])).rows(within, where)
    assert found is None or found.tolist() == expected
    assert (found is None) == (not within and not where)
