from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn

from hierderm.evaluation.metrics.calibration import (
    aurc,
    best_temperature,
    brier,
    calibration_error,
    conformal_sets,
    conformal_threshold,
    coverage_by_class,
    n_nodes,
    reliability,
    risk_coverage,
    scaled,
    temperature,
)
from hierderm.taxonomy.tree import taxonomy_from_paths

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")


def honest(n: int, seed: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with labels that are drawn from them."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(9, 0.3 / sharpness), n)
    labels = np.array([rng.choice(9, p=row) for row in probabilities])
    return probabilities, labels


def test_calibration_error_by_hand() -> None:
    """Two bins of ten: 0.82, 0.88 with one right (|0.5 - 0.85| = 0.35) and 0.3 wrong: (2 * 0.35 + 0.3) / 3."""
    confidence, right = np.array([0.82, 0.88, 0.3]), np.array([1.0, 0.0, 0.0])
    assert calibration_error(confidence, right, 10) == pytest.approx(1 / 3)
    rounds = calibration_error(confidence, right, 10, np.array([[0, 0, 2], [0, 0, 0], [1, 1, 1]]))
    assert rounds == pytest.approx([0.3, np.nan, 1 / 3], nan_ok=True)
    assert reliability(confidence, right, 10) == [
        {"confidence": 0.3, "accuracy": 0.0, "count": 1},
        {"confidence": pytest.approx(0.85), "accuracy": 0.5, "count": 2},
    ]


def test_certainty_is_in_the_last_bin() -> None:
    assert calibration_error(np.array([1.0, 1.0]), np.array([1.0, 0.0]), 15) == pytest.approx(0.5)


def test_honest_probabilities_are_calibrated_and_sharpened_ones_are_not() -> None:
    probabilities, labels = honest(20_000, 0)
    right = (probabilities.argmax(axis=1) == labels).astype(float)
    assert calibration_error(probabilities.max(axis=1), right, 15) < 0.015
    sharp = scaled(probabilities, 0.4)
    assert calibration_error(sharp.max(axis=1), right, 15) > 0.05
    assert temperature(sharp, labels) == pytest.approx(2.5, rel=0.05)
    np.testing.assert_allclose(scaled(sharp, 2.5), probabilities, atol=1e-2)
    assert (scaled(probabilities, 3.0).argmax(axis=1) == probabilities.argmax(axis=1)).all()


def test_the_temperature_search_finds_a_minimum_within_its_bounds() -> None:
    assert best_temperature(lambda t: (np.log(t) - np.log(0.03)) ** 2, 0.005, 1) == pytest.approx(0.03, rel=1e-4)
    assert best_temperature(lambda t: t, 0.005, 1) == pytest.approx(0.005, rel=1e-3)


def test_brier_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    chance = rng.uniform(size=50)
    labels = rng.integers(0, 2, 50)
    two = np.stack([1 - chance, chance], axis=1)
    assert brier(two, labels).mean() == pytest.approx(2 * sklearn.brier_score_loss(labels, chance))


def test_risk_coverage_by_hand() -> None:
    """Surest first: right, then two of equal confidence (one wrong), then a wrong one."""
    confidence, right = np.array([0.9, 0.6, 0.6, 0.2]), np.array([1.0, 0.0, 1.0, 0.0])
    coverage, risk = risk_coverage(confidence, right)
    assert coverage.tolist() == [0.25, 0.75, 1.0] and risk == pytest.approx([0, 1 / 3, 1 / 2])
    assert aurc(confidence, right) == pytest.approx(0.5 / 3 + 0.25 / 2)
    weights = np.array([2, 1, 0, 1])
    repeated = np.repeat(confidence, weights), np.repeat(right, weights)
    rounds = aurc(confidence, right, np.stack([weights, 0 * weights, [0, 0, 0, 1]]))
    assert rounds == pytest.approx([float(aurc(*repeated)), np.nan, 1], nan_ok=True)
    assert aurc(confidence, np.ones(4)) == 0 and aurc(confidence, np.zeros(4)) == 1


def test_conformal_sets_cover_what_they_state() -> None:
    covered = []
    for seed in range(60):
        probabilities, labels = honest(250, seed)
        threshold = conformal_threshold(probabilities[:100], labels[:100], 0.2)
        sets = conformal_sets(probabilities[100:], threshold)
        covered.append(sets[np.arange(150), labels[100:]].mean())
    assert np.mean(covered) == pytest.approx(0.8, abs=0.02)


def test_too_few_for_the_wanted_coverage_gives_every_class() -> None:
    probabilities, labels = honest(5, 0)
    assert conformal_threshold(probabilities, labels, 0.1) == 0
    assert conformal_sets(probabilities, 0.0).all()
    assert conformal_sets(probabilities, 2.0).sum(axis=1).tolist() == [1] * 5  # never empty
    assert conformal_threshold(probabilities[:4], labels[:4], 0.2) == probabilities[np.arange(4), labels[:4]].min()


def test_nodes_of_a_set_by_hand() -> None:
    """{F0 F1 F2} is C0; {F0 F1 F3 F4 F5} is F0, F1 and C1; everything is three categories."""
    sets = np.zeros((4, 9), dtype=bool)
    sets[0, :3] = sets[1, [0, 1, 3, 4, 5]] = sets[2] = True
    assert n_nodes(sets, TREE).tolist() == [1, 3, 3, 0]


def test_coverage_by_class() -> None:
    sets = np.array([[True, False], [True, True], [True, False]])
    rows = coverage_by_class(sets, np.array([0, 1, 1]), np.array([0, 1, 1]), ("A", "B"))
    assert rows == [
        {"category": "A", "n_images": 1, "coverage": 1.0, "size": 1.0},
        {"category": "B", "n_images": 2, "coverage": 0.5, "size": 1.5},
    ]
