from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from hierderm.evaluation.metrics.terms import (
    Terms,
    map_at_r,
    precision_at,
    r_precision,
    recall_at,
    reciprocal_rank,
    sums,
    sums_from_the_end,
)


def value(terms: Terms, *places: int) -> float:
    return float(sums([terms], np.array(places, dtype=np.int64))[0])


def test_one_ranking_by_hand() -> None:
    # Relevant at places 1 and 3 of the ranking, so R = 2.
    assert value(partial(recall_at, k=1), 1, 3) == 1
    assert value(partial(recall_at, k=2), 3) == 0
    assert value(partial(precision_at, k=10), 1, 3) == pytest.approx(0.2)
    assert value(r_precision, 1, 3) == pytest.approx(0.5)
    assert value(map_at_r, 1, 3) == pytest.approx(0.5)
    assert value(map_at_r, 1, 2, 5) == pytest.approx((1 + 1) / 3)
    assert value(reciprocal_rank, 4) == pytest.approx(0.25)
    assert [value(terms) for terms in (r_precision, map_at_r, reciprocal_rank)] == [0, 0, 0]  # nothing is relevant


def test_sums_from_the_end() -> None:
    assert sums_from_the_end(np.array([1.0, 2.0, 4.0])).tolist() == [7, 6, 4, 0]
    assert sums_from_the_end(np.ones((2, 3))).tolist() == [[2] * 3, [1] * 3, [0] * 3]
