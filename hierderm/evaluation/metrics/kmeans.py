"""k-means, several runs at once: they share the products that its time goes into."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from hierderm.embeddings import by_blocks
from hierderm.types import Floats, IntArray

MOST_ITERATIONS, TOLERANCE = 300, 1e-4  # the latter of the mean variance
BLOCK = 1024  # images at a time


def kmeans_clusters(embeddings: Floats, k: int, seeds: Sequence[int]) -> list[IntArray]:
    """Cluster numbers, shape (n_images,), of one k-means run a seed: k-means++, then Lloyd's iterations.

    Seeding, tolerance and the most iterations are scikit-learn's. `k` is cut to the number of distinct embeddings. On
    unit vectors k-means is close to spherical k-means.
    """
    if len(np.unique(embeddings[:, 0])) < k:  # as many distinct first coordinates are as many distinct embeddings
        k = min(k, len(np.unique(embeddings, axis=0)))
    points = embeddings - embeddings.mean(axis=0)
    runs = [_Run(points, start) for start in kmeans_starts(points, k, seeds)]
    moving, tolerance = runs, TOLERANCE * _squared_lengths(points).mean(dtype=np.float64) / points.shape[1]
    for _ in range(MOST_ITERATIONS):
        shifts = [run.move(found) for run, found in zip(moving, _nearest_centres(points, moving), strict=True)]
        moving = [run for run, shift in zip(moving, shifts, strict=True) if shift > tolerance]
        if not moving:
            break
    return _nearest_centres(points, runs)


class _Run:
    """One run of k-means: its centres, and what their means are made of."""

    def __init__(self, points: Floats, start: IntArray) -> None:
        self.points, self.centres = points, points[start]  # (k, dim)
        self.labels = np.full(len(points), -1, dtype=np.int64)
        self.sums, self.sizes = np.zeros(self.centres.shape), np.zeros(len(start))

    def move(self, labels: IntArray) -> float:
        """Move the centres to the means of their points; the sum of squared shifts. Only points that changed count."""
        changed = np.flatnonzero(labels != self.labels)
        before = changed[self.labels[changed] >= 0]
        columns = np.searchsorted(changed, np.concatenate([changed, before]))
        rows = np.concatenate([labels[changed], self.labels[before]])
        sign = np.repeat([1.0, -1.0], [len(changed), len(before)])
        difference = csr_array((sign, (columns, rows)), shape=(len(changed), len(self.sizes)))
        for start in range(0, len(changed), BLOCK):  # whose copies are small
            self.sums += difference[start : start + BLOCK].T @ self.points[changed[start : start + BLOCK]]
        self.sizes += np.bincount(rows, sign, len(self.sizes))
        self.labels = labels
        means = self.sums / np.maximum(self.sizes, 1)[:, None]
        empty = np.flatnonzero(self.sizes == 0)
        if len(empty):  # these go to the points that are farthest from their centres, as in scikit-learn
            distances = np.concatenate(
                [
                    _squared_lengths(self.points[start : start + BLOCK] - self.centres[labels[start : start + BLOCK]])
                    for start in range(0, len(labels), BLOCK)
                ]
            )
            means[empty] = self.points[np.argsort(-distances, kind="stable")[: len(empty)]]
        shift = float(((means - self.centres) ** 2).sum())
        self.centres = means.astype(self.points.dtype)
        return shift if len(changed) else 0.0


def _squared_lengths(points: Floats) -> Floats:
    """Of each point, shape (n_points,)."""
    return by_blocks(points, lambda some: (some**2).sum(axis=1))


def _nearest_centres(points: Floats, runs: Sequence[_Run]) -> list[IntArray]:
    """The nearest centre of each point in each run, shape (n_points,) each, from products that the runs share."""
    centres = np.concatenate([run.centres for run in runs])
    half = (centres**2).sum(axis=1) / 2
    blocks = []
    for start in range(0, len(points), BLOCK):
        nearness = points[start : start + BLOCK] @ centres.T
        nearness -= half
        blocks.append(nearness.reshape(len(nearness), len(runs), -1).argmax(axis=2))
    return list(np.ascontiguousarray(np.concatenate(blocks).T))


def kmeans_starts(points: Floats, k: int, seeds: Sequence[int]) -> IntArray:
    """Rows of the first centres of one k-means run a seed, shape (n_seeds, k); `points` have a mean of 0.

    k-means++ with 2 + log(k) trials a centre, the best of which is taken (Arthur and Vassilvitskii 2007), and the
    random numbers of scikit-learn's `kmeans_plusplus`. The runs share products, in the precision of the points.
    """
    lengths, n = _squared_lengths(points), len(points)
    unresolved = 4 * np.finfo(points.dtype).eps

    def squared_distances(rows: IntArray) -> Floats:  # (n_rows, n_points)
        lengths_of_both = lengths[rows, None] + lengths
        distances = lengths_of_both - 2 * (points[rows] @ points.T)
        return np.where(distances > unresolved * lengths_of_both, distances, 0)

    n_trials, states = 2 + int(np.log(k)), [np.random.RandomState(seed) for seed in seeds]
    starts = np.empty((len(seeds), k), dtype=np.int64)
    starts[:, 0] = [state.choice(n, p=np.full(n, 1 / n)) for state in states]
    nearest = squared_distances(starts[:, 0])
    for number in range(1, k):
        sums = nearest.cumsum(axis=1, dtype=np.float64)
        drawn = [state.uniform(size=n_trials) * total for state, total in zip(states, sums[:, -1], strict=True)]
        rows = np.stack([np.searchsorted(run, draw) for run, draw in zip(sums, drawn, strict=True)])
        rows = np.minimum(rows, n - 1)  # (n_seeds, n_trials)
        distances = np.minimum(squared_distances(rows.ravel()).reshape(*rows.shape, n), nearest[:, None])
        best = distances.sum(axis=2, dtype=np.float64).argmin(axis=1)
        starts[:, number], nearest = rows[np.arange(len(rows)), best], distances[np.arange(len(rows)), best]
    return starts
