"""Whether ids are plausible: damaged numbers are refused, placeholders and cases that can hardly be one reported.

Splits and the exclusion of a query's own case rest on case ids: ids that a spreadsheet has rounded, or that say "none",
join cases that have nothing in common, and every number computed from them is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.errors import some_of
from hierderm.taxonomy.names import joined_spellings

MANY_IMAGES = 20  # of one case, above which it is reported
_DAMAGED = re.compile(  # 1.57398E+17, 1,57E+17 and what a spreadsheet shows in place of a value
    r"[+-]?\d+([.,]\d+)?[eE]\+\d{1,3}|[+-]?\d[.,]\d+[eE]\d{1,3}|#(N/A|REF!|VALUE!|NAME\?|NUM!|DIV/0!|NULL!)|#{2,}"
)
_DATE = re.compile(r"\d{1,2}-[A-Z][a-z]{2}(-\d{2,4})?|[A-Z][a-z]{2}-\d{2,4}")  # 3-12 became 12-Mar
_PLACEHOLDERS = frozenset((
    "na", "n/a", "n.a.", "n a", "nan", "nil", "none", "null", "nat", "<na>", "unknown", "unk", "unbekannt", "inconnu",
    "missing", "undefined", "unspecified", "not available", "not applicable", "no id", "anonymous", "anonym", "tbd",
    "dummy", "?", "??", "???", "-", "--", "---", ".", "_", "xxx", "0", "00", "000", "0000", "-1", "-9", "-99", "-999",
    "-9999", "999", "9999",
))  # fmt: skip


def damaged_ids(values: pd.Series) -> dict[int, str]:
    """Positions of ids that are damaged numbers, and by what they are known."""
    damaged = {
        position: f"'{value}' is a number that a spreadsheet has damaged"
        for position, value in enumerate(values)
        if _DAMAGED.fullmatch(value)
    }
    long = {value for value in set(values) if re.fullmatch(r"[+-]?\d{16,25}", value)}
    if how := _rounded([value.lstrip("+-") for value in long]):
        damaged |= {position: f"'{value}' {how}" for position, value in enumerate(values) if value in long}
    return damaged


def _rounded(digits: Iterable[str]) -> str:
    """How all of these long numbers were rounded, '' where they were not: by chance in less than one table in 1,000."""
    digits = list(digits)
    if sum(len(number) - 15 for number in digits) >= 3 and not any(number[15:].strip("0") for number in digits):
        return "was rounded to 15 digits, as all long ids here, which spreadsheets do"
    steps = [max(1.0, np.spacing(float(number))) for number in digits]  # of 64-bit floating point numbers
    if np.log2(steps).sum() >= 10 and all(int(n) % int(step) == 0 for n, step in zip(digits, steps, strict=True)):
        return "was rounded to a floating point number, as all long ids here"
    return ""


def _in_a_row(value: str, ids: Collection[str]) -> bool:
    """Whether a number's neighbours are ids, too: in a count of cases, 999 is one of them and no placeholder."""
    if not value.isdecimal():
        return False
    beside = [str(int(value) + step).zfill(len(value)) for step in (-1, 1)]
    return any(number in ids for number in beside)


def id_notes(frame: pd.DataFrame) -> list[str]:
    """What a person should look at before believing the case ids, in words."""
    notes = []
    for name in (c.CASE_ID, c.IMAGE_ID):
        counts = frame[name].value_counts()
        ids = [str(value) for value in counts.index]
        known = set(ids)
        empty = [value for value in ids if value.casefold() in _PLACEHOLDERS and not _in_a_row(value, known)]
        if empty:
            shown = some_of([f"'{value}' ({counts[value]} image(s))" for value in empty])
            notes.append(f"{name}(s) that may stand for an unknown one: {shown}. Each counts as one {name[:-3]}.")
        if floats := [value for value in ids if re.fullmatch(r"-?\d+\.0+", value)]:
            notes.append(f"{len(floats)} {name}(s) look like numbers read as floating point: {some_of(floats)}.")
        if dates := [value for value in ids if _DATE.fullmatch(value)]:
            notes.append(f"{len(dates)} {name}(s) look like dates that a spreadsheet made of them: {some_of(dates)}.")
        if alike := joined_spellings(ids):
            notes.append(f"{name}s that differ in case, accents or spaces alone count as different: {some_of(alike)}.")
    notes += _damaged_columns(frame)
    images = frame[c.CASE_ID].value_counts()
    if len(images) == 1 < len(frame):
        notes.append(f"all {len(frame)} images are of one case, '{images.index[0]}': no split by case is possible.")
    elif len(large := images[images > MANY_IMAGES]):
        shown = some_of([f"'{case}' ({count})" for case, count in large.items()])
        notes.append(f"{len(large)} case(s) have more than {MANY_IMAGES} images: {shown}. Are they one case each?")
    pairs = frame[[c.CASE_ID, c.CONDITION]].drop_duplicates()
    several = pairs[pairs[c.CASE_ID].duplicated(keep=False)].groupby(c.CASE_ID, sort=False)[c.CONDITION]
    if len(several):
        shown = some_of([f"'{case}' ({some_of(list(names))})" for case, names in several])
        notes.append(f"{len(several)} case(s) have images of several conditions: {shown}.")
    return notes


def _damaged_columns(frame: pd.DataFrame) -> list[str]:
    """Which of the user's own columns hold damaged numbers, in words: a filter by them would find other rows, too."""
    notes = []
    for name in frame.columns.difference([*c.TEXT, c.FITZPATRICK, c.MONK], sort=False):
        values = frame[name].dropna()
        if pd.api.types.is_float_dtype(values):
            wrong = [f"{value:.0f}" for value in values[np.abs(values) >= 2.0**53].unique()]
        else:
            texts = pd.Series(list({value: None for value in values if isinstance(value, str)}), dtype=object)
            wrong = [texts[position] for position in damaged_ids(texts)]
        if wrong:
            notes.append(
                f"column '{name}' has {len(wrong)} value(s) that a spreadsheet or floating point has damaged: "
                f"{some_of(wrong)}. Several may have become one: take it from the original."
            )
    return notes
