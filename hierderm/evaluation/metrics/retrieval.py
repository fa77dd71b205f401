"""Nearest-neighbour retrieval with the query's own case left out: all metrics of all queries.

A neighbour is relevant at a level where it shares the query's node there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

import numpy as np

from hierderm.embeddings import Aggregation
from hierderm.errors import EmbeddingError
from hierderm.evaluation.catalogue import level_metrics, tree_changes, tree_metrics
from hierderm.evaluation.inference.influence import GalleryEffect, GalleryEffects
from hierderm.evaluation.metrics.blocks import Work, over_rankings, over_rankings_of_cases
from hierderm.evaluation.metrics.hierarchy import mean_lca_height
from hierderm.evaluation.metrics.ranking import (
    K_VOTE,
    K,
    Labelled,
    Rankings,
    case_means,
    case_order,
    labels_at,
    rankings_of_hits,
    votes_are_right,
)
from hierderm.evaluation.metrics.terms import LevelMetric, precision_at, recall_at, sums
from hierderm.types import FloatArray, IntArray

NoRelevant = Literal["skip", "zero", "error"]
Metric = TypeVar("Metric")


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
    over = partial(over_rankings, queries=queries, gallery=gallery)
    return _scores(over, queries.labels, (gallery or queries).labels, None, no_relevant, gallery_effects)


def case_scores(
    images: Labelled,
    aggregation: Aggregation,
    *,
    metrics: Collection[str] | None = None,
    no_relevant: NoRelevant = "skip",
    gallery_effects: bool = False,
) -> RetrievalScores:
    """Every case queries all other cases.

    Args:
        images: Embeddings with their nodes on each level and their cases.
        aggregation: Cases are as similar as their 'best' pair of images, or as the 'mean's of their embeddings.
        metrics: Names of those to compute; by default all.
        no_relevant: As in `retrieval_scores`.
        gallery_effects: As in `retrieval_scores`.

    Returns:
        Scores with a row a case, in the order of the sorted case ids.
    """
    if aggregation == "mean":
        means = case_means(images)
        over, labels = partial(over_rankings, queries=means), means.labels
    else:
        over, labels = partial(over_rankings_of_cases, images=images), images.labels[:, case_order(images)[1]]
    return _scores(over, labels, labels, metrics, no_relevant, gallery_effects)


def hit_scores(rows: IntArray, query_labels: IntArray, gallery_labels: IntArray) -> list[dict[str, FloatArray]]:
    """Scores of each query from the first k that a search found, one table a level: recall, precision, k-NN, height.

    For `rows` see `rankings_of_hits`. recall_at_k, precision_at_k and lca_height_at_k name the k of the search.
    """
    k = rows.shape[1]
    found = rankings_of_hits(rows, query_labels, gallery_labels)
    names = ("recall_at_1", f"recall_at_{k}", f"precision_at_{k}")
    metrics = [LevelMetric(partial(recall_at, k=1)), LevelMetric(partial(recall_at, k=k))]
    metrics.append(LevelMetric(partial(precision_at, k=k)))
    return [
        {
            **dict(zip(names, sums(metrics, found.relevant(level)), strict=True)),
            "knn_accuracy": votes_are_right(labels_at(gallery_labels[level], rows[:, :K_VOTE]), labels),
            f"lca_height_at_{k}": mean_lca_height(found, k),
        }
        for level, labels in enumerate(query_labels)
    ]


def _scores(
    over: Callable[[Work[GalleryEffects | None]], Iterator[GalleryEffects | None]],
    query_labels: IntArray,
    gallery_labels: IntArray,
    metrics: Collection[str] | None,
    no_relevant: NoRelevant,
    with_effects: bool,
) -> RetrievalScores:
    terms, graded = _named(level_metrics(), metrics), _named(tree_metrics(), metrics)
    changes = _named(tree_changes(), metrics)
    n_levels, n_queries = query_labels.shape
    values, votes = np.empty((n_levels, len(terms), n_queries)), np.empty((n_levels, n_queries))
    tree, nearest = np.empty((len(graded), n_queries)), np.empty((n_queries, K), dtype=np.int64)
    n_relevant = np.empty((n_levels, n_queries), dtype=np.int64)

    def score(block: Iterator[Rankings]) -> GalleryEffects | None:
        effects = GalleryEffects(query_labels, gallery_labels, terms, changes) if with_effects else None
        for rankings in block:
            rows = rankings.queries
            nearest[rows] = rankings.nearest(K)
            for level in range(n_levels):
                relevant, voters = rankings.relevant(level), labels_at(gallery_labels[level], nearest[rows, :K_VOTE])
                n_relevant[level, rows] = relevant.counts
                values[level][:, rows] = sums(terms.values(), relevant)
                votes[level, rows] = votes_are_right(voters, query_labels[level, rows])
            for number, metric in enumerate(graded.values()):
                tree[number, rows] = metric(rankings)
            if effects is not None:
                effects.add(rankings, values[:, :, rows], votes[:, rows], dict(zip(graded, tree[:, rows], strict=True)))
        return effects

    total: GalleryEffects | None = None
    for effects in over(score):
        total = effects if total is None or effects is None else total.joined(effects)
    levels = []
    for level, counts in enumerate(n_relevant):
        named = {**dict(zip(terms, values[level], strict=True)), "knn_accuracy": votes[level]}
        settled = _settle(named, counts, no_relevant)
        levels.append(LevelScores(settled, counts, total.level_effects(level, settled) if total else {}))
    settled = _settle(dict(zip(graded, tree, strict=True)), n_relevant[0], no_relevant)
    return RetrievalScores(tuple(levels), settled, nearest, total.tree_effects(settled) if total else {})


def _named(every: Mapping[str, Metric], names: Collection[str] | None) -> dict[str, Metric]:
    return {name: metric for name, metric in every.items() if names is None or name in names}


def _settle(values: Mapping[str, FloatArray], n_relevant: IntArray, choice: NoRelevant) -> dict[str, FloatArray]:
    """The `values` of each query, those without a relevant item treated as chosen."""
    none = n_relevant == 0
    if none.any() and choice == "error":
        raise EmbeddingError(f"{int(none.sum())} queries have no relevant image; use no_relevant='skip' or 'zero'.")
    heights = ("mistake_severity", f"lca_height_at_{K}")  # defined without a relevant item
    instead = np.nan if choice == "skip" else 0.0
    return {name: given if name in heights else np.where(none, instead, given) for name, given in values.items()}
