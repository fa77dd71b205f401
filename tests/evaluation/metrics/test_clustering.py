from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics
from sklearn.cluster import AgglomerativeClustering

from hierderm.embeddings import unit_length
from hierderm.evaluation.metrics import clustering as module
from hierderm.evaluation.metrics.clustering import category_rows, silhouettes, ward_clusters
from hierderm.evaluation.metrics.kmeans import kmeans_clusters

LABELS = np.array([0, 0, 0, 1, 1, 2])
CLUSTERS = np.array([1, 1, 0, 0, 0, 0])


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


@pytest.mark.parametrize(
    ("compute", "n", "allowed"),  # bytes: of points, which have 512 in float64, and of pairs, which have 4 of each
    [
        (lambda points: silhouettes(points, [np.arange(len(points)) % 64]), 8192, 8192 * 400),
        (lambda points: kmeans_clusters(points, 3, [0]), 8192, 8192 * 700),
        (lambda points: ward_clusters(points, [2]), 600, 600 * 600 * 11),
    ],
    ids=["silhouettes", "k-means", "Ward"],
)
def test_memory_is_that_of_blocks(
    compute: Callable[[np.ndarray], object], n: int, allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silhouettes and k-means never hold all points in float64; Ward holds each distance twice, once its own."""
    monkeypatch.setattr(module, "BLOCK", 64)
    points = unit_length(np.random.default_rng(0).normal(size=(n, 64)))
    tracemalloc.start()
    compute(points)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < allowed
