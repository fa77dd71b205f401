"""Which rows of a gallery may come back: under nodes of the tree, and by the values of any column."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hierderm.data.table import as_text
from hierderm.errors import SearchError, suggest
from hierderm.search.values import distinct_values, key_of
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import IntArray, Mask

Within = str | Iterable[str]  # names of nodes of any level, one of which a row must be under
Where = Mapping[str, Any]  # column -> allowed value or values
SHOWN = 2000  # values of a column, or ids, that are compared with one that is not there
BETWEEN = " > "  # the names of a node's path, where its own name stands on several levels


class RowFilter:
    """Finds the rows of a table that pass. Each column is sorted by value once, when it is first asked for.

    Args:
        frame: A row an image.
        taxonomy: The tree of its conditions.
        fine: Numbers of the conditions, shape (n_images,).
    """

    def __init__(self, frame: pd.DataFrame, taxonomy: Taxonomy, fine: IntArray) -> None:
        self.frame, self.taxonomy = frame, taxonomy
        self._conditions = _Column(fine, {name: number for number, name in enumerate(taxonomy.names())})
        self._columns: dict[str, _Column] = {}

    def rows(self, within: Within | None = None, where: Where | None = None) -> IntArray | None:
        """Positions of the rows that pass, ascending, shape (n_allowed,); None where nothing is asked.

        Unknown nodes, columns and values are SearchErrors with the closest. How values are compared:
        `hierderm.search.values`.
        """
        asked: list[tuple[_Column, Mask]] = []
        under = conditions_under(within, self.taxonomy)
        if under is not None:
            asked.append((self._conditions, under))
        for name, texts in texts_of(where).items():
            column = self.column(name)
            keys = []
            for text in texts:
                keys.append(column.key(text))
                if keys[-1] not in column.numbers:
                    raise no_value(name, text, distinct_values(self.frame[name])[:SHOWN])
            chosen = np.zeros(len(column.numbers), dtype=bool)
            chosen[[column.numbers[key] for key in keys]] = True
            asked.append((column, chosen))
        if not asked:
            return None
        asked.sort(key=lambda pair: pair[0].count(pair[1]))
        rows = asked[0][0].rows(asked[0][1])
        for column, chosen in asked[1:]:
            rows = rows[chosen[column.codes[rows]]]
        return rows

    def column(self, name: str) -> _Column:
        """The values of a column with their rows; SearchError where there is no such column."""
        cells = column_of(self.frame, name)
        if name not in self._columns:
            key = key_of(cells)
            if cells.dtype == object:  # 1 and True would be one value
                cells = cells.map(as_text)
            codes, distinct = pd.factorize(cells, use_na_sentinel=False)
            numbers: dict[Hashable, int] = {}
            for value in distinct:
                numbers.setdefault(key(as_text(value)), len(numbers))
            recoded = np.array([numbers[key(as_text(value))] for value in distinct], dtype=np.int64)
            self._columns[name] = _Column(recoded[codes], numbers, key)
        return self._columns[name]


class _Column:
    """`codes`: number of each row's value, shape (n_rows,); `numbers`: of each value, by its `key`."""

    def __init__(self, codes: IntArray, numbers: Mapping[Hashable, int], key: Callable[[str], Hashable] = str) -> None:
        self.codes, self.numbers, self.key = codes, numbers, key
        self._order = np.argsort(codes, kind="stable")
        self._ends = np.cumsum(np.bincount(codes, minlength=len(numbers)))
        self._starts = self._ends - np.bincount(codes, minlength=len(numbers))

    def count(self, chosen: Mask) -> int:
        """How many rows have one of the values `chosen`, shape (n_values,)."""
        return int((self._ends - self._starts)[chosen].sum())

    def rows(self, chosen: Mask) -> IntArray:
        """Positions of those rows, ascending."""
        spans = zip(self._starts[chosen], self._ends[chosen], strict=True)
        return np.sort(np.concatenate([self._order[:0], *(self._order[start:end] for start, end in spans)]))


def where_of(pairs: Sequence[str], values: Callable[[str], list[str]]) -> dict[str, list[str]]:
    """Texts such as 'fitzpatrick=5' as columns with their values; several of one column are alternatives.

    'fitzpatrick=5,6' names two values, unless the column has the value '5,6'. `values`: those of a column.
    """
    where: dict[str, list[str]] = {}
    for pair in pairs:
        column, sign, text = pair.partition("=")
        if not sign or not column:
            raise SearchError(f"a filter must look like fitzpatrick=5 or fitzpatrick=5,6, got '{pair}'.")
        whole = "," in text and text.strip() in values(column)  # else millions of ids would be read
        where.setdefault(column, []).extend([text] if whole else text.split(","))
    return where


def column_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column; SearchError with the closest where there is none of that name."""
    require_column(name, list(map(str, frame)))
    return frame[name]


def require_column(name: str, columns: list[str]) -> None:
    """SearchError with the closest where there is no column of that name."""
    if name not in columns:
        raise SearchError(f"the index has no column '{name}'.{suggest(name, columns)} It has {columns}.")


def no_value(column: str, text: str, values: list[str]) -> SearchError:
    """The error where a column, which has `values`, does not have one."""
    return SearchError(f"column '{column}' has no value '{text}'.{suggest(text, values)} It has {values[:12]}.")


def texts_of(where: Where | None) -> dict[str, list[str]]:
    """The values that are asked for, as text, by column."""
    if not isinstance(where, Mapping | None):
        raise SearchError(f"where must be like {{'fitzpatrick': [5, 6]}}, got {where!r}.")
    return {name: list(map(as_text, _several(values))) for name, values in (where or {}).items()}


def conditions_under(within: Within | None, taxonomy: Taxonomy) -> Mask | None:
    """Which conditions are under some nodes, shape (n_fine,); None where none is named, for all."""
    names = _several(within)
    return np.logical_or.reduce([_under(str(name), taxonomy) for name in names]) if names else None


def _several(value: Any) -> list[Any]:
    """One value, or several, or none, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def _under(name: str, taxonomy: Taxonomy) -> Mask:
    """Which conditions are the node called `name`, or under it, shape (n_fine,).

    A name that stands on several levels is that of the coarsest; 'Psoriasis > Psoriasis' is the one below it.
    """
    for level in range(taxonomy.n_levels):
        number = taxonomy.find(name, level)
        if number is not None:
            return np.asarray(taxonomy.ancestors[:, level] == number)
    for level in range(1, taxonomy.n_levels):
        for path in np.unique(taxonomy.ancestors[:, : level + 1], axis=0):
            if name == BETWEEN.join(taxonomy.names(above)[number] for above, number in enumerate(path)):
                return np.asarray(taxonomy.ancestors[:, level] == path[-1])
    names = [node for level in range(taxonomy.n_levels) for node in taxonomy.names(level)]
    raise SearchError(f"'{name}' is not a node of taxonomy '{taxonomy.id}'.{suggest(name, names)}")
