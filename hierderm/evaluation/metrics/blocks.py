"""Every query ranks the gallery, in blocks that threads work on; of a block only what a metric makes of it is kept.

A ranking is one sort of 64-bit keys: similarity in the upper half, position in the gallery and depth in the lower, so
that ties keep the gallery's order and nothing has to be looked up after the sort. Memory is a few arrays of the size of
a block for each thread, whatever the number of queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from threading import Event
from typing import TypeVar

import numpy as np

from hierderm.errors import EmbeddingError
from hierderm.evaluation.metrics.ranking import (
    DEPTH_BITS,
    POSITION_BITS,
    Labelled,
    Rankings,
    case_order,
    row_slices,
)
from hierderm.threads import in_order, n_threads, one_thread
from hierderm.types import Floats, IntArray, Vectors

Result = TypeVar("Result")
Work = Callable[[Iterator[Rankings]], Result]
THREADS = min(4, n_threads())
PRODUCT = 2**26  # similarities that all threads hold together, 256 MB
MOST_QUERIES = 512  # of a product: more do not make it faster
SORTED = 2**20  # keys that a thread sorts at a time
MAX_GALLERY = 2 ** (POSITION_BITS - DEPTH_BITS)
LAST = 2**31 - 1  # upper half of a key that comes after all others


def over_rankings(
    work: Work[Result], queries: Labelled, gallery: Labelled | None = None, *, first: int | None = None
) -> Iterator[Result]:
    """What `work` makes of the rankings of all queries, a result a block of them, in the order of the blocks.

    Items of the query's own case are not ranked. Ties in similarity keep the gallery's order. Queries come in the order
    of their labels, so that the rankings of a block are about as long.

    Args:
        work: A function of the rankings of a block, which come in parts; threads call it. A part is overwritten by the
            next one.
        queries: What asks.
        gallery: What is ranked; by default the queries.
        first: Rank only that many of the nearest items, which is faster.

    Raises:
        EmbeddingError: The gallery is too large for the keys.
    """
    gallery = queries if gallery is None else gallery
    both = queries.cases if gallery is queries else np.concatenate([queries.cases, gallery.cases])
    _, cases = np.unique(both, return_inverse=True)

    def similarity(rows: IntArray) -> Floats:
        return np.asarray(queries.embeddings[rows] @ gallery.embeddings.T)

    sorter = _Sorter(queries.labels, gallery.labels, cases[: len(queries)], cases[-len(gallery) :], first)
    return _in_blocks(work, similarity, sorter, len(gallery))


def over_rankings_of_cases(work: Work[Result], images: Labelled) -> Iterator[Result]:
    """Every case ranks the other cases by the best similarity of any pair of their images; see `over_rankings`.

    Positions are those of the sorted case ids.
    """
    order, first, counts = case_order(images)
    starts, labels = np.cumsum(counts) - counts, images.labels[:, first]

    def similarity(cases: IntArray) -> Floats:
        some = counts[cases]
        ends = np.cumsum(some)
        rows = np.arange(ends[-1]) + np.repeat(starts[cases] - ends + some, some)
        similarity = images.embeddings[order[rows]] @ images.embeddings.T
        best = np.empty((len(cases), len(counts)), dtype=similarity.dtype)
        for part in row_slices(0, len(cases), len(images)):  # few cases at a time stay in the cache
            first, last = ends[part.start] - some[part.start], ends[part.stop - 1]
            by_case = _best_of_rows(similarity[first:last], ends[part] - some[part] - first, some[part])
            best[part] = _best_of_columns(by_case, order, starts, counts)
        return best

    own = np.arange(len(first))
    per_case = len(images) * len(images) // max(1, len(first))
    return _in_blocks(work, similarity, _Sorter(labels, labels, own, own, None), per_case)


def _best_of_rows(similarity: Floats, starts: IntArray, counts: IntArray) -> Floats:
    """The largest over the rows of each case, shape (n_cases, n). Faster than `np.maximum.reduceat`."""
    best = similarity[starts]
    for number in range(1, counts.max(initial=0)):
        cases = np.flatnonzero(counts > number)
        best[cases] = np.maximum(best[cases], similarity[starts[cases] + number])
    return best


def _best_of_columns(similarity: Floats, order: IntArray, starts: IntArray, counts: IntArray) -> Floats:
    """The largest over the columns of each case, shape (n, n_cases)."""
    best = similarity[:, order[starts]]
    for number in range(1, counts.max(initial=0)):
        cases = np.flatnonzero(counts > number)
        best[:, cases] = np.maximum(best[:, cases], similarity[:, order[starts[cases] + number]])
    return best


def nearest_items(queries: Labelled, gallery: Labelled | None = None, *, k: int) -> IntArray:
    """Positions of the `k` nearest items of other cases, nearest first, -1 for none, shape (n_queries, k)."""
    nearest = np.empty((len(queries), k), dtype=np.int64)

    def keep(block: Iterator[Rankings]) -> None:
        for rankings in block:
            nearest[rankings.queries] = rankings.nearest(k)

    for _ in over_rankings(keep, queries, gallery, first=k):
        pass
    return nearest


@dataclass(frozen=True)
class _Sorter:
    """Makes rankings of similarities: what it knows of queries and gallery beside them. Cases are numbers."""

    query_labels: IntArray
    gallery_labels: IntArray
    query_cases: IntArray
    gallery_cases: IntArray
    first: int | None

    def __post_init__(self) -> None:
        if self.n_gallery >= MAX_GALLERY:
            raise EmbeddingError(f"the gallery must have fewer than {MAX_GALLERY} items, got {self.n_gallery}.")

    @property
    def n_gallery(self) -> int:
        return len(self.gallery_cases)

    @cached_property
    def _by_case(self) -> IntArray:
        return np.argsort(self.gallery_cases, kind="stable")

    @cached_property
    def _sorted_cases(self) -> IntArray:
        return self.gallery_cases[self._by_case]

    def rankings(self, queries: IntArray, similarity: Floats) -> Iterator[Rankings]:
        """Rankings of some queries, in parts; `similarity`: to the gallery, shape (n_queries, n_gallery)."""
        distance = similarity.astype(np.float32, copy=False)
        np.negative(distance, out=distance)
        distance += 0.0  # so that -0.0 and 0.0 are the same
        rows = max(1, SORTED // max(1, self.n_gallery))
        memory = np.empty((min(rows, len(queries)), self.n_gallery), dtype=np.int64)
        for start in range(0, len(queries), rows):
            part = queries[start : start + rows]
            keys = memory[: len(part)]
            n_ranked = self._fill(keys, part, distance[start : start + rows])
            if self.first is not None and self.first < self.n_gallery:
                keys.partition(self.first - 1, axis=1)
                keys, n_ranked = keys[:, : self.first], np.minimum(n_ranked, self.first)
            keys.sort(axis=1)
            yield Rankings(part, keys, n_ranked, len(self.gallery_labels))

    def _fill(self, keys: IntArray, queries: IntArray, distance: Vectors) -> IntArray:
        """Write keys whose order is that of growing distance; how many items of each query are ranked."""
        positions = np.arange(self.n_gallery) << DEPTH_BITS
        for run in _runs(self.query_labels[:, queries]):
            lower = positions | self._depths(self.query_labels[:, queries[run.start]])
            for rows in row_slices(run.start, run.stop, self.n_gallery):
                bits = distance[rows].view(np.int32)
                # Floats of IEEE 754 sort as the integers of their bits, where the negative ones are turned around.
                keys[rows] = bits ^ ((bits >> 31) & LAST)
                keys[rows] <<= POSITION_BITS
                keys[rows] |= lower
        cases = self.query_cases[queries]
        own, ends = np.searchsorted(self._sorted_cases, cases), np.searchsorted(self._sorted_cases, cases + 1)
        counts = ends - own
        row = np.repeat(np.arange(len(queries)), counts)
        items = self._by_case[np.arange(len(row)) + np.repeat(own - np.cumsum(counts) + counts, counts)]
        keys[row, items] = (LAST << POSITION_BITS) | positions[items]
        return np.asarray(self.n_gallery - counts)

    def _depths(self, labels: IntArray) -> IntArray:
        """On how many levels each item of the gallery agrees with a query of these labels, shape (n_gallery,)."""
        return np.asarray((self.gallery_labels == labels[:, None]).sum(axis=0))


def _runs(labels: IntArray) -> Iterator[slice]:
    """Stretches of columns that are equal."""
    changes = np.flatnonzero((labels[:, 1:] != labels[:, :-1]).any(axis=0)) + 1
    for start, end in zip([0, *changes], [*changes, labels.shape[1]], strict=True):
        yield slice(start, end)


def _in_blocks(
    work: Work[Result], similarity: Callable[[IntArray], Floats], sorter: _Sorter, per_query: int
) -> Iterator[Result]:
    """The results of all blocks; `per_query`: how many similarities a query needs on average."""
    most = min(MOST_QUERIES, max(1, PRODUCT // (THREADS * max(1, per_query))))
    order = np.lexsort(sorter.query_labels[::-1])
    n_blocks = -(-len(order) // (most * THREADS)) * THREADS if len(order) > most // 4 else 1
    blocks = [block for block in np.array_split(order, n_blocks) if len(block)]
    stopped = Event()

    def ranked(block: IntArray) -> Result:
        parts = sorter.rankings(block, similarity(block))
        return work(takewhile(lambda _: not stopped.is_set(), parts))

    with one_thread("blas"):  # each thread multiplies alone
        if len(blocks) == 1:
            yield ranked(blocks[0])
            return
        pool = ThreadPoolExecutor(THREADS)
        try:
            yield from in_order(pool, ranked, blocks, THREADS)
        finally:
            stopped.set()  # threads end within a part of a block where the caller is interrupted or asks no more
            pool.shutdown(cancel_futures=True)
