"""A gallery in PostgreSQL: a search reads the few rows that it needs, and nothing is kept here but what is small."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from threading import local
from typing import Any

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.data.look import N_LOOK
from hierderm.data.table import as_text
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import DatabaseError, SearchError, suggest
from hierderm.evaluation.metrics.neighbours import RECALL_QUERIES, moved_away, n_proposed
from hierderm.evaluation.metrics.ranking import K
from hierderm.search import gallery as limits
from hierderm.search.filters import SHOWN, Where, Within, require_column
from hierderm.search.gallery import Asked, Gallery, Result
from hierderm.search.likeness import MOST
from hierderm.search.memory import unit_sums
from hierderm.search.nearest import Candidates, nearest_cases
from hierderm.search.postgres.cells import can_be_stored, frame_of
from hierderm.search.postgres.schema import Precision
from hierderm.search.postgres.servers import Rows, Servers, Session
from hierderm.search.postgres.statements import ALL, Asks, Statements
from hierderm.search.values import in_order
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Count, Floats, IntArray, Vectors

FIRST_EFFORT, MOST_EFFORT = 64, 1000  # of a graph: candidates while searching
MOST_LEARNT = 1000  # counts of filters, and a few others
RECALL_WORK = 50_000_000  # comparisons that measuring the recall may take: of a large gallery it asks fewer queries


@dataclass(frozen=True)
class Stored:
    """What the table of models says of one: see `schema`."""

    model: int
    generation: str
    precision: Precision
    dim: int
    columns: dict[str, bool]
    n_images: Count
    n_cases: Count
    next_image: Count
    next_case: Count
    has_looks: bool


@dataclass(eq=False)
class PostgresGallery(Gallery):
    """The images of one model at one generation. `writes`: the transaction of a change, which others don't see yet.

    `missing`: servers that were down when this was found, whose cases it lacks.
    """

    servers: Servers
    stored: Stored
    taxonomy: Taxonomy
    image_root: str = ""
    approximate: bool = False
    effort: int = FIRST_EFFORT
    writes: Session | None = None
    missing: tuple[str, ...] = ()
    _own: local = field(default_factory=local, init=False, repr=False)
    _held: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _learnt: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def _sql(self) -> Statements:
        stored = self.stored
        return Statements(stored.model, stored.precision, stored.dim, stored.columns, self.taxonomy)

    def __len__(self) -> int:
        return self.stored.n_images

    @property
    def n_cases(self) -> int:
        return self.stored.n_cases

    @property
    def dim(self) -> int:
        return self.stored.dim

    @property
    def columns(self) -> list[str]:
        return list(self.stored.columns)

    @property
    def has_looks(self) -> bool:
        return self.stored.has_looks

    # --- connections ---------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[None]:
        if self._session is not None:
            yield
            return
        with self.servers.reading() as session:
            self._own.session = session
            try:
                yield
            finally:
                self._own.session = None

    @property
    def _session(self) -> Session | None:
        """The transaction of this thread."""
        return self.writes or getattr(self._own, "session", None)

    def _rows(self, asks: Asks) -> Rows:
        """What all servers give, in the transaction of this thread, or in one of its own."""
        with self.reading():
            assert self._session is not None
            return self._session.rows(asks.text, asks.values)

    def _down(self) -> bool:
        """Whether a server is missing in the transaction of this thread."""
        return self._session is not None and bool(self._session.missing)

    def once(self, what: Hashable, make: Callable[[], Result]) -> Result:
        """As of every gallery, and the same for the galleries of results; not kept while a server is missing."""
        if what in self._learnt:
            return super().once(what, make)
        with self.reading():
            if len(self._learnt) > MOST_LEARNT:
                self._learnt.clear()
            return make() if self._down() else super().once(what, make)

    # --- images by their numbers ---------------------------------------------------------------------------------

    def rows_at(self, places: IntArray) -> IntArray:
        if self.stored.next_image == len(self):  # none was ever removed
            return places
        every: IntArray = self.once("rows", lambda: _unpacked(self._rows(self._sql.all_images(ALL))))
        return every[places]

    def frame_at(self, rows: IntArray | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._at("frame", rows, partial(frame_of, kinds=self.stored.columns))
        return frame

    def vectors_at(self, rows: IntArray | None = None) -> Vectors:
        """Those of all images are brought into memory."""
        vectors: Vectors = self._at("vector", rows, self._stacked)
        return vectors

    def looks_at(self, rows: IntArray | None = None) -> Vectors | None:
        looks: Vectors | None = self._at("look", rows, _looks) if self.has_looks else None
        return looks

    def fine_at(self, rows: IntArray | None = None) -> IntArray:
        fine: IntArray = self._at("fine", rows, lambda found: self._sql.fine[_numbers(found)])
        return fine

    def cases_at(self, rows: IntArray | None = None) -> IntArray:
        cases: IntArray = self._at("cases", rows, _numbers)
        return cases

    def _at(self, what: str, rows: IntArray | None, made_of: Callable[[Rows], Any]) -> Any:
        """What some images have, each read once unless it is held, or what all have."""
        if rows is None:
            return made_of([row[1:] for row in sorted(self._rows(self._sql.read(what, None)), key=_first)])
        distinct, place = np.unique(rows, return_inverse=True)
        if what in self._held and np.isin(distinct, self._held["rows"]).all():
            values, place = self._held[what], np.searchsorted(self._held["rows"], distinct)[place]
        else:
            found = sorted(self._rows(self._sql.read(what, distinct)), key=_first)
            if lost := len(distinct) - len(found):
                raise DatabaseError(
                    f"{self.servers}: {lost} image(s) are not there, for they were removed, or their server is down. "
                    "Open the index again."
                )
            values = made_of([row[1:] for row in found])
        place = place.reshape(rows.shape)
        return values.iloc[place] if isinstance(values, pd.DataFrame) else values[place]

    def holding(self, rows: IntArray) -> PostgresGallery:
        kept, distinct = copy(self), np.unique(rows[rows >= 0])
        found = [row[1:] for row in sorted(self._rows(self._sql.read("frame", distinct)), key=_first)]
        frame, cases = frame_of(found, self.stored.columns), np.array([row[-1] for row in found], dtype=np.int64)
        fine = self.taxonomy.encode(frame[c.CONDITION])
        kept._held = {"rows": distinct, "frame": frame, "fine": fine, "cases": cases}
        kept.missing = () if self._session is None else self._session.missing
        return kept

    def case_numbers(self, case_ids: str | Iterable[str]) -> dict[str, int]:
        wanted = [case_ids] if isinstance(case_ids, str) else list(map(str, case_ids))
        return {str(name): int(number) for name, number in self._rows(self._sql.case_numbers(wanted))} if wanted else {}

    def case_rows(self, case_id: str) -> list[int]:
        found = self._rows(self._sql.case_images(list(self.case_numbers(case_id).values())))
        return sorted(int(row[1]) for row in found)

    def image_row(self, image_id: str) -> int:
        with self.reading():
            known = can_be_stored(image_id)
            if known and (found := self._rows(self._sql.image_row(image_id))):
                return int(found[0][0])
            near = [row[0] for row in self._rows(self._sql.image_ids_from(image_id[:1]))] if known else []
            missing = ", or it is on a server that is down" if self._down() else ""
        raise SearchError(f"the index has no image '{image_id}'{missing}.{suggest(image_id, near)}")

    # --- search --------------------------------------------------------------------------------------------------

    def allowed(self, within: Within | None = None, where: Where | None = None) -> IntArray | None:
        passes = self._passes(within, where)
        return None if passes is ALL else _unpacked(self._rows(self._sql.all_images(passes)))

    def count(self, within: Within | None = None, where: Where | None = None) -> IntArray:
        return self._count(self._passes(within, where))

    def _count(self, passes: Asks) -> IntArray:
        """As `count`; a page and its answers ask it again and again."""

        def counted() -> IntArray:
            found = np.array(self._rows(self._sql.counts(passes)), dtype=np.int64).reshape(-1, 2)
            counts = np.zeros(self.taxonomy.size(-1), dtype=np.int64)
            np.add.at(counts, self._sql.fine[found[:, 0]], found[:, 1])
            return counts

        return self.once(("count", repr(passes)), counted)

    def values(self, column: str) -> list[str]:
        return self.once(("values", column), lambda: self._values(column))

    def _values(self, column: str, limit: int | None = None) -> list[str]:
        require_column(column, self.columns)
        found = self._rows(self._sql.values(column, limit))
        return in_order((as_text(row[0]) for row in found), self.stored.columns[column])

    def _passes(self, within: Within | None, where: Where | None) -> Asks:
        with self.reading():
            return self._sql.passes(within, where, self._has, partial(self._values, limit=SHOWN))

    def _has(self, asks: Asks) -> bool:
        """Whether a statement gives a row, or might if no server were missing."""
        return self._down() or bool(self._rows(asks))

    def propose(self, groups: list[Vectors], asked: Asked) -> Iterator[Candidates]:
        passes = self._passes(asked.within, asked.where)
        n_allowed = len(self) if passes is ALL else int(self._count(passes).sum())
        graph = self.approximate and (passes is ALL or n_allowed > limits.EXACT_BELOW)
        effort = min(MOST_EFFORT, round(self.effort * len(self) / max(1, n_allowed)))  # as many that may come are seen
        every_out = [[out] if isinstance(out, str) else list(map(str, out)) for out in asked.leave_out]
        known = self.case_numbers({case for out in every_out for case in out})
        for group, out in zip(groups, every_out, strict=True):
            outs = [known[case] for case in out if case in known]
            found = self._by_graph(group, asked, passes, outs, effort) if graph else None
            yield self._exactly(group, asked, passes, outs) if found is None else found

    def _by_graph(self, group: Vectors, asked: Asked, passes: Asks, outs: list[int], effort: int) -> Candidates | None:
        """What the graph proposes; None where that are too few cases."""
        n = n_proposed(asked.k, len(self))
        with self.reading():
            self._rows(self._sql.settings(effort))
            found = [row for one in group for row in self._rows(self._sql.near(group, one, passes, outs, n))]
            self._rows(self._sql.settings(None))
        candidates = self._candidates(found)
        return candidates if candidates.n_cases(asked.per_condition) >= asked.k else None

    def _exactly(self, group: Vectors, asked: Asked, passes: Asks, outs: list[int]) -> Candidates:
        """The nearest of all images, so many that the nearest cases are among them."""
        n, mean = max(100, 10 * asked.k), None
        if asked.aggregation == "mean":
            mean = partial(self.case_similarity, query=group[0])
        while True:
            if mean is None:
                found = self._rows(self._sql.nearest(group, passes, outs, n))
                found = sorted(found, key=lambda row: (-row[3], row[0]))[:n]  # of each server so many: no more are sure
                ended = len(found) < n
            else:
                best = self._rows(self._sql.nearest_means(group[0], passes, outs, n))
                cases = sorted(best, key=lambda row: (row[1], row[0]))[:n]
                found = self._rows(self._sql.images_of(group, passes, _numbers(cases)))
                ended = len(cases) < n
            candidates = self._candidates(found)
            near, _ = nearest_cases(candidates, asked.k, score_cases=mean, per_condition=asked.per_condition)
            if ended or len(near) == asked.k:
                return candidates
            n *= 10

    def _candidates(self, found: Rows) -> Candidates:
        """From rows of image, case, node and similarity, in which an image may come several times."""
        numbers = np.array([row[:3] for row in found], dtype=np.int64).reshape(-1, 3)
        rows, first = np.unique(numbers[:, 0], return_index=True)
        similarity = np.array([row[3] for row in found], dtype=np.float32)[first]
        return Candidates(rows, similarity, numbers[first, 1], self._sql.fine[numbers[first, 2]])

    def case_similarity(self, cases: IntArray, query: Vectors) -> Floats:
        found = sorted(self._rows(self._sql.case_images(cases.tolist())), key=lambda row: row[:2])
        distinct, starts = np.unique([row[0] for row in found], return_index=True)
        if not len(distinct):
            return np.empty(0, dtype=np.float32)
        means = unit_sums(self._stacked([row[2:] for row in found]), starts)
        return np.asarray(means[np.searchsorted(distinct, cases)] @ query)

    def exact(self) -> PostgresGallery:
        return replace(self, approximate=False)

    def recall(self) -> float:
        if not self.approximate:
            return 1.0
        sample = self.once("recall", self._recall_sample)
        return float(np.mean([np.isin(true, self._nearest(query)).mean() for query, true in sample]))

    def _recall_sample(self) -> list[tuple[Vectors, IntArray]]:
        """Queries that the gallery does not hold (`moved_away`), and the rows of the exact 10 nearest of each."""
        n_queries = max(20, min(RECALL_QUERIES, RECALL_WORK // len(self)))
        rows = self.rows_at(np.sort(np.random.default_rng(0).permutation(len(self))[:n_queries]))
        exact, queries = self.exact(), list[Vectors]()
        for row, vector in zip(rows, self.vectors_at(rows), strict=True):
            near = self._nearest(vector[None])
            others = near[near != row][:1]
            queries.append(moved_away(vector[None], self.vectors_at(others) if len(others) else vector[None]))
        return [(query, exact._nearest(query)) for query in queries]

    def _nearest(self, query: Vectors) -> IntArray:
        """The rows of the 10 images that are nearest to a query, shape (1, dim), the nearest first."""
        asked = Asked(K, ())
        found = self._by_graph(query, asked, ALL, [], self.effort) if self.approximate else None
        near = self._exactly(query, asked, ALL, []) if found is None else found
        rows: IntArray = near.rows[np.lexsort((near.rows, -near.similarity))][:K]
        return rows

    def tune(self) -> tuple[int, float]:
        if not self.approximate:
            return 0, 1.0
        self.effort = FIRST_EFFORT
        while (recall := self.recall()) < limits.WANTED_RECALL and self.effort < MOST_EFFORT:
            self.effort = min(2 * self.effort, MOST_EFFORT)
        return self.effort, recall

    def _known_looks(self) -> tuple[Vectors | None, IntArray]:
        """A sample, as `LookSpace.of` would draw it."""
        rows = _unpacked(self._rows(self._sql.all_with_looks()))
        if len(rows) > MOST:
            rows = np.sort(np.random.default_rng(0).choice(rows, MOST, replace=False))
        return self.looks_at(rows), self.cases_at(rows)

    def _stacked(self, found: Rows) -> Vectors:
        """Vectors that the server gave."""
        return np.array([row[0].to_numpy() for row in found], dtype=np.float32).reshape(-1, self.dim)

    # --- changes -------------------------------------------------------------------------------------------------

    def add(self, table: EmbeddingTable) -> PostgresGallery:
        from hierderm.search.postgres.changes import add

        return add(self, table)

    def remove(self, case_ids: Sequence[str]) -> PostgresGallery:
        from hierderm.search.postgres.changes import remove

        return remove(self, case_ids)


def _first(row: tuple[Any, ...]) -> Any:
    return row[0]


def _numbers(found: Rows) -> IntArray:
    return np.array([row[0] for row in found], dtype=np.int64)


def _unpacked(found: Rows) -> IntArray:
    """Numbers of images that each server gave as one value, ascending."""
    return np.sort(np.frombuffer(b"".join(row[0] or b"" for row in found), dtype=">i8").astype(np.int64))


def _looks(found: Rows) -> Vectors:
    """Looks from their bytes, nan where there are none."""
    unknown = np.full(N_LOOK, np.nan, dtype=np.float32)
    looks = [unknown if row[0] is None else np.frombuffer(row[0], dtype="<f4") for row in found]
    return np.array(looks, dtype=np.float32).reshape(-1, N_LOOK)
