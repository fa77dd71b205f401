"""Which rows of a gallery may come back: under nodes of the tree, and by the values of any column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.errors import SearchError, suggest
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Mask

Within = str | Iterable[str]  # names of nodes of any level, one of which a row must be under
Where = Mapping[str, Any]  # column -> allowed value or values


def allowed_rows(
    frame: pd.DataFrame, taxonomy: Taxonomy, within: Within | None = None, where: Where | None = None
) -> Mask:
    """Which rows pass, shape (n_images,). Unknown nodes, columns and values are SearchErrors with the closest.

    Values are compared as text; 3 and '3.0' are the same number.
    """
    allowed = np.ones(len(frame), dtype=bool)
    if names := _several(within):  # none named: all
        under = np.zeros(taxonomy.size(-1), dtype=bool)
        for name in names:
            under |= _under(str(name), taxonomy)
        allowed &= under[taxonomy.encode(frame[c.CONDITION])]
    for column, values in (where or {}).items():
        if column not in frame:
            raise SearchError(
                f"the index has no column '{column}'.{suggest(column, frame.columns)} It has {list(frame)}."
            )
        present, wanted = frame[column].map(as_text), [as_text(value) for value in _several(values)]
        known = set(present)
        for value in wanted:
            if value not in known:
                some = sorted(known - {""})[:12]
                raise SearchError(f"column '{column}' has no value '{value}'.{suggest(value, known)} It has {some}.")
        allowed &= present.isin(wanted).to_numpy()
    return allowed


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
