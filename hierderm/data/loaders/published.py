"""What every loader of a data set returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from hierderm.taxonomy.tree import Taxonomy


@dataclass(frozen=True)
class Published:
    """A data set as it was published, not yet checked.

    `frame`: a row an image, with the columns of `hierderm.columns`; image paths start at `root`. `source`: its name in
    messages. `counts`: what was counted on the way. `left_out`: what is not in the frame, by reason, each thing named.
    `brings_tree`: the taxonomy comes from the data set itself and has no file yet.
    """

    frame: pd.DataFrame
    taxonomy: Taxonomy
    root: Path
    source: str
    counts: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    brings_tree: bool = False
