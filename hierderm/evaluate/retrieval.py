"""Nearest-neighbour retrieval with the query's own case left out: recall@1 and MAP@R, each for every query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hierderm.errors import EmbeddingError
from hierderm.taxonomy import IntArray

FloatArray = npt.NDArray[np.float64]
NoRelevant = Literal["skip", "zero", "error"]
CHUNK = 512  # queries at a time: memory is CHUNK * n_images, not n_images squared


@dataclass(frozen=True)
class RetrievalScores:
    """For each query, shape (n_queries,): `recall_at_1` 0 or 1, `map_at_r` in [0, 1]; nan where it is skipped.

    `n_relevant`: how many images of other cases carry the query's label.
    """

    recall_at_1: FloatArray
    map_at_r: FloatArray
    n_relevant: IntArray

    @property
    def n_skipped(self) -> int:
        return int(np.isnan(self.map_at_r).sum())


def retrieval_scores(
    embeddings: npt.NDArray[np.floating],
    labels_by_level: Sequence[IntArray],
    case_ids: npt.NDArray[np.str_],
    *,
    no_relevant: NoRelevant = "skip",
) -> list[RetrievalScores]:
    """Every image queries all images of other cases; one RetrievalScores a level.

    `embeddings`: unit length, shape (n_images, dim); `labels_by_level`: each shape (n_images,); `case_ids`: shape
    (n_images,). With R the number of relevant images (same label, another case) of a query and P(i) the precision
    among its i nearest: MAP@R = 1/R * sum over i <= R, i-th relevant, of P(i) (Musgrave et al. 2020, arXiv
    2003.08505, section 3.2); recall@1 is whether the nearest is relevant. Ties in similarity keep table order. A
    query without relevant images is skipped (nan), zero or an error, by `no_relevant`.

    Worked example: labels of the ranking [1, 0, 1, 0] for a query of label 1 with R = 2: only the first two count,
    P(1) = 1, so MAP@R = 1/2 * 1 = 0.5.
    """
    n = len(embeddings)
    if any(len(labels) != n for labels in labels_by_level) or len(case_ids) != n:
        raise EmbeddingError(
            f"labels and case_ids must have a row an embedding ({n}), got "
            f"{[len(labels) for labels in labels_by_level]} and {len(case_ids)}."
        )
    _, cases = np.unique(case_ids, return_inverse=True)
    hits = [np.full(n, np.nan) for _ in labels_by_level]
    precisions = [np.full(n, np.nan) for _ in labels_by_level]
    relevant_counts = [_relevant_counts(np.asarray(labels), cases) for labels in labels_by_level]
    for start in range(0, n, CHUNK):
        rows = slice(start, min(start + CHUNK, n))
        similarity = embeddings[rows] @ embeddings.T  # (n_chunk, n_images)
        own = cases[rows, None] == cases[None, :]
        similarity[own] = -np.inf
        deepest = max(1, *(int(counts[rows].max()) for counts in relevant_counts))
        ranking = _top(similarity, min(deepest, n))
        for level, labels in enumerate(labels_by_level):
            same = labels[ranking] == labels[rows, None]
            same &= cases[ranking] != cases[rows, None]
            hits[level][rows], precisions[level][rows] = _scores(same, relevant_counts[level][rows])
    return [
        _without_relevant(RetrievalScores(h, p, r), no_relevant)
        for h, p, r in zip(hits, precisions, relevant_counts, strict=True)
    ]


def nearest_others(
    embeddings: npt.NDArray[np.floating], case_ids: npt.NDArray[np.str_], queries: IntArray, k: int
) -> IntArray:
    """Positions of the `k` nearest images of other cases for some `queries`, nearest first, shape (n_queries, k)."""
    similarity = embeddings[queries] @ embeddings.T
    similarity[case_ids[queries, None] == case_ids[None, :]] = -np.inf
    return _top(similarity, k)


def _top(similarity: npt.NDArray[np.floating], k: int) -> IntArray:
    if 4 * k >= similarity.shape[1]:
        return np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    # A partition finds the k-th similarity; whatever ties with it is cut in table order, as a full sort would.
    threshold = -np.partition(-similarity, k - 1, axis=1)[:, k - 1 : k]
    ranking = np.empty((len(similarity), k), dtype=np.int64)
    for row, (values, least) in enumerate(zip(similarity, threshold, strict=True)):
        candidates = np.flatnonzero(values >= least)
        ranking[row] = candidates[np.argsort(-values[candidates], kind="stable")[:k]]
    return ranking


def _relevant_counts(labels: IntArray, cases: IntArray) -> IntArray:
    """Images of the same label in other cases, for each image."""
    of_label = np.bincount(labels)
    pair = labels * (cases.max() + 1) + cases
    _, inverse, of_pair = np.unique(pair, return_inverse=True, return_counts=True)
    return (of_label[labels] - of_pair[inverse]).astype(np.int64)


def _scores(same: npt.NDArray[np.bool_], n_relevant: IntArray) -> tuple[FloatArray, FloatArray]:
    rank = np.arange(1, same.shape[1] + 1)
    within = same & (rank <= n_relevant[:, None])
    precision = np.cumsum(same, axis=1) / rank
    map_at_r = (precision * within).sum(axis=1) / np.maximum(n_relevant, 1)
    return same[:, 0].astype(np.float64), map_at_r


def _without_relevant(scores: RetrievalScores, choice: NoRelevant) -> RetrievalScores:
    none = scores.n_relevant == 0
    if none.any() and choice == "error":
        raise EmbeddingError(f"{int(none.sum())} queries have no relevant image; use no_relevant='skip' or 'zero'.")
    fill = np.nan if choice == "skip" else 0.0
    return RetrievalScores(
        np.where(none, fill, scores.recall_at_1), np.where(none, fill, scores.map_at_r), scores.n_relevant
    )
