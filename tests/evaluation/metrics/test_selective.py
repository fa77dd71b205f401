from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.isotonic import IsotonicRegression

from hierderm.errors import SearchError
from hierderm.evaluation.metrics.selective import AnswerRule, LevelRule, controlled_threshold, fewest_queries
from hierderm.json_files import checked
from hierderm.taxonomy.tree import taxonomy_from_paths

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")


def calibrated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with conditions that are drawn from them."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(9, 0.2), n)
    return probabilities, np.array([rng.choice(9, p=row) for row in probabilities])


def test_answers_above_the_threshold_keep_to_the_rate() -> None:
    """Right with the probability that the confidence states: 0.8 holds from about 0.6 upwards (mean 0.8)."""
    broken = found = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        confidence = rng.uniform(size=400)
        threshold = controlled_threshold(confidence, rng.uniform(size=400) < confidence, 0.8)
        if threshold is not None:
            found += 1
            broken += (1 + threshold) / 2 < 0.8
    assert found > 150 and broken <= 0.1 * 200 + 3 * np.sqrt(200 * 0.09)


def test_no_threshold_where_nothing_is_sure_or_too_little_is_known() -> None:
    rng = np.random.default_rng(0)
    assert controlled_threshold(rng.uniform(size=300), rng.uniform(size=300) < 0.5, 0.8) is None
    assert controlled_threshold(np.ones(5), np.ones(5, dtype=bool), 0.8) is None


def test_answers_keep_to_the_wanted_accuracy_at_each_level() -> None:
    """A threshold may be too low in one of ten repetitions; answers of a level are those that no finer one gives."""
    tried = too_low = 0
    for seed in range(60):
        probabilities, fine = calibrated(4300, seed)
        found = AnswerRule.learn(probabilities[:300], fine[:300], TREE, 0.8).apply(probabilities[300:], TREE)
        for level in (0, 1):
            answered = found.level == level
            if answered.any():
                tried += 1
                too_low += (TREE.to_level(fine[300:], level) == found.node)[answered].mean() < 0.8
    assert tried > 40
    assert too_low <= 0.1 * tried + 2 * np.sqrt(0.09 * tried)


def test_each_level_learns_on_what_the_finer_ones_leave() -> None:
    probabilities, fine = calibrated(400, 1)
    rule = AnswerRule.learn(probabilities, fine, TREE, 0.8)
    coarse, finest = rule.levels
    answered = probabilities.max(axis=1) >= (finest.threshold or 2)
    assert (finest.n_queries, finest.answered) == (400, answered.sum())
    assert finest.right == (probabilities.argmax(axis=1) == fine)[answered].sum()
    category = TREE.sum_up(probabilities, 0)[~answered]
    right = category.argmax(axis=1) == fine[~answered] // 3
    assert coarse.n_queries == (~answered).sum()
    assert coarse.threshold == controlled_threshold(category.max(axis=1), right, 0.8)
    passed = category.max(axis=1) >= (coarse.threshold or 2)
    assert (coarse.answered, coarse.right) == (passed.sum(), right[passed].sum())


def test_the_confidence_curve_is_an_isotonic_regression_of_bins() -> None:
    """Against scikit-learn on the same 25-query bins; each has two imagined queries, one right and one wrong."""
    probabilities, fine = calibrated(100, 2)
    finest = AnswerRule.learn(probabilities, fine, TREE, 0.8).levels[-1]
    order = probabilities.max(axis=1).argsort(kind="stable").reshape(4, 25)
    right = (probabilities.argmax(axis=1) == fine)[order].sum(axis=1)
    centres = probabilities.max(axis=1)[order].mean(axis=1)
    assert finest.shares == pytest.approx(centres)
    assert finest.accuracies == pytest.approx(IsotonicRegression().fit_transform(centres, (right + 1) / 27))
    assert finest.confidence(np.array([0.0, centres[1], 1.0])) == pytest.approx(np.array(finest.accuracies)[[0, 1, -1]])


def test_an_answer_is_as_fine_as_its_threshold_allows() -> None:
    scores = np.zeros((3, 9))
    scores[0, 4], scores[1, [3, 4, 5]], scores[2, [0, 3, 6]] = 1, 1 / 3, 1 / 3
    rule = AnswerRule(0.8, tuple(LevelRule(0.6, (0.0, 1.0), (0.5, end), 100, 40, 36) for end in (0.9, 0.7)))
    found = rule.apply(scores, TREE)
    assert (found.node.tolist(), found.level.tolist()) == ([4, 1, -1], [1, 0, -1])
    assert found.confidence == pytest.approx([0.7, 0.9, 0.5 + 0.4 / 3])  # without an answer that of the category
    assert checked(asdict(rule), AnswerRule, "x", SearchError) == rule


def test_without_a_threshold_there_is_no_answer() -> None:
    probabilities, fine = calibrated(10, 0)
    rule = AnswerRule.learn(probabilities, fine, TREE, 0.8)
    assert [level.threshold for level in rule.levels] == [None, None]  # too few to learn from
    found = rule.apply(probabilities, TREE)
    assert (found.node == -1).all() and (found.level == -1).all()


def test_how_many_queries_can_show_an_accuracy() -> None:
    for wanted in (0.5, 0.65, 0.8, 0.9, 0.99):
        for errors in (0, 1, 3):
            n = fewest_queries(wanted, errors)
            below, enough = (binom.cdf(errors, count, 1 - wanted) for count in (n - 1, n))
            assert enough <= 0.1 < below
    assert (fewest_queries(0.8, 3), fewest_queries(0.8, 1), fewest_queries(0.9, 3)) == (32, 18, 65)
    assert fewest_queries(0.999999, 3) > 1_000_000  # and at once


def test_a_high_accuracy_can_be_shown() -> None:
    """The first test was of 20 queries: for 0.9 even 20 right ones are too few, and nothing was ever answered."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=1000)
    threshold = controlled_threshold(confidence, rng.uniform(size=1000) < 0.8 + 0.2 * confidence, 0.9)
    assert threshold is not None and threshold < 0.8
