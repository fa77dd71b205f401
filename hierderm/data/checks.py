"""The one check of a table of cases: every fault of a file is found and raised together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.data.image_io import unreadable_images
from hierderm.data.table import CaseTable, in_tree_names, read_frame
from hierderm.errors import CaseTableError, Fault, describe_faults, suggest
from hierderm.taxonomy.tree import Taxonomy

Choice = Literal["error", "exclude"]
WEIGHT_TOLERANCE = 0.02  # published weights are rounded to two decimals


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


def read_cases(
    path: Path | str,
    taxonomy: Taxonomy,
    *,
    image_root: Path | None = None,
    rename: Mapping[str, str] | None = None,
    decode: bool = True,
    unreadable: Choice = "error",
    unknown: Choice = "error",
) -> CaseTable:
    """Read and check a table of cases.

    Args:
        path: A CSV or Parquet file with the columns image_path, image_id, case_id and condition; docs/data.md lists
            those it may have besides.
        taxonomy: The tree that its conditions belong to.
        image_root: Folder that relative image paths start at; by default the table's own.
        rename: Our column names and the file's, e.g. `{"condition": "diagnosis"}`.
        decode: Decode every image, not only see that the file exists.
        unreadable: Whether images that can't be read are an 'error', or rows to 'exclude' and list.
        unknown: The same of conditions that the taxonomy lacks.

    Returns:
        The table, with names as the tree spells them.

    Raises:
        CaseTableError: All faults of the table, each with its row.
    """
    path = Path(path)
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
    check_images: bool = True,
    unreadable: Choice = "error",
    unknown: Choice = "error",
) -> CaseTable:
    """The one check of a table: every fault is found, and all are raised in one CaseTableError with row numbers.

    Rows are numbered as a spreadsheet shows them, the header being row 1. Rows with an unreadable image or an
    unknown condition are faults, or with "exclude" are left out and listed in `CaseTable.excluded`. `decode` reads
    every image; without it files only have to exist, and without `check_images` not even that (embeddings suffice).
    """
    _require_columns(frame, source)
    frame = _clean(frame)
    faults = [*_id_faults(frame, source), *_split_faults(frame, source), *_range_faults(frame, source)]
    excluded: dict[int, Fault] = {}
    for position, what in _condition_problems(frame, taxonomy).items():
        _sort_out(Fault(_row(source, position), what), position, unknown, faults, excluded)
    paths = [root / path for path in frame[c.IMAGE_PATH]] if check_images else []
    for position, reason in unreadable_images(paths, decode=decode).items():
        fault = Fault(_row(source, position), f"image '{frame[c.IMAGE_PATH].iloc[position]}': {reason}.")
        _sort_out(fault, position, unreadable, faults, excluded)
    if faults:
        title = f"{source} has {len(faults)} fault(s):"
        hint = "\nImages or conditions can be left out by choice: --unreadable exclude, --unknown exclude."
        raise CaseTableError(describe_faults(title, faults) + hint)
    if len(excluded) == len(frame):
        raise CaseTableError(describe_faults(f"{source}: no row is left, all are excluded:", list(excluded.values())))
    kept = frame.drop(index=list(excluded)).reset_index(drop=True)
    return CaseTable(in_tree_names(kept, taxonomy), taxonomy, root, tuple(excluded.values()))


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
                unknown_names = [name for name in parse_weights(text) if taxonomy.find(name) is None]
            except ValueError as error:
                problems[position] = f"weights '{text[:60]}': {error}."
            else:
                if unknown_names:
                    problems[position] = f"weights: {unknown(unknown_names[0])}"
    return problems
