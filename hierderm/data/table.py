"""The table of images and cases: the checked value object, and reading a table from a file."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hierderm import columns as c
from hierderm.data.image_files import file_hashes
from hierderm.delimited import PLAIN, decode_text, format_delimited, parse_delimited
from hierderm.errors import CaseTableError, Fault, describe_faults
from hierderm.files import os_faults, read_regular, replacing, text_hash
from hierderm.notebook import with_table
from hierderm.parquet import read_parquet, write_parquet
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import IntArray, Mask

ROW = "row"  # name of an index that numbers the rows of a file
logger = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class CaseTable:
    """A checked table, one row an image, with the tree its conditions belong to.

    `frame` has the columns of `hierderm.columns` and any others of the user's; conditions carry the tree's own
    spelling. Relative image paths start at `root`. `excluded` lists the rows left out by choice, with the reason;
    `notes` says what was read in another way than it is written, and which ids are doubtful.
    """

    frame: pd.DataFrame
    taxonomy: Taxonomy
    root: Path
    excluded: tuple[Fault, ...] = field(default=(), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))  # a text is taken, too

    def __repr__(self) -> str:
        cases = self.frame[c.CASE_ID].nunique()
        return f"CaseTable({len(self)} images of {cases} cases, {len(self.excluded)} rows left out, {self.taxonomy!r})"

    def _repr_html_(self) -> str:
        return with_table(self, self.frame)

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def fine(self) -> IntArray:
        """Condition numbers, shape (n_images,), int64."""
        return self.taxonomy.encode(self.frame[c.CONDITION])

    def labels(self, level: int) -> IntArray:
        """Node numbers on a level of the tree.

        Args:
            level: Number of the level, 0 the coarsest, -1 that of the conditions.

        Returns:
            The numbers, shape (n_images,), int64.
        """
        return self.taxonomy.to_level(self.fine, level)

    @cached_property
    def case_ids(self) -> npt.NDArray[np.str_]:
        """Case ids, shape (n_images,), text."""
        return self.frame[c.CASE_ID].to_numpy(dtype=str)

    @property
    def paths(self) -> list[Path]:
        """Where each image file is."""
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
        return split_hash(self.case_ids.tolist(), self.splits.tolist())

    @cached_property
    def table_hash(self) -> str:
        """Twelve hex digits over images, cases, labels, split and image files; it goes into caches and runs."""
        columns = [name for name in (c.IMAGE_ID, c.CASE_ID, c.CONDITION, c.SPLIT) if name in self.frame]
        rows = [self.frame[name].astype(str).tolist() for name in columns]
        weights = [_rounded(text) for text in self.frame.get(c.WEIGHTS, [])]
        return text_hash(json.dumps([columns, rows, weights, self.image_hashes]))

    @property
    def image_hashes(self) -> list[str]:
        """The hash of each image file as it is now, '' where there is none."""
        return file_hashes(self.paths)

    def select(self, rows: Mask | IntArray) -> CaseTable:
        """The table of some rows, in their order; the tree stays whole.

        Args:
            rows: True for each row that stays, shape (n_images,), or positions of rows, shape (n_rows,).

        Returns:
            The table of these rows.
        """
        return replace(self, frame=self.frame.iloc[np.arange(len(self))[rows]].reset_index(drop=True))

    def part(self, split: str) -> CaseTable:
        """The rows of one split.

        Args:
            split: 'train', 'validation' or 'test'.

        Returns:
            The table of these rows.

        Raises:
            CaseTableError: It has no images, or the table no split.
        """
        rows = self.splits == split
        if not rows.any():
            raise CaseTableError(f"the split '{split}' has no images. Make the fractions larger, or add cases.")
        return self.select(rows)

    def image_counts(self) -> dict[str, int]:
        """Count the images of each condition that occurs.

        Returns:
            The numbers by name, the largest first.
        """
        return {str(name): int(count) for name, count in self.frame[c.CONDITION].value_counts().items()}

    def with_taxonomy(self, taxonomy: Taxonomy) -> CaseTable:
        """The same images under another tree; rows whose condition it lacks are excluded and listed.

        A differential loses the names that the tree lacks, and what is left of it sums to 1 again.

        Args:
            taxonomy: The other tree.

        Returns:
            The table under it.
        """
        known = np.array([taxonomy.find(name) is not None for name in self.frame[c.CONDITION]])
        faults = tuple(
            Fault(str(row[c.IMAGE_ID]), f"condition '{row[c.CONDITION]}' is not in taxonomy '{taxonomy.id}'")
            for _, row in self.frame[~known].iterrows()
        )
        log_excluded("the table", faults, shown=5)
        frame = self.frame[known].reset_index(drop=True)
        return CaseTable(in_tree_names(frame, taxonomy), taxonomy, self.root, (*self.excluded, *faults), self.notes)

    def write(self, path: Path | str, *, replace: bool = False) -> None:
        """Write CSV or Parquet, by the suffix; image paths become relative to the file where they lie below it.

        Args:
            path: The file to write, whole or not at all.
            replace: Replace a file that lies there.

        Raises:
            OutputError: A file lies there, or can't be written.
        """
        path = Path(path)
        frame, folder = self.frame.copy(), path.absolute().parent
        full = [(self.root / name).absolute() for name in frame[c.IMAGE_PATH]]
        frame[c.IMAGE_PATH] = [str(p.relative_to(folder) if p.is_relative_to(folder) else p) for p in full]
        with replacing(path, replace=replace) as temporary:
            if path.suffix.lower() == ".parquet":
                write_parquet(frame, temporary)
            else:
                cells = frame.astype(object).where(frame.notna(), "").astype(str)
                text = format_delimited([list(map(str, cells.columns)), *cells.to_numpy()])
                temporary.write_text(text, encoding="utf-8", newline="")


def log_excluded(source: str, faults: Sequence[Fault], *, shown: int = 20) -> None:
    """Say which rows of a table are left out by the user's choice, and why."""
    if faults:
        logger.warning(describe_faults(f"{source}: {len(faults)} row(s) left out:", faults, shown=shown))


def in_tree_names(frame: pd.DataFrame, taxonomy: Taxonomy) -> pd.DataFrame:
    """Conditions and differentials in the tree's own spelling; `frame` is the caller's to change."""
    names = np.array(taxonomy.names(), dtype=object)
    frame[c.CONDITION] = names[taxonomy.encode(frame[c.CONDITION])]
    if c.WEIGHTS in frame:
        frame[c.WEIGHTS] = [_weights_in(taxonomy, text) for text in frame[c.WEIGHTS]]
    return frame


def _rounded(weights: str) -> dict[str, float]:
    """A differential as numbers that writing and reading leave as they are."""
    return {name: round(weight, 6) for name, weight in json.loads(weights).items()} if weights else {}


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


def read_frame(path: Path | str) -> pd.DataFrame:
    """A text table (all cells text, empty cells '') or Parquet file as a frame; its index is the number of each row.

    What is unusual about a text table, such as its separator, is logged. CaseTableError says what is wrong with it.
    """
    return read_described(path)[0]


@os_faults(CaseTableError)
def read_described(path: Path | str, *, encoding: str = "") -> tuple[pd.DataFrame, str]:
    """As `read_frame`, with the file's kind or encoding and separator in words. `encoding`: one that it must have."""
    path = Path(path)
    if not path.is_file():
        raise CaseTableError(f"{path}: the file does not exist.")
    try:
        content = read_regular(path)
        if path.suffix.lower() == ".parquet" or content.startswith(b"PAR1"):
            frame = read_parquet(path, CaseTableError)
            frame = frame.reset_index(drop=all(name is None for name in frame.index.names))
            numbers, found = list(range(2, len(frame) + 2)), "Parquet"
        else:
            text, found = decode_text(content, path.name, CaseTableError, encoding=encoding)
            sheet = parse_delimited(text, path.name, CaseTableError)
            for note in (*([] if found in PLAIN else [f"the file is {found}"]), *sheet.notes):
                logger.warning("%s: %s", path.name, note)
            frame = pd.DataFrame([record.cells for record in sheet.records], columns=sheet.header, dtype=str)
            numbers, found = [record.row for record in sheet.records], f"{found}, cells separated by {sheet.separator}"
    except (ValueError, OSError) as error:
        raise CaseTableError(f"{path}: not a readable table ({error}).") from None
    return frame.set_axis(pd.Index(numbers, name=ROW)).rename(columns=str), found


def read_text_frame(path: Path | str) -> pd.DataFrame:
    """As `read_frame`, with all cells as text, whatever the file's kind."""
    return read_frame(path).astype(object).map(as_text)


def row_numbers(frame: pd.DataFrame) -> list[int]:
    """The number of each row as a spreadsheet shows it, the header being row 1."""
    return [int(n) for n in frame.index] if frame.index.name == ROW else list(range(2, len(frame) + 2))


def as_text(value: Any) -> str:
    """A cell of any table as a person would write it: whole numbers without a point, missing values as ''."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace").strip()
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    if isinstance(value, float | np.floating | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value).strip()


def frame_from_rows(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of a loader as a frame with all columns that any row has, missing cells ''."""
    return pd.DataFrame(rows).astype(object).fillna("")


def split_hash(case_ids: Sequence[str], splits: Sequence[str]) -> str:
    """Twelve hex digits over which case is in which split; both shape (n_images,)."""
    return text_hash(json.dumps(sorted(set(zip(case_ids, splits, strict=True)))))
