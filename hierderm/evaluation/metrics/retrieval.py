"""Nearest-neighbour retrieval with the query's own case left out: metrics of one ranking, and all of them for all.

A neighbour is relevant at a level where it shares the query's node there. `relevant`: the 1-based places of the
relevant items, ascending; `n_ranked`: how many items are ranked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from hierderm.embeddings import Aggregation
from hierderm.errors import EmbeddingError
from hierderm.evaluation.inference.gallery import GalleryInfluence, OnGallery
from hierderm.evaluation.metrics.hierarchy import (
    average_set_intersection,
    hierarchical_average_precision,
    mean_lca_height,
    mistake_severity,
    ndcg,
)
from hierderm.evaluation.metrics.ranking import (
    K_VOTE,
    K,
    Labelled,
    Ranking,
    mean_of_cases,
    rankings,
    rankings_by_best,
    rankings_of_hits,
    vote_is_right,
)
from hierderm.types import FloatArray, IntArray

NoRelevant = Literal["skip", "zero", "error"]


# --- one ranking -------------------------------------------------------------------------------------------------


def recall_at(relevant: IntArray, k: int) -> float:
    """1 where one of the first `k` is relevant, else 0 (as metric learning uses the word)."""
    return float(len(relevant) > 0 and relevant[0] <= k)


def precision_at(relevant: IntArray, k: int) -> float:
    """Share of relevant items among the first `k`, in [0, 1]; out of k also where fewer than k are relevant."""
    return float((relevant <= k).sum() / k)


def r_precision(relevant: IntArray) -> float:
    """Precision among the first R, R the number of relevant items; nan where R = 0."""
    return precision_at(relevant, len(relevant)) if len(relevant) else float("nan")


def map_at_r(relevant: IntArray) -> float:
    """MAP@R = 1/R * sum over relevant places i <= R of the precision at i (Musgrave et al. 2020, arXiv 2003.08505).

    nan where R = 0. Worked example: relevant places [1, 3], R = 2: only the first counts, P(1) = 1, so 0.5.
    """
    n_relevant = len(relevant)
    if not n_relevant:
        return float("nan")
    within = relevant[relevant <= n_relevant]
    return float((np.arange(1, len(within) + 1) / within).sum() / n_relevant)


def reciprocal_rank(relevant: IntArray) -> float:
    """1 / the first relevant place, in (0, 1]; nan where none is."""
    return float(1 / relevant[0]) if len(relevant) else float("nan")


# --- all queries -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LevelScores:
    """Figures of each query at one level, each shape (n_queries,); nan where a query is skipped.

    `values`: recall_at_1, recall_at_10, precision_at_10, r_precision, map_at_r, mrr, knn_accuracy. `n_relevant`: how
    many items of other cases share the query's node. `influence`: what the gallery does to each figure, where
    it was asked for (`hierderm.evaluation.inference.gallery`).
    """

    values: dict[str, FloatArray]
    n_relevant: IntArray
    influence: dict[str, OnGallery] = field(default_factory=dict)

    @property
    def n_skipped(self) -> int:
        return int(np.isnan(self.values["map_at_r"]).sum())


@dataclass(frozen=True)
class RetrievalScores:
    """`levels`: one LevelScores a level, coarse first; `tree`: metrics of the whole tree, each shape (n_queries,).

    In `tree`, ndcg, hap and asi are in [0, 1] and higher is better; lca_height_at_10 and mistake_severity are in
    levels and lower is better; mistake_severity is nan where the nearest item is right. `nearest`: positions in the
    gallery of each query's first 10, shape (n_queries, 10), -1 where there are fewer. `tree_influence`: as that of
    LevelScores, of all metrics of the tree but asi.
    """

    levels: tuple[LevelScores, ...]
    tree: dict[str, FloatArray]
    nearest: IntArray
    tree_influence: dict[str, OnGallery] = field(default_factory=dict)


def retrieval_scores(
    queries: Labelled,
    gallery: Labelled | None = None,
    *,
    no_relevant: NoRelevant = "skip",
    influence: bool = False,
) -> RetrievalScores:
    """Every image queries the gallery; by default all images of other cases.

    A query without relevant images at a level is skipped there (nan), zero or an error, by `no_relevant`; the
    metrics of the tree treat a query so that shares not even a category with anything. `influence`: compute, too, what
    each item of the gallery does to the figures, for intervals that allow for another gallery.
    """
    every = rankings(queries, gallery)
    return _scores(every, queries.labels, (gallery or queries).labels, no_relevant, influence)


def case_scores(
    pictures: Labelled, aggregation: Aggregation, *, no_relevant: NoRelevant = "skip", influence: bool = False
) -> RetrievalScores:
    """Every case queries all other cases; rows in the order of the sorted case ids.

    `aggregation`: cases are as similar as their best pair of pictures, or as the means of their embeddings.
    """
    means = mean_of_cases(pictures)
    every = rankings(means) if aggregation == "mean" else rankings_by_best(pictures)
    return _scores(every, means.labels, means.labels, no_relevant, influence)


def hit_scores(rows: IntArray, query_labels: IntArray, gallery_labels: IntArray) -> list[dict[str, FloatArray]]:
    """Figures of each query from the first k that a search found, one table a level: recall, precision, k-NN, height.

    For `rows` see `rankings_of_hits`. recall_at_k, precision_at_k and lca_height_at_k name the k of the search.
    """
    k = rows.shape[1]
    found = list(rankings_of_hits(rows, query_labels, gallery_labels))
    tables = []
    for level, of_queries in enumerate(query_labels):
        relevant = [ranking.relevant(level) for ranking in found]
        votes = [gallery_labels[level, ranking.nearest[:K_VOTE]] for ranking in found]
        tables.append(
            {
                "recall_at_1": np.array([recall_at(places, 1) for places in relevant]),
                f"recall_at_{k}": np.array([recall_at(places, k) for places in relevant]),
                f"precision_at_{k}": np.array([precision_at(places, k) for places in relevant]),
                "knn_accuracy": np.array([vote_is_right(v, label) for v, label in zip(votes, of_queries, strict=True)]),
                f"lca_height_at_{k}": np.array([mean_lca_height(ranking, k) for ranking in found]),
            }
        )
    return tables


def _scores(
    every: Iterable[Ranking],
    query_labels: IntArray,
    gallery_labels: IntArray,
    no_relevant: NoRelevant,
    with_influence: bool,
) -> RetrievalScores:
    of_levels: list[list[dict[str, float]]] = [[] for _ in query_labels]
    of_tree: list[dict[str, float]] = []
    counts: list[list[int]] = [[] for _ in query_labels]
    nearest = np.full((query_labels.shape[1], K), -1, dtype=np.int64)
    influences = GalleryInfluence(query_labels, gallery_labels) if with_influence else None
    for query, ranking in enumerate(every):
        for level, rows in enumerate(of_levels):
            relevant = ranking.relevant(level)
            votes = gallery_labels[level, ranking.nearest[:K_VOTE]]
            counts[level].append(len(relevant))
            rows.append(_level_row(relevant, vote_is_right(votes, int(query_labels[level, query]))))
        of_tree.append(_tree_row(ranking))
        nearest[query, : len(ranking.nearest)] = ranking.nearest[:K]
        if influences is not None:
            influences.add(query, ranking, [rows[-1] for rows in of_levels], of_tree[-1])
    n_relevant = [np.array(of_level, dtype=np.int64) for of_level in counts]
    levels = [
        LevelScores(
            {key: _settle(key, values, counted, no_relevant) for key, values in _columns(rows).items()}, counted
        )
        for rows, counted in zip(of_levels, n_relevant, strict=True)
    ]
    tree = {key: _settle(key, values, n_relevant[0], no_relevant) for key, values in _columns(of_tree).items()}
    found = RetrievalScores(tuple(levels), tree, nearest)
    if influences is None:
        return found
    levels = [
        replace(of_level, influence=influences.of_level(number, of_level.values))
        for number, of_level in enumerate(levels)
    ]
    return replace(found, levels=tuple(levels), tree_influence=influences.of_tree(tree))


def _level_row(relevant: IntArray, vote: float) -> dict[str, float]:
    return {
        "recall_at_1": recall_at(relevant, 1),
        f"recall_at_{K}": recall_at(relevant, K),
        f"precision_at_{K}": precision_at(relevant, K),
        "r_precision": r_precision(relevant),
        "map_at_r": map_at_r(relevant),
        "mrr": reciprocal_rank(relevant),
        "knn_accuracy": vote,
    }


def _tree_row(ranking: Ranking) -> dict[str, float]:
    return {
        "ndcg": ndcg(ranking),
        "hap": hierarchical_average_precision(ranking),
        "asi": average_set_intersection(ranking),
        f"lca_height_at_{K}": mean_lca_height(ranking, K),
        "mistake_severity": mistake_severity(ranking),
    }


def _columns(rows: Sequence[dict[str, float]]) -> dict[str, FloatArray]:
    return {key: np.array([row[key] for row in rows]) for key in (rows[0] if rows else {})}


def _settle(name: str, values: FloatArray, n_relevant: IntArray, choice: NoRelevant) -> FloatArray:
    """`values` with the queries that have no relevant item treated as chosen."""
    if name in ("mistake_severity", f"lca_height_at_{K}"):
        return values  # heights are defined without a relevant item
    none = n_relevant == 0
    if none.any() and choice == "error":
        raise EmbeddingError(f"{int(none.sum())} queries have no relevant image; use no_relevant='skip' or 'zero'.")
    return np.where(none, np.nan if choice == "skip" else 0.0, values)
