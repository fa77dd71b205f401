"""From similarities of images to the nearest cases: one image stands for a case, and a condition may be capped."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from hierderm.search.gallery import Gallery
from hierderm.types import Floats, IntArray, Vectors

Candidates = tuple[IntArray, Vectors]  # rows, and the best similarity of each to an image of the query
BLOCK = 2**26  # similarities at a time
CACHED = 2**17  # numbers: half a megabyte


def every_row(vectors: Vectors, groups: list[Vectors], allowed: IntArray | None) -> Iterator[Candidates]:
    """All allowed rows, a query at a time; the products are made for many queries at once.

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
    rows: IntArray,
    similarity: Floats,
    gallery: Gallery,
    k: int,
    *,
    score_cases: Callable[[IntArray], Floats] | None = None,
    per_condition: int = 0,
) -> tuple[IntArray, Floats]:
    """Rows and similarities of the `k` nearest cases among `rows`, nearest first; fewer where fewer exist.

    `similarity`: of each of the rows to the query, shape (n_rows,). A case is as similar as its best row, or as
    `score_cases` says of case numbers; it comes with its best row. `per_condition`: at most so many cases whose
    best row is of one condition, 0 for any number. Of equals the first in the gallery comes first.
    """
    enough = k * gallery.most_images  # the best of so many rows are of k cases or more
    if score_cases is None and not per_condition and len(rows) > 2 * enough:
        kept = similarity >= -np.partition(-similarity, enough)[enough]
        rows, similarity = rows[kept], similarity[kept]
    order = np.lexsort((rows, -similarity))
    cases, first = np.unique(gallery.cases[rows[order]], return_index=True)
    best = order[first]
    scores = similarity[best] if score_cases is None else score_cases(cases)
    ranked = np.lexsort((rows[best], -scores))
    if per_condition:
        ranked = ranked[_earlier(gallery.fine[rows[best[ranked]]]) < per_condition]
    chosen = ranked[:k]
    return rows[best[chosen]], scores[chosen]


def count_cases(rows: IntArray, gallery: Gallery, per_condition: int) -> int:
    """Number of cases among rows, no more than `per_condition` of each condition counted."""
    _, first = np.unique(gallery.cases[rows], return_index=True)
    if not per_condition:
        return len(first)
    return int(np.minimum(np.bincount(gallery.fine[rows[first]]), per_condition).sum())


def _earlier(labels: IntArray) -> IntArray:
    """How often each element's label came before it: [5, 7, 5] gives [0, 0, 1]."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    result = np.empty(len(labels), dtype=np.int64)
    result[order] = np.arange(len(labels)) - np.repeat(starts, np.diff(np.append(starts, len(labels))))
    return result
