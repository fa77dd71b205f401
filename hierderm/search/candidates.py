"""Rows that may be near a query, with their similarities, and how many of the truly nearest a search finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from hierderm.types import IntArray, Mask, Vectors

Candidates = tuple[IntArray, Vectors]  # rows, and the best similarity of each to a picture of the query
BLOCK = 2**26  # similarities at a time
RECALL_QUERIES, RECALL_K = 200, 10


def every_row(vectors: Vectors, groups: list[Vectors], allowed: Mask) -> Iterator[Candidates]:
    """All allowed rows, a query at a time; the products are made for many queries at once.

    `vectors`: the gallery's, shape (n_images, dim); `groups`: each query's pictures, shape (n_pictures, dim).
    """
    rows = np.flatnonzero(allowed)
    gallery = vectors if len(rows) == len(vectors) else np.asarray(vectors[rows])
    together = max(1, BLOCK // max(1, len(rows) * max(map(len, groups))))
    for start in range(0, len(groups), together):
        some = groups[start : start + together]
        similarity = np.concatenate(some) @ gallery.T  # (n_pictures of some queries, n_rows)
        for begin, end in spans(some):
            yield rows, similarity[begin:end].max(axis=0)


def spans(groups: list[Vectors]) -> Iterator[tuple[int, int]]:
    """Where each group lies when all are joined."""
    ends = np.cumsum([len(group) for group in groups]).tolist()
    return zip([0, *ends[:-1]], ends, strict=True)


class RecallSample:
    """Some pictures of a gallery and the rows that are exactly nearest to each, itself left out."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self.rows = np.sort(np.random.default_rng(0).permutation(len(vectors))[:RECALL_QUERIES])
        self.queries = np.asarray(vectors[self.rows])
        every = every_row(vectors, [query[None] for query in self.queries], np.ones(len(vectors), dtype=bool))
        self.exact = [_first(*candidates, but=row) for row, candidates in zip(self.rows, every, strict=True)]

    def recall(self, propose: Callable[[Vectors, int], list[IntArray]]) -> float:
        """Share of the exact 10 nearest that are among the rows proposed for each query, in [0, 1]."""
        shares = []
        proposed = propose(self.queries, RECALL_K + 1)
        for row, query, exact, near in zip(self.rows, self.queries, self.exact, proposed, strict=True):
            found = _first(near, self.vectors[near] @ query, but=row)
            shares.append(len(np.intersect1d(found, exact)) / max(1, len(exact)))
        return float(np.mean(shares))


def _first(rows: IntArray, similarity: Vectors, *, but: int) -> IntArray:
    """The 10 rows of highest similarity, `but` one."""
    others = rows != but
    rows, similarity = rows[others], similarity[others]
    return rows[np.argpartition(-similarity, min(RECALL_K, len(rows) - 1))[:RECALL_K]] if len(rows) else rows
