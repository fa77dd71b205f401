"""Which rows of a gallery may come back: under nodes of the tree, and by the values of any column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.errors import SearchError, suggest
from hierderm.search.values import as_text, distinct_values, key_of
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Mask

Within = str | Iterable[str]  # names of nodes of any level, one of which a row must be under
Where = Mapping[str, Any]  # column -> allowed value or values
BETWEEN = " > "  # the names of a node's path, where its own name stands on several levels


def allowed_rows(
    frame: pd.DataFrame, taxonomy: Taxonomy, within: Within | None = None, where: Where | None = None
) -> Mask:
    """Which rows pass, shape (n_images,). Unknown nodes, columns and values are SearchErrors with the closest.

    How values are compared: `hierderm.search.values`.
    """
    allowed = np.ones(len(frame), dtype=bool)
    if names := _several(within):  # none named: all
        under = np.zeros(taxonomy.size(-1), dtype=bool)
        for name in names:
            under |= _under(str(name), taxonomy)
        allowed &= under[taxonomy.encode(frame[c.CONDITION])]
    for column, values in (where or {}).items():
        cells, key = column_of(frame, column), key_of(column_of(frame, column))
        texts, wanted = cells.map(as_text), [as_text(value) for value in _several(values)]
        known = set(texts.map(key))
        for text in wanted:
            if key(text) not in known:
                some = distinct_values(cells)
                hint = suggest(text, some)
                raise SearchError(f"column '{column}' has no value '{text}'.{hint} It has {some[:12]}.")
        allowed &= texts.map(key).isin([key(text) for text in wanted]).to_numpy(dtype=bool)
    return allowed


def where_of(pairs: Sequence[str], frame: pd.DataFrame) -> dict[str, list[str]]:
    """Texts such as 'fitzpatrick=5' as columns with their values; several of one column are alternatives.

    'fitzpatrick=5,6' names two values, unless the column has the value '5,6'.
    """
    where: dict[str, list[str]] = {}
    for pair in pairs:
        column, sign, text = pair.partition("=")
        if not sign or not column:
            raise SearchError(f"a filter must look like fitzpatrick=5 or fitzpatrick=5,6, got '{pair}'.")
        whole = text.strip() in set(column_of(frame, column).map(as_text))
        where.setdefault(column, []).extend([text] if whole else text.split(","))
    return where


def column_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column; SearchError with the closest where there is none of that name."""
    if name not in frame:
        raise SearchError(f"the index has no column '{name}'.{suggest(name, frame.columns)} It has {list(frame)}.")
    return frame[name]


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
