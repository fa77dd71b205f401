"""What every loader of a data set returns, and what those of published tables share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hierderm.errors import CaseTableError, Fault

if TYPE_CHECKING:
    import pandas as pd

    from hierderm.data.checks import Choice
    from hierderm.data.table import CaseTable
    from hierderm.taxonomy.tree import Taxonomy


@dataclass(frozen=True)
class Published:
    """A data set as it was published, not yet checked.

    `frame`: a row an image, with the columns of `hierderm.columns`; images are found by path or name in `root` and the
    folders below. `source`: its name in messages. `counts`: what was counted on the way. `left_out`: what is not in the
    frame, by reason, each thing named. `brings_tree`: the taxonomy comes from the data set itself and has no file yet.
    """

    frame: pd.DataFrame
    taxonomy: Taxonomy
    root: Path
    source: str
    counts: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    brings_tree: bool = False

    def checked(self, *, unreadable: Choice = "error", unknown: Choice = "error") -> CaseTable:
        """The checked table; CaseTableError with all its faults."""
        from hierderm.data.checks import check_cases

        return check_cases(
            self.frame, self.taxonomy, self.root, source=self.source, anywhere=True, unreadable=unreadable,
            unknown=unknown,
        )  # fmt: skip

    @property
    def exclusions(self) -> tuple[Fault, ...]:
        """What was left out, each thing with its reason."""
        return tuple(Fault(name, f"left out: {why}") for why, names in self.left_out.items() for name in names)


def read_published(place: Path, names: Sequence[str], columns: Collection[str]) -> tuple[pd.DataFrame, Path]:
    """The published table, all cells text, and its file: `place` itself, or the first of `names` in that folder.

    Raises:
        CaseTableError: None of them is there, or the table lacks one of `columns`.
    """
    from hierderm.data.table import read_text_frame

    path = place = Path(place)
    if place.is_dir():
        path = next((place / name for name in names if (place / name).is_file()), place)
        if path == place:
            raise CaseTableError(f"{place} must be the published folder, with {' or '.join(names)}; it has none.")
    frame = read_text_frame(path)
    if lacking := [name for name in columns if name not in frame]:
        raise CaseTableError(f"{path.name} must be the published {names[0]}; it has no column {lacking}.")
    return frame, path


def first_known(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """For each row the first cell with content of some columns, in their order, '' where all are empty."""
    known = [name for name in names if name in frame]
    return [next((cell for cell in row if cell), "") for row in frame[known].itertuples(index=False)]
