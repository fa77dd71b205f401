"""Which nodes to predict from probabilities, so that a metric of the tree is best in expectation."""

from __future__ import annotations

import numpy as np

from hierderm.embeddings import by_blocks
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import FloatArray, Floats, IntArray, Mask


def crm_decode(probabilities: Floats, taxonomy: Taxonomy) -> IntArray:
    """The condition with the least expected height of the common ancestor, shape (n,).

    Conditional risk minimisation (Karthik et al. 2021, arXiv 2104.00795, equation 2) with the height of the lowest
    common ancestor as the cost of a confusion.
    """
    return np.asarray((probabilities @ taxonomy.lca_height.astype(probabilities.dtype)).argmin(axis=1), dtype=np.int64)


def node_paths(taxonomy: Taxonomy) -> Mask:
    """Which nodes are on the path of each condition, shape (n_fine, n_nodes): level after level, without repeats."""
    levels = range(taxonomy.n_levels)
    kept = [taxonomy.membership(level)[:, ~taxonomy.repeats(level)] for level in levels]
    return np.asarray(np.concatenate(kept, axis=1) > 0)


def hf_decode(probabilities: Floats, taxonomy: Taxonomy, beta: float = 1.0) -> Mask:
    """The set of nodes with the largest expected hierarchical F-beta, shape (n, n_nodes), nodes as in `node_paths`.

    The rule for sets of nodes of Plaud et al. 2025 (To Each Metric Its Decoding, arXiv 2506.01552), with the root,
    which every set would hold, not counted. A node in a set of k is worth the sum of p / (k + beta^2 * length of the
    path) over the conditions under it, so the best set of k are the k nodes that are worth most, and the best of these
    sets is taken. A set may have several nodes of a level, and holds the ancestors of each.

    Args:
        probabilities: Of the conditions, shape (n, n_fine), rows summing to 1.
        taxonomy: The tree.
        beta: > 0; above 1 recall counts more, and sets are larger.
    """
    paths, length = node_paths(taxonomy), taxonomy.path_length
    return by_blocks(probabilities, lambda some: _best_sets(some, paths, length, beta))


def _best_sets(probabilities: Floats, paths: Mask, length: IntArray, beta: float) -> Mask:
    """The sets of some images."""
    by_length = {
        int(steps): (probabilities * (length == steps)).astype(np.float64) @ paths for steps in np.unique(length)
    }

    def worth(rows: IntArray, k: int) -> FloatArray:
        return np.asarray(sum(nodes[rows] / (k + beta**2 * steps) for steps, nodes in by_length.items()))

    n, n_nodes = len(probabilities), paths.shape[1]
    best, size = np.zeros(n), np.zeros(n, dtype=np.int64)
    rows = np.arange(n)
    for k in range(1, n_nodes + 1):
        value = np.partition(worth(rows, k), n_nodes - k, axis=1)[:, n_nodes - k :].sum(axis=1)
        better = value > best[rows]
        best[rows[better]], size[rows[better]] = value[better], k
        most = length.max() / (k + 1 + beta**2 * length.max())  # that any larger set can have: all nodes in it
        rows = rows[best[rows] < most]
        if not len(rows):
            break
    chosen = np.zeros((n, n_nodes), dtype=bool)
    for k in np.unique(size):
        rows = np.flatnonzero(size == k)
        order = np.argsort(-worth(rows, int(k)), axis=1, kind="stable")  # a parent is worth no less, and comes first
        chosen[rows[:, None], order[:, :k]] = True
    return chosen


def set_f(chosen: Mask, true: IntArray, taxonomy: Taxonomy, beta: float = 1.0) -> FloatArray:
    """Hierarchical F-beta of each image's set of nodes, shape (n,), in [0, 1]; `true`: conditions, shape (n,)."""
    common = (chosen & node_paths(taxonomy)[true]).sum(axis=1)
    return np.asarray((1 + beta**2) * common / (chosen.sum(axis=1) + beta**2 * taxonomy.path_length[true]))
