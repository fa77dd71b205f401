from __future__ import annotations

import numpy as np
import pytest

from hierderm.embeddings import unit_length
from hierderm.evaluation.metrics.collapse import collapse_warning, effective_rank, mean_cosine, twin_distance, twins


def test_effective_rank_counts_directions() -> None:
    corners = np.concatenate([np.eye(4), -np.eye(4)])
    assert effective_rank(corners) == pytest.approx(4)
    assert effective_rank(np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])) == pytest.approx(2)
    assert effective_rank(np.ones((5, 3))) == 1
    shifted = np.random.default_rng(0).normal(size=(500, 8)) + 100  # the mean is no direction of spread
    assert effective_rank(shifted) == pytest.approx(8, rel=0.01)


def test_mean_cosine_is_that_of_all_pairs() -> None:
    points = unit_length(np.random.default_rng(0).normal(size=(20, 3)) + 1)
    pairs = (points @ points.T)[~np.eye(20, dtype=bool)]
    assert mean_cosine(points) == pytest.approx(pairs.mean(), abs=1e-6)
    assert np.isnan(mean_cosine(points[:1]))


def test_what_is_called_a_collapse() -> None:
    assert collapse_warning(15.0, 0.3, 16) == ""
    assert "effective rank is 7.0, and 16 categories need 15 directions" in collapse_warning(7.0, 0.3, 16)
    assert "a cosine of 0.970 on average" in collapse_warning(15.0, 0.97, 16)


def test_twins_are_counted() -> None:
    test = unit_length(np.eye(3))
    train = unit_length(np.array([[1, 0.001, 0], [0, 1, 0.2], [0, 0, 1]]))
    assert twins(test, train, np.array([0, 1, -1]), 1e-4).tolist() == [0, -1, -1]  # 1 is not near enough, 2 has none
    assert twins(test, train, np.array([-1, -1, -1]), 1e-4).tolist() == [-1] * 3


def neighbours(points: np.ndarray) -> np.ndarray:
    return np.argsort(-(points @ points.T), axis=1)[:, 1:11]


def test_how_near_twins_are_follows_the_embedding() -> None:
    """A copy that is off by a little is a twin in a wide embedding; in a tight one different images lie as near."""
    rng = np.random.default_rng(0)
    wide = unit_length(rng.normal(size=(200, 16)))
    tight = unit_length(np.eye(16)[np.arange(200) % 16] + rng.normal(0, 0.005, (200, 16)))
    assert twin_distance(wide, neighbours(wide)) == pytest.approx(1e-4)
    assert 1e-6 <= twin_distance(tight, neighbours(tight)) < 1e-6 * 1.001 + 1e-6
    for points, off, n in ((wide, 0.002, 200), (tight, 0.0, 200), (tight, 0.01, 0)):
        copies = unit_length(points + off * unit_length(rng.normal(size=points.shape)))
        nearest = (points @ copies.T).argmax(axis=1)
        found = twins(points, copies, nearest, twin_distance(points, neighbours(points)))
        assert (found >= 0).sum() == n
    doubled = np.concatenate([wide, wide])  # all of them are twins: the scale must not follow these
    assert twin_distance(doubled, neighbours(doubled)) == pytest.approx(1e-4)
    assert twin_distance(wide, np.full((200, 10), -1)) == pytest.approx(1e-4)
