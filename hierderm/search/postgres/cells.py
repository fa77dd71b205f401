"""The rows of a case table as JSON and back: numbers stay numbers, exactly, and all else is text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.data.table import as_text
from hierderm.errors import SearchError, some_of
from hierderm.search.values import as_number, holds_numbers

OWN = (c.IMAGE_ID, c.CASE_ID, c.IMAGE_PATH)  # columns of tables; the others are cells
LONGEST_ID = 2000  # bytes, that an index of PostgreSQL takes
DIGITS = 16_000  # of a number before or after its point, that PostgreSQL takes
_FOREIGN = re.compile(r"[\x00\ud800-\udfff]")
Kinds = Mapping[str, bool]  # the columns in order, and whether each holds numbers


def _number(text: str) -> float | Decimal:
    """A number of JSON as a float, where that is the same."""
    return float(text) if Decimal(text) == Decimal(repr(float(text))) else Decimal(text)


def read_json(text: str | bytes) -> Any:
    """A value of JSON, its numbers exactly."""
    return json.loads(text, parse_float=_number)


def kinds_of(frame: pd.DataFrame) -> dict[str, bool]:
    """The columns of a table, and whether each holds numbers."""
    return {str(name): holds_numbers(frame[name]) for name in frame}


def can_be_stored(text: str) -> bool:
    """Whether PostgreSQL can hold a text: it has no NUL, and no half of a character."""
    return _FOREIGN.search(text) is None


def require_storable(frame: pd.DataFrame) -> None:
    """SearchError with the columns and ids that PostgreSQL can't hold."""
    faults = [f"the column {str(name)!a} is called so" for name in frame if not can_be_stored(str(name))]
    for name in frame:
        wrong = [as_text(value) for value in _distinct(frame[name])[1]]
        if wrong := [text for text in wrong if not can_be_stored(text)]:
            faults.append(f"column {str(name)!a} has {some_of(list(map(ascii, wrong)))}")
    for name in (c.IMAGE_ID, c.CASE_ID):
        if long := [text for text in map(str, frame[name]) if len(text.encode(errors="replace")) > LONGEST_ID]:
            faults.append(f"{len(long)} {name}(s) are longer than {LONGEST_ID} bytes, such as '{long[0][:40]}...'")
    if faults:
        raise SearchError(
            f"PostgreSQL holds no NUL, no halves of characters and no very long ids: {'; '.join(faults)}. Change them."
        )


def cells_of(frame: pd.DataFrame, kinds: Kinds) -> list[str]:
    """Each row as a JSON object of its cells, missing ones left out."""
    parts: list[list[str]] = [[] for _ in range(len(frame))]
    for name in frame:
        if name not in OWN:
            codes, distinct = _distinct(frame[name])
            texts = list(map(as_text, distinct))
            written = [f"{json.dumps(str(name))}: {_written(text, kinds[str(name)])}" for text in texts]
            for part, code in zip(parts, codes.tolist(), strict=True):
                if code >= 0 and texts[code]:
                    part.append(written[code])
    return ["{" + ", ".join(part) + "}" for part in parts]


def _distinct(column: pd.Series) -> tuple[Any, Any]:
    """Number of each cell's value, -1 where it is missing, and the values; those of mixed types as text."""
    cells = column.astype(object).to_numpy()
    return pd.factorize(np.array([as_text(cell) for cell in cells], dtype=object) if column.dtype == object else cells)


def asked_cell(column: str, text: str, is_number: bool) -> str | None:
    """The JSON that the cells of a row contain whose column has the value that a filter writes as `text`.

    None where no row can have it.
    """
    value = as_number(text) if is_number else text
    fits = abs(value.adjusted()) < DIGITS if isinstance(value, Decimal) else can_be_stored(value)
    return f"{{{json.dumps(column)}: {_written(text, is_number)}}}" if fits else None


def _written(text: str, is_number: bool) -> str:
    number = as_number(text) if is_number else text
    return str(number) if isinstance(number, Decimal) else json.dumps(text)


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
