"""HOPS: by hand, against its definition in plain loops, and what it must do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierderm.evaluation.metrics.hops import hops
from hierderm.taxonomy.tree import Taxonomy, taxonomy_from_paths

SMALL = taxonomy_from_paths([("A", "a1"), ("A", "a2"), ("B", "b1"), ("B", "b2")], ("category", "condition"), id="s")
DEEP = taxonomy_from_paths(
    [(f"T{k // 6}", f"C{k // 3}", f"F{k}") for k in range(9)] + [("T9", "C9", "F9")],
    ("top", "category", "condition"),
    id="d",
)


def slow_hops(scores: list[float], label: int, tree: Taxonomy, k: int | None) -> float:
    """Place by place, from the heights of the common ancestors."""
    heights = tree.lca_height[label].tolist()
    rank = [sorted(set(heights)).index(height) for height in heights]
    best, places = sorted(rank), range(len(rank) if k is None else min(k, len(rank)))
    found = [rank[i] for i in sorted(range(len(rank)), key=lambda i: (-scores[i], i))]
    weights = []
    for place, r in enumerate(best):
        start, end = 2.0**-r, 2.0 ** -(r + 1) if r < best[-1] else 0.0
        weights.append(start - (start - end) * (place - best.index(r)) / best.count(r))
    reversed_best = [best[place] for place in places][::-1]
    cost, worst = 0.0, 0.0
    for place in places:
        cost += weights[place] * abs(best[place] - found[place])
        worst += weights[place] * abs(best[place] - reversed_best[place])
    return max(1 - cost / worst, 0.0)


def ranked(*order: int) -> np.ndarray:
    scores = np.zeros((1, len(order)))
    scores[0, list(order)] = np.arange(len(order), 0, -1)
    return scores


def test_by_hand() -> None:
    """The truth a1: best order of ranks [0, 1, 2, 2], weights [1, 1/2, 1/4, 1/8], its reverse costs 3."""
    truth = np.array([0])
    assert hops(ranked(0, 1, 2, 3), truth, SMALL) == pytest.approx(1)
    assert hops(ranked(0, 1, 3, 2), truth, SMALL) == pytest.approx(1)  # b1 and b2 are as far from a1
    assert hops(ranked(1, 0, 2, 3), truth, SMALL) == pytest.approx(1 - 1.5 / 3)
    assert hops(ranked(0, 2, 1, 3), truth, SMALL) == pytest.approx(1 - 0.75 / 3)
    assert hops(ranked(3, 2, 1, 0), truth, SMALL) == pytest.approx(0)
    # The first two places: [0, 1], reversed [1, 0], which costs 1 + 1/2; b1 in the second place costs 1/2.
    assert hops(ranked(0, 2, 1, 3), truth, SMALL, (2,)) == pytest.approx(1 - 0.5 / 1.5)
    assert hops(ranked(2, 3, 0, 1), truth, SMALL, (2,)) == 0  # worse than the reverse: no less than 0


@settings(max_examples=60)
@given(st.permutations(range(10)), st.integers(0, 9))
def test_against_the_definition(order: list[int], label: int) -> None:
    scores, ks = ranked(*order), (None, 2, 5)
    expected = [[slow_hops(scores[0].tolist(), label, DEEP, k)] for k in ks]
    np.testing.assert_allclose(hops(scores, np.array([label]), DEEP, ks), expected, atol=1e-12)


def test_it_sees_an_order_that_the_mean_distance_does_not() -> None:
    """The paper's reason for it: the same first five conditions, in the best order and with the truth last."""
    first = hops(ranked(0, 1, 2, 3, 4, 5, 6, 7, 8, 9), np.array([0]), DEEP, (5,))
    last = hops(ranked(4, 3, 2, 1, 0, 5, 6, 7, 8, 9), np.array([0]), DEEP, (5,))
    assert first == pytest.approx(1) and last == pytest.approx(0)


def test_equal_scores_and_a_single_condition() -> None:
    assert hops(np.full((1, 4), 0.25), np.array([0]), SMALL) == pytest.approx(1)  # those of lower number first
    one = taxonomy_from_paths([("A", "a")], ("category", "condition"), id="one")
    assert np.isnan(hops(np.ones((2, 1)), np.array([0, 0]), one)).all()
