"""Metrics of the first k neighbours that a search found, and what an approximate search loses."""

from __future__ import annotations

import numpy as np

from hierderm.evaluation.metrics.neighbours import case_numbers, true_shares
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.metrics.retrieval import hit_scores
from hierderm.types import FloatArray, IntArray

BLOCK = 100_000  # queries at a time
LevelValues = list[dict[str, FloatArray]]  # by level, coarse first: values of each query by metric


def top_k_scores(rows: IntArray, query_labels: IntArray, gallery_labels: IntArray, n_relevant: IntArray) -> LevelValues:
    """recall@1, recall@k, precision@k, MAP@k and 5-NN accuracy of each query, a table a level, coarse first.

    AP@k = 1/min(R, k) * sum over relevant places i <= k of the precision at i, R the number of relevant items (Manning
    et al. 2008, Introduction to Information Retrieval, section 8.4, cut at k). Worked example: relevant places [1, 3]
    of k = 3, R = 4: (1 + 2/3) / 3 = 0.556.

    Args:
        rows: Positions in the gallery, nearest first, shape (n_queries, k), -1 after the last where fewer were found.
        query_labels: Nodes of the queries on each level, shape (n_levels, n_queries).
        gallery_labels: Of the gallery, shape (n_levels, n_gallery).
        n_relevant: How many items of the gallery are relevant, see `count_relevant`, shape (n_levels, n_queries).

    Returns:
        Values in [0, 1], higher is better, nan where nothing is relevant.
    """
    parts = [slice(start, start + BLOCK) for start in range(0, max(1, len(rows)), BLOCK)]
    blocks = [_block(rows[p], query_labels[:, p], gallery_labels, n_relevant[:, p]) for p in parts]
    return [{name: np.concatenate([b[level][name] for b in blocks]) for name in blocks[0][level]}
            for level in range(len(query_labels))]  # fmt: skip


def _block(rows: IntArray, query_labels: IntArray, gallery_labels: IntArray, n_relevant: IntArray) -> LevelValues:
    k, tables = rows.shape[1], []
    for level, found in enumerate(hit_scores(rows, query_labels, gallery_labels)):
        relevant = (rows >= 0) & (gallery_labels[level][rows] == query_labels[level][:, None])
        precision = np.cumsum(relevant, axis=1) / np.arange(1, k + 1)
        total = n_relevant[level]
        found[f"map_at_{k}"] = (precision * relevant).sum(axis=1) / np.clip(total, 1, k)
        names = dict.fromkeys(("recall_at_1", f"recall_at_{k}", f"precision_at_{k}", f"map_at_{k}", "knn_accuracy"))
        tables.append({name: np.where(total > 0, found[name], np.nan) for name in names})
    return tables


def count_relevant(queries: Labelled, gallery: Labelled, *, of_cases: bool = False) -> IntArray:
    """How many images of other cases share each query's node, shape (n_levels, n_queries).

    `of_cases`: how many cases with such an image instead.
    """
    own, cases = case_numbers(queries, gallery)
    counts = []
    for query_labels, labels in zip(queries.labels, gallery.labels, strict=True):
        size = int(max(query_labels.max(initial=0), labels.max(initial=0))) + 1
        pairs, number = np.unique(cases * size + labels, return_counts=True)
        if of_cases:
            number[:] = 1
        total = np.bincount(pairs % size, weights=number, minlength=size).astype(np.int64)
        mine = own * size + query_labels
        place = np.minimum(np.searchsorted(pairs, mine), max(0, len(pairs) - 1))
        counts.append(total[query_labels] - (np.where(pairs[place] == mine, number[place], 0) if len(pairs) else 0))
    return np.array(counts)


def with_loss(served: LevelValues, exact: LevelValues, chosen: IntArray) -> LevelValues:
    """The values as an index gives them, the exact ones, and exact - index: 'index_', 'exact_' and 'loss_' + metric.

    `exact`: of the queries at the positions `chosen` only; the others are nan.
    """
    return [
        {f"index_{name}": values for name, values in found.items()}
        | {f"exact_{name}": _spread(true[name], chosen, len(found[name])) for name in found}
        | {f"loss_{name}": _spread(true[name] - found[name][chosen], chosen, len(found[name])) for name in found}
        for found, true in zip(served, exact, strict=True)
    ]


def true_neighbours(served: IntArray, exact: IntArray, chosen: IntArray) -> FloatArray:
    """Share of the exact k nearest that the index finds, shape (n_queries,), nan of those not `chosen`.

    `served`: shape (n_queries, k); `exact`: shape (n_chosen, k).
    """
    return _spread(true_shares(served[chosen], exact), chosen, len(served))


def _spread(values: FloatArray, chosen: IntArray, n: int) -> FloatArray:
    every = np.full(n, np.nan)
    every[chosen] = values
    return every
