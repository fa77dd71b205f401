"""Nearest-neighbour retrieval with the query's own case left out: all metrics of all queries.

A neighbour is relevant at a level where it shares the query's node there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np

from hierderm.embeddings import Aggregation
from hierderm.errors import EmbeddingError
from hierderm.evaluation.catalogue import level_metrics, tree_changes, tree_metrics
from hierderm.evaluation.inference.influence import GalleryEffect, GalleryEffects
from hierderm.evaluation.metrics.hierarchy import mean_lca_height
from hierderm.evaluation.metrics.ranking import (
    K_VOTE,
    K,
    Labelled,
    Ranking,
    case_means,
    rankings,
    rankings_by_best,
    rankings_of_hits,
    vote_is_right,
)
from hierderm.evaluation.metrics.terms import Terms, precision_at, recall_at, sums
from hierderm.types import FloatArray, IntArray

NoRelevant = Literal["skip", "zero", "error"]


@dataclass(frozen=True)
class LevelScores:
    """Scores of each query at one level.

    Attributes:
        values: By metric, each shape (n_queries,), in [0, 1], higher is better; nan where a query is skipped. They are
            the catalogue's metrics with `terms`, and knn_accuracy.
        n_relevant: How many items of other cases share the query's node, shape (n_queries,).
        effects: What the gallery does to each metric, where it was asked for.
    """

    values: dict[str, FloatArray]
    n_relevant: IntArray
    effects: dict[str, GalleryEffect] = field(default_factory=dict)

    @property
    def n_skipped(self) -> int:
        return int(np.isnan(self.values["map_at_r"]).sum())


@dataclass(frozen=True)
class RetrievalScores:
    """Scores of each query at every level, and of the tree as a whole.

    Attributes:
        levels: One LevelScores a level, coarse first.
        tree: By metric, each shape (n_queries,). ndcg, hap and asi are in [0, 1] and higher is better; lca_height_at_10
            and mistake_severity are in levels and lower is better; mistake_severity is nan where the nearest item is
            right.
        nearest: Positions in the gallery of each query's first 10, shape (n_queries, 10), int64, -1 where there are
            fewer.
        tree_effects: As those of LevelScores, of all metrics of the tree but asi.
    """

    levels: tuple[LevelScores, ...]
    tree: dict[str, FloatArray]
    nearest: IntArray
    tree_effects: dict[str, GalleryEffect] = field(default_factory=dict)


def retrieval_scores(
    queries: Labelled,
    gallery: Labelled | None = None,
    *,
    no_relevant: NoRelevant = "skip",
    gallery_effects: bool = False,
) -> RetrievalScores:
    """Every image queries the gallery.

    Args:
        queries: Embeddings with their nodes on each level and their cases.
        gallery: What is searched; by default all queries. Items of the query's own case are left out.
        no_relevant: What becomes of a query without relevant images at a level: 'skip' (nan), 'zero' or 'error'. The
            metrics of the tree treat a query so that shares not even a category with anything.
        gallery_effects: Compute, too, what each item of the gallery does to the metrics, for intervals that allow for
            another gallery.

    Raises:
        EmbeddingError: A query has no relevant image, with `no_relevant='error'`.
    """
    every = rankings(queries, gallery)
    return _scores(every, queries.labels, (gallery or queries).labels, no_relevant, gallery_effects)


def case_scores(
    images: Labelled, aggregation: Aggregation, *, no_relevant: NoRelevant = "skip", gallery_effects: bool = False
) -> RetrievalScores:
    """Every case queries all other cases.

    Args:
        images: Embeddings with their nodes on each level and their cases.
        aggregation: Cases are as similar as their 'best' pair of images, or as the 'mean's of their embeddings.
        no_relevant: As in `retrieval_scores`.
        gallery_effects: As in `retrieval_scores`.

    Returns:
        Scores with a row a case, in the order of the sorted case ids.
    """
    means = case_means(images)
    every = rankings(means) if aggregation == "mean" else rankings_by_best(images)
    return _scores(every, means.labels, means.labels, no_relevant, gallery_effects)


def hit_scores(rows: IntArray, query_labels: IntArray, gallery_labels: IntArray) -> list[dict[str, FloatArray]]:
    """Scores of each query from the first k that a search found, one table a level: recall, precision, k-NN, height.

    For `rows` see `rankings_of_hits`. recall_at_k, precision_at_k and lca_height_at_k name the k of the search.
    """
    k = rows.shape[1]
    found = list(rankings_of_hits(rows, query_labels, gallery_labels))
    terms: dict[str, Terms] = {
        "recall_at_1": partial(recall_at, k=1),
        f"recall_at_{k}": partial(recall_at, k=k),
        f"precision_at_{k}": partial(precision_at, k=k),
    }
    tables = []
    for level, labels in enumerate(query_labels):
        relevant = [ranking.relevant(level) for ranking in found]
        votes = [gallery_labels[level, ranking.nearest[:K_VOTE]] for ranking in found]
        tables.append(
            {
                **dict(zip(terms, np.array([sums(terms.values(), places) for places in relevant]).T, strict=True)),
                "knn_accuracy": np.array([vote_is_right(v, label) for v, label in zip(votes, labels, strict=True)]),
                f"lca_height_at_{k}": np.array([mean_lca_height(ranking, k) for ranking in found]),
            }
        )
    return tables


def _scores(
    every: Iterable[Ranking],
    query_labels: IntArray,
    gallery_labels: IntArray,
    no_relevant: NoRelevant,
    with_effects: bool,
) -> RetrievalScores:
    terms, graded = level_metrics(), tree_metrics()
    n_levels, n_queries = query_labels.shape
    names = [*terms, "knn_accuracy"]
    values, n_relevant = np.empty((n_levels, n_queries, len(names))), np.zeros((n_levels, n_queries), dtype=np.int64)
    tree_values, nearest = np.empty((n_queries, len(graded))), np.full((n_queries, K), -1, dtype=np.int64)
    effects = GalleryEffects(query_labels, gallery_labels, terms, tree_changes()) if with_effects else None
    for query, ranking in enumerate(every):
        for level in range(n_levels):
            places = ranking.relevant(level)
            n_relevant[level, query] = len(places)
            voters = gallery_labels[level, ranking.nearest[:K_VOTE]]
            values[level, query, :-1] = sums(terms.values(), places)
            values[level, query, -1] = vote_is_right(voters, int(query_labels[level, query]))
        tree_values[query] = [metric(ranking) for metric in graded.values()]
        nearest[query, : len(ranking.nearest)] = ranking.nearest[:K]
        if effects is not None:
            effects.add(query, ranking, values[:, query], dict(zip(graded, tree_values[query], strict=True)))
    levels = []
    for level, counts in enumerate(n_relevant):
        settled = _settle(names, values[level], counts, no_relevant)
        levels.append(LevelScores(settled, counts, effects.level_effects(level, settled) if effects else {}))
    tree = _settle(list(graded), tree_values, n_relevant[0], no_relevant)
    return RetrievalScores(tuple(levels), tree, nearest, effects.tree_effects(tree) if effects else {})


def _settle(
    names: Sequence[str], values: FloatArray, n_relevant: IntArray, choice: NoRelevant
) -> dict[str, FloatArray]:
    """The columns of `values`, shape (n_queries, n_names), queries without a relevant item treated as chosen."""
    none = n_relevant == 0
    if none.any() and choice == "error":
        raise EmbeddingError(f"{int(none.sum())} queries have no relevant image; use no_relevant='skip' or 'zero'.")
    settled = np.where(none[:, None], np.nan if choice == "skip" else 0.0, values)
    heights = ("mistake_severity", f"lca_height_at_{K}")  # defined without a relevant item
    return {name: (values if name in heights else settled)[:, column] for column, name in enumerate(names)}
