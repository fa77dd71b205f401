"""Clusters: silhouettes, Ward's clustering, and a row a category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_array
from scipy.spatial.distance import squareform

from hierderm.types import FloatArray, Floats, IntArray


def silhouettes(embeddings: Floats, groupings: Sequence[IntArray]) -> list[FloatArray]:
    """Silhouette of each image with the groups of each grouping as clusters, shape (n_images,) each, in [-1, 1].

    With the cosine distance (Rousseeuw 1987), whose mean over a group follows from the sum of its unit vectors: time
    and memory grow with images times groups. 0 for an image alone in its group. nan where there are fewer than two
    groups, or as many groups as images: the silhouette is not defined there.
    """
    exact = embeddings.astype(np.float64)
    return [_silhouette(exact, groups) for groups in groupings]


def _silhouette(embeddings: FloatArray, groups: IntArray) -> FloatArray:
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    n = len(groups)
    if not 2 <= len(sizes) < n:
        return np.full(n, np.nan)
    rows = np.arange(n)
    mean_of = csr_array((1 / sizes[group], (group, rows)), shape=(len(sizes), n))
    distance = 1 - embeddings @ np.asarray(mean_of @ embeddings).T  # mean over each group, (n_images, n_groups)
    np.maximum(distance, 0, out=distance)
    size = sizes[group]
    within = distance[rows, group] * size / np.maximum(size - 1, 1)  # an image is at 0 from itself
    distance[rows, group] = np.inf
    nearest = distance.min(axis=1)
    larger = np.maximum(within, nearest)
    values = np.divide(nearest - within, larger, out=np.zeros(n), where=larger > 0)
    return np.asarray(np.where(size == 1, 0.0, values))


def ward_clusters(embeddings: Floats, counts: Sequence[int]) -> list[IntArray]:
    """Agglomerative clustering (Ward's, scipy), cut into each number of clusters: a list of shape (n_images,) arrays.

    Memory grows with the square of n_images: give it some thousands.
    """
    exact = embeddings - embeddings.mean(axis=0, dtype=np.float64)
    lengths, squared = (exact**2).sum(axis=1), exact @ exact.T
    squared *= -2
    squared += lengths
    squared += lengths[:, None]
    distances = squareform(squared, checks=False)  # of each pair once
    np.sqrt(np.maximum(distances, 0, out=distances), out=distances)
    merges = linkage(distances, method="ward")
    return [np.asarray(fcluster(merges, count, criterion="maxclust") - 1, dtype=np.int64) for count in counts]


@dataclass(frozen=True)
class CategoryRow:
    """One category in one clustering: its size, how much of it lies in its main cluster, how pure that cluster is.

    `went_to`: the labels that rule the clusters its images lie in, with the share of its images, largest first.
    """

    label: int
    n_images: int
    share_in_main_cluster: float
    purity_of_main_cluster: float
    went_to: tuple[tuple[int, float], ...]


def category_rows(labels: IntArray, clusters: IntArray) -> list[CategoryRow]:
    """A row for each label that occurs, in label order."""
    table = np.zeros((int(labels.max()) + 1, int(clusters.max()) + 1), dtype=np.int64)
    np.add.at(table, (labels, clusters), 1)
    ruling, sizes = table.argmax(axis=0), table.sum(axis=0)
    rows = []
    for label in np.unique(labels):
        inside = table[label]
        main, total = int(inside.argmax()), int(inside.sum())
        under = np.bincount(ruling, weights=inside, minlength=len(table)) / total
        went_to = tuple((int(k), float(under[k])) for k in np.argsort(-under, kind="stable") if under[k] > 0)
        share, purity = float(inside[main] / total), float(inside[main] / sizes[main])
        rows.append(CategoryRow(int(label), total, share, purity, went_to))
    return rows
