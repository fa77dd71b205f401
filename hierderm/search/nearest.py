"""From similarities of images to the nearest cases: one image stands for a case, and a condition may be capped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from hierderm.types import Floats, IntArray, Mask, Vectors

BLOCK = 2**26  # similarities at a time
CACHED = 2**17  # numbers: half a megabyte


@dataclass(frozen=True)
class Candidates:
    """Images that are compared with a query, all of shape (n_rows,).

    `rows`: their numbers in the gallery; `similarity`: the best of each to an image of the query; `cases` and `fine`:
    numbers of their cases and conditions.
    """

    rows: IntArray
    similarity: Floats
    cases: IntArray
    fine: IntArray

    def at(self, chosen: IntArray | Mask) -> Candidates:
        """Some of them."""
        return Candidates(self.rows[chosen], self.similarity[chosen], self.cases[chosen], self.fine[chosen])

    def n_cases(self, per_condition: int) -> int:
        """Number of their cases, no more than `per_condition` of each condition counted; 0 for any number."""
        _, first = np.unique(self.cases, return_index=True)
        if not per_condition:
            return len(first)
        return int(np.minimum(np.bincount(self.fine[first]), per_condition).sum())


def every_row(vectors: Vectors, groups: list[Vectors], allowed: IntArray | None) -> Iterator[tuple[IntArray, Vectors]]:
    """All allowed rows and their best similarities, a query at a time; products are made for many queries at once.

    `vectors`: the gallery's, shape (n_images, dim); `groups`: the vectors of each query, shape (n_images, dim);
    `allowed`: positions of the rows, None for all.
    """
    rows = np.arange(len(vectors)) if allowed is None else allowed
    together = max(1, BLOCK // max(1, len(rows) * max(map(len, groups), default=1)))
    for start in range(0, len(groups), together):
        some = groups[start : start + together]
        joined = np.concatenate(some)
        similarity = joined @ vectors.T if allowed is None else _products(joined, vectors, rows)
        for begin, end in spans(some):
            yield rows, similarity[begin:end].max(axis=0)


def _products(queries: Vectors, vectors: Vectors, rows: IntArray) -> Vectors:
    """Similarities to some rows, shape (n_queries, n_rows); the rows are copied in parts that fit the cache."""
    part = max(1, CACHED // vectors.shape[1])
    copied = np.empty((part, vectors.shape[1]), dtype=np.float32)
    similarity = np.empty((len(queries), len(rows)), dtype=np.float32)
    for start in range(0, len(rows), part):
        some = rows[start : start + part]
        np.take(vectors, some, axis=0, out=copied[: len(some)], mode="clip")  # 'raise' would copy twice
        similarity[:, start : start + part] = queries @ copied[: len(some)].T
    return similarity


def spans(groups: list[Vectors]) -> Iterator[tuple[int, int]]:
    """Begin and end of each group when all are joined."""
    ends = np.cumsum([len(group) for group in groups]).tolist()
    return zip([0, *ends[:-1]], ends, strict=True)


def nearest_cases(
    found: Candidates, k: int, *, score_cases: Callable[[IntArray], Floats] | None = None, per_condition: int = 0
) -> tuple[IntArray, Floats]:
    """Rows and similarities of the `k` nearest cases among images, nearest first; fewer where fewer exist.

    A case is as similar as its best row, or as `score_cases` says of case numbers; it comes with its best row.
    `per_condition`: at most so many cases whose best row is of one condition, 0 for any number. Of equals the first in
    the gallery comes first.
    """
    order = np.lexsort((found.rows, -found.similarity))
    cases, first = np.unique(found.cases[order], return_index=True)
    best = found.at(order[first])
    scores = best.similarity if score_cases is None else score_cases(cases)
    ranked = np.lexsort((best.rows, -scores))
    if per_condition:
        ranked = ranked[_earlier(best.fine[ranked]) < per_condition]
    chosen = ranked[:k]
    return best.rows[chosen], scores[chosen]


def _earlier(labels: IntArray) -> IntArray:
    """How often each element's label came before it: [5, 7, 5] gives [0, 0, 1]."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    result = np.empty(len(labels), dtype=np.int64)
    result[order] = np.arange(len(labels)) - np.repeat(starts, np.diff(np.append(starts, len(labels))))
    return result
