"""The table of images and cases: the checked value object, and reading a table from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hierderm import columns as c
from hierderm.errors import CaseTableError, Fault
from hierderm.files import replacing, text_hash
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import IntArray, Mask


@dataclass(frozen=True, repr=False)
class CaseTable:
    """A checked table, one row an image, with the tree its conditions belong to.

    `frame` has the columns of `hierderm.columns` and any others of the user's; conditions carry the tree's own
    spelling. Relative image paths start at `root`. `excluded` lists the rows left out by choice, with the reason.
    """

    frame: pd.DataFrame
    taxonomy: Taxonomy
    root: Path
    excluded: tuple[Fault, ...] = field(default=(), compare=False)

    def __repr__(self) -> str:
        cases = self.frame[c.CASE_ID].nunique()
        return f"CaseTable({len(self)} images of {cases} cases, {len(self.excluded)} rows left out, {self.taxonomy!r})"

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def fine(self) -> IntArray:
        """Condition numbers, shape (n_images,), int64."""
        return self.taxonomy.encode(self.frame[c.CONDITION])

    def labels(self, level: int) -> IntArray:
        """Node numbers on a level of the tree, shape (n_images,), int64."""
        return self.taxonomy.to_level(self.fine, level)

    @cached_property
    def case_ids(self) -> npt.NDArray[np.str_]:
        """Case ids, shape (n_images,), text."""
        return self.frame[c.CASE_ID].to_numpy(dtype=str)

    @property
    def paths(self) -> list[Path]:
        return [self.root / path for path in self.frame[c.IMAGE_PATH]]

    @cached_property
    def splits(self) -> npt.NDArray[np.str_]:
        """The split of each image, shape (n_images,); an error where the table has not been split."""
        if c.SPLIT not in self.frame or (self.frame[c.SPLIT] == "").any():
            raise CaseTableError("the table has no split for some of its images. Make one with: hierderm split")
        return self.frame[c.SPLIT].to_numpy(dtype=str)

    @cached_property
    def split_hash(self) -> str:
        """Twelve hex digits over which case is in which split; it goes into checkpoints and reports."""
        pairs = sorted(set(zip(self.case_ids.tolist(), self.splits.tolist(), strict=True)))
        return text_hash(json.dumps(pairs))

    def select(self, rows: Mask | IntArray) -> CaseTable:
        """The table of some rows, in their order; the tree stays whole."""
        return replace(self, frame=self.frame.iloc[np.arange(len(self))[rows]].reset_index(drop=True))

    def part(self, split: str) -> CaseTable:
        """The rows of one split; an error where it is empty."""
        rows = self.splits == split
        if not rows.any():
            raise CaseTableError(f"the split '{split}' has no images. Make the fractions larger, or add cases.")
        return self.select(rows)

    def image_counts(self) -> dict[str, int]:
        """Images of each condition that occurs."""
        return {str(name): int(count) for name, count in self.frame[c.CONDITION].value_counts().items()}

    def with_taxonomy(self, taxonomy: Taxonomy) -> CaseTable:
        """The same images under another tree; rows whose condition it lacks are excluded and listed.

        A differential loses the names that the tree lacks, and what is left of it sums to 1 again.
        """
        known = np.array([taxonomy.find(name) is not None for name in self.frame[c.CONDITION]])
        faults = tuple(
            Fault(str(row[c.IMAGE_ID]), f"condition '{row[c.CONDITION]}' is not in taxonomy '{taxonomy.id}'")
            for _, row in self.frame[~known].iterrows()
        )
        frame = self.frame[known].reset_index(drop=True)
        return CaseTable(in_tree_names(frame, taxonomy), taxonomy, self.root, (*self.excluded, *faults))

    def write(self, path: Path, *, replace: bool = False) -> None:
        """Write CSV or Parquet, by the suffix; image paths become relative to the file where they lie below it.

        Args:
            path: The file to write, whole or not at all.
            replace: Replace a file that lies there.

        Raises:
            OutputError: A file lies there, or can't be written.
        """
        frame, folder = self.frame.copy(), path.absolute().parent
        full = [(self.root / name).absolute() for name in frame[c.IMAGE_PATH]]
        frame[c.IMAGE_PATH] = [str(p.relative_to(folder) if p.is_relative_to(folder) else p) for p in full]
        with replacing(path, replace=replace) as temporary:
            if path.suffix == ".parquet":
                frame.to_parquet(temporary, index=False)
            else:
                frame.to_csv(temporary, index=False)


def in_tree_names(frame: pd.DataFrame, taxonomy: Taxonomy) -> pd.DataFrame:
    """Conditions and differentials in the tree's own spelling; `frame` is the caller's to change."""
    names = np.array(taxonomy.names(), dtype=object)
    frame[c.CONDITION] = names[taxonomy.encode(frame[c.CONDITION])]
    if c.WEIGHTS in frame:
        frame[c.WEIGHTS] = [_weights_in(taxonomy, text) for text in frame[c.WEIGHTS]]
    return frame


def _weights_in(taxonomy: Taxonomy, text: str) -> str:
    if not text:
        return ""
    kept: dict[str, float] = {}
    for name, weight in json.loads(text).items():
        number = taxonomy.find(name)
        if number is not None:
            own = taxonomy.levels[-1][number].name
            kept[own] = kept.get(own, 0.0) + weight
    total = sum(kept.values())
    return json.dumps({name: weight / total for name, weight in kept.items()}, ensure_ascii=False) if kept else ""


def read_frame(path: Path) -> pd.DataFrame:
    """A CSV (all cells text, empty cells '') or Parquet file as a frame."""
    if not path.is_file():
        raise CaseTableError(f"{path}: the file does not exist.")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except pd.errors.EmptyDataError:
        raise CaseTableError(f"{path}: the file is empty; it must have a header row and a row an image.") from None
    except (ValueError, OSError) as error:
        raise CaseTableError(f"{path}: not a readable table ({error}).") from None


def frame_from_rows(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of a loader as a frame with all columns that any row has, missing cells ''."""
    return pd.DataFrame(rows).astype(object).fillna("")
