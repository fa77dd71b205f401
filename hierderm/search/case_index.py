"""CaseIndex: the nearest cases to a query, with exact similarities and filters that nothing slips through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.embeddings import UNIT_TOLERANCE, Aggregation, EmbeddingTable, Hit, Provenance, SearchHits
from hierderm.errors import SearchError, suggest
from hierderm.search.answer import Calibration
from hierderm.search.candidates import Candidates, RecallSample, every_row, spans
from hierderm.search.engines import KINDS, TOO_MANY_REMOVED, Engine, Kind, automatic_kind
from hierderm.search.filters import Filter, allowed_rows
from hierderm.search.nearest import Gallery, nearest_cases
from hierderm.search.shared_lock import SharedLock
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Floats, IntArray, Mask, Vectors

MAX_PICTURES = 3  # of one query case
EXACT_BELOW = 20_000  # rows that a filter leaves are compared one by one, whatever the kind of index
WANTED_RECALL = 0.95


@dataclass(frozen=True)
class About:
    """What an index says of itself: kind, effort of its search and the recall measured with it, and where things are.

    `model`: folder of a trained model or name of a backbone that embeds queries, '' where unknown; `image_root`: where
    relative picture paths start; `removed`: removed nodes that a graph still holds.
    """

    kind: Kind
    effort: int = 0
    recall_at_10: float = 1.0
    model: str = ""
    image_root: str = ""
    removed: int = 0


@dataclass
class CaseIndex:
    """A gallery of embedded pictures of cases that can be searched: made by `build`, or read by `open_index`.

    `vectors`: unit length, shape (n_images, dim), float32; `frame`: the case table's rows, a row a picture. Threads may
    share an index: they search together, and a change waits for them. Whoever reads twice and needs one state for both
    does so within `lock.reading()`.
    """

    vectors: Vectors
    frame: pd.DataFrame
    taxonomy: Taxonomy
    provenance: Provenance
    about: About
    calibration: Calibration | None = None
    ids: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64), repr=False)
    engine: Engine | None = field(default=None, repr=False)
    gallery: Gallery = field(init=False, repr=False)  # the rows as numbers: what decides a search
    lock: SharedLock = field(default_factory=SharedLock, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._number_rows()

    # --- making and changing -------------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        table: EmbeddingTable,
        taxonomy: Taxonomy,
        *,
        kind: Kind | Literal["auto"] = "auto",
        model: str = "",
        image_root: Path | str = "",
    ) -> CaseIndex:
        """Index embeddings. The effort of an approximate kind is raised until recall@10 reaches 0.95, or its limit.

        `kind`: 'flat' is exact; 'hnsw', 'ivf' and 'ivfpq' need FAISS; 'auto' chooses by size.
        """
        if not len(table):
            raise SearchError("an index must have at least one picture, got none.")
        if kind != "auto" and kind not in KINDS:
            raise SearchError(f"kind must be 'auto' or one of {list(KINDS)}, got '{kind}'.")
        if table.provenance.taxonomy_hash and table.provenance.taxonomy_hash != taxonomy.content_hash:
            raise SearchError("the embeddings were made with another taxonomy than the one given. Embed again with it.")
        _refuse_repeated(table.frame, pd.Index([]))
        _check_conditions(table.frame, taxonomy)
        chosen: Kind = automatic_kind(len(table)) if kind == "auto" else kind
        about = About(chosen, model=model, image_root=str(image_root))
        index = cls(
            table.embeddings, table.frame.reset_index(drop=True), taxonomy, table.provenance, about,
            ids=np.arange(len(table)),
        )  # fmt: skip
        index._build_engine()
        return index

    def add(self, table: EmbeddingTable) -> None:
        """Add the pictures of cases, without building anew. They must come from the index's own model."""
        self.require_same_model(table.provenance)
        if table.embeddings.shape[1] != self.vectors.shape[1]:
            raise SearchError(f"embeddings must have length {self.vectors.shape[1]}, got {table.embeddings.shape[1]}.")
        _check_conditions(table.frame, self.taxonomy)
        with self.lock.writing():
            _refuse_repeated(table.frame, pd.Index(self.frame[c.IMAGE_ID]))
            new = self._next_id + np.arange(len(table))
            if self.engine is not None:
                self.engine.add(new, table.embeddings)
            self._replace_rows(
                np.concatenate([self.vectors, table.embeddings]),
                pd.concat([self.frame, table.frame], ignore_index=True),
                np.concatenate([self.ids, new]),
            )

    def remove(self, case_ids: Sequence[str]) -> None:
        """Take cases out, pictures and all. A graph is built anew once a fifth of its nodes have gone."""
        with self.lock.writing():
            self._remove(case_ids)

    def _remove(self, case_ids: Sequence[str]) -> None:
        leaving = self.frame[c.CASE_ID].astype(str).isin(list(case_ids)).to_numpy()
        unknown = sorted(set(map(str, case_ids)) - set(self.frame[c.CASE_ID].astype(str)))
        if unknown:
            raise SearchError(f"{len(unknown)} case(s) to remove are not in the index: {unknown[:5]}.")
        if leaving.all():
            raise SearchError("an index must keep at least one case; delete its folder to be rid of all.")
        kept = ~leaving
        if self.engine is not None:
            self.engine.remove(self.ids[leaving])
        self._replace_rows(np.asarray(self.vectors[kept]), self.frame[kept].reset_index(drop=True), self.ids[kept])
        if self.about.kind == "hnsw":
            self.about = replace(self.about, removed=self.about.removed + int(leaving.sum()))
            if self.about.removed > TOO_MANY_REMOVED * (self.about.removed + len(self)):
                self._build_engine()

    def _replace_rows(self, vectors: Vectors, frame: pd.DataFrame, ids: IntArray) -> None:
        self.vectors, self.frame, self.ids = vectors, frame, ids
        self._number_rows()

    def _number_rows(self) -> None:
        """Everything that follows from the rows, made with them rather than on first use: searches share it."""
        case_ids = self.frame[c.CASE_ID].astype(str)
        cases = pd.factorize(case_ids)[0].astype(np.int64)
        self.gallery = Gallery(self.vectors, cases, self.taxonomy.encode(self.frame[c.CONDITION]))
        self._rows_by_case: dict[str, list[int]] = {}
        for row, case_id in enumerate(case_ids):
            self._rows_by_case.setdefault(case_id, []).append(row)
        self._row_by_image = {image_id: row for row, image_id in enumerate(self.frame[c.IMAGE_ID].astype(str))}
        self._number_ids()

    def _number_ids(self) -> None:
        self._places = np.full(self._next_id, -1, dtype=np.int64)  # the row of each id, -1 where it was removed
        self._places[self.ids] = np.arange(len(self))

    def _build_engine(self) -> None:
        if self.about.kind == "flat":
            return
        self.ids = np.arange(len(self))
        self.engine = Engine.build(self.about.kind, np.asarray(self.vectors))
        self._number_ids()
        sample = RecallSample(self.vectors)
        recall = sample.recall(self._propose)
        while recall < WANTED_RECALL and self.engine.effort < self.engine.max_effort:
            self.engine.effort = min(2 * self.engine.effort, self.engine.max_effort)
            recall = sample.recall(self._propose)
        self.about = replace(self.about, effort=self.engine.effort, recall_at_10=recall, removed=0)

    def measure_recall(self) -> float:
        """Share of the exact 10 nearest other pictures that a search of some pictures of the index finds, in [0, 1]."""
        with self.lock.reading():
            return 1.0 if self.engine is None else RecallSample(self.vectors).recall(self._propose)

    # --- searching -----------------------------------------------------------------------------------------------

    def search(
        self,
        pictures: Floats,
        *,
        k: int = 10,
        aggregation: Aggregation = "best",
        only: Filter | None = None,
        leave_out: Sequence[str] = (),
        per_condition: int = 0,
    ) -> SearchHits:
        """The `k` nearest cases to one query case of one to three pictures: hits of one query.

        `pictures`: their embeddings, unit length, shape (n_pictures, dim); `leave_out`: case ids that may not come,
        such as the query's own; for the rest see `search_cases`.
        """
        numbers = np.zeros(len(pictures), dtype=np.int64)
        return self.search_cases(
            pictures,
            numbers,
            k=k,
            aggregation=aggregation,
            only=only,
            leave_out=[leave_out],
            per_condition=per_condition,
        )

    def search_cases(
        self,
        pictures: Floats,
        queries: IntArray,
        *,
        k: int = 10,
        aggregation: Aggregation = "best",
        only: Filter | None = None,
        leave_out: Sequence[Sequence[str]] | None = None,
        per_condition: int = 0,
    ) -> SearchHits:
        """The `k` nearest cases to each of many query cases.

        `pictures`: shape (n_pictures, dim); `queries`: which query each picture is of, 0 to n_queries - 1. Cases are
        as similar as their best pair of pictures ('best') or as the means of their embeddings ('mean'). `only`: a
        filter; nothing it excludes comes back, and `k` cases come wherever `k` exist. `per_condition`: at most so
        many cases of one condition, so that one does not crowd out the rest; 0 for any number.
        """
        vectors = self._checked(pictures, k, aggregation, per_condition)
        with self.lock.reading():
            return self._search(vectors, queries, k, aggregation, only, leave_out, per_condition)

    def _search(
        self,
        vectors: Vectors,
        queries: IntArray,
        k: int,
        aggregation: Aggregation,
        only: Filter | None,
        leave_out: Sequence[Sequence[str]] | None,
        per_condition: int,
    ) -> SearchHits:
        n_queries = int(queries.max()) + 1 if len(queries) else 0
        groups = [vectors[queries == number] for number in range(n_queries)]
        if not groups or not all(1 <= len(group) <= MAX_PICTURES for group in groups):
            raise SearchError(f"a query must have 1 to {MAX_PICTURES} pictures, got {[len(g) for g in groups][:5]}.")
        if aggregation == "mean":
            groups = [_mean(group) for group in groups]
        allowed = allowed_rows(only, self.frame, self.taxonomy) if only else np.ones(len(self), dtype=bool)
        outs = [self._case_numbers(out) for out in leave_out] if leave_out is not None else [[]] * n_queries
        rows, similarity = np.full((n_queries, k), -1), np.full((n_queries, k), np.nan, dtype=np.float32)
        exact = self.engine is None or (not allowed.all() and allowed.sum() <= EXACT_BELOW)
        if exact:
            candidates = every_row(self.vectors, groups, allowed)
        else:
            candidates = self._proposed(groups, allowed, k, outs, per_condition)
        for query, (of_query, of_rows) in enumerate(candidates):
            if outs[query]:
                kept = ~np.isin(self.gallery.cases[of_query], outs[query])
                of_query, of_rows = of_query[kept], of_rows[kept]
            score = None if aggregation == "best" else partial(self._score_means, groups[query])
            found, scores = nearest_cases(
                of_rows, of_query, self.gallery, k, score_cases=score, per_condition=per_condition
            )
            rows[query, : len(found)], similarity[query, : len(found)] = found, scores
        return SearchHits(rows, similarity)

    def _score_means(self, query: Vectors, cases: IntArray) -> Floats:
        return np.asarray(self.gallery.case_means[cases] @ query[0])

    def _proposed(
        self,
        groups: list[Vectors],
        allowed: Mask,
        k: int,
        outs: list[list[int]],
        per_condition: int,
    ) -> Iterator[Candidates]:
        """The rows that the engine proposes; all allowed rows where those do not make up `k` cases."""
        proposals = self._propose(np.concatenate(groups), k, allowed)
        for group, (begin, end), out in zip(groups, spans(groups), outs, strict=True):
            rows = np.unique(np.concatenate(proposals[begin:end]))
            rows = rows[allowed[rows]]
            kept = rows[~np.isin(self.gallery.cases[rows], out)]
            if self._distinct(kept, per_condition) < k:
                yield next(every_row(self.vectors, [group], allowed))
            else:
                yield rows, (self.vectors[rows] @ group.T).max(axis=1)

    def _distinct(self, rows: IntArray, per_condition: int) -> int:
        """Cases among rows, no more than `per_condition` of each condition counted."""
        _, first = np.unique(self.gallery.cases[rows], return_index=True)
        if not per_condition:
            return len(first)
        return int(np.minimum(np.bincount(self.gallery.fine[rows[first]]), per_condition).sum())

    def _propose(self, queries: Vectors, k: int, allowed: Mask | None = None) -> list[IntArray]:
        """For each query the rows its engine finds near: several times `k`, as pictures of a case come together."""
        assert self.engine is not None
        by_id = None
        if allowed is not None and not allowed.all():
            by_id = np.zeros(self._next_id, dtype=bool)
            by_id[self.ids[allowed]] = True
        elif self.about.removed:
            by_id = self._places >= 0
        n = min(len(self), max(64, 8 * k))
        found = self.engine.propose(queries, n, by_id)
        places = [self._places[ids[ids >= 0]] for ids in found]
        return [rows[rows >= 0] for rows in places]

    def _checked(self, pictures: Floats, k: int, aggregation: str, per_condition: int) -> Vectors:
        vectors = np.asarray(pictures, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.vectors.shape[1]:
            raise SearchError(
                f"query embeddings must have shape (n_pictures, {self.vectors.shape[1]}), got {vectors.shape}. "
                "For one picture use embeddings[None]."
            )
        if not np.isfinite(vectors).all() or (
            len(vectors) and np.abs(np.linalg.norm(vectors, axis=1) - 1).max() > UNIT_TOLERANCE
        ):
            raise SearchError("query embeddings must be finite and have unit length. Normalise them.")
        if k < 1 or per_condition < 0:
            raise SearchError(f"k must be 1 or more and per_condition 0 or more, got {k} and {per_condition}.")
        if aggregation not in ("best", "mean"):
            raise SearchError(f"aggregation must be 'best' or 'mean', got '{aggregation}'.")
        return vectors

    def require_same_model(self, made_by: Provenance) -> None:
        """SearchError where embeddings do not come from the weights and the preprocessing of the index."""
        for what, theirs, ours in (
            ("weights", made_by.weights_hash, self.provenance.weights_hash),
            ("preprocessing", made_by.preprocessing_hash, self.provenance.preprocessing_hash),
        ):
            if theirs != ours:
                raise SearchError(
                    f"the embeddings must come from the model of the index ({self.provenance.model}): its {what} is "
                    f"{ours or 'unknown'}, theirs {theirs or 'unknown'}. Embed with that model, or build another index."
                )

    # --- looking -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def n_cases(self) -> int:
        return self.gallery.n_cases

    @property
    def labels(self) -> IntArray:
        """Numbers of each picture's nodes on all levels, coarse first, shape (n_levels, n_images)."""
        return self.taxonomy.ancestors[self.gallery.fine].T

    def rows_of_case(self, case_id: str) -> list[int]:
        """Positions of a case's pictures; empty where the index has no such case."""
        return self._rows_by_case.get(case_id, [])

    def row_of_image(self, image_id: str) -> int:
        """Position of a picture; SearchError where the index has none of that id."""
        if image_id not in self._row_by_image:
            raise SearchError(f"the index has no picture '{image_id}'.{suggest(image_id, self._row_by_image)}")
        return self._row_by_image[image_id]

    def hits(self, found: SearchHits, query: int = 0) -> list[Hit]:
        """What was found for one query, as records."""
        return [
            self.hit(int(row), float(similarity))
            for row, similarity in zip(found.rows[query], found.similarity[query], strict=True)
            if row >= 0
        ]

    def hit(self, row: int, similarity: float) -> Hit:
        with self.lock.reading():
            of_row, fine = self.frame.iloc[row], self.gallery.fine[row]
        path = tuple(self.taxonomy.names(level)[number] for level, number in enumerate(self.taxonomy.ancestors[fine]))
        file = Path(self.about.image_root) / str(of_row.get(c.IMAGE_PATH, ""))
        return Hit(str(of_row[c.CASE_ID]), str(of_row[c.IMAGE_ID]), path[-1], path, similarity, file)

    @property
    def _next_id(self) -> int:
        in_graph = self.engine.index.ntotal if self.engine is not None and self.about.kind == "hnsw" else 0
        return max(int(self.ids.max()) + 1, in_graph)

    def _case_numbers(self, case_ids: Sequence[str]) -> list[int]:
        rows = [rows[0] for case_id in set(case_ids) if (rows := self.rows_of_case(case_id))]
        return [int(self.gallery.cases[row]) for row in rows]


def _check_conditions(frame: pd.DataFrame, taxonomy: Taxonomy) -> None:
    unknown = sorted({str(name) for name in frame[c.CONDITION] if taxonomy.find(str(name)) is None})
    if unknown:
        raise SearchError(f"{len(unknown)} condition(s) are not in the taxonomy of the index: {unknown[:5]}.")


def _refuse_repeated(new: pd.DataFrame, known: pd.Index[Any]) -> None:
    ids = new[c.IMAGE_ID].astype(str)
    repeated = sorted(set(ids[ids.duplicated()]) | set(ids[ids.isin(known.astype(str))]))
    if repeated:
        raise SearchError(f"{len(repeated)} picture(s) would be in the index twice: {repeated[:5]}.")


def _mean(group: Vectors) -> Vectors:
    mean = group.mean(axis=0, keepdims=True)
    return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)
