"""Clusters against labels: agreement measures, purity, silhouettes, Ward's clustering, and per-category rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_array
from scipy.spatial.distance import squareform
from scipy.special import gammaln

from hierderm.types import FloatArray, Floats, IntArray

AGREEMENT = ("nmi", "ami", "ari", "homogeneity", "completeness", "v_measure", "purity", "purity_unweighted")
SMALL_MEAN = 12.0  # images expected in a label and a cluster, up to which Newton's series has 12 digits


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
    occurs = np.flatnonzero(table)
    row, column = occurs // len(cluster_sizes), occurs % len(cluster_sizes)
    cells = table.ravel()[occurs].astype(np.float64)
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
        "ari": _adjusted_rand(cells, label_sizes, cluster_sizes),
        "homogeneity": homogeneity,
        "completeness": completeness,
        "v_measure": v,
        "purity": float(largest.sum() / n),
        "purity_unweighted": float((largest / cluster_sizes).mean()),
    }


def expected_mutual_information(label_sizes: IntArray, cluster_sizes: IntArray) -> float:
    """Mean mutual information, in nats, of labels and clusters of these sizes put together at random.

    Vinh et al. 2010, equation 24a: with n images in both a label of size a and a cluster of size b, of N in all, it is
    the sum over pairs of E[n log(n / m)] / N, where n is hypergeometric with mean m = a b / N. The same number as
    scikit-learn's function, by series where m is small: a bootstrap needs it by the thousand.
    """
    total = int(label_sizes.sum())
    a, times_a = np.unique(label_sizes, return_counts=True)
    b, times_b = np.unique(cluster_sizes, return_counts=True)
    few = np.searchsorted(b, SMALL_MEAN * total / a, side="right")  # of each a: sizes b with a small mean
    row, column = np.nonzero(np.arange(len(b)) >= few[:, None])
    rest = _information(a[row], b[column], total) @ (times_a[row] * times_b[column])
    return float(_information_of_small_means(a, times_a, b, times_b, few, total) + rest) / total


def _information_of_small_means(
    a: IntArray, times_a: IntArray, b: IntArray, times_b: IntArray, few: IntArray, total: int
) -> np.float64:
    """The sum of E[n log(n / m)] over each size a and its first `few` sizes b, each as often as it occurs.

    E[n log n] is m E[log(1 + x)], x hypergeometric of a - 1, b - 1 and N - 1. By Newton's series log(1 + x) is the sum
    over r of D^r log(1) x! / (r! (x - r)!), D the forward difference, and the mean of x! / (x - r)! is a product of a
    term of a and one of b. So the sum over pairs is one of products of sums.
    """
    order = np.arange(len(_differences_of_log()))[:, None]
    scale = np.sqrt(np.maximum(total - 1 - order, 1) * (order + 1.0))
    moments_a, moments_b = (
        np.cumprod(np.vstack([size * times / total**0.5, ((size - 1 - order) / scale)[:-1]]), axis=0)
        for size, times in ((a, times_a), (b, times_b))
    )  # (n_orders, n_sizes) each
    terms_b = np.vstack([moments_b, moments_b[0] * np.log(b / total)])
    up_to = np.hstack([np.zeros((len(terms_b), 1)), terms_b.cumsum(axis=1)])[:, few]
    n_log_n = _differences_of_log() @ (moments_a * up_to[:-1]).sum(axis=1)
    return np.float64(n_log_n - moments_a[0] @ (up_to[0] * np.log(a) + up_to[-1]))


@cache
def _differences_of_log() -> FloatArray:
    """Forward differences of the logarithm at 1, shape (60,): as many as 12 expected need for 15 digits."""
    with localcontext(prec=60):
        values = [Decimal(number).ln() for number in range(1, 61)]
        found = []
        while values:
            found.append(float(values[0]))
            values = [after - before for before, after in pairwise(values)]
    return np.array(found)


def _information(a: IntArray, b: IntArray, total: int) -> FloatArray:
    """E[n log(n / m)] of each pair of sizes, m >= 12, shape (n_pairs,), over all n with a chance above 1e-16."""
    mean = a * b / total
    reach = 9 * np.sqrt(mean)  # by Chernoff's bounds, of which the upper is the wider
    low = np.maximum(np.maximum(1, a + b - total), np.floor(mean - reach)).astype(np.int64)
    high = np.minimum(np.minimum(a, b), np.ceil(mean + reach + 14)).astype(np.int64)
    lengths = high - low + 1
    pair = np.repeat(np.arange(len(a)), lengths)
    n = np.arange(len(pair)) - np.repeat(lengths.cumsum() - lengths - low, lengths)
    logs = _log_factorials(total.bit_length())
    of_sizes = logs[a] + logs[b] + logs[total - a] + logs[total - b] - logs[total]
    a, b = a[pair], b[pair]
    log_chance = of_sizes[pair] - logs[n] - logs[a - n] - logs[b - n] - logs[total - a - b + n]
    return np.asarray(np.bincount(pair, n * np.log(n / mean[pair]) * np.exp(log_chance), len(lengths)), np.float64)


@cache
def _log_factorials(n_bits: int) -> FloatArray:
    """Logarithms of the factorials of all numbers of so many bits."""
    return np.asarray(gammaln(np.arange(2**n_bits) + 1.0))


def _entropy(sizes: IntArray) -> float:
    share = sizes / sizes.sum()
    return float(-(share * np.log(share)).sum()) if len(sizes) > 1 else 0.0


def _away_from_zero(value: float) -> float:
    tiny = float(np.finfo(np.float64).eps)
    return min(value, -tiny) if value < 0 else max(value, tiny)


def _adjusted_rand(cells: FloatArray, label_sizes: IntArray, cluster_sizes: IntArray) -> float:
    both, labels, clusters = (
        float(counts @ (counts - 1)) / 2 for counts in (cells, label_sizes.astype(float), cluster_sizes.astype(float))
    )
    n = float(cells.sum())
    every = n * (n - 1) / 2
    expected = labels * clusters / every if every else 0.0
    spread = (labels + clusters) / 2 - expected
    return 1.0 if spread == 0 else (both - expected) / spread


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
