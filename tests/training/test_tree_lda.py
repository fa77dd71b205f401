from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import eigh
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from hierderm.taxonomy import IntArray, Taxonomy, taxonomy_from_paths
from hierderm.training.tree_lda import TreeDiscriminants, TreeLda, best_scale

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")
RNG = np.random.default_rng(0)
CENTRES = np.repeat(RNG.normal(size=(3, 12)), 3, axis=0) + 0.5 * RNG.normal(size=(9, 12))


def drawn(n: int, noise: float = 0.6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    fine = np.arange(n) % 9
    return CENTRES[fine] + noise * rng.normal(size=(n, 12)), fine


def fit_tree_lda(features: np.ndarray, fine: IntArray, tree: Taxonomy, **setting: float) -> TreeDiscriminants:
    return TreeLda(features, fine, tree).fit(**setting)


def same_directions(first: np.ndarray, second: np.ndarray) -> float:
    """Smallest cosine of the principal angles of two row spaces."""
    return float(np.linalg.svd(np.linalg.qr(first.T)[0].T @ np.linalg.qr(second.T)[0], compute_uv=False).min())


def test_flat_is_fishers_analysis_of_the_conditions_and_zero_that_of_the_categories() -> None:
    features, fine = drawn(360)
    flat = fit_tree_lda(features, fine, TREE, shrinkage=0, decay=1, strength=0)
    expected = LinearDiscriminantAnalysis(solver="eigen").fit(features, fine).scalings_[:, :8].T
    assert flat.weight.shape == (8, 12)
    assert same_directions(flat.weight, expected) == pytest.approx(1, abs=1e-6)
    coarse = fit_tree_lda(features, fine, TREE, shrinkage=0, decay=0, strength=0)
    assert coarse.weight.shape == (2, 12)


def test_the_embedding_does_not_depend_on_scale_and_origin_of_the_features() -> None:
    features, fine = drawn(180)
    setting = {"shrinkage": 0.1, "decay": 0.5, "strength": 2.0}
    first = fit_tree_lda(features, fine, TREE, **setting).embed(features)
    other = features * np.linspace(1, 50, 12) + 3
    second = fit_tree_lda(other, fine, TREE, **setting).embed(other)
    np.testing.assert_allclose(first @ first.T, second @ second.T, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1)


def test_strength_draws_a_condition_towards_its_category() -> None:
    """A condition with one picture: without strength its direction is that picture's, with much its category's."""
    features, fine = drawn(180)
    keep = (fine != 4) | (np.arange(180) == 4)
    alone, drawn_in = (
        fit_tree_lda(features[keep], fine[keep], TREE, shrinkage=0.1, decay=1, strength=s) for s in (0.0, 1e6)
    )
    picture = features[[4]]
    assert alone.embed(picture)[0] @ alone.directions[4] == pytest.approx(1)
    sibling_cosine = drawn_in.directions[4] @ drawn_in.directions[3]
    assert sibling_cosine > 0.99  # all of the category's conditions lie in one place
    assert sibling_cosine > alone.directions[4] @ alone.directions[3]


def test_an_unseen_condition_lies_with_its_category_and_an_unseen_category_nowhere() -> None:
    features, fine = drawn(180)
    without = fit_tree_lda(features[fine != 8], fine[fine != 8], TREE, shrinkage=0.1, decay=1, strength=1)
    assert without.directions[8] @ without.directions[7] > without.directions[8] @ without.directions[0]
    nothing = fit_tree_lda(features[fine < 6], fine[fine < 6], TREE, shrinkage=0.1, decay=1, strength=1)
    assert np.isfinite(nothing.directions).all()


def test_less_decay_leaves_more_of_the_fine_level() -> None:
    features, fine = drawn(360)
    test, truth = drawn(360, seed=1)

    def fine_accuracy(decay: float) -> float:
        found = fit_tree_lda(features, fine, TREE, shrinkage=0.1, decay=decay, strength=0)
        return float(((found.embed(test) @ found.directions.T).argmax(axis=1) == truth).mean())

    assert fine_accuracy(1) > fine_accuracy(0.01) > fine_accuracy(0)


def test_more_features_than_images_and_dependent_features() -> None:
    rng = np.random.default_rng(0)
    features, fine = rng.normal(size=(27, 40)), np.arange(27) % 9
    found = fit_tree_lda(np.hstack([features, features]), fine, TREE, shrinkage=0.0, decay=0.5, strength=1)
    assert np.isfinite(found.weight).all() and found.weight.shape[0] <= 8


def test_the_scale_follows_how_sure_one_may_be() -> None:
    sharp, fine = drawn(180, noise=0.1)
    vague, _ = drawn(180, noise=3)
    found = fit_tree_lda(sharp, fine, TREE, shrinkage=0.1, decay=1, strength=0)
    assert best_scale(found.embed(sharp), fine, found.directions) > best_scale(
        found.embed(vague), fine, found.directions
    )


def test_the_projection_is_that_of_the_generalised_eigenvalue_problem() -> None:
    """The oracle: eigenvectors of the scatter between beside that within, both made image by image."""
    features, fine = drawn(180)
    decay, strength, shrinkage = 0.4, 3.0, 0.1
    found = fit_tree_lda(features, fine, TREE, shrinkage=shrinkage, decay=decay, strength=strength)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    within, between = np.zeros((12, 12)), np.zeros((12, 12))
    for category in range(3):
        of_category = fine // 3 == category
        parent = standard[of_category].mean(axis=0)
        between += of_category.sum() * np.outer(parent, parent) / 180
        for condition in range(3 * category, 3 * category + 3):
            own = standard[fine == condition]
            within += (own - own.mean(axis=0)).T @ (own - own.mean(axis=0)) / 180
            drawn_in = (own.sum(axis=0) + strength * parent) / (len(own) + strength)
            between += decay * len(own) * np.outer(drawn_in - parent, drawn_in - parent) / 180
    within = (1 - shrinkage) * within + shrinkage * np.trace(within) / 12 * np.eye(12)
    ratios, vectors = eigh(between, within)
    kept = ratios > 1e-8 * ratios[-1]
    embedded = standard @ vectors[:, kept] * np.sqrt(ratios[kept])
    embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    ours = found.embed(features)
    np.testing.assert_allclose(ours @ ours.T, embedded @ embedded.T, atol=1e-6)


def test_views_that_change_nothing_change_nothing() -> None:
    features, fine = drawn(90)
    setting = {"shrinkage": 0.1, "decay": 0.5, "strength": 2.0}
    once = TreeLda(features, fine, TREE).fit(**setting).embed(features)
    thrice = TreeLda(np.tile(features, (3, 1)), fine, TREE, n_views=3).fit(**setting).embed(features)
    np.testing.assert_allclose(once @ once.T, thrice @ thrice.T, atol=1e-6)


def test_what_views_change_counts_for_less() -> None:
    """A feature that augmentation scrambles is left out of the embedding, however well it tells training images apart."""
    features, fine = drawn(360, noise=0.3)
    rng = np.random.default_rng(1)
    marked = np.hstack([features, 3.0 * fine[:, None]])
    views = np.concatenate([marked, np.hstack([features, 27 * rng.random((360, 1))])])
    alone = TreeLda(marked, fine, TREE).fit(shrinkage=0.1, decay=1, strength=0)
    robust = TreeLda(views, fine, TREE, n_views=2).fit(shrinkage=0.1, decay=1, strength=0)

    def share(found: TreeDiscriminants) -> float:
        return float(np.linalg.norm(found.weight[:, -1] * marked[:, -1].std()) / np.linalg.norm(found.weight))

    assert share(robust) < 0.5 * share(alone)


def test_fewer_components_than_features() -> None:
    """Features that lie in a plane of ten dimensions lose nothing by ten components."""
    features, fine = drawn(360)
    wide = features @ np.random.default_rng(0).normal(size=(12, 40))
    setting = {"shrinkage": 0.0, "decay": 0.5, "strength": 1.0}
    whole = TreeLda(wide, fine, TREE).fit(**setting).embed(wide)
    reduced = TreeLda(wide, fine, TREE, components=12).fit(**setting).embed(wide)
    np.testing.assert_allclose(whole @ whole.T, reduced @ reduced.T, atol=1e-2)


def test_more_features_than_components_and_few_images() -> None:
    features, fine = drawn(27)
    wide = np.hstack([features, np.random.default_rng(0).normal(size=(27, 60))])
    found = TreeLda(wide, fine, TREE, components=50).fit(shrinkage=0.1, decay=1, strength=1)
    assert found.weight.shape[1] == 72 and np.isfinite(found.embed(wide)).all()
