from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn

from hierderm.evaluation.metrics.classification import (
    class_scores,
    hierarchical_scores,
    hierarchical_scores_by_image,
    in_top,
    set_overlap,
)
from hierderm.taxonomy.tree import taxonomy_from_paths

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 9, 120)
PROBABILITIES = RNG.dirichlet(np.ones(9), 120)
PREDICTED = PROBABILITIES.argmax(axis=1)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_top_k_is_that_of_scikit_learn(k: int) -> None:
    expected = sklearn.top_k_accuracy_score(LABELS, PROBABILITIES, k=k, labels=np.arange(9))
    assert in_top(PROBABILITIES, LABELS, k).mean() == pytest.approx(expected)


def test_equal_probabilities_have_an_order() -> None:
    """All equal: places are those of the numbers, so that exactly k of the n classes are in the top k."""
    same = np.full((5, 5), 0.2)
    np.testing.assert_array_equal(in_top(same, np.arange(5), 2), [1, 1, 0, 0, 0])


def test_balanced_accuracy_and_macro_f1_are_those_of_scikit_learn() -> None:
    some = LABELS[:20], PREDICTED[:20]  # not every class occurs
    for labels, predicted in ((LABELS, PREDICTED), some):
        balanced, f1 = class_scores(labels, predicted)
        assert balanced == pytest.approx(np.mean([(predicted[labels == k] == k).mean() for k in np.unique(labels)]))
        assert f1 == pytest.approx(sklearn.f1_score(labels, predicted, average="macro"))
    assert class_scores(LABELS, PREDICTED)[0] == pytest.approx(sklearn.balanced_accuracy_score(LABELS, PREDICTED))


def test_weights_are_repetitions() -> None:
    weights = RNG.integers(0, 3, 120)
    repeated = class_scores(np.repeat(LABELS, weights), np.repeat(PREDICTED, weights))
    rounds = class_scores(LABELS, PREDICTED, np.stack([weights, 0 * weights, weights]))
    assert rounds[0] == pytest.approx(repeated) and (rounds[2] == rounds[0]).all() and np.isnan(rounds[1]).all()


def test_hierarchical_scores_by_hand() -> None:
    """Truths F0 F0 F0; answers F1 (category right), C0 (right), none: 1 + 1 of 2 + 1 ancestors, of 6 possible."""
    common, said = set_overlap(np.array([0, 0, 0]), np.array([1, 0, -1]), np.array([1, 0, -1]), TREE)
    assert common.tolist() == [1, 1, 0] and said.tolist() == [2, 1, 0]
    length = np.array([2, 2, 2])
    assert hierarchical_scores(common, said, length) == pytest.approx([2 / 3, 2 / 6, 4 / 9])
    rounds = hierarchical_scores(common, said, length, np.array([[0, 0, 1], [0, 0, 0], [0, 2, 0]]))
    np.testing.assert_array_equal(rounds, [[np.nan, 0, 0], [np.nan] * 3, [1, 0.5, 2 / 3]])  # nothing is answered; none
    precision, recall, f1 = hierarchical_scores_by_image(common, said, length)
    np.testing.assert_allclose(precision, [1 / 2, 1, np.nan])
    assert recall.tolist() == [0.5, 0.5, 0] and f1 == pytest.approx([1 / 2, 2 / 3, 0])
