"""From similarities of pictures to the nearest cases: one picture speaks for a case, a condition may be capped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hierderm.types import Floats, IntArray


@dataclass(frozen=True)
class Gallery:
    """`vectors`: unit length, shape (n_images, dim); `cases`, `fine`: numbers of case and condition, (n_images,)."""

    vectors: Floats
    cases: IntArray
    fine: IntArray

    @cached_property
    def n_cases(self) -> int:
        return int(self.cases.max()) + 1

    @cached_property
    def most_pictures(self) -> int:
        """Pictures of the case that has most."""
        return int(np.bincount(self.cases).max())

    @cached_property
    def case_means(self) -> Floats:
        """The mean of each case's pictures at unit length, shape (n_cases, dim)."""
        if self.n_cases == len(self.cases):
            return self.vectors
        order = np.argsort(self.cases, kind="stable")
        starts = np.searchsorted(self.cases[order], np.arange(self.n_cases))
        sums = np.add.reduceat(self.vectors[order], starts, axis=0)
        return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True))


def nearest_cases(
    of_rows: Floats,
    rows: IntArray,
    gallery: Gallery,
    k: int,
    *,
    score_cases: Callable[[IntArray], Floats] | None = None,
    per_condition: int = 0,
) -> tuple[IntArray, Floats]:
    """Rows and similarities of the `k` nearest cases among `rows`, nearest first; fewer where fewer exist.

    `of_rows`: similarity of each of the rows to the query, shape (n_rows,). A case is as similar as its best row, or
    as `score_cases` says of case numbers; it comes with its best row. `per_condition`: at most so many cases whose
    best row is of one condition, 0 for any number. Of equals the first in the gallery comes first.
    """
    enough = k * gallery.most_pictures  # the best of so many rows are of k cases or more
    if score_cases is None and not per_condition and len(rows) > 2 * enough:
        kept = of_rows >= -np.partition(-of_rows, enough)[enough]
        of_rows, rows = of_rows[kept], rows[kept]
    order = np.lexsort((rows, -of_rows))
    cases, first = np.unique(gallery.cases[rows[order]], return_index=True)
    best = order[first]
    scores = of_rows[best] if score_cases is None else score_cases(cases)
    ranked = np.lexsort((rows[best], -scores))
    if per_condition:
        ranked = ranked[_earlier(gallery.fine[rows[best[ranked]]]) < per_condition]
    chosen = ranked[:k]
    return rows[best[chosen]], scores[chosen]


def _earlier(labels: IntArray) -> IntArray:
    """How often each element's label came before it: [5, 7, 5] gives [0, 0, 1]."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    result = np.empty(len(labels), dtype=np.int64)
    result[order] = np.arange(len(labels)) - np.repeat(starts, np.diff(np.append(starts, len(labels))))
    return result
