from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from hierderm.embeddings import unit_length
from hierderm.evaluation.metrics.probing import few_shot, knn_accuracies, linear_probe
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.taxonomy.tree import taxonomy_from_paths

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")
RNG = np.random.default_rng(0)


def points(n: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    fine = np.arange(n) % 9
    return unit_length(np.eye(9)[fine] + RNG.normal(0, noise, (n, 9))), fine


def test_knn_is_that_of_scikit_learn() -> None:
    (train, train_fine), (test, test_fine) = points(180, 0.5), points(60, 0.5)
    found = knn_accuracies(
        Labelled(test, TREE.ancestors[test_fine].T, np.arange(60)),
        Labelled(train, TREE.ancestors[train_fine].T, np.arange(180) + 100),
    )
    for level in (0, 1):
        model = KNeighborsClassifier(5, metric="cosine").fit(train, TREE.to_level(train_fine, level))
        votes = model.predict_proba(test)
        clear = np.sort(votes, axis=1)[:, -1] > np.sort(votes, axis=1)[:, -2]  # ties are ours: the nearer wins
        right = model.predict(test) == TREE.to_level(test_fine, level)
        np.testing.assert_array_equal(found[level][clear], right[clear])


def test_the_probe_learns_and_chooses_on_validation() -> None:
    (train, fine), (validation, held_out), (test, truth) = points(180, 0.3), points(90, 0.3), points(90, 0.3)
    scaler, model = linear_probe(train, fine, validation, held_out)
    assert model.score(scaler.transform(test), truth) > 0.8
    assert linear_probe(train, fine, None, None)[1].C == 1.0


def test_few_shot_of_perfect_and_of_random_embeddings() -> None:
    (train, fine), (test, truth) = points(90, 1e-3), points(45, 1e-3)
    coarse, at_fine = few_shot(train, fine, test, truth, TREE, 5, n_draws=3, rng=np.random.default_rng(0))
    assert (coarse == 1).all() and (at_fine == 1).all()
    noise = unit_length(RNG.normal(size=(2000, 9)))
    guessed = few_shot(train, fine, noise, np.arange(2000) % 9, TREE, 1, n_draws=5, rng=np.random.default_rng(0))
    assert guessed[1].mean() == pytest.approx(1 / 9, abs=0.03) and guessed[0].mean() == pytest.approx(1 / 3, abs=0.04)


def test_conditions_with_too_few_pictures_are_left_out() -> None:
    train, fine = points(90, 0.1)
    keep = (fine != 8) | (np.arange(90) < 20)  # two pictures of F8
    coarse, _ = few_shot(train[keep], fine[keep], train, fine, TREE, 5, n_draws=2, rng=np.random.default_rng(0))
    assert np.isnan(coarse[fine == 8]).all() and not np.isnan(coarse[fine != 8]).any()
    assert np.isnan(few_shot(train, fine, train, fine, TREE, 50, n_draws=2, rng=np.random.default_rng(0))[0]).all()
