"""Clustering of embeddings against labels: k-means, agreement measures, purity, and per-category rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.special import gammaln
from sklearn.cluster import KMeans

from hierderm.types import FloatArray, Floats, IntArray

AGREEMENT = ("nmi", "ami", "ari", "homogeneity", "completeness", "v_measure", "purity", "purity_unweighted")


def kmeans_clusters(embeddings: Floats, k: int, seed: int) -> IntArray:
    """Cluster numbers, shape (n_images,), of one k-means run (scikit-learn, k-means++, one initialisation).

    `k` is cut to the number of distinct embeddings. On unit vectors k-means is close to spherical k-means.
    """
    k = min(k, len(np.unique(embeddings, axis=0)))
    return np.asarray(KMeans(k, n_init=1, random_state=seed).fit(embeddings).labels_, dtype=np.int64)


def contingency(labels: IntArray, clusters: IntArray, weights: npt.NDArray[np.integer] | None = None) -> IntArray:
    """Images of each (label, cluster), shape (n_labels, n_clusters); `weights`: times each image counts."""
    n_labels, n_clusters = int(labels.max()) + 1, int(clusters.max()) + 1
    table = np.bincount(labels * n_clusters + clusters, weights=weights, minlength=n_labels * n_clusters)
    table = table.reshape(n_labels, n_clusters).astype(np.int64)
    return np.asarray(table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0])


def agreement(table: IntArray) -> dict[str, float]:
    """Agreement of labels and clusters from their contingency table, shape (n_labels, n_clusters).

    With MI the mutual information and H the entropies: homogeneity MI / H(labels), completeness MI / H(clusters), V
    their harmonic mean, NMI = MI / mean(H(labels), H(clusters)) (equal to V), AMI = (MI - E) / (mean H - E) with E
    the expectation under random labels (Vinh et al. 2010), ARI the Rand index adjusted likewise (Hubert and Arabie
    1985). Purity is the share of images that have the commonest label of their cluster: `purity` counts images,
    `purity_unweighted` is the mean over clusters (as the seed experiment used; small clusters raise it).
    All in [0, 1] but AMI and ARI, which can be negative; higher is better. One label or one cluster: homogeneity or
    completeness is 1, as in scikit-learn. Of no image at all (a resampling may draw none of a few test cases): nan.
    """
    if table.size == 0:
        return dict.fromkeys(AGREEMENT, float("nan"))
    n = int(table.sum())
    label_sizes, cluster_sizes = table.sum(axis=1), table.sum(axis=0)
    h_labels, h_clusters = _entropy(label_sizes), _entropy(cluster_sizes)
    row, column = np.nonzero(table)
    cells = table[row, column].astype(np.float64)
    expected = label_sizes[row].astype(np.float64) * cluster_sizes[column]
    mi = max(0.0, float((cells / n * (np.log(cells * n) - np.log(expected))).sum()))
    homogeneity = mi / h_labels if h_labels > 0 else 1.0
    completeness = mi / h_clusters if h_clusters > 0 else 1.0
    both = homogeneity + completeness
    v = 2 * homogeneity * completeness / both if both > 0 else 0.0
    mean_h = (h_labels + h_clusters) / 2
    chance = expected_mutual_information(label_sizes, cluster_sizes) if mean_h > 0 else 0.0
    same_partition = len(cells) == len(label_sizes) == len(cluster_sizes)  # AMI would be 0 / 0 on singletons
    ami = 1.0 if same_partition else (mi - chance) / _away_from_zero(mean_h - chance)
    largest = table.max(axis=0)
    return {
        "nmi": v,
        "ami": float(ami),
        "ari": _adjusted_rand(table, label_sizes, cluster_sizes),
        "homogeneity": homogeneity,
        "completeness": completeness,
        "v_measure": v,
        "purity": float(largest.sum() / n),
        "purity_unweighted": float((largest / cluster_sizes).mean()),
    }


def expected_mutual_information(label_sizes: IntArray, cluster_sizes: IntArray) -> float:
    """Mean mutual information, in nats, of labels and clusters of these sizes put together at random.

    Vinh et al. 2010, equation 24a: over pairs of sizes the sum of n/N log(N n / (a b)) under the hypergeometric
    distribution of the overlap n. The same number as scikit-learn's function, but each pair of sizes is summed once,
    however often it occurs, and only where overlaps have a chance above 1e-16: a bootstrap needs it by the thousand.
    """
    total = int(label_sizes.sum())
    log_factorial = gammaln(np.arange(total + 1) + 1.0)
    b, times_b = np.unique(cluster_sizes, return_counts=True)
    expected = 0.0
    for a, times_a in zip(*np.unique(label_sizes, return_counts=True), strict=True):
        mean = a * b / total
        reach = 12 * np.sqrt(mean) + 30  # beyond, a hypergeometric tail is below 1e-16
        low = np.maximum(np.maximum(1, a + b - total), np.floor(mean - reach)).astype(np.int64)
        high = np.minimum(np.minimum(a, b), np.ceil(mean + reach)).astype(np.int64)
        n = low[:, None] + np.arange(max(0, int((high - low).max()) + 1))  # (n_sizes_b, n_overlaps)
        inside = n <= high[:, None]
        n, size = np.where(inside, n, low[:, None]), b[:, None]
        log_chance = (
            log_factorial[a] + log_factorial[size] + log_factorial[total - a] + log_factorial[total - size]
            - log_factorial[total] - log_factorial[n] - log_factorial[a - n] - log_factorial[size - n]
            - log_factorial[total - a - size + n]
        )  # fmt: skip
        information = n / total * (np.log(total) + np.log(n) - np.log(a) - np.log(size))
        expected += times_a * float(
            (np.where(inside, information * np.exp(log_chance), 0.0).sum(axis=1) * times_b).sum()
        )
    return expected


def _entropy(sizes: IntArray) -> float:
    share = sizes / sizes.sum()
    return float(-(share * np.log(share)).sum()) if len(sizes) > 1 else 0.0


def _away_from_zero(value: float) -> float:
    tiny = float(np.finfo(np.float64).eps)
    return min(value, -tiny) if value < 0 else max(value, tiny)


def _adjusted_rand(table: IntArray, label_sizes: IntArray, cluster_sizes: IntArray) -> float:
    def pairs(counts: IntArray) -> float:
        counts = counts.astype(np.float64)
        return float((counts * (counts - 1) / 2).sum())

    n = float(table.sum())
    both, labels, clusters, every = pairs(table.ravel()), pairs(label_sizes), pairs(cluster_sizes), n * (n - 1) / 2
    expected = labels * clusters / every if every else 0.0
    spread = (labels + clusters) / 2 - expected
    return 1.0 if spread == 0 else (both - expected) / spread


def silhouette(embeddings: Floats, groups: IntArray) -> FloatArray:
    """Silhouette of each image with the groups as clusters, shape (n_images,), in [-1, 1] (Rousseeuw 1987).

    With the cosine distance, whose mean over a group follows from the sum of its unit vectors: time and memory grow
    with images times groups. 0 for an image alone in its group. nan where there are fewer than two groups, or as many
    groups as images: the silhouette is not defined there.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    n = len(groups)
    if not 2 <= len(sizes) < n:
        return np.full(n, np.nan)
    sums = np.zeros((len(sizes), embeddings.shape[1]))
    np.add.at(sums, group, embeddings)
    distance = np.maximum(1 - embeddings @ (sums / sizes[:, None]).T, 0)  # mean over each group, (n_images, n_groups)
    rows, size = np.arange(n), sizes[group]
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
    merges = linkage(embeddings, method="ward")
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
