"""What a search finds: positions and similarities as arrays, or the cases as records or as a table."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hierderm import columns as c
from hierderm.errors import SearchError
from hierderm.notebook import with_table
from hierderm.search.gallery import Gallery, Hit
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import IntArray, Vectors


@dataclass(frozen=True, repr=False)
class SearchResult:
    """The cases nearest to each query, nearest first.

    Attributes:
        rows: Number in the gallery of each case's image that is nearest to the query, shape (n_queries, k), int64; -1
            where no further case exists.
        similarity: Cosine similarity of the case to the query, in [-1, 1], same shape, float32; nan where no further
            case exists.
        gallery: The images that were searched. Later changes of the index do not reach it.
    """

    rows: IntArray
    similarity: Vectors
    gallery: Gallery

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape != self.similarity.shape:
            raise SearchError(
                f"rows and similarity must both have shape (n_queries, k), got {self.rows.shape} and "
                f"{self.similarity.shape}."
            )

    @cached_property
    def fine(self) -> IntArray:
        """Number of each case's condition, shape (n_queries, k); -1 where no further case exists."""
        return self._numbers(self.gallery.fine_at)

    @cached_property
    def cases(self) -> IntArray:
        """Number of each case in the gallery, shape (n_queries, k); -1 where no further case exists."""
        return self._numbers(self.gallery.cases_at)

    def _numbers(self, numbers_at: Callable[[IntArray], IntArray]) -> IntArray:
        found, numbers = self.rows >= 0, np.full(self.rows.shape, -1)
        numbers[found] = numbers_at(self.rows[found])
        return numbers

    def __repr__(self) -> str:
        return f"SearchResult({len(self)} queries, up to {self.rows.shape[1]} cases each; see to_pandas())"

    def _repr_html_(self) -> str:
        return with_table(self, self.to_pandas())

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.rows)

    def to_list(self) -> list[list[Hit]]:
        """The hits as records.

        Returns:
            For each query its hits, nearest first.
        """
        return [
            [
                self.gallery.hit(int(row), float(similarity))
                for row, similarity in zip(rows, similarities, strict=True)
                if row >= 0
            ]
            for rows, similarities in zip(self.rows, self.similarity, strict=True)
        ]

    def to_pandas(self) -> pd.DataFrame:
        """A row a hit.

        Returns:
            Columns `query` (from 0), `rank` (from 1, nearest first), `case_id`, `image_id`, `condition`, one named as
            each level of the tree with the condition's node there, `similarity` (cosine, in [-1, 1]), `image_path`. A
            level whose name is one of the others' is 'NAME (level)'.
        """
        tree, (query, place) = self.gallery.taxonomy, np.nonzero(self.rows >= 0)
        rows = self.rows[query, place]
        cells, nodes = self.gallery.frame_at(rows), tree.ancestors[self.gallery.fine_at(rows)]
        before = {
            "query": query,
            "rank": place + 1,
            c.CASE_ID: cells[c.CASE_ID].astype(str).to_numpy(),
            c.IMAGE_ID: cells[c.IMAGE_ID].astype(str).to_numpy(),
            c.CONDITION: np.array(tree.names(), dtype=object)[nodes[:, -1]],
        }
        after = {
            "similarity": self.similarity[query, place],
            c.IMAGE_PATH: [str(path) for path in self.gallery.image_paths(rows)],
        }
        levels = level_columns(tree, nodes, {*before, *after})
        return pd.DataFrame({**before, **levels, **after})


def level_columns(tree: Taxonomy, nodes: IntArray, taken: Container[str]) -> dict[str, npt.NDArray[Any]]:
    """A column a level with the names of `nodes`, shape (n_rows, n_levels), under names that are not taken.

    Without the finest level where it is called as the column of the condition, which is there already.
    """
    columns: dict[str, npt.NDArray[Any]] = {}
    for level, name in enumerate(tree.level_names):
        if (name, level) != (c.CONDITION, tree.fine_level):
            own = name
            while own in taken or own in columns or (own != name and own in tree.level_names):
                own += " (level)"
            columns[own] = np.array(tree.names(level), dtype=object)[nodes[:, level]]
    return columns
