from __future__ import annotations

import numpy as np
import pytest

from hierderm.embeddings import unit_length
from hierderm.evaluation.metrics.collapse import collapse_warning, effective_rank, mean_cosine, n_twins


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
    assert n_twins(test, train, np.array([0, 1, -1])) == 1  # the second is not near enough, the third has none
    assert n_twins(test, train, np.array([-1, -1, -1])) == 0
