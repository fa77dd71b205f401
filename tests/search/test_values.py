from __future__ import annotations

import io
import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierderm.data.table import as_text
from hierderm.search.values import distinct_values, holds_numbers, joined, key_of

WHOLE = st.integers(-(2**63), 2**63 - 1)
LIKE_NUMBERS = st.one_of(
    st.text(alphabet="0123456789.eE+-_ xinfa", min_size=1, max_size=24).map(str.strip).filter(bool),
    WHOLE.map(str),
    st.sampled_from(["nan", "NaN", "inf", "-inf", "None", "1E5", "007", "1_000", "\u0663", "1.0", "0x10", "1e400"]),
)


@given(st.lists(LIKE_NUMBERS, min_size=1, max_size=8, unique=True))
def test_texts_are_one_value_only_where_they_are_equal(texts: list[str]) -> None:
    column = pd.Series(texts)
    key = key_of(column)
    assert len({key(as_text(text)) for text in texts}) == len(texts)
    assert distinct_values(column) == sorted(texts)


@given(st.lists(st.one_of(WHOLE, st.none()), min_size=1, max_size=8), st.sampled_from(["Int64", object]))
def test_whole_numbers_are_compared_exactly(numbers: list[int | None], dtype: object) -> None:
    known = sorted({number for number in numbers if number is not None})
    column = pd.Series(numbers, dtype=dtype)  # type: ignore[call-overload]
    assert holds_numbers(column) == bool(known)
    assert distinct_values(column) == [str(number) for number in known]
    key = key_of(column)
    assert all(key(f"{number}.0") == key(str(number)) for number in known)
    assert len({key(str(number)) for number in known}) == len(known)


def test_the_same_number_however_it_is_written() -> None:
    key = key_of(pd.Series([100000.0, 0.1, np.nan]))
    assert key("1e5") == key("100000") == key("100000.00") == key("+1E5") and key("0.1") == key(".1")
    assert len({key(text) for text in ("1_000", "1000", "inf", "nan", "")}) == 5


@given(
    st.lists(st.one_of(WHOLE, st.none()), min_size=1, max_size=4),
    st.one_of(
        st.none(),
        st.lists(LIKE_NUMBERS, min_size=1, max_size=4),
        st.lists(st.one_of(WHOLE, st.none()), min_size=1, max_size=4),
        st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=4),
        st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4),
    ),
)
def test_joining_and_a_file_keep_every_value(first: list[int | None], second: list[object] | None) -> None:
    one = pd.DataFrame({"patient": pd.Series(first, dtype="Int64"), "case": "a"})
    two = pd.DataFrame({"case": ["b"] * (1 if second is None else len(second))})
    if second is not None:
        two["patient"] = pd.Series(second)
    whole = joined(one, two)
    wanted = [*map(as_text, one["patient"]), *(map(as_text, two["patient"]) if second is not None else [""])]
    file = io.BytesIO()
    whole.to_parquet(file)
    for table in (whole, pd.read_parquet(file)):
        assert [as_text(cell) for cell in table["patient"]] == wanted


def test_a_column_that_becomes_text_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        whole = joined(pd.DataFrame({"patient": [2**60, 2]}), pd.DataFrame({"patient": ["P7"]}))
    assert list(whole["patient"]) == [str(2**60), "2", "P7"]
    assert "Column 'patient' held numbers, and is text now" in caplog.text
