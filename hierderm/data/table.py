"""The table of pictures and cases: reading, the one check for all its faults, and the checked value object."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from hierderm import columns as c
from hierderm.artifacts import replacing, text_hash
from hierderm.data.image_io import unreadable_pictures
from hierderm.errors import CaseTableError, Fault, describe_faults, suggest
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import IntArray, Mask

Choice = Literal["error", "exclude"]
WEIGHT_TOLERANCE = 0.02  # published weights are rounded to two decimals


@dataclass(frozen=True)
class CaseTable:
    """A checked table, one row an image, with the tree its conditions belong to.

    `frame` has the columns of `hierderm.columns` and any others of the user's; conditions carry the tree's own
    spelling. Relative image paths start at `root`. `excluded` lists the rows left out by choice, with the reason.
    """

    frame: pd.DataFrame
    taxonomy: Taxonomy
    root: Path
    excluded: tuple[Fault, ...] = field(default=(), compare=False)

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
        return CaseTable(_in_the_trees_names(frame, taxonomy), taxonomy, self.root, (*self.excluded, *faults))

    def write(self, path: Path) -> None:
        """Write CSV or Parquet, by the suffix; image paths become relative to the file where they lie below it."""
        frame, folder = self.frame.copy(), path.absolute().parent
        full = [(self.root / name).absolute() for name in frame[c.IMAGE_PATH]]
        frame[c.IMAGE_PATH] = [str(p.relative_to(folder) if p.is_relative_to(folder) else p) for p in full]
        with replacing(path) as temporary:
            if path.suffix == ".parquet":
                frame.to_parquet(temporary, index=False)
            else:
                frame.to_csv(temporary, index=False)


def parse_weights(text: str) -> dict[str, float]:
    """A differential from its JSON text; ValueError says what is wrong with it."""
    weights = json.loads(text)
    if not isinstance(weights, dict) or not weights:
        raise ValueError('weights must be a JSON object such as {"Eczema": 0.7, "Psoriasis": 0.3}')
    if not all(isinstance(value, int | float) and 0 < value <= 1 for value in weights.values()):
        raise ValueError("each weight must be a number in (0, 1]")
    if abs(sum(weights.values()) - 1) > WEIGHT_TOLERANCE:
        raise ValueError(f"the weights must sum to 1, got {sum(weights.values()):.3f}")
    return weights


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


def read_cases(
    path: Path,
    taxonomy: Taxonomy,
    *,
    image_root: Path | None = None,
    rename: Mapping[str, str] | None = None,
    decode: bool = True,
    unreadable: Choice = "error",
    unknown: Choice = "error",
) -> CaseTable:
    """Read and check a table of cases. `rename` maps our column names to the file's: {'condition': 'diagnosis'}."""
    frame = read_frame(path)
    wanted = dict(rename or {})
    lacking = sorted(set(wanted.values()) - set(frame.columns))
    if lacking:
        hints = "".join(suggest(name, frame.columns) for name in lacking)
        raise CaseTableError(f"{path.name} has no column {lacking}; it has {list(frame.columns)}.{hints}")
    frame = frame.rename(columns={theirs: ours for ours, theirs in wanted.items()})
    return check_cases(
        frame,
        taxonomy,
        image_root if image_root is not None else path.absolute().parent,
        source=path.name,
        decode=decode,
        unreadable=unreadable,
        unknown=unknown,
    )


def check_cases(
    frame: pd.DataFrame,
    taxonomy: Taxonomy,
    root: Path,
    *,
    source: str = "cases",
    decode: bool = True,
    check_pictures: bool = True,
    unreadable: Choice = "error",
    unknown: Choice = "error",
) -> CaseTable:
    """The one check of a table: every fault is found, and all are raised in one CaseTableError with row numbers.

    Rows are numbered as a spreadsheet shows them, the header being row 1. Rows with an unreadable picture or an
    unknown condition are faults, or with "exclude" are left out and listed in `CaseTable.excluded`. `decode` reads
    every picture; without it files only have to exist, and without `check_pictures` not even that (embeddings suffice).
    """
    _require_columns(frame, source)
    frame = _clean(frame)
    faults = [*_id_faults(frame, source), *_split_faults(frame, source), *_range_faults(frame, source)]
    excluded: dict[int, Fault] = {}
    for position, what in _condition_problems(frame, taxonomy).items():
        _sort_out(Fault(_row(source, position), what), position, unknown, faults, excluded)
    paths = [root / path for path in frame[c.IMAGE_PATH]] if check_pictures else []
    for position, reason in unreadable_pictures(paths, decode=decode).items():
        fault = Fault(_row(source, position), f"picture '{frame[c.IMAGE_PATH].iloc[position]}': {reason}.")
        _sort_out(fault, position, unreadable, faults, excluded)
    if faults:
        title = f"{source} has {len(faults)} fault(s):"
        hint = "\nPictures or conditions can be left out by choice: --unreadable exclude, --unknown exclude."
        raise CaseTableError(describe_faults(title, faults) + hint)
    if len(excluded) == len(frame):
        raise CaseTableError(describe_faults(f"{source}: no row is left, all are excluded:", list(excluded.values())))
    kept = frame.drop(index=list(excluded)).reset_index(drop=True)
    return CaseTable(_in_the_trees_names(kept, taxonomy), taxonomy, root, tuple(excluded.values()))


def _in_the_trees_names(frame: pd.DataFrame, taxonomy: Taxonomy) -> pd.DataFrame:
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


def _positions(wrong: pd.Series) -> list[int]:
    return [int(i) for i in np.flatnonzero(wrong)]


def _row(source: str, position: int) -> str:
    return f"{source} row {position + 2}"


def _sort_out(fault: Fault, position: int, choice: Choice, faults: list[Fault], excluded: dict[int, Fault]) -> None:
    if choice == "exclude":
        excluded.setdefault(position, fault)
    else:
        faults.append(fault)


def _require_columns(frame: pd.DataFrame, source: str) -> None:
    lacking = [name for name in c.REQUIRED if name not in frame]
    if lacking:
        hints = "".join(suggest(name, frame.columns) for name in lacking)
        raise CaseTableError(
            f"{source} must have the columns {', '.join(c.REQUIRED)}; {', '.join(lacking)} missing, it has "
            f"{list(frame.columns)}.{hints} Name your own with e.g. --column condition=diagnosis"
        )
    if frame.empty:
        raise CaseTableError(f"{source} has no rows; it must have one an image.")


def _clean(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.reset_index(drop=True).copy()
    for name in c.TEXT:
        if name in frame:
            if name in (c.IMAGE_ID, c.CASE_ID) and pd.api.types.is_float_dtype(frame[name]):
                raise CaseTableError(
                    f"column '{name}' must be text, got floating point numbers, which corrupt long ids. "
                    f"Read the table with dtype={{'{name}': str}}."
                )
            frame[name] = frame[name].fillna("").astype(str).str.strip()
    return frame


def _id_faults(frame: pd.DataFrame, source: str) -> list[Fault]:
    faults = []
    for name in c.REQUIRED:
        faults += [Fault(_row(source, i), f"{name} must not be empty.") for i in _positions(frame[name] == "")]
    repeated = frame[c.IMAGE_ID].duplicated() & (frame[c.IMAGE_ID] != "")
    for i in _positions(repeated):
        value = frame[c.IMAGE_ID].iloc[i]
        first = int(np.flatnonzero(frame[c.IMAGE_ID] == value)[0])
        faults.append(Fault(_row(source, i), f"image_id '{value}' is already that of row {first + 2}."))
    return faults


def _split_faults(frame: pd.DataFrame, source: str) -> list[Fault]:
    if c.SPLIT not in frame:
        return []
    faults = []
    for i in _positions(~frame[c.SPLIT].isin([*c.SPLITS, ""])):
        value = frame[c.SPLIT].iloc[i]
        faults.append(Fault(_row(source, i), f"split must be one of {list(c.SPLITS)}, got '{value}'."))
    first: dict[str, tuple[str, int]] = {}
    for i, (case, split) in enumerate(zip(frame[c.CASE_ID], frame[c.SPLIT], strict=True)):
        other, row = first.setdefault(case, (split, i))
        if other != split:
            what = f"case '{case}' is in two splits, '{other}' (row {row + 2}) and '{split}'; a case must be in one."
            faults.append(Fault(_row(source, i), what))
    return faults


def _range_faults(frame: pd.DataFrame, source: str) -> list[Fault]:
    faults = []
    for name, low, high in ((c.FITZPATRICK, 1, 6), (c.MONK, 1, 10)):
        if name not in frame:
            continue
        given = frame[name].astype(object).where(frame[name].notna() & (frame[name].astype(str) != ""), None)
        numbers = pd.to_numeric(given, errors="coerce")
        wrong = given.notna() & ~(numbers.between(low, high) & (numbers % 1 == 0))
        for i in _positions(wrong):
            what = f"{name} must be a whole number from {low} to {high} or empty, got '{given.iloc[i]}'."
            faults.append(Fault(_row(source, i), what))
        frame[name] = numbers.astype("Int64") if not wrong.any() else numbers
    return faults


def _condition_problems(frame: pd.DataFrame, taxonomy: Taxonomy) -> dict[int, str]:
    every_name = [name for node in taxonomy.levels[-1] for name in (node.name, *node.synonyms)]
    hints: dict[str, str] = {}

    def unknown(name: str) -> str:
        if name not in hints:
            hints[name] = suggest(name, every_name)
        return f"condition '{name}' is not in taxonomy '{taxonomy.id}'.{hints[name]}"

    problems: dict[int, str] = {}
    for position, name in enumerate(frame[c.CONDITION]):
        if name and taxonomy.find(name) is None:
            problems[position] = unknown(name)
    for position, text in enumerate(frame.get(c.WEIGHTS, pd.Series(dtype=str))):
        if text and position not in problems:
            try:
                strangers = [name for name in parse_weights(text) if taxonomy.find(name) is None]
            except ValueError as error:
                problems[position] = f"weights '{text[:60]}': {error}."
            else:
                if strangers:
                    problems[position] = f"weights: {unknown(strangers[0])}"
    return problems


def frame_from_rows(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of a loader as a frame with all columns that any row has, missing cells ''."""
    return pd.DataFrame(rows).astype(object).fillna("")
