"""Does a classifier rank all conditions as the tree does, the nearest relatives of the truth first?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hierderm.embeddings import by_blocks
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import FloatArray, Floats, IntArray


def hops(probabilities: Floats, labels: IntArray, taxonomy: Taxonomy, ks: Sequence[int | None] = (None,)) -> FloatArray:
    """The hierarchically ordered preference score of each image, in [0, 1], higher is better.

    HOPS and HOPS@k of Hier-COS (Sani and Anand, CVPR 2026, arXiv 2503.07853). Each condition has a rank by the tree: 0
    for the truth, 1 for its nearest relatives, and so on through the heights of the common ancestor that occur. The
    ranks in the order of the probabilities are compared with those in the best order, place by place:

        HOPS = 1 - sum of w |best - found| / sum of w |best - reversed best|, at least 0

    The weight w of a place falls in a line from 2^-rank, for the first of the best order's places of a rank, towards
    that of the next rank, and behind the last rank to 0. HOPS@k takes the first k places, and reverses these alone.

    Args:
        probabilities: Of the conditions, or any scores, shape (n, n_fine); of equal ones those of lower number first.
        labels: Conditions, shape (n,).
        taxonomy: The tree.
        ks: How many places, at least 2; None for all.

    Returns:
        Shape (n_ks, n); nan where no order is wrong, as in a tree of one condition.

    Worked example: the truth a1 of a tree A: a1, a2; B: b1, b2. Ranks of the best order [0, 1, 2, 2], weights [1, 0.5,
    0.25, 0.125], reversed [2, 2, 1, 0], which costs 2 + 0.5 + 0.25 + 0.25 = 3. The order a2, a1, b1, b2 costs
    1 + 0.5: HOPS = 0.5.
    """
    _, ranks = zip(*(np.unique(row, return_inverse=True) for row in taxonomy.lca_height), strict=True)
    rank = np.stack(ranks)  # (n_fine, n_fine)
    best = np.sort(rank, axis=1)
    weight = _weights(best)
    worst = [(weight[:, :k] * np.abs(best[:, :k] - best[:, :k][:, ::-1])).sum(axis=1)[labels] for k in ks]

    def costs(rows: IntArray) -> FloatArray:
        order, true = np.argsort(-probabilities[rows], axis=1, kind="stable"), labels[rows]
        by_place = weight[true] * np.abs(best[true] - rank[true[:, None], order])
        return np.stack([by_place[:, :k].sum(axis=1) for k in ks], axis=1)

    cost, most = by_blocks(np.arange(len(labels)), costs).T, np.stack(worst)
    share = np.divide(cost, most, out=np.full(most.shape, np.nan), where=most > 0)
    return np.asarray(np.maximum(1 - share, 0))


def _weights(best: IntArray) -> FloatArray:
    """The weight of each place of the best orders, whose ranks are given, shape (n_fine, n_fine)."""
    weights = np.empty(best.shape)
    for row, ranks in enumerate(best):
        _, first, number, count = np.unique(ranks, return_index=True, return_inverse=True, return_counts=True)
        start = 2.0 ** -np.arange(len(first))
        end = np.append(start[1:], 0.0)
        share = (np.arange(len(ranks)) - first[number]) / count[number]
        weights[row] = start[number] + (end - start)[number] * share
    return weights
