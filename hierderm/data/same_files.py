"""Images of a table that have one file, by its hash: in two splits a fault, elsewhere to be said."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from hierderm import columns as c
from hierderm.errors import Fault, some_of


def two_splits(frame: pd.DataFrame, rows: Sequence[str]) -> list[Fault]:
    """Images whose file, by its hash, is that of one of another split; `rows`: what each is called, number last."""
    if c.SPLIT not in frame:
        return []
    faults, first, splits = list[Fault](), dict[str, int](), frame[c.SPLIT].tolist()
    for position, (image, split) in enumerate(zip(frame[c.IMAGE_HASH], splits, strict=True)):
        row = first.setdefault(image, position) if image and split else position
        if splits[row] != split:
            number = rows[row].rpartition(" ")[2]
            what = (
                f"image '{frame[c.IMAGE_ID].iloc[position]}' ({split}) has the file of image "
                f"'{frame[c.IMAGE_ID].iloc[row]}' ({splits[row]}, row {number}); a photograph must be in "
                "one split. Join their cases and split again."
            )
            faults.append(Fault(rows[position], what))
    return faults


def same_files(frame: pd.DataFrame) -> list[str]:
    """Which image ids have the same file, in words: those of one case, of several, and of several conditions."""
    known = frame[(frame[c.IMAGE_HASH] != "") & frame[c.IMAGE_HASH].duplicated(keep=False)]
    kinds: dict[str, list[str]] = {}
    for _, group in known.groupby(c.IMAGE_HASH, sort=False):
        several = [name for name in (c.CONDITION, c.CASE_ID) if group[name].nunique() > 1]
        what = {c.CONDITION: "several conditions", c.CASE_ID: "several cases"}.get(next(iter(several), ""), "one case")
        kinds.setdefault(what, []).append(" = ".join(f"'{image}'" for image in group[c.IMAGE_ID]))
    return [
        f"{len(groups)} image file(s) have several image ids, of {what}: {some_of(groups)}. One photograph must be one "
        "row, or of one case."
        for what, groups in kinds.items()
    ]
