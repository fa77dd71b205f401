from __future__ import annotations

from math import comb, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.cluster import AgglomerativeClustering

from hierderm.embeddings import unit_length
from hierderm.evaluation.metrics.clustering import (
    AGREEMENT,
    agreement,
    category_rows,
    contingency,
    expected_mutual_information,
    silhouettes,
    ward_clusters,
)

LABELS = np.array([0, 0, 0, 1, 1, 2])
CLUSTERS = np.array([1, 1, 0, 0, 0, 0])


def test_purity_by_hand() -> None:
    # cluster 1 holds two of label 0: pure. Cluster 0 holds 0, 1, 1, 2: two of four. 4 of 6 images; mean of 1 and 1/2.
    scores = agreement(contingency(LABELS, CLUSTERS))
    assert scores["purity"] == pytest.approx(4 / 6)
    assert scores["purity_unweighted"] == pytest.approx(3 / 4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=40))
def test_agreement_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    labels, clusters = np.array(pairs).T
    scores = agreement(contingency(labels, clusters))
    for name, function in (
        ("nmi", metrics.normalized_mutual_info_score),
        ("ami", metrics.adjusted_mutual_info_score),
        ("ari", metrics.adjusted_rand_score),
        ("homogeneity", metrics.homogeneity_score),
        ("completeness", metrics.completeness_score),
        ("v_measure", metrics.v_measure_score),
    ):
        if name == "nmi" and len(set(labels)) == len(set(clusters)) == 1:
            continue  # one label in one cluster: scikit-learn's NMI is 1 by convention, as is our V
        assert scores[name] == pytest.approx(function(labels, clusters), abs=1e-9), name


@pytest.mark.parametrize("shape", [(1, 5), (3, 4), (40, 60), (5, 200)])
def test_expected_mutual_information_is_scikit_learns(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for n in (50, 3000):
        labels = np.minimum(rng.geometric(0.15, n), shape[0]) - 1  # a long tail
        table = contingency(labels, rng.integers(0, shape[1], n))
        expected = metrics.cluster.expected_mutual_information(table, n)
        found = expected_mutual_information(table.sum(axis=1), table.sum(axis=0))
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_expected_mutual_information_of_few_and_of_many_expected_images(a: list[int], b: list[int]) -> None:
    """Sizes of every kind: pairs of a small mean go through the series, the others are summed."""
    a, b = (a, [*b, sum(a) - sum(b)]) if sum(b) < sum(a) else ([*a, sum(b) - sum(a)], b)
    sizes, others = (np.array([size for size in found if size]) for found in (a, b))
    expected = sum(information_by_hand(int(one), int(other), int(sizes.sum())) for one in sizes for other in others)
    assert expected_mutual_information(sizes, others) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def information_by_hand(a: int, b: int, total: int) -> float:
    """One pair's part of the expected mutual information, as it is defined, in whole numbers."""
    chances = {
        n: comb(a, n) * comb(total - a, b - n) / comb(total, b) for n in range(1, min(a, b) + 1) if b - n <= total - a
    }
    return sum(n / total * log(n * total / (a * b)) * chance for n, chance in chances.items())


def test_a_perfect_clustering_scores_one_and_names_do_not_matter() -> None:
    scores = agreement(contingency(LABELS, np.array([2, 2, 2, 0, 0, 1])))
    assert all(value == pytest.approx(1) for value in scores.values())


def test_weights_count_images_several_times() -> None:
    weights = np.array([2, 0, 1, 1, 3, 1])
    repeated = np.repeat(np.arange(6), weights)
    np.testing.assert_array_equal(
        contingency(LABELS, CLUSTERS, weights), contingency(LABELS[repeated], CLUSTERS[repeated])
    )


def test_silhouette_is_that_of_scikit_learn_with_the_cosine_distance() -> None:
    rng = np.random.default_rng(0)
    points = unit_length(rng.normal(size=(60, 5)))
    labels = rng.integers(0, 6, 60)
    labels[labels == 5] = 4
    labels[0] = 5  # alone in its group: 0
    expected = metrics.silhouette_samples(points, labels, metric="cosine")
    found, one, alone = silhouettes(points, [labels, np.zeros(60, dtype=int), np.arange(60)])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.isnan(one).all() and np.isnan(alone).all()
    assert (silhouettes(np.ones((4, 1)), [np.array([0, 0, 1, 1])])[0] == 0).all()  # all equal: no group is nearer


def test_agglomerative_clusters_are_those_of_scikit_learn() -> None:
    points = np.random.default_rng(0).normal(size=(50, 4))
    for count, clusters in zip((2, 7), ward_clusters(points, (2, 7)), strict=True):
        expected = AgglomerativeClustering(count, linkage="ward").fit_predict(points)
        assert metrics.adjusted_rand_score(expected, clusters) == 1
        assert set(clusters) == set(range(count))
    np.testing.assert_array_equal(np.unique(ward_clusters(points[[0, 0, 1, 1, 1]], (2,))[0]), [0, 1])  # twins


def test_category_rows_by_hand() -> None:
    rows = category_rows(LABELS, CLUSTERS)
    assert [row.n_images for row in rows] == [3, 2, 1]
    assert rows[0].share_in_main_cluster == pytest.approx(2 / 3)
    assert rows[0].purity_of_main_cluster == 1
    assert rows[1].purity_of_main_cluster == pytest.approx(2 / 4)
    assert sum(share for _, share in rows[0].went_to) == pytest.approx(1)
    assert rows[0].went_to[0][0] == 0 and rows[0].went_to[0][1] == pytest.approx(2 / 3)


def test_of_no_image_the_agreement_is_undefined() -> None:
    labels = np.array([0, 1, 1])
    found = agreement(contingency(labels, labels, np.zeros(3, dtype=np.int64)))
    assert set(found) == set(AGREEMENT) and np.isnan(list(found.values())).all()
