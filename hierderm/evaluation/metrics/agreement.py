"""Agreement of clusters and labels, in many bootstrap rounds at once: one round's arrays are too small to be fast."""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import cache
from itertools import pairwise

import numpy as np
from scipy.special import gammaln

from hierderm.evaluation.metrics.group_sums import Weights, group_sums, once
from hierderm.types import FloatArray, IntArray, Mask

AGREEMENT = ("nmi", "ami", "ari", "homogeneity", "completeness", "v_measure", "purity", "purity_unweighted")
SMALL_MEAN = 12.0  # images expected in a label and a cluster, up to which Newton's series has 12 digits
TERMS = 2**14  # of the sums over chances at a time: they stay in the cache


class Contingency:
    """Which labels and clusters occur together, from their numbers, shape (n_images,) each."""

    def __init__(self, labels: IntArray, clusters: IntArray) -> None:
        n_clusters = int(clusters.max()) + 1
        pairs, self._cell = np.unique(labels * n_clusters + clusters, return_inverse=True)
        self._row, self._column = (np.unique(side, return_inverse=True)[1] for side in np.divmod(pairs, n_clusters))
        self._by_column = np.argsort(self._column, kind="stable")

    def agreement(self, weights: Weights | None = None) -> dict[str, FloatArray]:
        """Agreement of labels and clusters by name, each of shape (...).

        With MI the mutual information and H the entropies: homogeneity MI / H(labels), completeness MI / H(clusters), V
        their harmonic mean, NMI = MI / mean(H(labels), H(clusters)) (equal to V), AMI = (MI - E) / (mean H - E) with E
        the expectation under random labels (Vinh et al. 2010), ARI the Rand index adjusted likewise (Hubert and Arabie
        1985). Purity is the share of images that have the commonest label of their cluster: `purity` counts images,
        `purity_unweighted` is the mean over clusters (as the seed experiment used; small clusters raise it).
        All in [0, 1] but AMI and ARI, which can be negative; higher is better. One label or one cluster: homogeneity or
        completeness is 1, as in scikit-learn. Of no image at all (a resampling may draw none of a few test cases): nan.

        `weights`: how often each image counts, shape (..., n_images); by default once.
        """
        weights = once(len(self._cell)) if weights is None else weights
        shape, n_cells = weights.shape[:-1], len(self._row)
        cells = group_sums(weights, self._cell, n_cells).reshape(int(np.prod(shape)), n_cells)
        some = cells.any(axis=1)
        found = self._of_counts(cells[some]) if some.any() else {}
        result = {name: np.full(len(cells), np.nan) for name in AGREEMENT}
        for name, values in found.items():
            result[name][some] = values
        return {name: values.reshape(shape) for name, values in result.items()}

    def _of_counts(self, cells: FloatArray) -> dict[str, FloatArray]:
        """From the images of each label and cluster that occur together, shape (n_rounds, n_cells)."""
        n, by_column = cells.sum(axis=1), cells[:, self._by_column]
        rows, columns = (_starts(side) for side in (self._row, self._column[self._by_column]))
        label_sizes, cluster_sizes = np.add.reduceat(cells, rows, axis=1), np.add.reduceat(by_column, columns, axis=1)
        largest = np.maximum.reduceat(by_column, columns, axis=1)
        by_chance = np.maximum(label_sizes[:, self._row] * cluster_sizes[:, self._column], 1) / n[:, None]
        share = cells / n[:, None]
        mi = np.maximum((share * _log(cells / by_chance)).sum(axis=1), 0)
        h_labels, h_clusters = (_entropy(sizes / n[:, None]) for sizes in (label_sizes, cluster_sizes))
        homogeneity, completeness = (_divided(mi, h, h > 0, 1.0) for h in (h_labels, h_clusters))
        both = homogeneity + completeness
        v = _divided(2 * homogeneity * completeness, both, both > 0, 0.0)
        chance = expected_mutual_information(label_sizes.astype(np.int64), cluster_sizes.astype(np.int64))
        counts = [(sizes > 0).sum(axis=1) for sizes in (cells, label_sizes, cluster_sizes)]
        same_partition = (counts[0] == counts[1]) & (counts[0] == counts[2])  # AMI would be 0 / 0 on singletons
        room = _away_from_zero((h_labels + h_clusters) / 2 - chance)
        return {
            "nmi": v,
            "ami": np.where(same_partition, 1.0, (mi - chance) / room),
            "ari": _adjusted_rand(cells, label_sizes, cluster_sizes),
            "homogeneity": homogeneity,
            "completeness": completeness,
            "v_measure": v,
            "purity": largest.sum(axis=1) / n,
            "purity_unweighted": (largest / np.maximum(cluster_sizes, 1)).sum(axis=1) / counts[2],
        }


def _starts(numbers: IntArray) -> IntArray:
    """Where each of some numbers in order begins."""
    return np.flatnonzero(np.diff(numbers, prepend=-1))


def _log(values: FloatArray) -> FloatArray:
    """Logarithms, 0 for 0."""
    return np.log(values, out=np.zeros_like(values), where=values > 0)


def _entropy(share: FloatArray) -> FloatArray:
    return np.asarray(-(share * _log(share)).sum(axis=1))


def _divided(values: FloatArray, by: FloatArray, where: Mask, otherwise: float) -> FloatArray:
    return np.divide(values, by, out=np.full_like(values, otherwise), where=where)


def _away_from_zero(values: FloatArray) -> FloatArray:
    tiny = float(np.finfo(np.float64).eps)
    return np.where(values < 0, np.minimum(values, -tiny), np.maximum(values, tiny))


def _adjusted_rand(cells: FloatArray, label_sizes: FloatArray, cluster_sizes: FloatArray) -> FloatArray:
    both, labels, clusters = ((counts * (counts - 1)).sum(axis=1) / 2 for counts in (cells, label_sizes, cluster_sizes))
    n = cells.sum(axis=1)
    every = n * (n - 1) / 2
    expected = _divided(labels * clusters, every, every > 0, 0.0)
    spread = (labels + clusters) / 2 - expected
    return _divided(both - expected, spread, spread != 0, 1.0)


def expected_mutual_information(label_sizes: IntArray, cluster_sizes: IntArray) -> FloatArray:
    """Mean mutual information, in nats, of labels and clusters of these sizes put together at random, by round.

    Vinh et al. 2010, equation 24a: with n images in both a label of size a and a cluster of size b, of N in all, it is
    the sum over pairs of E[n log(n / m)] / N, where n is hypergeometric with mean m = a b / N. The same number as
    scikit-learn's function, by series where m is small: a bootstrap needs it by the thousand.

    Sizes have the shapes (n_rounds, n_labels) and (n_rounds, n_clusters), with equal sums in a round, from 1.
    """
    total = label_sizes.sum(axis=1)
    (a, times_a), (b, times_b) = _counted(label_sizes), _counted(cluster_sizes)
    occur = (times_a > 0)[:, :, None] & (times_b > 0)[:, None, :]
    small = occur & (b[:, None, :] <= (SMALL_MEAN * total[:, None] / a)[:, :, None])
    number, row, column = np.nonzero(occur & ~small)
    rest = _information(a[number, row], b[number, column], total[number])
    rest *= times_a[number, row] * times_b[number, column]
    by_series = _information_of_small_means(a, times_a, b, times_b, small.sum(axis=2), total)
    return np.asarray((by_series + np.bincount(number, rest, len(total))) / total)


def _counted(sizes: IntArray) -> tuple[IntArray, IntArray]:
    """The different sizes above 0 of each round, ascending, and how often each occurs, 0 times after the last."""
    span = int(sizes.max()) + 1
    keys, counts = np.unique(sizes + span * np.arange(len(sizes))[:, None], return_counts=True)
    number, size = np.divmod(keys[keys % span > 0], span)
    place = np.arange(len(number)) - np.searchsorted(number, number)
    found, times = np.ones((2, len(sizes), int(place.max(initial=0)) + 1), dtype=np.int64)
    times[:] = 0
    found[number, place], times[number, place] = size, counts[keys % span > 0]
    return found, times


def _information_of_small_means(
    a: IntArray, times_a: IntArray, b: IntArray, times_b: IntArray, few: IntArray, total: IntArray
) -> FloatArray:
    """The sum of E[n log(n / m)] over each size a and its first `few` sizes b, each as often as it occurs, by round.

    E[n log n] is m E[log(1 + x)], x hypergeometric of a - 1, b - 1 and N - 1. By Newton's series log(1 + x) is the sum
    over r of D^r log(1) x! / (r! (x - r)!), D the forward difference, and the mean of x! / (x - r)! is a product of a
    term of a and one of b. So the sum over pairs is one of products of sums.
    """
    log_differences = _differences_of_log()[: min(int(a.max()), int(b.max()))]  # later moments are 0
    order = np.arange(len(log_differences))[:, None, None]
    n = total[:, None].astype(np.float64)
    scale = np.sqrt(np.maximum(n - 1 - order, 1) * (order + 1))
    moments_a, moments_b = (
        np.cumprod(np.concatenate([(size * times / n**0.5)[None], ((size - 1 - order) / scale)[:-1]]), axis=0)
        for size, times in ((a, times_a), (b, times_b))
    )  # (n_orders, n_rounds, n_sizes) each
    terms_b = np.concatenate([moments_b, moments_b[:1] * np.log(b / n)])
    sums = np.concatenate([np.zeros((*terms_b.shape[:2], 1)), terms_b.cumsum(axis=2)], axis=2)
    up_to = np.take_along_axis(sums, few[None], axis=2)
    n_log_n = log_differences @ (moments_a * up_to[:-1]).sum(axis=2)
    return np.asarray(n_log_n - (moments_a[0] * (up_to[0] * np.log(a) + up_to[-1])).sum(axis=1))


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


def _information(a: IntArray, b: IntArray, total: IntArray) -> FloatArray:
    """E[n log(n / m)] of each pair of sizes, m >= 12, shape (n_pairs,), over all n with a chance above 1e-16."""
    mean = a * b / total
    reach = 9 * np.sqrt(mean)  # by Chernoff's bounds, of which the upper is the wider
    low = np.maximum(np.maximum(1, a + b - total), np.floor(mean - reach)).astype(np.int64)
    high = np.minimum(np.minimum(a, b), np.ceil(mean + reach + 14)).astype(np.int64)
    ends = np.cumsum(high - low + 1)
    bounds = np.unique([0, *np.searchsorted(ends, np.arange(TERMS, ends[-1:].sum(), TERMS)), len(a)]).tolist()
    found = [np.zeros(0)]
    for part in (slice(start, end) for start, end in pairwise(bounds)):
        found.append(_information_between(a[part], b[part], total[part], mean[part], low[part], high[part]))
    return np.concatenate(found)


def _information_between(
    a: IntArray, b: IntArray, total: IntArray, mean: FloatArray, low: IntArray, high: IntArray
) -> FloatArray:
    """The same over all n from `low` to `high`."""
    lengths = high - low + 1
    pair = np.repeat(np.arange(len(a)), lengths)
    n = np.arange(len(pair)) - np.repeat(lengths.cumsum() - lengths - low, lengths)
    logs = _log_factorials(int(total.max()).bit_length())
    size_logs = logs[a] + logs[b] + logs[total - a] + logs[total - b] - logs[total]
    rest = total - a - b
    log_chance = size_logs[pair] - logs[n] - logs[a[pair] - n] - logs[b[pair] - n] - logs[rest[pair] + n]
    return np.asarray(np.bincount(pair, n * np.log(n / mean[pair]) * np.exp(log_chance), len(lengths)), np.float64)


@cache
def _log_factorials(n_bits: int) -> FloatArray:
    """Logarithms of the factorials of all numbers of so many bits."""
    return np.asarray(gammaln(np.arange(2**n_bits) + 1.0))
