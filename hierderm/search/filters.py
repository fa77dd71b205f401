"""Which rows of a gallery may come back: under nodes of the tree, and by the values of any column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from hierderm.errors import SearchError, suggest
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import IntArray, Mask

Within = str | Iterable[str]  # names of nodes of any level, one of which a row must be under
Where = Mapping[str, Any]  # column -> allowed value or values


class RowFilter:
    """Finds the rows of a table that pass. Each column is sorted by value once, when it is first asked for.

    Args:
        frame: A row an image.
        taxonomy: The tree of its conditions.
        fine: Numbers of the conditions, shape (n_images,).
    """

    def __init__(self, frame: pd.DataFrame, taxonomy: Taxonomy, fine: IntArray) -> None:
        self.frame, self.taxonomy = frame, taxonomy
        self._conditions = _Column(fine, taxonomy.names())
        self._columns: dict[str, _Column] = {}

    def rows(self, within: Within | None = None, where: Where | None = None) -> IntArray | None:
        """Positions of the rows that pass, ascending, shape (n_allowed,); None where nothing is asked.

        Unknown nodes, columns and values are SearchErrors with the closest. Values are compared as text; 3 and '3.0'
        are the same number.
        """
        asked: list[tuple[_Column, Mask]] = []
        if names := _several(within):  # none named: all
            under = np.zeros(self.taxonomy.size(-1), dtype=bool)
            for name in names:
                under |= _under(str(name), self.taxonomy)
            asked.append((self._conditions, under))
        for name, values in (where or {}).items():
            column = self.column(name)
            for value in (wanted := [as_text(value) for value in _several(values)]):
                if value not in column.values:
                    some = sorted(set(column.values) - {""})[:12]
                    hint = suggest(value, column.values)
                    raise SearchError(f"column '{name}' has no value '{value}'.{hint} It has {some}.")
            asked.append((column, np.isin(np.array(column.values, dtype=object), wanted)))
        if not asked:
            return None
        asked.sort(key=lambda pair: pair[0].count(pair[1]))
        rows = asked[0][0].rows(asked[0][1])
        for column, chosen in asked[1:]:
            rows = rows[chosen[column.codes[rows]]]
        return rows

    def column(self, name: str) -> _Column:
        """The values of a column as text, with their rows; SearchError where there is no such column."""
        if name not in self.frame:
            raise SearchError(
                f"the index has no column '{name}'.{suggest(name, self.frame.columns)} It has {list(self.frame)}."
            )
        if name not in self._columns:
            cells = self.frame[name]
            if cells.dtype == object:  # 1 and True would be one value
                cells = cells.map(as_text)
            codes, distinct = pd.factorize(cells, use_na_sentinel=False)
            numbers, values = pd.factorize(np.array([as_text(value) for value in distinct], dtype=object))
            self._columns[name] = _Column(numbers[codes].astype(np.int64), tuple(values))
        return self._columns[name]


class _Column:
    """`codes`: number of each row's value, shape (n_rows,); `values`: as text, by number."""

    def __init__(self, codes: IntArray, values: tuple[str, ...]) -> None:
        self.codes, self.values = codes, values
        self._order = np.argsort(codes, kind="stable")
        self._ends = np.cumsum(np.bincount(codes, minlength=len(values)))
        self._starts = self._ends - np.bincount(codes, minlength=len(values))

    def count(self, chosen: Mask) -> int:
        """How many rows have one of the values `chosen`, shape (n_values,)."""
        return int((self._ends - self._starts)[chosen].sum())

    def rows(self, chosen: Mask) -> IntArray:
        """Positions of those rows, ascending."""
        spans = zip(self._starts[chosen], self._ends[chosen], strict=True)
        return np.sort(np.concatenate([self._order[:0], *(self._order[start:end] for start, end in spans)]))


def as_text(value: object) -> str:
    """A cell as a person would write it: whole numbers without a point, missing values as ''."""
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA:
        return ""
    try:
        number = float(str(value))
    except ValueError:
        return str(value).strip()
    return str(int(number)) if number.is_integer() else str(number)


def _several(value: Any) -> list[Any]:
    """One value, or several, or none, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def _under(name: str, taxonomy: Taxonomy) -> Mask:
    """Which conditions are the node called `name`, or under it, shape (n_fine,)."""
    for level in range(taxonomy.n_levels):
        number = taxonomy.find(name, level)
        if number is not None:
            return np.asarray(taxonomy.ancestors[:, level] == number)
    names = [node for level in range(taxonomy.n_levels) for node in taxonomy.names(level)]
    raise SearchError(f"'{name}' is not a node of taxonomy '{taxonomy.id}'.{suggest(name, names)}")
