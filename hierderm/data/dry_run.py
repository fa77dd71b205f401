"""What is understood of a foreign table, before anything is written: for a person to confirm or to correct."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from hierderm import columns as c
from hierderm.data.checks import check_cases, take_columns
from hierderm.data.column_names import proposed_columns
from hierderm.data.condition_names import unknown_names
from hierderm.data.numbers import without_decimal_commas
from hierderm.errors import CaseTableError, some_of
from hierderm.taxonomy.tree import Taxonomy


@dataclass
class Understood:
    """What a dry run finds.

    `columns`: ours and the table's, those that were given and the likely others; `unknown`: names that the taxonomy
    lacks, with their images; `faults`: what else would stop the command, '' where nothing; `lines`: all in words.
    """

    columns: dict[str, str]
    unknown: dict[str, int] = field(default_factory=dict)
    faults: str = ""
    lines: list[str] = field(default_factory=list)


def understand(
    frame: pd.DataFrame, given: Mapping[str, str], taxonomy: Taxonomy, root: Path, source: str, *, anywhere: bool
) -> Understood:
    """Read a table as far as it goes; images are looked for and not decoded.

    Args:
        frame: The table as it was read.
        given: Our columns and the table's, as the user named them.
        taxonomy: The tree that its conditions belong to.
        root: Folder that image paths start at.
        source: The table's name in messages.
        anywhere: Images may lie in any folder below `root`.

    Raises:
        CaseTableError: A column that was given is not there.
    """
    likely = proposed_columns(frame.columns, given)
    columns = {ours: theirs[0] for ours, theirs in likely.items()} | dict(given)
    found = Understood(columns, lines=_columns_in_words(frame, given, likely))
    taken, notes = without_decimal_commas(take_columns(frame, columns, source))
    found.lines += notes
    if lacking := [name for name in c.REQUIRED if name not in taken]:
        found.faults = f"no column for {', '.join(lacking)}: name one with --column {lacking[0]}=YOURS."
        return found
    found.unknown = unknown_names(taken, taxonomy)
    n_names = taken[c.CONDITION].nunique()
    lost = f"{len(found.unknown)} not in taxonomy '{taxonomy.id}': {some_of(list(found.unknown))}"
    found.lines.append(f"conditions: {n_names} names, {lost if found.unknown else 'all in the taxonomy'}")
    known = taken[~taken[c.CONDITION].astype(str).str.strip().isin(list(found.unknown))]
    try:
        table = check_cases(known, taxonomy, root, source=source, decode=False, anywhere=anywhere, unknown="exclude")
    except CaseTableError as error:
        found.faults = str(error)
        return found
    n_cases, n_conditions = len(set(table.case_ids)), len(table.image_counts())
    found.lines.append(f"table: {len(table)} images of {n_cases} cases, {n_conditions} conditions")
    return found


def _columns_in_words(frame: pd.DataFrame, given: Mapping[str, str], likely: Mapping[str, list[str]]) -> list[str]:
    lines, used = [], {*given.values(), *(theirs[0] for theirs in likely.values())}
    for ours in (*c.TEXT, c.FITZPATRICK, c.MONK):
        if ours in given:
            lines.append(f"{ours}: '{given[ours]}', as given")
        elif ours in likely:
            also = f"; or is it {some_of(likely[ours][1:])}?" if likely[ours][1:] else ""
            lines.append(f"{ours}: '{likely[ours][0]}', proposed{also}")
        elif ours in frame:
            lines.append(f"{ours}: the column of this name")
            used.add(ours)
    own = [name for name in frame.columns if name not in used]
    return [*lines, f"kept as they are: {', '.join(own)}"] if own else lines
