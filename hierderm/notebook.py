"""How the public objects are shown in a notebook: their line, and a table under it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

ROWS = 10


def with_table(thing: object, frame: pd.DataFrame) -> str:
    """The repr of a thing, and the first rows of a table of it, as HTML."""
    shown = frame.head(ROWS).to_html(index=False, border=0, na_rep="–", float_format="{:.3f}".format, max_cols=12)
    rest = f"<p>{len(frame) - ROWS} more rows</p>" if len(frame) > ROWS else ""
    return f"<p>{escape(repr(thing))}</p>{shown}{rest}"
