"""The rows of a case table as JSON and back: numbers stay numbers, exactly, and all else is text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.search.values import as_number, as_text, holds_numbers

OWN = (c.IMAGE_ID, c.CASE_ID, c.IMAGE_PATH)  # columns of tables; the others are cells
Kinds = Mapping[str, bool]  # the columns in order, and whether each holds numbers


def kinds_of(frame: pd.DataFrame) -> dict[str, bool]:
    """The columns of a table, and whether each holds numbers."""
    return {str(name): holds_numbers(frame[name]) for name in frame}


def cells_of(frame: pd.DataFrame, kinds: Kinds) -> list[str]:
    """Each row as a JSON object of its cells, missing ones left out."""
    parts: list[list[str]] = [[] for _ in range(len(frame))]
    for name in frame:
        if name not in OWN:
            codes, distinct = pd.factorize(frame[name].astype(object), use_na_sentinel=True)
            written = [f"{json.dumps(str(name))}: {_written(value, kinds[str(name)])}" for value in distinct]
            known = [as_text(value) != "" for value in distinct]
            for part, code in zip(parts, codes.tolist(), strict=True):
                if code >= 0 and known[code]:
                    part.append(written[code])
    return ["{" + ", ".join(part) + "}" for part in parts]


def asked_cell(column: str, text: str, is_number: bool) -> str:
    """The JSON that the cells of a row contain whose column has the value that a filter writes as `text`."""
    value = as_number(text) if is_number else text
    return f"{{{json.dumps(column)}: {value if isinstance(value, Decimal) else json.dumps(value)}}}"


def _written(value: Any, is_number: bool) -> str:
    text = as_text(value)
    number = as_number(text) if is_number else text
    if isinstance(number, Decimal):
        return str(number)
    return json.dumps(value if isinstance(value, str) else text)


def frame_of(rows: Iterable[tuple[str, str, str, Mapping[str, Any]]], kinds: Kinds) -> pd.DataFrame:
    """The case table again, from rows of image_id, case_id, image_path and cells."""
    found = list(rows)
    own = {name: [row[place] for row in found] for place, name in enumerate(OWN)}
    columns: dict[str, Any] = {}
    for name, is_number in kinds.items():
        if name in own:
            columns[name] = pd.Series(own[name], dtype=str)
        else:
            columns[name] = _column([row[3].get(name) for row in found], is_number)
    return pd.DataFrame(columns)


def _column(values: Sequence[Any], is_number: bool) -> Any:
    known = [value for value in values if value is not None]
    if not is_number or not all(isinstance(value, int | float) for value in known):
        return pd.Series(values, dtype=object)
    if all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in known):
        return pd.array([pd.NA if value is None else value for value in values], dtype="Int64")
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def joined_kinds(known: Kinds, new: Kinds) -> tuple[dict[str, bool], list[str]]:
    """The columns of two tables together, and those that held numbers and are text now, for the second has text."""
    became_text = [name for name, is_number in new.items() if known.get(name) and not is_number]
    kinds = {name: is_number and name not in became_text for name, is_number in known.items()}
    return kinds | {name: is_number for name, is_number in new.items() if name not in known}, became_text
