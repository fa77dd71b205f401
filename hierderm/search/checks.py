"""What rows must be to come into an index."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hierderm import columns as c
from hierderm.errors import SearchError, some_of
from hierderm.taxonomy.tree import Taxonomy


def check_conditions(frame: pd.DataFrame, taxonomy: Taxonomy) -> None:
    """SearchError where a condition is not in the tree."""
    unknown = sorted({name for name in map(str, frame[c.CONDITION].unique()) if taxonomy.find(name) is None})
    if unknown:
        raise SearchError(f"{len(unknown)} condition(s) are not in the taxonomy of the index: {unknown[:5]}.")


def check_ids(new: pd.DataFrame, known: pd.Index[Any]) -> None:
    """SearchError where an image would be in an index twice, or an id can't be seen. `known`: the ids that it has."""
    unseen = [value for name in (c.IMAGE_ID, c.CASE_ID) for value in new[name].astype(str) if not value.isprintable()]
    if unseen:
        raise SearchError(
            f"{len(unseen)} id(s) have characters that can't be seen: {some_of(list(map(ascii, unseen)))}."
        )
    ids = new[c.IMAGE_ID].astype(str)
    repeated = sorted(set(ids[ids.duplicated()]) | set(ids[ids.isin(known.astype(str))]))
    if repeated:
        raise SearchError(f"{len(repeated)} image(s) would be in the index twice: {repeated[:5]}.")
