"""Every query ranks the gallery, in chunks; of each ranking only what the metrics need is kept.

Memory is a few arrays of CHUNK * n_gallery, whatever the number of queries.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from joblib import cpu_count

from hierderm.embeddings import unit_length
from hierderm.errors import EmbeddingError
from hierderm.types import Floats, IntArray

Result = TypeVar("Result")
K = 10  # how many neighbours the metrics of a first page look at
K_VOTE = 5  # neighbours that vote in k-NN accuracy
CHUNK = 128  # queries at a time
THREADS = min(4, cpu_count())
DEPTH_BITS = 3  # of a sort key, for the depth: trees of up to seven levels
MAX_GALLERY = 2 ** (32 - DEPTH_BITS)


@dataclass(frozen=True)
class Labelled:
    """Embeddings with what retrieval must know of them.

    `embeddings`: unit length, shape (n, dim); `labels`: numbers of the nodes on each level of the tree, coarse first,
    shape (n_levels, n), int; `cases`: whose image each is, shape (n,), any type that can be compared.
    """

    embeddings: Floats
    labels: IntArray
    cases: npt.NDArray[np.str_] | IntArray

    def __post_init__(self) -> None:
        n = len(self.embeddings)
        if self.labels.ndim != 2 or self.labels.shape[1] != n or len(self.cases) != n:
            raise EmbeddingError(
                f"labels must have shape (n_levels, {n}) and cases ({n},), a column an embedding, got "
                f"{self.labels.shape} and {self.cases.shape}."
            )
        if not 1 <= len(self.labels) < 2**DEPTH_BITS:
            raise EmbeddingError(f"labels must be of 1 to {2**DEPTH_BITS - 1} levels, got {len(self.labels)}.")

    def __len__(self) -> int:
        return len(self.embeddings)


@dataclass(frozen=True)
class Ranking:
    """The gallery in the order of its similarity to one query, the query's own case left out.

    `ranks`: 1-based places of the items that share the query's node on the coarsest level, ascending, shape (n_any,);
    `depths`: on how many levels, from the top, each of them agrees with the query, in [1, n_levels], shape (n_any,);
    `order`: positions in the gallery of all that are ranked, nearest first, shape (n_ranked,); `k`: how many of them
    count as `nearest`.
    """

    ranks: IntArray
    depths: IntArray
    order: IntArray
    k: int
    n_levels: int

    @property
    def n_ranked(self) -> int:
        return len(self.order)

    @property
    def nearest(self) -> IntArray:
        """Positions in the gallery of the first items, shape (at most k,)."""
        return self.order[: self.k]

    def relevant(self, level: int) -> IntArray:
        """Places of the items that share the query's node on `level`, 0 the coarsest, ascending."""
        return self.ranks[self.depths > level]


def rankings(queries: Labelled, gallery: Labelled | None = None, *, k: int = 10) -> Iterator[Ranking]:
    """The ranking of every query, in their order. By default each item queries all the others.

    Items of the query's own case are not ranked. Ties in similarity keep the gallery's order.
    """
    gallery = queries if gallery is None else gallery
    if len(gallery) >= MAX_GALLERY:
        raise EmbeddingError(f"the gallery must have fewer than {MAX_GALLERY} items, got {len(gallery)}.")
    _, cases = np.unique(np.concatenate([queries.cases, gallery.cases]), return_inverse=True)
    query_cases, gallery_cases = cases[: len(queries)], cases[len(queries) :]
    places = np.arange(len(gallery), dtype=np.uint64) << np.uint64(DEPTH_BITS)
    n_levels = len(gallery.labels)

    def sorted_keys(start: int) -> list[npt.NDArray[np.uint64]]:
        rows = slice(start, start + CHUNK)
        similarity = queries.embeddings[rows] @ gallery.embeddings.T  # (n_chunk, n_gallery)
        own = query_cases[rows, None] == gallery_cases
        keys = _descending(similarity)
        keys |= places
        keys |= _depths(queries.labels[:, rows], gallery.labels)
        keys[own] = np.iinfo(np.uint64).max
        keys.sort(axis=1)
        return [row[:n] for row, n in zip(keys, len(gallery) - own.sum(axis=1), strict=True)]

    for chunk in _in_order(sorted_keys, range(0, len(queries), CHUNK)):
        for keys in chunk:
            yield _ranking(keys, k, n_levels)


def _in_order(work: Callable[[int], Result], starts: Iterable[int]) -> Iterator[Result]:
    """The results of `work`, in order, made by threads that are a few results ahead and no more."""
    with ThreadPoolExecutor(THREADS) as pool:
        ahead: deque[Future[Result]] = deque()
        for start in starts:
            ahead.append(pool.submit(work, start))
            if len(ahead) > THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _descending(similarity: Floats) -> npt.NDArray[np.uint64]:
    """Keys whose order is that of falling similarity, in the upper 32 bits: IEEE floats sort as their bits do."""
    bits = (similarity.astype(np.float32) + np.float32(0)).view(np.int32)  # + 0 makes -0.0 and 0.0 the same
    ascending = bits.view(np.uint32) ^ ((bits >> 31).view(np.uint32) | np.uint32(0x80000000))
    return (~ascending).astype(np.uint64) << np.uint64(32)


def _depths(query_labels: IntArray, gallery_labels: IntArray) -> npt.NDArray[np.uint64]:
    """On how many levels each pair agrees, shape (n_chunk, n_gallery)."""
    depths = np.zeros((query_labels.shape[1], gallery_labels.shape[1]), dtype=np.uint8)
    for queries, items in zip(query_labels, gallery_labels, strict=True):
        depths += queries[:, None] == items
    return depths.astype(np.uint64)


def _ranking(keys: npt.NDArray[np.uint64], k: int, n_levels: int) -> Ranking:
    depths = (keys & np.uint64(2**DEPTH_BITS - 1)).astype(np.uint8)
    found = np.flatnonzero(depths)
    order = (keys & np.uint64(2**32 - 1)) >> np.uint64(DEPTH_BITS)
    return Ranking(found + 1, depths[found].astype(np.int64), order.astype(np.int64), k, n_levels)


def rankings_of_hits(rows: IntArray, query_labels: IntArray, gallery_labels: IntArray) -> Iterator[Ranking]:
    """The rankings that a search found, for the metrics that need only the first k.

    `rows`: positions in the gallery, nearest first, shape (n_queries, k), -1 where there were fewer than k;
    `query_labels`: shape (n_levels, n_queries); `gallery_labels`: shape (n_levels, n_gallery).
    """
    for query, row in enumerate(rows):
        nearest = row[row >= 0]
        depths = (gallery_labels[:, nearest] == query_labels[:, query, None]).sum(axis=0)
        found = np.flatnonzero(depths)
        yield Ranking(found + 1, depths[found], nearest, rows.shape[1], len(gallery_labels))


def nearest_others(embeddings: Floats, case_ids: npt.NDArray[np.str_], queries: IntArray, k: int) -> IntArray:
    """Positions of the `k` nearest images of other cases for some `queries`, nearest first, shape (n_queries, k)."""
    nothing = np.zeros((1, len(embeddings)), dtype=np.int64)
    gallery = Labelled(embeddings, nothing, case_ids)
    chosen = Labelled(embeddings[queries], nothing[:, queries], case_ids[queries])
    return np.array([ranking.nearest for ranking in rankings(chosen, gallery, k=k)])


def vote_is_right(neighbour_labels: IntArray, label: int) -> float:
    """1 where most of the neighbours carry `label`; of labels with as many votes the nearer one wins."""
    votes = Counter(neighbour_labels.tolist())  # keeps the order of first occurrence, and so does max
    return float(bool(votes) and max(votes, key=lambda key: votes[key]) == label)


# --- cases of several images -----------------------------------------------------------------------------------


def case_means(images: Labelled) -> Labelled:
    """One embedding a case: the mean of its images at unit length. A case takes its first image's labels."""
    _, first, inverse, counts = np.unique(images.cases, return_index=True, return_inverse=True, return_counts=True)
    sums = np.zeros((len(first), images.embeddings.shape[1]))
    np.add.at(sums, inverse, images.embeddings)
    return Labelled(unit_length(sums / counts[:, None]), images.labels[:, first], images.cases[first])


def rankings_by_best(images: Labelled, *, k: int = 10) -> Iterator[Ranking]:
    """Every case ranks the other cases by the best similarity of any pair of their images, as `rankings` does."""
    _, first, inverse = np.unique(images.cases, return_index=True, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    sorted_images, starts = images.embeddings[order], np.searchsorted(inverse[order], np.arange(len(first)))
    ends = np.append(starts[1:], len(order))
    labels = images.labels[:, first]
    places = np.arange(len(first), dtype=np.uint64) << np.uint64(DEPTH_BITS)

    def sorted_keys(start: int) -> list[npt.NDArray[np.uint64]]:
        cases = np.arange(start, min(start + CHUNK, len(first)))
        similarity = sorted_images[starts[cases[0]] : ends[cases[-1]]] @ sorted_images.T
        by_query = np.maximum.reduceat(similarity, starts[cases] - starts[cases[0]], axis=0)
        keys = _descending(np.maximum.reduceat(by_query, starts, axis=1))  # (n_chunk, n_cases)
        keys |= places
        keys |= _depths(labels[:, cases], labels)
        keys[np.arange(len(cases)), cases] = np.iinfo(np.uint64).max
        keys.sort(axis=1)
        return [row[:-1] for row in keys]

    for chunk in _in_order(sorted_keys, range(0, len(first), CHUNK)):
        for keys in chunk:
            yield _ranking(keys, k, len(labels))
