from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans, kmeans_plusplus

from hierderm.embeddings import unit_length
from hierderm.evaluation.metrics.agreement import Contingency
from hierderm.evaluation.metrics.kmeans import _Run, kmeans_clusters, kmeans_starts


def test_kmeans_finds_separate_groups_and_repeats() -> None:
    rng = np.random.default_rng(0)
    points = np.eye(3)[np.repeat([0, 1, 2], 10)] + rng.normal(0, 0.01, (30, 3))
    runs = kmeans_clusters(points, 3, [0, 5])
    assert [Contingency(np.repeat([0, 1, 2], 10), run).agreement()["ami"] for run in runs] == pytest.approx([1, 1])
    np.testing.assert_array_equal(kmeans_clusters(points, 3, [5])[0], runs[1])  # no run sees the others
    assert set(kmeans_clusters(np.ones((4, 2)), 3, [0])[0]) == {0}  # one distinct point: one cluster
    twins = np.array([[0, 0], [0, 1], [0, 2]])[np.arange(300) % 3] / 7  # distinct, but not in their first coordinate
    assert len(set(kmeans_clusters(twins, 5, [0])[0])) == 3


@pytest.mark.parametrize("k", [2, 30])
def test_kmeans_starts_from_the_centres_of_scikit_learn(k: int) -> None:
    points = np.random.default_rng(0).normal(size=(200, 8))
    points -= points.mean(axis=0)
    for seed, start in enumerate(kmeans_starts(points, k, range(3))):
        np.testing.assert_array_equal(start, kmeans_plusplus(points, k, random_state=seed)[1])


def test_many_equal_points_do_not_hide_the_few_others() -> None:
    """Seeding takes no rounding of single precision for a distance."""
    points: np.ndarray = np.eye(6, dtype=np.float32)[np.minimum(np.arange(2000), 5)]
    assert {int(min(row, 5)) for row in kmeans_starts(points, 6, [0])[0]} == set(range(6))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("k", "n"), [(3, 40), (12, 300), (60, 90)])
def test_kmeans_ends_where_that_of_scikit_learn_ends(k: int, n: int, dtype: type) -> None:
    rng = np.random.default_rng(0)
    points: np.ndarray = (rng.normal(size=(30, 6))[rng.integers(0, 30, n)] + rng.normal(size=(n, 6)) + 2).astype(dtype)
    starts = kmeans_starts(points - points.mean(axis=0), k, range(4))
    for clusters, start in zip(kmeans_clusters(points, k, range(4)), starts, strict=True):
        expected = KMeans(k, init=points[start], n_init=1).fit(points).labels_
        np.testing.assert_array_equal(clusters, expected)


def test_a_centre_that_loses_its_points_goes_to_the_farthest() -> None:
    points = np.array([[0.0], [0.1], [9.0], [9.1], [30.0]])
    run = _Run(points, np.array([0, 2, 2]))
    run.move(np.array([0, 0, 1, 1, 1]))
    np.testing.assert_allclose(run.centres.ravel(), [0.05, (9 + 9.1 + 30) / 3, 30])


def test_kmeans_of_single_precision_is_as_good() -> None:
    rng = np.random.default_rng(0)
    points = unit_length(rng.normal(size=(30, 24))[rng.integers(0, 30, 500)] + rng.normal(size=(500, 24)))
    ours, theirs = (
        [sum(points[run == cluster].var(axis=0).sum() * (run == cluster).sum() for cluster in set(run)) for run in runs]
        for runs in (
            kmeans_clusters(points, 30, range(8)),
            [KMeans(30, n_init=1, random_state=seed).fit(points.astype(np.float64)).labels_ for seed in range(8)],
        )
    )
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.01)
