"""Decimal commas: numbers as spreadsheets of many languages write them, read as numbers and reported."""

from __future__ import annotations

import re

import pandas as pd

from hierderm import columns as c

_WITH_COMMA = re.compile(r"[+-]?\d+,\d+")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


def without_decimal_commas(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The frame with points for decimal commas, and in words where they were.

    Only columns that hold nothing but numbers are changed, and none that is text by its name, such as ids. Where every
    comma has three digits behind it, it may divide thousands: such a column stays as it is, and that is reported.
    """
    changed, notes = {}, []
    for name in frame.columns.difference(list(c.TEXT), sort=False):
        cells = frame[name].dropna()
        texts = list(dict.fromkeys(cell for cell in cells if isinstance(cell, str) and cell))
        commas = [text for text in texts if _WITH_COMMA.fullmatch(text)]
        if not commas or not all(isinstance(cell, str) and _NUMBER.fullmatch(cell or "0") for cell in cells):
            continue
        if any("." in text for text in texts) or all(len(text.partition(",")[2]) == 3 for text in commas):
            notes.append(f"column '{name}' stays text: the comma of '{commas[0]}' may divide thousands.")
            continue
        changed[name] = frame[name].str.replace(",", ".", regex=False)
        notes.append(f"column '{name}' has decimal commas: '{commas[0]}' is read as {commas[0].replace(',', '.')}.")
    return frame.assign(**changed), notes
