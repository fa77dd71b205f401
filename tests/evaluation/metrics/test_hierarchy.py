"""Graded metrics: by hand, against scikit-learn and against oracles written from the definitions."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from hierderm.evaluation.metrics.hierarchy import (
    average_set_intersection,
    hap_changes,
    hierarchical_average_precision,
    mean_lca_height,
    mistake_severity,
    ndcg,
    ndcg_changes,
)
from hierderm.evaluation.metrics.ranking import Rankings

DEPTHS = st.lists(st.integers(0, 3), min_size=1, max_size=25)


def ranking(*depths: list[int], n_levels: int = 2) -> Rankings:
    """Rankings whose items, nearest first, agree with the query on that many levels; fewer items where shorter."""
    order, padded = (
        np.full((len(depths), max(map(len, depths))), -1),
        np.zeros((len(depths), max(map(len, depths))), int),
    )
    for row, given_ in enumerate(depths):
        order[row, : len(given_)], padded[row, : len(given_)] = np.arange(len(given_)), given_
    return Rankings.from_order(order, padded, n_levels)


def slow_hap(depths: list[int], n_levels: int) -> float:
    """HAPPIER's definition, item by item: H-rank(k) = rel(k) + sum over positives j before k of min(rel(k), rel(j))."""
    rel = [depth / n_levels for depth in depths]
    total = 0.0
    for k in range(len(rel)):
        if rel[k] > 0:
            total += (rel[k] + sum(min(rel[k], rel[j]) for j in range(k) if rel[j] > 0)) / (k + 1)
    return total / sum(rel)


def slow_asi(depths: list[int]) -> float:
    """The mean overlap of the first n with the best n, over every way to break ties of the ideal order."""
    n_positive = sum(depth > 0 for depth in depths)
    scores = []
    for n in range(1, n_positive + 1):
        ideal = sorted(range(len(depths)), key=lambda i: (-depths[i], i))[:n]  # ties: the ones retrieved first
        scores.append(len(set(ideal) & set(range(n))) / n)
    return float(np.mean(scores))


def test_by_hand() -> None:
    # Depths [1, 2]: an image of the category before the one of the condition.
    assert ndcg(ranking([1, 2])) == pytest.approx((1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3)))
    assert hierarchical_average_precision(ranking([1, 2])) == pytest.approx((0.5 + 1.5 / 2) / 1.5)
    assert average_set_intersection(ranking([0, 2, 1])) == pytest.approx((0 / 1 + 1 / 2) / 2)
    # Heights of [0, 2, 1] in a tree of two levels are 2, 0 and 1.
    assert mean_lca_height(ranking([0, 2, 1]), 1) == 2
    assert mean_lca_height(ranking([0, 2, 1]), 2) == 1
    assert mean_lca_height(ranking([0, 2, 1]), 10) == 1  # fewer than 10 are ranked
    assert mistake_severity(ranking([1, 2])) == 1
    assert np.isnan(mistake_severity(ranking([2, 0])))


@given(DEPTHS)
def test_against_oracles(depths: list[int]) -> None:
    made = ranking(depths, n_levels=3)
    if not any(depths):
        assert np.isnan([ndcg(made), hierarchical_average_precision(made), average_set_intersection(made)]).all()
        return
    assert hierarchical_average_precision(made) == pytest.approx(slow_hap(depths, 3))
    assert average_set_intersection(made) == pytest.approx(slow_asi(depths))
    if len(depths) > 1:
        gains, order = 2.0 ** np.array([depths]) - 1, -np.arange(len(depths))[None]
        assert ndcg(made) == pytest.approx(ndcg_score(gains, order))


@given(st.lists(st.integers(0, 1), min_size=1, max_size=25))
def test_with_one_level_hierarchical_ap_is_ap(depths: list[int]) -> None:
    if any(depths):
        expected = average_precision_score(depths, -np.arange(len(depths)))
        assert hierarchical_average_precision(ranking(depths, n_levels=1)) == pytest.approx(expected)


@given(DEPTHS)
def test_the_best_order_scores_one_and_no_order_more(depths: list[int]) -> None:
    if any(depths):
        best, given_ = ranking(sorted(depths, reverse=True), n_levels=3), ranking(depths, n_levels=3)
        for metric in (ndcg, hierarchical_average_precision, average_set_intersection):
            assert metric(best) == pytest.approx(1)
            assert 0 <= metric(given_) <= 1 + 1e-9
        assert mean_lca_height(best, 5) <= mean_lca_height(given_, 5)


def test_nothing_ranked() -> None:
    assert np.isnan(mean_lca_height(ranking([]), 3)).all()


@given(st.lists(DEPTHS, min_size=1, max_size=6))
def test_rankings_of_a_block_do_not_mix(every: list[list[int]]) -> None:
    """One block of several rankings, some without a relevant item, gives what each gives alone."""
    metrics = (ndcg, hierarchical_average_precision, average_set_intersection, mistake_severity)
    for metric in (*metrics, partial(mean_lca_height, k=3)):
        alone = [metric(ranking(depths, n_levels=3))[0] for depths in every]
        np.testing.assert_allclose(metric(ranking(*every, n_levels=3)), alone)
    for changes in (ndcg_changes, hap_changes):
        alone_changes = [changes(ranking(depths, n_levels=3)) for depths in every]
        for found, parts in zip(changes(ranking(*every, n_levels=3)), zip(*alone_changes, strict=True), strict=True):
            np.testing.assert_allclose(found, np.concatenate(parts), atol=1e-12)
