"""Embeddings with labels and cases, and what metrics must know of the rankings that they give.

Rankings come in blocks of some queries (`hierderm.evaluation.metrics.blocks`). Their relevant items are flat arrays,
one query after the other, so that a metric of a whole block is a few operations of numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from hierderm.embeddings import unit_length
from hierderm.errors import EmbeddingError
from hierderm.types import FloatArray, Floats, IntArray, Mask

Scalar = TypeVar("Scalar", bound=np.generic)
K = 10  # how many neighbours the metrics of a first page look at
K_VOTE = 5  # neighbours that vote in k-NN accuracy
DEPTH_BITS = 3  # of a sort key, for the depth: trees of up to seven levels
POSITION_BITS = 32  # of a sort key, for position and depth
IN_CACHE = 2**17  # numbers of 8 bytes that passes over rows work on at a time; more would wait for new memory pages


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
class Relevant:
    """The relevant items of some queries: one query after the other, the nearest first.

    `counts`: how many each query has, shape (n_queries,); `place`: their 1-based places in the ranking of their query,
    shape (n_relevant,).
    """

    counts: IntArray
    place: IntArray

    @cached_property
    def row(self) -> IntArray:
        """Which of the queries each item belongs to, shape (n_relevant,)."""
        return self.spread(np.arange(len(self.counts)))

    @cached_property
    def number(self) -> IntArray:
        """Counts the items of each query from 1, shape (n_relevant,)."""
        return np.arange(1, len(self.place) + 1) - self.spread(self._starts)

    @cached_property
    def total(self) -> IntArray:
        """How many its query has, for each item, shape (n_relevant,)."""
        return self.spread(self.counts)

    @cached_property
    def _starts(self) -> IntArray:
        return np.asarray(np.cumsum(self.counts) - self.counts)

    def first(self, most: int | None) -> tuple[IntArray | slice, Relevant]:
        """Which items are among the first `most` of their query, and these alone; all for None."""
        if most is None:
            return slice(None), self
        which = np.flatnonzero(self.number <= most)
        return which, Relevant(np.minimum(self.counts, most), self.place[which])

    def spread(self, values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """A value a query, as one an item."""
        return np.repeat(values, self.counts)

    def sums(self, values: Floats | Mask) -> FloatArray:
        """The sum over the items of each query, shape (n_queries,); 0 without any."""
        sums, some = np.zeros(len(self.counts)), self.counts > 0
        if some.any():
            sums[some] = np.add.reduceat(values, self._starts[some], dtype=np.float64)
        return sums

    def sums_before(self, values: Floats | Mask) -> FloatArray:
        """For each item the sum over the items of its query before it, shape (n_relevant,)."""
        sums = _running_sums(values)
        return np.asarray(sums[:-1] - self.spread(sums[self._starts]))

    def sums_from(self, values: Floats | Mask) -> FloatArray:
        """For each item the sum over itself and the items of its query after it, shape (n_relevant,)."""
        sums = _running_sums(values)
        return np.asarray(self.spread(sums[self._starts + self.counts]) - sums[:-1])


def _running_sums(values: Floats | Mask) -> FloatArray:
    """0, and the sums of the first value, the first two, ..., shape (n + 1,)."""
    sums = np.zeros(len(values) + 1)
    np.cumsum(values, out=sums[1:])
    return sums


@dataclass(frozen=True)
class Rankings:
    """The gallery in the order of its similarity to each of some queries, the query's own case left out.

    `queries`: positions of the queries, shape (n_queries,); `keys`: a number for each item, the nearest first, position
    and depth in its lower 32 bits, shape (n_queries, n_items), int64; `n_ranked`: how many items of each query are
    ranked, shape (n_queries,). The depth of an item is on how many levels, from the top, it agrees with the query.
    """

    queries: IntArray
    keys: IntArray
    n_ranked: IntArray
    n_levels: int

    @classmethod
    def from_order(cls, order: IntArray, depths: IntArray, n_levels: int) -> Rankings:
        """From positions in the gallery, nearest first, -1 after the last that is ranked, and the depth of each.

        Both have shape (n_queries, n_items).
        """
        keys = np.where(order >= 0, (order << DEPTH_BITS) | depths, 0)
        return cls(np.arange(len(order)), keys, (order >= 0).sum(axis=1), n_levels)

    def order(self, rows: slice, width: int) -> IntArray:
        """Positions in the gallery of the first items of some of the queries, nearest first, shape (n_rows, width).

        What comes after `n_ranked` is not ranked.
        """
        return _positions(self.keys[rows, :width])

    def nearest(self, k: int) -> IntArray:
        """Positions in the gallery of the first k, shape (n_queries, k), -1 where fewer are ranked."""
        first = np.full((len(self.keys), k), -1)
        first[:, : self.keys.shape[1]] = _positions(self.keys[:, :k])
        first[np.arange(k) >= self.n_ranked[:, None]] = -1
        return first

    @cached_property
    def found(self) -> Relevant:
        """The items that share the query's node on the coarsest level."""
        bounds = np.arange(len(self.keys) + 1) * self.keys.shape[1]
        counts = np.diff(np.searchsorted(self._at, bounds))
        return Relevant(counts, self._at - np.repeat(bounds[:-1] - 1, counts))

    @cached_property
    def depths(self) -> IntArray:
        """Depth of each item that was found, in [1, n_levels], shape (n_found,)."""
        return self._every_depth.ravel()[self._at].astype(np.int64)

    @cached_property
    def _every_depth(self) -> npt.NDArray[np.uint8]:
        return np.asarray(self.keys.view(np.uint8)[:, ::8] & np.uint8(2**DEPTH_BITS - 1))  # of the lowest bytes

    @cached_property
    def _at(self) -> IntArray:
        """Where the found items are among all keys."""
        return np.flatnonzero(self._every_depth != 0)

    @cached_property
    def _levels(self) -> list[tuple[IntArray | slice, Relevant]]:
        levels: list[tuple[IntArray | slice, Relevant]] = [(slice(None), self.found)]
        ends = np.append(0, np.cumsum(self.found.counts))
        for level in range(1, self.n_levels):
            which = np.flatnonzero(self.depths > level)
            levels.append((which, Relevant(np.diff(np.searchsorted(which, ends)), self.found.place[which])))
        return levels

    def relevant(self, level: int) -> Relevant:
        """The items that share the query's node on `level`, 0 the coarsest."""
        return self._levels[level][1]

    def which(self, level: int) -> IntArray | slice:
        """Which of the items found are relevant on `level`, shape (n_relevant,)."""
        return self._levels[level][0]

    @cached_property
    def items(self) -> IntArray:
        """Positions in the gallery of the items that were found, shape (n_found,)."""
        return _positions(self.keys.ravel()[self._at])


def row_slices(start: int, end: int, width: int) -> Iterator[slice]:
    """Rows from `start` to `end`, as many at a time as the processor's cache holds of this width."""
    some = max(1, IN_CACHE // max(1, width))
    for first in range(start, end, some):
        yield slice(first, min(first + some, end))


def _positions(keys: IntArray) -> IntArray:
    return np.asarray((keys & (2**POSITION_BITS - 1)) >> DEPTH_BITS)


def rankings_of_hits(rows: IntArray, query_labels: IntArray, gallery_labels: IntArray) -> Rankings:
    """The rankings that a search found, for the metrics that need only the first k.

    `rows`: positions in the gallery, nearest first, shape (n_queries, k), -1 after the last where there were fewer than
    k; `query_labels`: shape (n_levels, n_queries); `gallery_labels`: shape (n_levels, n_gallery).
    """
    depths = (gallery_labels[:, rows] == query_labels[:, :, None]).sum(axis=0)
    return Rankings.from_order(rows, depths, len(gallery_labels))


def labels_at(labels: IntArray, positions: IntArray) -> IntArray:
    """Labels at some positions, -1 where a position is, shape (*n_levels, *that of the positions)."""
    return np.where(positions >= 0, labels[..., positions], -1)


def votes_are_right(neighbour_labels: IntArray, labels: IntArray) -> FloatArray:
    """1 where most of the neighbours carry the query's label, shape (n_queries,).

    Of labels with as many votes that of the nearest neighbour wins. `neighbour_labels`: shape (n_queries, k), nearest
    first, -1 for none.
    """
    known = neighbour_labels >= 0
    same = neighbour_labels[:, :, None] == neighbour_labels[:, None, :]
    leading = np.where(known, same.sum(axis=2), 0).argmax(axis=1)  # the first of the largest
    return np.asarray(neighbour_labels[np.arange(len(labels)), leading] == labels, dtype=np.float64)


def case_order(images: Labelled) -> tuple[IntArray, IntArray, IntArray]:
    """Images sorted by case: their positions, shape (n,), and of each case the first image and how many it has."""
    _, first, inverse, counts = np.unique(images.cases, return_index=True, return_inverse=True, return_counts=True)
    return np.argsort(inverse, kind="stable"), first, counts


def case_means(images: Labelled) -> Labelled:
    """One embedding a case: the mean of its images at unit length. A case takes its first image's labels."""
    order, first, counts = case_order(images)
    starts = np.cumsum(counts) - counts
    sums = images.embeddings[order[starts]].astype(np.float64)
    for number in range(1, counts.max(initial=0)):
        cases = np.flatnonzero(counts > number)
        sums[cases] += images.embeddings[order[starts[cases] + number]]
    sums /= counts[:, None]
    return Labelled(unit_length(sums), images.labels[:, first], images.cases[first])
