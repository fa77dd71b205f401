"""The cells of a column, as a person writes them and as a filter compares them.

A cell is compared as what its column holds. In a column of numbers 3, '3' and '3.0' are one value, exactly and at any
size; in a column of text '1E5', '007' and '100000' are three. Nothing passes through a float.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from decimal import Decimal
from numbers import Integral
from typing import Any

import pandas as pd

from hierderm.data.table import as_text

logger = logging.getLogger(__name__)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_OF_NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal")  # by `infer_dtype`


def holds_numbers(column: pd.Series) -> bool:
    """Whether the cells of a column are numbers, and not text that looks like it."""
    return pd.api.types.infer_dtype(column.astype(object), skipna=True) in _OF_NUMBERS


def key_of(column: pd.Series) -> Callable[[str], Hashable]:
    """What two texts of cells, or of a filter, must have alike to be one value of the column."""
    return as_number if holds_numbers(column) else str


def as_number(text: str) -> Decimal | str:
    """A text as the number that it writes, exactly; itself where it is none ('1_000', 'inf')."""
    return Decimal(text) if _NUMBER.fullmatch(text) else text


def distinct_values(column: pd.Series) -> list[str]:
    """The values that occur, as text: numbers by their size, text by the alphabet; the missing one left out."""
    return in_order(column.map(as_text), holds_numbers(column))


def in_order(cells: Iterable[str], are_numbers: bool) -> list[str]:
    """As `distinct_values`, of cells that are text already."""
    texts = set(cells) - {""}
    if not are_numbers:
        return sorted(texts)
    return sorted(texts, key=lambda text: (isinstance(as_number(text), str), as_number(text)))


def joined(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """The rows of two tables, every cell with the value it has.

    Whole numbers stay whole beside missing cells. A column that has numbers in one table and text in the other, or
    numbers that no common type holds exactly, becomes text.
    """
    names = [*first.columns, *(name for name in second.columns if name not in first)]
    found = pd.DataFrame({name: _joined([_cells(first, name), _cells(second, name)]) for name in names})
    for name in first:
        if holds_numbers(first[name]) and not holds_numbers(found[name]):
            logger.warning("Column '%s' held numbers, and is text now: added rows have text or larger ones.", name)
    return found


def _cells(frame: pd.DataFrame, name: Any) -> pd.Series:
    return frame[name] if name in frame else pd.Series([None] * len(frame), dtype=object)


def _joined(parts: Sequence[pd.Series]) -> pd.Series:
    if parts[0].dtype == parts[1].dtype != object:
        return pd.concat(parts, ignore_index=True)
    whole = pd.concat([part.astype(object) for part in parts], ignore_index=True)
    known = whole[whole.notna()]
    kind = pd.api.types.infer_dtype(known, skipna=True)
    if kind == "integer" and min(known) >= -(2**63) and max(known) < 2**63:
        return whole.astype("Int64")
    if kind in ("floating", "mixed-integer-float") and all(map(_is_exact, known)):
        return whole.astype("Float64")
    if kind in ("string", "boolean", "empty"):
        return whole.where(whole.notna(), None)
    return whole.map(as_text)


def _is_exact(number: Any) -> bool:
    """Whether a number is the same as a float."""
    return not isinstance(number, Integral) or int(number) == int(float(number))
