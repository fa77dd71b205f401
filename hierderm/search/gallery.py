"""The images of an index at one moment: what a search asks of them, wherever they are kept.

`memory.MemoryGallery` keeps them in memory with a FAISS structure, `postgres.gallery.PostgresGallery` in PostgreSQL.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.embeddings import Aggregation, EmbeddingTable
from hierderm.search.filters import Where, Within
from hierderm.search.likeness import LookSpace
from hierderm.search.nearest import Candidates
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Floats, IntArray, Vectors

EXACT_BELOW = 20_000  # rows that a filter leaves are compared one by one, whatever the kind of index
WANTED_RECALL = 0.95
Result = TypeVar("Result")
PAIRS = 5000  # that say what a similarity is worth


@dataclass(frozen=True)
class Hit:
    """One case that was found, through its image that is nearest to the query.

    `row`: number of that image in the gallery; `path`: the condition's nodes, coarse first; `similarity`: cosine, in
    [-1, 1], higher is nearer.
    """

    row: int
    case_id: str
    image_id: str
    condition: str
    path: tuple[str, ...]
    similarity: float
    image_path: Path


@dataclass(frozen=True)
class Asked:
    """What a search asks for; `CaseIndex.search` describes each option. `leave_out`: ids of cases, for each query."""

    k: int
    leave_out: Sequence[str | Iterable[str]]
    within: Within | None = None
    where: Where | None = None
    aggregation: Aggregation = "best"
    per_condition: int = 0


class Gallery(ABC):
    """Images with vectors, known by numbers ('rows') that ascend in the order in which they came.

    A change of an index makes a new gallery. Where `rows` is None, all images are meant, in their order.
    """

    taxonomy: Taxonomy
    image_root: str
    missing: tuple[str, ...] = ()  # servers that were down, whose cases could not be found

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @property
    @abstractmethod
    def n_cases(self) -> int:
        """Number of cases."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length of the vectors."""

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Names of the columns of the case table."""

    @property
    @abstractmethod
    def approximate(self) -> bool:
        """Whether a search without a filter looks at a part of the images only."""

    @property
    def n_removed(self) -> int:
        """Number of removed images whose vectors are still kept, for a structure can't give them up."""
        return 0

    @property
    @abstractmethod
    def has_looks(self) -> bool:
        """Whether the looks of images are kept."""

    # --- images by their numbers ---------------------------------------------------------------------------------

    @abstractmethod
    def rows_at(self, places: IntArray) -> IntArray:
        """Numbers of the images at some places of their order, from 0, same shape."""

    @abstractmethod
    def frame_at(self, rows: IntArray | None = None) -> pd.DataFrame:
        """The rows of the case table."""

    @abstractmethod
    def vectors_at(self, rows: IntArray | None = None) -> Vectors:
        """Unit length, shape (n_rows, dim), float32."""

    @abstractmethod
    def looks_at(self, rows: IntArray | None = None) -> Vectors | None:
        """Looks of the images (`hierderm.data.look`), shape (n_rows, n_look), nan where unknown; None without any."""

    @abstractmethod
    def fine_at(self, rows: IntArray | None = None) -> IntArray:
        """Numbers of the conditions, shape (n_rows,)."""

    @abstractmethod
    def cases_at(self, rows: IntArray | None = None) -> IntArray:
        """Numbers of the cases, shape (n_rows,)."""

    @abstractmethod
    def case_numbers(self, case_ids: str | Iterable[str]) -> dict[str, int]:
        """Numbers of those cases that there are, by their ids."""

    @abstractmethod
    def case_rows(self, case_id: str) -> list[int]:
        """Numbers of a case's images; empty where there is no such case."""

    @abstractmethod
    def image_row(self, image_id: str) -> int:
        """Number of an image; SearchError where there is none of that id."""

    # --- search --------------------------------------------------------------------------------------------------

    @abstractmethod
    def allowed(self, within: Within | None = None, where: Where | None = None) -> IntArray | None:
        """Numbers of the images that pass a filter, ascending; None where nothing is asked.

        SearchError where there is no such node, column or value, with the closest.
        """

    @abstractmethod
    def count(self, within: Within | None = None, where: Where | None = None) -> IntArray:
        """How many images of each condition pass a filter, shape (n_fine,)."""

    @abstractmethod
    def values(self, column: str) -> list[str]:
        """The values that a column has, as text, in order; SearchError where there is no such column."""

    @abstractmethod
    def propose(self, groups: list[Vectors], asked: Asked) -> Iterator[Candidates]:
        """For each query the images that its `k` nearest cases are among, and none that may not come.

        `groups`: the vectors of each query, shape (n_images, dim); of one mean vector for the aggregation 'mean'.
        """

    @abstractmethod
    def case_similarity(self, cases: IntArray, query: Vectors) -> Floats:
        """Cosines of a vector, shape (dim,), to the means of some cases by number, shape (n_cases,)."""

    @abstractmethod
    def exact(self) -> Gallery:
        """The same images, where every search looks at all of them."""

    @abstractmethod
    def recall(self) -> float:
        """Share of the exact 10 nearest images that searches find for queries that it does not hold, in [0, 1]."""

    @abstractmethod
    def tune(self) -> tuple[int, float]:
        """Raise the effort of the search until the recall is as wanted, or to its limit; the effort and the recall.

        (0, 1.0) where every search is exact.
        """

    def reading(self) -> AbstractContextManager[None]:
        """Within the block everything that this thread asks is of one moment."""
        return nullcontext()

    def holding(self, rows: IntArray) -> Gallery:
        """The gallery for a result: later changes do not reach these images."""
        return self

    # --- changes -------------------------------------------------------------------------------------------------

    @abstractmethod
    def add(self, table: EmbeddingTable) -> Gallery:
        """With the images of checked cases more; SearchError where an id is not new."""

    @abstractmethod
    def remove(self, case_ids: Sequence[str]) -> Gallery:
        """Without some cases, which it has."""

    # --- what follows --------------------------------------------------------------------------------------------

    @cached_property
    def _learnt(self) -> dict[Hashable, Any]:
        return {}

    def once(self, what: Hashable, make: Callable[[], Result]) -> Result:
        """What `make` gives, made when it is first asked for."""
        if what not in self._learnt:
            self._learnt[what] = make()
        found: Result = self._learnt[what]
        return found

    @property
    def levels_of_one_node(self) -> tuple[int, ...]:
        """Levels on which all images are of the same node."""
        return self.once("levels", lambda: self.taxonomy.levels_of_one_node(np.flatnonzero(self.count())))

    def _known_looks(self) -> tuple[Vectors | None, IntArray]:
        """Looks that a query is compared with, and the cases of their images."""
        return self.looks_at(), self.cases_at()

    def look_distance(self, looks: Vectors | None, leave_out: Sequence[int] = ()) -> float:
        """How far a query is from the nearest look, other than of the cases of these numbers; nan where unknown."""
        if not self.has_looks:
            return float("nan")
        space = self.once("looks", lambda: LookSpace.of(*self._known_looks()))
        return float("nan") if space is None else space.distance(looks, leave_out)

    def _pair_similarities(self) -> Floats:
        """Cosines of up to 5,000 pairs of images of different cases, drawn at random, ascending."""
        first, second = map(self.rows_at, np.random.default_rng(0).integers(len(self), size=(2, PAIRS)))
        kept = self.cases_at(first) != self.cases_at(second)
        pairs = np.asarray(self.vectors_at(first[kept])), np.asarray(self.vectors_at(second[kept]))
        return np.sort(np.einsum("ij,ij->i", *pairs))

    def closer_than(self, similarity: float) -> float:
        """The share of pairs of images of different cases that are less similar, in [0, 1].

        nan of a single case, and where some cases are missing.
        """
        if self.missing:
            return float("nan")
        pairs = self.once("pairs", self._pair_similarities)
        return float(np.searchsorted(pairs, similarity) / len(pairs)) if len(pairs) else float("nan")

    def image_paths(self, rows: Sequence[int] | IntArray | None = None) -> list[Path]:
        """Where the images of some rows are, or were when they were indexed."""
        frame = self.frame_at(None if rows is None else np.asarray(rows, dtype=np.int64))
        return [Path(self.image_root) / str(path) for path in frame[c.IMAGE_PATH]]

    def path(self, row: int) -> tuple[str, ...]:
        """Names of the nodes above and of an image's condition, coarse first."""
        nodes = self.taxonomy.ancestors[self.fine_at(np.array([row]))[0]]
        return tuple(self.taxonomy.names(level)[number] for level, number in enumerate(nodes))

    def cells(self, row: int) -> pd.Series:
        """The row of the case table of an image."""
        return self.frame_at(np.array([row])).iloc[0]

    def hit(self, row: int, similarity: float) -> Hit:
        """An image as the record of a case that was found."""
        cells, path = self.cells(row), self.path(row)
        place = Path(self.image_root) / str(cells[c.IMAGE_PATH])
        return Hit(row, str(cells[c.CASE_ID]), str(cells[c.IMAGE_ID]), path[-1], path, similarity, place)
