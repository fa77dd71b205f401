from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hierderm.evaluation.metrics.soft_labels import differentials, expected_relevance, is_plausible
from hierderm.taxonomy.tree import taxonomy_from_paths

TREE = taxonomy_from_paths([("A", "x"), ("A", "y"), ("B", "z")], ("category", "condition"), id="t")
FRAME = pd.DataFrame({"condition": ["x", "y", "z"], "weights": ['{"x": 0.7, "z": 0.3}', "", '{"z": 0.5, "y": 0.5}']})


def test_differentials() -> None:
    expected = np.array([[0.7, 0, 0.3], [0, 1, 0], [0, 0.5, 0.5]])
    np.testing.assert_allclose(differentials(FRAME, TREE), expected, atol=1e-6)
    np.testing.assert_allclose(differentials(FRAME[["condition"]], TREE), np.eye(3))


def test_expected_relevance_by_hand() -> None:
    """The first query's neighbours are 3 (agree: 0.3 * 0.5) and 2 (never); at the coarse level 0.5 and 0.7."""
    fine = differentials(FRAME, TREE).astype(float)
    nearest = np.array([[2, 1], [0, -1], [0, 1]])
    np.testing.assert_allclose(expected_relevance(fine, fine, nearest, 1), [0.15, 0, 0.15], atol=1e-6)
    np.testing.assert_allclose(expected_relevance(fine, fine, nearest, 2), [0.075, 0, (0.15 + 0.5) / 2], atol=1e-6)
    coarse = TREE.sum_up(fine, 0)
    assert expected_relevance(coarse, coarse, nearest, 2)[0] == pytest.approx((0.5 + 0.7) / 2, abs=1e-6)


def test_expected_relevance_of_sure_labels_is_precision() -> None:
    rng = np.random.default_rng(0)
    labels, nearest = rng.integers(0, 4, 30), rng.integers(0, 30, (30, 10))
    sure = np.eye(4)[labels]
    np.testing.assert_allclose(
        expected_relevance(sure, sure, nearest, 10), (labels[nearest] == labels[:, None]).mean(axis=1)
    )


def test_what_is_plausible() -> None:
    weights = differentials(FRAME, TREE).astype(float)
    np.testing.assert_array_equal(is_plausible(weights, np.array([2, 0, -1])), [1, 0, np.nan])
