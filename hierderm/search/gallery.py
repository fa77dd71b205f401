"""The images of an index at one moment: as numbers for a search, as records for its result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.errors import SearchError, suggest
from hierderm.search.filters import RowFilter
from hierderm.search.likeness import LookSpace
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Floats, IntArray, Vectors

PAIRS = 5000  # that say what a similarity is worth


@dataclass(frozen=True)
class Hit:
    """One case that was found, through its image that is nearest to the query.

    `row`: position of that image in the index; `path`: the condition's nodes, coarse first; `similarity`: cosine, in
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
class Gallery:
    """`vectors`: unit length, shape (n_images, dim); `frame`: a row an image. A change of an index makes a new one.

    `looks`: of the images, shape (n_images, n_look), nan where unknown; None for all.
    """

    vectors: Vectors
    frame: pd.DataFrame
    taxonomy: Taxonomy
    image_root: str = ""
    looks: Vectors | None = None

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def cases(self) -> IntArray:
        """Number of each image's case, shape (n_images,)."""
        return pd.factorize(self.frame[c.CASE_ID].astype(str))[0].astype(np.int64)

    @cached_property
    def fine(self) -> IntArray:
        """Number of each image's condition, shape (n_images,)."""
        return self.taxonomy.encode(self.frame[c.CONDITION])

    @cached_property
    def look_space(self) -> LookSpace | None:
        """Where the looks of images are compared; None where they are not known."""
        return LookSpace.of(self.looks, self.cases)

    def look_distance(self, looks: Vectors | None, leave_out: Sequence[int] = ()) -> float:
        """How far a query is from the nearest look, other than of the cases of these numbers; nan where unknown."""
        return float("nan") if self.look_space is None else self.look_space.distance(looks, leave_out)

    @cached_property
    def filter(self) -> RowFilter:
        """Which images may come back."""
        return RowFilter(self.frame, self.taxonomy, self.fine)

    @cached_property
    def n_cases(self) -> int:
        return int(self.cases.max()) + 1

    @cached_property
    def most_images(self) -> int:
        """Number of images of the case that has most."""
        return int(np.bincount(self.cases).max())

    @cached_property
    def case_means(self) -> Floats:
        """Mean of each case's vectors at unit length, shape (n_cases, dim)."""
        if self.n_cases == len(self.cases):
            return self.vectors
        order, starts = self._case_order
        sums = np.add.reduceat(self.vectors[order], starts[:-1], axis=0)
        return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True))

    @cached_property
    def _number_by_case(self) -> dict[str, int]:
        return {str(case_id): number for number, case_id in enumerate(self.frame[c.CASE_ID].astype(str).unique())}

    @cached_property
    def _case_order(self) -> tuple[IntArray, IntArray]:
        """The rows by case, shape (n_images,), and where each case starts among them, shape (n_cases + 1,)."""
        order = np.argsort(self.cases, kind="stable")
        return order, np.searchsorted(self.cases[order], np.arange(self.n_cases + 1))

    @cached_property
    def _row_by_image(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.frame[c.IMAGE_ID].astype(str))}

    @cached_property
    def levels_of_one_node(self) -> tuple[int, ...]:
        """Levels on which all images are of the same node."""
        return self.taxonomy.levels_of_one_node(self.fine)

    @cached_property
    def _pair_similarities(self) -> Floats:
        """Cosines of up to 5,000 pairs of images of different cases, drawn at random, ascending."""
        first, second = np.random.default_rng(0).integers(len(self), size=(2, PAIRS))
        kept = self.cases[first] != self.cases[second]
        pairs = np.asarray(self.vectors[first[kept]]), np.asarray(self.vectors[second[kept]])
        return np.sort(np.einsum("ij,ij->i", *pairs))

    def closer_than(self, similarity: float) -> float:
        """The share of pairs of images of different cases that are less similar, in [0, 1]; nan of a single case."""
        pairs = self._pair_similarities
        return float(np.searchsorted(pairs, similarity) / len(pairs)) if len(pairs) else float("nan")

    def case_rows(self, case_id: str) -> list[int]:
        """Positions of a case's images; empty where there is no such case."""
        order, starts = self._case_order
        return [int(row) for case in self.case_numbers(case_id) for row in order[starts[case] : starts[case + 1]]]

    def case_numbers(self, case_ids: str | Iterable[str]) -> list[int]:
        """Numbers of those cases that there are."""
        wanted = [case_ids] if isinstance(case_ids, str) else map(str, case_ids)
        return [self._number_by_case[case_id] for case_id in wanted if case_id in self._number_by_case]

    def image_row(self, image_id: str) -> int:
        """Position of an image; SearchError where there is none of that id."""
        if image_id not in self._row_by_image:
            raise SearchError(f"the index has no image '{image_id}'.{suggest(image_id, self._row_by_image)}")
        return self._row_by_image[image_id]

    def image_paths(self, rows: list[int] | IntArray) -> list[Path]:
        """Where the images of some rows are, or were when they were indexed."""
        root = Path(self.image_root)
        return [root / str(path) for path in self.frame[c.IMAGE_PATH].iloc[rows]]

    def path(self, row: int) -> tuple[str, ...]:
        """Names of the nodes above and of an image's condition, coarse first."""
        nodes = self.taxonomy.ancestors[self.fine[row]]
        return tuple(self.taxonomy.names(level)[number] for level, number in enumerate(nodes))

    def hit(self, row: int, similarity: float) -> Hit:
        """A row as the record of a case that was found."""
        cells, path = self.frame.iloc[row], self.path(row)
        case_id, image_id = str(cells[c.CASE_ID]), str(cells[c.IMAGE_ID])
        return Hit(row, case_id, image_id, path[-1], path, similarity, self.image_paths([row])[0])
