"""A gallery in memory: vectors as an array, the case table as a frame, and where one helps, a FAISS structure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.embeddings import EmbeddingTable
from hierderm.engines import TOO_MANY_REMOVED, Engine
from hierderm.errors import SearchError, suggest
from hierderm.evaluation.metrics.neighbours import RecallSample, n_proposed, tune
from hierderm.search import gallery as limits
from hierderm.search.checks import check_ids, say_same_files
from hierderm.search.filters import RowFilter, Where, Within, column_of
from hierderm.search.gallery import Asked, Gallery
from hierderm.search.likeness import joined_looks
from hierderm.search.nearest import Candidates, every_row, spans
from hierderm.search.values import distinct_values, joined
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Floats, IntArray, Vectors


@dataclass(frozen=True, eq=False)
class MemoryGallery(Gallery):
    """`vectors`: unit length, shape (n_images, dim); `frame`: a row an image. The number of an image is its position.

    `looks`: of the images, shape (n_images, n_look), nan where unknown, None for all; `engine`: proposes the images to
    compare, None to compare all.
    """

    vectors: Vectors
    frame: pd.DataFrame
    taxonomy: Taxonomy
    image_root: str = ""
    looks: Vectors | None = None
    engine: Engine | None = None

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def n_cases(self) -> int:
        return int(self.cases.max()) + 1

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def columns(self) -> list[str]:
        return list(self.frame.columns)

    @property
    def approximate(self) -> bool:
        return self.engine is not None

    @property
    def n_removed(self) -> int:
        return 0 if self.engine is None else self.engine.removed

    @property
    def has_looks(self) -> bool:
        return self.looks is not None

    def rows_at(self, places: IntArray) -> IntArray:
        return places

    def frame_at(self, rows: IntArray | None = None) -> pd.DataFrame:
        return self.frame if rows is None else self.frame.iloc[rows]

    def vectors_at(self, rows: IntArray | None = None) -> Vectors:
        return self.vectors if rows is None else self.vectors[rows]

    def looks_at(self, rows: IntArray | None = None) -> Vectors | None:
        return self.looks if rows is None or self.looks is None else self.looks[rows]

    def fine_at(self, rows: IntArray | None = None) -> IntArray:
        return self.fine if rows is None else self.fine[rows]

    def cases_at(self, rows: IntArray | None = None) -> IntArray:
        return self.cases if rows is None else self.cases[rows]

    @cached_property
    def cases(self) -> IntArray:
        """Number of each image's case, shape (n_images,)."""
        return pd.factorize(self.frame[c.CASE_ID].astype(str))[0].astype(np.int64)

    @cached_property
    def fine(self) -> IntArray:
        """Number of each image's condition, shape (n_images,)."""
        return self.taxonomy.encode(self.frame[c.CONDITION])

    def case_numbers(self, case_ids: str | Iterable[str]) -> dict[str, int]:
        wanted = [case_ids] if isinstance(case_ids, str) else map(str, case_ids)
        return {case_id: self._number_by_case[case_id] for case_id in wanted if case_id in self._number_by_case}

    def case_rows(self, case_id: str) -> list[int]:
        order, starts = self._case_order
        numbers = self.case_numbers(case_id).values()
        return [int(row) for case in numbers for row in order[starts[case] : starts[case + 1]]]

    def image_row(self, image_id: str) -> int:
        if image_id not in self._row_by_image:
            raise SearchError(f"the index has no image '{image_id}'.{suggest(image_id, self._row_by_image)}")
        return self._row_by_image[image_id]

    def allowed(self, within: Within | None = None, where: Where | None = None) -> IntArray | None:
        return self._filter.rows(within, where)

    def count(self, within: Within | None = None, where: Where | None = None) -> IntArray:
        return np.bincount(self.fine_at(self.allowed(within, where)), minlength=self.taxonomy.size(-1))

    def values(self, column: str) -> list[str]:
        return distinct_values(column_of(self.frame, column))

    def propose(self, groups: list[Vectors], asked: Asked) -> Iterator[Candidates]:
        allowed = self.allowed(asked.within, asked.where)
        outs = [list(self.case_numbers(out).values()) for out in asked.leave_out]
        prunes = asked.aggregation == "best" and not asked.per_condition
        enough = asked.k * self._most_images  # the best of so many rows are of k cases or more
        for (rows, similarity), out in zip(self._compared(groups, allowed, asked, outs), outs, strict=True):
            if out:
                kept = ~np.isin(self.cases[rows], out)
                rows, similarity = rows[kept], similarity[kept]
            if prunes and len(rows) > 2 * enough:
                kept = similarity >= -np.partition(-similarity, enough)[enough]
                rows, similarity = rows[kept], similarity[kept]
            yield self._candidates(rows, similarity)

    def case_similarity(self, cases: IntArray, query: Vectors) -> Floats:
        return np.asarray(self._case_means[cases] @ query)

    def exact(self) -> MemoryGallery:
        return replace(self, engine=None)

    def recall(self) -> float:
        return 1.0 if self.engine is None else RecallSample(self.vectors, own=False).recall(self.engine)

    def tune(self) -> tuple[int, float]:
        if self.engine is None:
            return 0, 1.0
        recall = tune(self.engine, RecallSample(self.vectors, own=False), limits.WANTED_RECALL)
        return self.engine.effort, recall

    def add(self, table: EmbeddingTable) -> MemoryGallery:
        check_ids(table.frame, pd.Index(self.frame[c.IMAGE_ID]))
        say_same_files(table.frame, self.frame)
        looks = joined_looks(self.looks, table.looks, len(table))
        if self.engine is not None:
            self.engine.add(table.embeddings)
        vectors = np.concatenate([self.vectors, table.embeddings])
        return replace(self, vectors=vectors, frame=joined(self.frame, table.frame), looks=looks)

    def remove(self, case_ids: Sequence[str]) -> MemoryGallery:
        """A graph is built anew once a fifth of its nodes have gone."""
        kept = ~np.isin(self.cases, list(self.case_numbers(case_ids).values()))
        vectors, engine = np.asarray(self.vectors[kept]), self.engine
        if engine is not None:
            engine.keep(kept)
            if engine.removed > TOO_MANY_REMOVED * (engine.removed + len(vectors)):
                engine = Engine.build(engine.kind, vectors)
        looks = None if self.looks is None else self.looks[kept]
        return replace(self, vectors=vectors, frame=self.frame[kept].reset_index(drop=True), looks=looks, engine=engine)

    def built_anew(self) -> MemoryGallery:
        """With a structure that has no nodes of removed images."""
        assert self.engine is not None
        return replace(self, engine=Engine.build(self.engine.kind, np.asarray(self.vectors)))

    def _candidates(self, rows: IntArray, similarity: Floats) -> Candidates:
        return Candidates(rows, similarity, self.cases[rows], self.fine[rows])

    def _compared(
        self, groups: list[Vectors], allowed: IntArray | None, asked: Asked, outs: list[list[int]]
    ) -> Iterator[tuple[IntArray, Vectors]]:
        """The rows to compare for each query: those the engine proposes, or all that are allowed."""
        few = allowed is not None and len(allowed) <= limits.EXACT_BELOW
        if self.engine is None or not groups or few:
            yield from every_row(self.vectors, groups, allowed)
            return
        passes = None
        if allowed is not None:
            passes = np.zeros(len(self), dtype=bool)
            passes[allowed] = True
        proposals = self.engine.propose(np.concatenate(groups), n_proposed(asked.k, len(self)), passes)
        for (begin, end), group, out in zip(spans(groups), groups, outs, strict=True):
            rows = np.unique(proposals[begin:end])
            rows = rows[(rows >= 0) if passes is None else (rows >= 0) & passes[rows]]
            kept = rows[~np.isin(self.cases[rows], out)] if out else rows
            if self._candidates(kept, np.empty(len(kept))).n_cases(asked.per_condition) < asked.k:
                yield next(every_row(self.vectors, [group], allowed))
            else:
                yield rows, (self.vectors[rows] @ group.T).max(axis=1)

    @cached_property
    def _filter(self) -> RowFilter:
        """Which images may come back."""
        return RowFilter(self.frame, self.taxonomy, self.fine)

    @cached_property
    def _most_images(self) -> int:
        """Number of images of the case that has most."""
        return int(np.bincount(self.cases).max())

    @cached_property
    def _case_means(self) -> Floats:
        """Mean of each case's vectors at unit length, shape (n_cases, dim)."""
        if self.n_cases == len(self.cases):
            return self.vectors
        order, starts = self._case_order
        return unit_sums(self.vectors[order], starts[:-1])

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


def unit_sums(vectors: Vectors, starts: IntArray) -> Floats:
    """Sums of the spans that begin at `starts`, at unit length."""
    sums = np.add.reduceat(vectors, starts, axis=0)
    return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True))
