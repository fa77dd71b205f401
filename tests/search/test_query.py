from __future__ import annotations

import numpy as np
import pytest

from hierderm.errors import SearchError
from hierderm.search.query import check_options, mean_vector, query_groups

SOUTH, EAST, NORTH = np.array([0.0, -1.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0])


def test_each_vector_is_a_query_unless_cases_group_them() -> None:
    vectors = np.stack([EAST, NORTH, SOUTH])
    assert [group.tolist() for group in query_groups(vectors, None, 2)] == [[[1, 0]], [[0, 1]], [[0, -1]]]
    assert [group.tolist() for group in query_groups(vectors, [1, 0, 1], 2)] == [[[0, 1]], [[1, 0], [0, -1]]]
    assert [group.tolist() for group in query_groups(EAST, None, 2)] == [[[1, 0]]]
    assert query_groups(vectors[:0], None, 2) == query_groups(vectors[:0], [], 2) == []


def test_the_mean_has_unit_length() -> None:
    np.testing.assert_allclose(mean_vector(np.stack([EAST, NORTH]).astype(np.float32)), [[0.5**0.5, 0.5**0.5]])


def test_refusals() -> None:
    vectors = np.stack([EAST] * 4)
    for given, cases, message in (
        (np.ones((2, 3)), None, r"query vectors must have shape \(n, 2\), got \(2, 3\)"),
        (2 * vectors, None, "must be finite and have unit length. Normalise them"),
        (np.full((1, 2), np.nan), None, "must be finite"),
        (vectors, [0, 0, 0, 0], r"a query must have 1 to 3 images, got \[4\]"),
        (vectors, [0, 0, 2, 2], r"a query must have 1 to 3 images, got \[0\]"),
        (vectors, [0], r"cases must number the query of each of the 4 vectors from 0, got \[0\]"),
        (vectors, [0, 1, 2, -1], "must number the query"),
        (vectors, [0.5, 1, 2, 3], "must number the query"),
    ):
        with pytest.raises(SearchError, match=message):
            query_groups(given, cases, 2)  # type: ignore[arg-type]
    with pytest.raises(
        SearchError, match="k must be a whole number from 1 to 1,000,000 and per_condition one from 0, got 0 and 0"
    ):
        check_options(0, "best", 0)
    with pytest.raises(SearchError, match="aggregation must be 'best' or 'mean', got 'sum'"):
        check_options(1, "sum", 0)
