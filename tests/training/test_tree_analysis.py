from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import eigh
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from hierderm.model.heads import Discriminants
from hierderm.taxonomy.tree import Taxonomy, taxonomy_from_paths
from hierderm.training.tree_analysis import TreeAnalysis
from hierderm.types import IntArray

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")
RNG = np.random.default_rng(0)
CENTRES = np.repeat(RNG.normal(size=(3, 12)), 3, axis=0) + 0.5 * RNG.normal(size=(9, 12))


def drawn(n: int, noise: float = 0.6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    fine = np.arange(n) % 9
    return CENTRES[fine] + noise * rng.normal(size=(n, 12)), fine


def fitted(features: np.ndarray, fine: IntArray, tree: Taxonomy, **setting: float) -> Discriminants:
    return TreeAnalysis(features, fine, tree).fit(**setting)


def same_directions(first: np.ndarray, second: np.ndarray) -> float:
    """Smallest cosine of the principal angles of two row spaces."""
    return float(np.linalg.svd(np.linalg.qr(first.T)[0].T @ np.linalg.qr(second.T)[0], compute_uv=False).min())


def test_flat_is_fishers_analysis_of_the_conditions_and_zero_that_of_the_categories() -> None:
    features, fine = drawn(360)
    flat = fitted(features, fine, TREE, shrinkage=0, decay=1, strength=0)
    expected = LinearDiscriminantAnalysis(solver="eigen").fit(features, fine).scalings_[:, :8].T
    assert flat.weight.shape == (12, 12)  # a row for each node, of which 8 directions are independent
    assert same_directions(flat.weight, expected) == pytest.approx(1, abs=1e-6)
    coarse = fitted(features, fine, TREE, shrinkage=0, decay=0, strength=0)
    assert np.linalg.matrix_rank(coarse.weight) == 2 and not coarse.weight[3:].any()


def test_the_embedding_does_not_depend_on_scale_and_origin_of_the_features() -> None:
    features, fine = drawn(180)
    setting = {"shrinkage": 0.1, "decay": 0.5, "strength": 2.0}
    first = fitted(features, fine, TREE, **setting).embed(features)
    other = features * np.linspace(1, 50, 12) + 3
    second = fitted(other, fine, TREE, **setting).embed(other)
    np.testing.assert_allclose(first @ first.T, second @ second.T, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1)


def test_fewer_images_than_features_lose_nothing() -> None:
    """The oracle: W^-1 times the differences from the parents' means, with the covariance in all 40 dimensions."""
    rng = np.random.default_rng(2)
    fine = np.arange(27) % 9
    features = rng.normal(size=(9, 40))[fine] + rng.normal(size=(27, 40))
    found = fitted(features, fine, TREE, shrinkage=0.2, decay=1, strength=0)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    means = np.stack([standard[fine == k].mean(axis=0) for k in range(9)])
    within = np.cov((standard - means[fine]).T, bias=True)
    shrunk = 0.8 * within + 0.2 * np.trace(within) / 40 * np.eye(40)
    categories = means.reshape(3, 3, 40).mean(axis=1)
    parts = np.concatenate([categories / np.sqrt(3), (means - np.repeat(categories, 3, axis=0)) / 3])
    expected = np.linalg.solve(shrunk, parts.T).T / features.std(axis=0)
    np.testing.assert_allclose(found.weight, expected, atol=1e-6)
    np.testing.assert_allclose(found.bias, -expected @ features.mean(axis=0), atol=1e-6)


def probabilities(found: Discriminants, features: np.ndarray) -> np.ndarray:
    return np.asarray(softmax(found.logits(features), axis=1))


def test_strength_shrinks_a_condition_towards_its_category() -> None:
    """A condition with one image: without strength that image is its own, with much any of the category's."""
    features, fine = drawn(180)
    keep = (fine != 4) | (np.arange(180) == 4)
    alone, shrunk = (fitted(features[keep], fine[keep], TREE, shrinkage=0.1, decay=1, strength=s) for s in (0.0, 1e9))
    image = features[[4]]
    assert probabilities(alone, image)[0].argmax() == 4
    shares = probabilities(shrunk, image)[0, 3:6]
    np.testing.assert_allclose(shares / shares.sum(), np.array([20, 1, 20]) / 41, atol=1e-5)  # as often as they occur


def test_an_unseen_condition_lies_with_its_category_and_an_unseen_category_nowhere() -> None:
    features, fine = drawn(180)
    without = fitted(features[fine != 8], fine[fine != 8], TREE, shrinkage=0.1, decay=1, strength=1)
    unseen = probabilities(without, features[fine == 8]).mean(axis=0)
    assert unseen[6:9].sum() > 0.9 and 0 < unseen[8] < 0.1
    nothing = fitted(
        features[fine < 6], fine[fine < 6], TREE, shrinkage=0.1, decay=1, strength=1, probability_share=0.2
    )
    assert np.isfinite(nothing.embed(features)).all()


def test_less_decay_leaves_more_of_the_fine_level() -> None:
    features, fine = drawn(360)
    test, truth = drawn(360, seed=1)

    def fine_recall(decay: float) -> float:
        found = fitted(features, fine, TREE, shrinkage=0.1, decay=decay, strength=0)
        nearest = (found.embed(test) @ found.embed(features).T).argmax(axis=1)
        return float((fine[nearest] == truth).mean())

    assert fine_recall(1) > fine_recall(0.01) > fine_recall(0)


def test_the_probabilities_are_those_of_normal_classes_that_share_a_covariance() -> None:
    """The oracle: scikit-learn's discriminant analysis, which is its own posterior without shrinkage."""
    features, fine = drawn(180)
    keep = (fine != 2) | (np.arange(180) < 90)  # conditions occur more and less often
    found = fitted(features[keep], fine[keep], TREE, shrinkage=0, decay=0.4, strength=0)
    oracle = LinearDiscriminantAnalysis(solver="eigen").fit(features[keep], fine[keep])
    np.testing.assert_allclose(probabilities(found, features), oracle.predict_proba(features), atol=1e-5)


@pytest.mark.parametrize(
    ("levels", "used"),
    [
        ({}, {0: 0.5, 1: 0.5}),
        ({"fine": 2.0}, {1: 1.0}),
        ({"coarse": 1.0}, {0: 1.0}),
        ({"fine": 1.0, "coarse": 4.0}, {0: 0.8, 1: 0.2}),
    ],
)
def test_the_cosine_is_shared_by_discriminants_and_node_probabilities(
    levels: dict[str, float], used: dict[int, float]
) -> None:
    """By hand: 0.7 of the discriminants' cosine and 0.3 of the mean overlap of node probabilities, sum of sqrt(p q)."""
    features, fine = drawn(180)
    lda = TreeAnalysis(features, fine, TREE, probability_levels=levels)
    setting = {"shrinkage": 0.1, "decay": 0.5, "strength": 2.0}
    without, found = lda.fit(**setting), lda.fit(**setting, probability_share=0.3)
    pair = features[[0, 10]]
    one, other = found.embed(pair)
    conditions = probabilities(found, pair)
    nodes = {0: conditions.reshape(2, 3, 3).sum(axis=2), 1: conditions}
    overlap = sum(weight * np.sqrt(nodes[level][0] * nodes[level][1]).sum() for level, weight in used.items())
    cosine = without.embed(pair)[0] @ without.embed(pair)[1]
    assert one @ other == pytest.approx(0.7 * cosine + 0.3 * overlap)
    assert one @ one == pytest.approx(1)


def test_a_temperature_makes_the_node_probabilities_less_sure_and_no_others() -> None:
    """The cosine of an image with itself is 1 at any temperature, and scaled logits are those without one."""
    features, fine = drawn(180)
    lda = TreeAnalysis(features, fine, TREE, probability_levels={"fine": 1.0})
    setting = {"shrinkage": 0.1, "decay": 0.5, "strength": 2.0, "probability_share": 0.5}
    sure, calm = lda.fit(**setting), lda.fit(**setting, probability_temperature=3.0)
    np.testing.assert_allclose(calm.scale * calm.logits(features), sure.logits(features))
    p, q = softmax(sure.logits(features[[0, 10]]) / 3, axis=1)
    without = lda.fit(**setting | {"probability_share": 0.0}).embed(features[[0, 10]])
    one, other = calm.embed(features[[0, 10]])
    assert one @ other == pytest.approx(0.5 * (without[0] @ without[1]) + 0.5 * np.sqrt(p * q).sum())
    assert one @ one == pytest.approx(1)


def test_probabilities_of_categories_separate_categories() -> None:
    features, fine = drawn(900, noise=3)
    test, truth = drawn(360, noise=3, seed=1)
    lda = TreeAnalysis(features, fine, TREE, probability_levels={"coarse": 1.0})
    pairs = np.triu_indices(len(test), k=1)
    same = (truth[:, None] // 3 == truth // 3)[pairs]

    def separation(share: float) -> float:
        embedded = lda.fit(shrinkage=0.1, decay=1, strength=0, probability_share=share).embed(test)
        return float(roc_auc_score(same, (embedded @ embedded.T)[pairs]))

    assert separation(0.5) > separation(0.2) > separation(0.0)


def test_more_features_than_images_and_dependent_features() -> None:
    rng = np.random.default_rng(0)
    features, fine = rng.normal(size=(27, 40)), np.arange(27) % 9
    found = fitted(np.hstack([features, features]), fine, TREE, shrinkage=0.0, decay=0.5, strength=1)
    assert np.isfinite(found.weight).all() and np.isfinite(found.embed(np.hstack([features, features]))).all()


def test_the_projection_is_that_of_the_generalised_eigenvalue_problem() -> None:
    """The oracle: eigenvectors of the between-class relative to the within-class scatter, both computed image by image."""
    features, fine = drawn(180)
    decay, strength, shrinkage = 0.4, 3.0, 0.1
    found = fitted(features, fine, TREE, shrinkage=shrinkage, decay=decay, strength=strength)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    within, between = np.zeros((12, 12)), np.zeros((12, 12))
    for category in range(3):
        in_category = fine // 3 == category
        parent = standard[in_category].mean(axis=0)
        between += in_category.sum() * np.outer(parent, parent) / 180
        for condition in range(3 * category, 3 * category + 3):
            own = standard[fine == condition]
            within += (own - own.mean(axis=0)).T @ (own - own.mean(axis=0)) / 180
            shrunk = (own.sum(axis=0) + strength * parent) / (len(own) + strength)
            between += decay * len(own) * np.outer(shrunk - parent, shrunk - parent) / 180
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
    once = TreeAnalysis(features, fine, TREE).fit(**setting).embed(features)
    thrice = TreeAnalysis(np.tile(features, (3, 1)), fine, TREE, n_views=3).fit(**setting).embed(features)
    np.testing.assert_allclose(once @ once.T, thrice @ thrice.T, atol=1e-6)


def test_what_views_change_counts_for_less() -> None:
    """A feature that augmentation scrambles is left out of the embedding, however well it separates training images."""
    features, fine = drawn(360, noise=0.3)
    rng = np.random.default_rng(1)
    marked = np.hstack([features, 3.0 * fine[:, None]])
    views = np.concatenate([marked, np.hstack([features, 27 * rng.random((360, 1))])])
    alone = TreeAnalysis(marked, fine, TREE).fit(shrinkage=0.1, decay=1, strength=0)
    robust = TreeAnalysis(views, fine, TREE, n_views=2).fit(shrinkage=0.1, decay=1, strength=0)

    def share(found: Discriminants) -> float:
        return float(np.linalg.norm(found.weight[:, -1] * marked[:, -1].std()) / np.linalg.norm(found.weight))

    assert share(robust) < 0.5 * share(alone)


def test_fewer_components_than_features() -> None:
    """Features that lie in a plane of ten dimensions lose nothing by ten components."""
    features, fine = drawn(360)
    wide = features @ np.random.default_rng(0).normal(size=(12, 40))
    setting = {"shrinkage": 0.0, "decay": 0.5, "strength": 1.0}
    whole = TreeAnalysis(wide, fine, TREE).fit(**setting).embed(wide)
    reduced = TreeAnalysis(wide, fine, TREE, components=12).fit(**setting).embed(wide)
    np.testing.assert_allclose(whole @ whole.T, reduced @ reduced.T, atol=1e-2)


def test_more_features_than_components_and_few_images() -> None:
    features, fine = drawn(27)
    wide = np.hstack([features, np.random.default_rng(0).normal(size=(27, 60))])
    found = TreeAnalysis(wide, fine, TREE, components=50).fit(shrinkage=0.1, decay=1, strength=1)
    assert found.weight.shape[1] == 72 and np.isfinite(found.embed(wide)).all()


@pytest.mark.parametrize(("n_views", "components"), [(1, 2048), (2, 2048), (1, 13)])
def test_an_analysis_that_leaves_out_is_that_of_the_others(n_views: int, components: int) -> None:
    """Without shrinkage neither standardisation nor a change of basis has a part in the result."""
    features, fine = drawn(180)
    if components == 13:  # all that the features have
        features = features @ np.random.default_rng(0).normal(size=(12, 40))
    left_out = np.arange(180) % 4 == 0
    setting = {"shrinkage": 0.0, "decay": 0.5, "strength": 2.0, "probability_share": 0.2}
    views = np.tile(features, (n_views, 1)) + 0.1 * np.random.default_rng(1).normal(size=(n_views * 180, 1))
    whole = TreeAnalysis(views, fine, TREE, n_views=n_views, components=components)
    before = whole.fit(**setting).embed(features)
    found = whole.leaving_out(left_out).fit(**setting)
    others = TreeAnalysis(
        views[np.tile(~left_out, n_views)], fine[~left_out], TREE, n_views=n_views, components=components
    )
    expected = others.fit(**setting)
    ours, theirs = found.embed(features), expected.embed(features)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-4)
    np.testing.assert_allclose(probabilities(found, features), probabilities(expected, features), atol=1e-4)
    np.testing.assert_array_equal(whole.fit(**setting).embed(features), before)  # the whole one has not changed
