from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierderm.evaluation.catalogue import level_metrics
from hierderm.evaluation.metrics.ranking import Relevant
from hierderm.evaluation.metrics.terms import (
    LevelMetric,
    Terms,
    changes,
    map_at_r,
    precision_at,
    r_precision,
    recall_at,
    reciprocal_rank,
    sums,
)


def value(terms: Terms, *places: int) -> float:
    return float(sums([LevelMetric(terms)], Relevant(np.array([len(places)]), np.array(places, dtype=np.int64)))[0, 0])


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


def test_several_rankings_at_once() -> None:
    # Places 1 and 3; none; 2.
    relevant = Relevant(np.array([2, 0, 1]), np.array([1, 3, 2]))
    assert sums([LevelMetric(r_precision), LevelMetric(reciprocal_rank)], relevant).tolist() == [
        [0.5, 0, 0],
        [1, 0, 0.5],
    ]
    assert relevant.number.tolist() == [1, 2, 1] and relevant.total.tolist() == [2, 2, 1]
    assert relevant.row.tolist() == [0, 0, 2]


def test_sums_from_both_ends() -> None:
    relevant, values = Relevant(np.array([3, 0, 2]), np.arange(5)), np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    assert relevant.sums(values).tolist() == [7, 0, 24]
    assert relevant.sums_before(values).tolist() == [0, 1, 3, 0, 8]
    assert relevant.sums_from(values).tolist() == [7, 6, 4, 24, 16]
    nothing = Relevant(np.array([0, 0]), np.zeros(0, dtype=np.int64))
    assert nothing.sums(np.zeros(0)).tolist() == [0, 0] and not len(nothing.sums_before(np.zeros(0)))


@given(st.lists(st.sets(st.integers(1, 40), max_size=20), min_size=1, max_size=5))
def test_items_after_the_first_change_nothing(places: list[set[int]]) -> None:
    """What the catalogue says about each metric: with a look at all items, value and changes are the same."""
    flat = np.array([place for of_query in places for place in sorted(of_query)], dtype=np.int64)
    relevant = Relevant(np.array([len(of_query) for of_query in places]), flat)
    some = [metric for metric in level_metrics().values() if metric.first is not None]
    every = [LevelMetric(metric.terms) for metric in some]
    assert len(some) == 4
    np.testing.assert_allclose(sums(some, relevant), sums(every, relevant))
    for short, whole in zip(changes(some, relevant), changes(every, relevant), strict=True):
        np.testing.assert_allclose(short, whole, atol=1e-12)
