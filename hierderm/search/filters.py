"""Which rows of a gallery may come back: under nodes of the tree, and by the values of any column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.errors import SearchError, suggest
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Mask


@dataclass(frozen=True)
class Filter:
    """`within`: names of nodes of any level, one of which a row must be under; `where`: column -> allowed values.

    Values are compared as text; 3 and '3.0' are the same number. An empty filter lets everything through.
    """

    within: Sequence[str] = ()
    where: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.within or self.where)


def allowed_rows(wanted: Filter, frame: pd.DataFrame, taxonomy: Taxonomy) -> Mask:
    """Which rows pass, shape (n_images,). Unknown nodes, columns and values are SearchErrors with the closest."""
    allowed = np.ones(len(frame), dtype=bool)
    if wanted.within:
        under = np.zeros(taxonomy.size(-1), dtype=bool)
        for name in wanted.within:
            under |= _under(name, taxonomy)
        allowed &= under[taxonomy.encode(frame[c.CONDITION])]
    for column, values in wanted.where.items():
        if column not in frame:
            raise SearchError(
                f"the index has no column '{column}'.{suggest(column, frame.columns)} It has {list(frame)}."
            )
        present = frame[column].map(as_text)
        known = set(present)
        for value in values:
            if as_text(value) not in known:
                some = sorted(known - {""})[:12]
                raise SearchError(
                    f"column '{column}' has no value '{value}'.{suggest(str(value), known)} It has {some}."
                )
        allowed &= present.isin([as_text(value) for value in values]).to_numpy()
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


def _under(name: str, taxonomy: Taxonomy) -> Mask:
    """Which conditions are the node called `name`, or under it, shape (n_fine,)."""
    for level in range(taxonomy.n_levels):
        number = taxonomy.find(name, level)
        if number is not None:
            return np.asarray(taxonomy.ancestors[:, level] == number)
    names = [node for level in range(taxonomy.n_levels) for node in taxonomy.names(level)]
    raise SearchError(f"'{name}' is not a node of taxonomy '{taxonomy.id}'.{suggest(name, names)}")
