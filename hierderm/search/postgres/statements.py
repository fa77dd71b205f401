"""What a search asks the server, as SQL. The text is ours; all that comes from elsewhere is a value beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pgvector import Vector

from hierderm import columns as c
from hierderm.search.filters import SHOWN, Where, Within, conditions_under, no_value, require_column, texts_of
from hierderm.search.postgres.cells import asked_cell, can_be_stored
from hierderm.search.postgres.schema import SCHEMA, Precision, vectors_table
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import IntArray, Mask, Vectors

SCANNED = 200_000  # rows that a search through a graph may look at
_COLUMNS = {c.IMAGE_ID: "i.image_id", c.IMAGE_PATH: "i.image_path", c.CASE_ID: "k.case_id"}


def preorder(taxonomy: Taxonomy) -> IntArray:
    """The conditions in the order of the tree, shape (n_fine,): those under a node follow one another."""
    return np.lexsort(taxonomy.ancestors.T[::-1])


def intervals(under: Mask) -> list[tuple[int, int]]:
    """First and last place of each run of true values."""
    edges = np.diff(np.concatenate([[0], under.astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(edges == 1).tolist(), (np.flatnonzero(edges == -1) - 1).tolist(), strict=True))


@dataclass(frozen=True)
class Asks:
    """A statement, or a part of one, with its values by name."""

    text: str
    values: dict[str, Any] = field(default_factory=dict)


ALL = Asks("true")


class Statements:
    """The statements on one model.

    Attributes:
        fine: The condition of each node, which is its place in the order of the tree, shape (n_fine,).
    """

    def __init__(self, model: int, precision: Precision, dim: int, kinds: dict[str, bool], taxonomy: Taxonomy) -> None:
        self._kinds, self._taxonomy = kinds, taxonomy
        self.fine = preorder(taxonomy)
        # The partitions themselves: whoever reads a whole table waits for a writer who makes a partition or drops one,
        # and finds nothing where the model has been dropped, instead of an error.
        images, cases = f"{SCHEMA}.images_{model}", f"{SCHEMA}.cases_{model}"
        self._vectors = f"from {SCHEMA}.{vectors_table(precision)}_{model} v where true"
        self._images = f"from {images} i where true"
        self._with_cases = f'from {images} i join {cases} k using ("case") where true'
        self._cases = f"from {cases} k where true"
        # A vector of half precision is compared as it is stored by a graph, and exactly with the query else.
        self._half, self._single = f"halfvec({int(dim)})", "::vector" if precision == "half" else ""
        self._reads = {
            "frame": f'select i.image, i.image_id, k.case_id, i.image_path, i.cells, i."case" {self._with_cases}',
            "look": f"select i.image, i.look {self._images}",
            "vector": f"select v.image, v.vector{self._single} {self._vectors}",
            "fine": f"select v.image, v.node {self._vectors}",
            "cases": f'select v.image, v."case" {self._vectors}',
        }

    # --- images by their numbers ---------------------------------------------------------------------------------

    def read(self, what: str, rows: IntArray | None) -> Asks:
        """Numbers, with the frame, look, vector, fine or cases of some images, or of all, in any order."""
        if rows is None:
            return Asks(self._reads[what])
        alias = "i" if what in ("frame", "look") else "v"
        return Asks(f"{self._reads[what]} and {alias}.image = any(%(rows)s)", {"rows": rows.tolist()})

    def all_images(self, passes: Asks) -> Asks:
        """The numbers of the images that pass, as one value: a list of millions would take long."""
        return Asks(f"select string_agg(int8send(v.image), '') {self._vectors} and {passes.text}", passes.values)

    def all_with_looks(self) -> Asks:
        """As `all_images`, of those with looks."""
        return Asks(f"select string_agg(int8send(i.image), '') {self._images} and i.look is not null")

    def case_numbers(self, case_ids: Sequence[str]) -> Asks:
        """Ids and numbers of those cases that there are."""
        ids = [name for name in case_ids if can_be_stored(name)]
        return Asks(f'select k.case_id, k."case" {self._cases} and k.case_id = any(%(ids)s)', {"ids": ids})

    def case_images(self, cases: Sequence[int]) -> Asks:
        """Cases, images and vectors of some cases, in any order."""
        text = f'select v."case", v.image, v.vector{self._single} {self._vectors} and v."case" = any(%(cases)s)'
        return Asks(text, {"cases": list(cases)})

    def image_row(self, image_id: str) -> Asks:
        """The number of an image."""
        return Asks(f"select i.image {self._images} and i.image_id = %(id)s", {"id": image_id})

    def image_ids_from(self, start: str) -> Asks:
        """Some ids of images that begin alike."""
        text = f"select i.image_id {self._images} and starts_with(i.image_id, %(start)s) limit {SHOWN}"
        return Asks(text, {"start": start})

    def values(self, column: str, limit: int | None = None) -> Asks:
        """The values that a column has, up to so many."""
        end = "" if limit is None else f"limit {limit}"
        if column in _COLUMNS:
            return Asks(f"select distinct {_COLUMNS[column]} {self._images_for(column)} {end}")
        return Asks(f"select distinct i.cells -> %(column)s::text {self._images} {end}", {"column": column})

    # --- filters -------------------------------------------------------------------------------------------------

    def passes(
        self,
        within: Within | None,
        where: Where | None,
        has: Callable[[Asks], bool],
        values: Callable[[str], list[str]],
    ) -> Asks:
        """What the row v of a vector must fulfil.

        `has`: whether a statement gives a row; `values`: those of a column, for the message about one that it lacks.
        """
        parts, given = list[str](), dict[str, Any]()
        under = conditions_under(within, self._taxonomy)
        if under is not None:
            runs = intervals(under[self.fine])
            given |= {f"{end}{number}": run[end == "hi"] for number, run in enumerate(runs) for end in ("lo", "hi")}
            parts.append(_any_of([f"v.node between %(lo{number})s and %(hi{number})s" for number in range(len(runs))]))
        for place, (column, texts) in enumerate(texts_of(where).items()):
            require_column(column, list(self._kinds))
            source, cells = self._images_for(column), list[str]()
            for number, text in enumerate(texts):
                cell = self._cell(column, text, f"{place}_{number}")
                if cell is None or not has(Asks(f"select 1 {source} and {cell.text} limit 1", cell.values)):
                    raise no_value(column, text, values(column))
                cells.append(cell.text)
                given |= cell.values
            parts.append(f"exists (select {source} and i.image = v.image and {_any_of(cells)})")
        return Asks(" and ".join(parts), given) if parts else ALL

    def _cell(self, column: str, text: str, name: str) -> Asks | None:
        """What an image i with its case k must fulfil to have a value; None where none can."""
        if column in _COLUMNS:
            return Asks(f"{_COLUMNS[column]} = %(text{name})s", {f"text{name}": text}) if can_be_stored(text) else None
        if text == "":
            return Asks(f"i.cells -> %(column{name})s::text is null", {f"column{name}": column})
        cell = asked_cell(column, text, self._kinds[column])
        return None if cell is None else Asks(f"i.cells @> %(cell{name})s::jsonb", {f"cell{name}": cell})

    def _images_for(self, column: str) -> str:
        """The images, with their cases where a column is of these."""
        return self._with_cases if column == c.CASE_ID else self._images

    def counts(self, passes: Asks) -> Asks:
        """Nodes, and how many images of each pass."""
        text = f"select v.node, count(*) {self._vectors} and {passes.text} group by v.node"
        return Asks(text, passes.values)

    # --- nearest -------------------------------------------------------------------------------------------------

    def settings(self, effort: int | None) -> Asks:
        """How far a graph is searched, in this transaction; None for what the server has."""
        if effort is None:
            return Asks("select set_config('enable_seqscan', 'on', true), set_config('enable_sort', 'on', true)")
        names = {"hnsw.ef_search": effort, "hnsw.iterative_scan": "strict_order", "hnsw.max_scan_tuples": SCANNED}
        names |= {"enable_seqscan": "off", "enable_sort": "off"}  # else the order is not left to the graph
        values = {f"v{place}": str(value) for place, value in enumerate(names.values())}
        calls = ", ".join(f"set_config('{name}', %(v{place})s, true)" for place, name in enumerate(names))
        return Asks(f"select {calls}", values)

    def nearest(self, group: Vectors, passes: Asks, outs: Sequence[int], n: int) -> Asks:
        """The `n` images nearest to any of a query among all.

        `offset 0` has the distances of all that pass computed first: no graph is used, and no vector is sorted.
        """
        found = self._rows(group, passes, outs, "offset 0")
        return Asks(f"select * from ({found.text}) found order by similarity desc, image limit {int(n)}", found.values)

    def near(self, group: Vectors, query: Vectors, passes: Asks, outs: Sequence[int], n: int) -> Asks:
        """About the `n` images nearest to one image of a query, as the graph proposes them."""
        order = f"order by v.vector::{self._half} <#> %(query)s::{self._half} limit {int(n)}"
        found = self._rows(group, passes, outs, order)
        return Asks(found.text, found.values | {"query": Vector(query)})

    def images_of(self, group: Vectors, passes: Asks, cases: IntArray) -> Asks:
        """The images of some cases that pass."""
        found = self._rows(group, passes, (), 'and v."case" = any(%(cases)s)')
        return Asks(found.text, found.values | {"cases": cases.tolist()})

    def _rows(self, group: Vectors, passes: Asks, outs: Sequence[int], rest: str) -> Asks:
        """Image, case, node and similarity of rows that pass."""
        text = f"""select v.image, v."case", v.node, -{_nearest(self._single, group)} as similarity {self._vectors}
            and {passes.text} and v."case" <> all(%(outs)s) {rest}"""
        given = {f"q{number}": Vector(vector) for number, vector in enumerate(group)}
        return Asks(text, given | {"outs": list(outs)} | passes.values)

    def nearest_means(self, query: Vectors, passes: Asks, outs: Sequence[int], n: int) -> Asks:
        """The `n` cases whose means are nearest to a vector, with their distance, that have an image that passes."""
        some = "" if passes is ALL else f'and v."case" in (select v."case" {self._vectors} and {passes.text})'
        distance = f"l2_normalize(sum(v.vector{self._single})) <#> %(query)s"
        text = f"""select v."case", {distance} as distance {self._vectors} {some} and v."case" <> all(%(outs)s)
            group by v."case" order by distance, v."case" limit {int(n)}"""
        return Asks(text, {"outs": list(outs), "query": Vector(query)} | passes.values)


def _any_of(conditions: Sequence[str]) -> str:
    return f"({' or '.join(conditions)})" if conditions else "false"


def _nearest(single: str, group: Vectors) -> str:
    """The distance to the nearest image of a query, negative inner product."""
    return f"least({', '.join(f'(v.vector{single} <#> %(q{number})s)' for number in range(len(group)))})"
