"""Clusters: silhouettes, Ward's clustering, and a row a category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_array

from hierderm.types import FloatArray, Floats, IntArray

BLOCK = 1024  # images at a time


def silhouettes(embeddings: Floats, groupings: Sequence[IntArray]) -> list[FloatArray]:
    """Silhouette of each image with the groups of each grouping as clusters, shape (n_images,) each, in [-1, 1].

    With the cosine distance (Rousseeuw 1987), whose mean over a group follows from the sum of its unit vectors: time
    and memory grow with images times groups. 0 for an image alone in its group. nan where there are fewer than two
    groups, or as many groups as images: the silhouette is not defined there.
    """
    return [_silhouette(embeddings, groups) for groups in groupings]


def _silhouette(embeddings: Floats, groups: IntArray) -> FloatArray:
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    n = len(groups)
    if not 2 <= len(sizes) < n:
        return np.full(n, np.nan)
    blocks = [slice(start, start + BLOCK) for start in range(0, n, BLOCK)]
    members = csr_array((1 / sizes[group], (np.arange(n), group)), shape=(n, len(sizes)))
    means = np.zeros((len(sizes), embeddings.shape[1]))
    for block in blocks:
        means += members[block].T @ embeddings[block].astype(np.float64)
    own, nearest = np.empty(n), np.empty(n)
    for block in blocks:
        distance = 1 - embeddings[block].astype(np.float64) @ means.T  # mean over each group, (n_block, n_groups)
        rows = np.arange(len(distance))
        np.maximum(distance, 0, out=distance)
        own[block] = distance[rows, group[block]]
        distance[rows, group[block]] = np.inf
        nearest[block] = distance.min(axis=1)
    size = sizes[group]
    within = own * size / np.maximum(size - 1, 1)  # an image is at 0 from itself
    larger = np.maximum(within, nearest)
    values = np.divide(nearest - within, larger, out=np.zeros(n), where=larger > 0)
    return np.asarray(np.where(size == 1, 0.0, values))


def ward_clusters(embeddings: Floats, counts: Sequence[int]) -> list[IntArray]:
    """Agglomerative clustering (Ward's, scipy), cut into each number of clusters: a list of shape (n_images,) arrays.

    Memory grows with the square of n_images: give it some thousands.
    """
    exact = embeddings - embeddings.mean(axis=0, dtype=np.float64)
    n, lengths = len(exact), (exact**2).sum(axis=1)
    distances, filled = np.empty(n * (n - 1) // 2), 0  # of each pair once, row by row
    for start in range(0, n, BLOCK):
        squared = exact[start : start + BLOCK] @ exact[start:].T
        squared *= -2
        squared += lengths[start:]
        squared += lengths[start : start + BLOCK, None]
        for row, values in enumerate(squared, start=1):
            distances[filled : filled + len(values) - row] = values[row:]
            filled += len(values) - row
    np.sqrt(np.maximum(distances, 0, out=distances), out=distances)
    del exact, squared
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
