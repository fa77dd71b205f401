"""The one check of a table of cases: every fault of a file is found and raised together."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.data.column_names import in_words, proposed_columns
from hierderm.data.ids import damaged_ids, id_notes
from hierderm.data.image_files import Anywhere, Spellings, file_hashes
from hierderm.data.image_io import unreadable_images
from hierderm.data.same_files import same_files, two_splits
from hierderm.data.shard import Shard
from hierderm.data.table import CaseTable, as_text, in_tree_names, log_excluded, read_frame, row_numbers
from hierderm.errors import CaseTableError, Fault, describe_faults, some_of, suggest
from hierderm.taxonomy.tree import Taxonomy

Choice = Literal["error", "exclude"]
WEIGHT_TOLERANCE = 0.02  # published weights are rounded to two decimals
SAID: set[str] = set()  # notes that this process, or its parent, has logged
logger = logging.getLogger(__name__)


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
    image_root: Path | str | None = None,
    rename: Mapping[str, str] | None = None,
    decode: bool = True,
    check_images: bool = True,
    unreadable: Choice = "error",
    unknown: Choice = "error",
    shard: Shard | None = None,
) -> CaseTable:
    """Read and check a table of cases.

    Args:
        path: A CSV or Parquet file with the columns image_path, case_id and condition; docs/data.md lists those it may
            have besides.
        taxonomy: The tree that its conditions belong to.
        image_root: Folder that relative image paths start at; by default the table's own.
        rename: Our column names and the file's, e.g. `{"condition": "diagnosis"}`; one of the file's may serve several.
        decode: Decode every image, not only see that the file exists.
        check_images: Look at the image files at all.
        unreadable: Whether images that can't be read are an 'error', or rows to 'exclude' and list.
        unknown: The same of conditions that the taxonomy lacks.
        shard: The part of the rows to take. Ids, splits and conditions are checked in all rows, images in these.

    Returns:
        The table, with names as the tree spells them. What was read in another way than it is written, and ids that
        are doubtful, are logged and in its `notes`.

    Raises:
        CaseTableError: All faults of the table, each with its row.
    """
    path = Path(path)
    return check_cases(
        take_columns(read_frame(path), rename or {}, path.name),
        taxonomy,
        image_root if image_root is not None else path.absolute().parent,
        source=path.name,
        decode=decode,
        check_images=check_images,
        unreadable=unreadable,
        unknown=unknown,
        shard=shard,
    )


def take_columns(frame: pd.DataFrame, wanted: Mapping[str, str], source: str) -> pd.DataFrame:
    """The frame with our names for columns of the file, `wanted`: ours -> the file's. The named column wins.

    A column of the file that has our name and is not the one that is named goes, and that is logged.
    """
    known = (*c.TEXT, c.FITZPATRICK, c.MONK)
    lacking = sorted(set(wanted.values()) - set(frame.columns))
    if lacking:
        hints = "".join(suggest(name, frame.columns) for name in lacking)
        raise CaseTableError(f"{source} has no column {lacking}; it has {list(frame.columns)}.{hints}")
    if foreign := sorted(set(wanted) - set(known)):
        hints = "".join(suggest(name, known) for name in foreign)
        raise CaseTableError(f"columns can be named as one of {list(known)}, got {foreign}.{hints}")
    for ours, theirs in wanted.items():
        if ours in frame and theirs != ours and ours not in wanted.values():
            logger.warning("%s: its own column '%s' is not used, '%s' is taken for it.", source, ours, theirs)
    taken: dict[str, pd.Series] = {}
    for name in frame.columns:
        served = [mine for mine, theirs in wanted.items() if theirs == name]
        taken |= {mine: frame[name] for mine in served or [name] if served or name not in wanted}
    return pd.DataFrame(taken, index=frame.index)


def check_cases(
    frame: pd.DataFrame,
    taxonomy: Taxonomy,
    root: Path | str,
    *,
    source: str = "cases",
    decode: bool = True,
    check_images: bool = True,
    anywhere: bool = False,
    unreadable: Choice = "error",
    unknown: Choice = "error",
    shard: Shard | None = None,
) -> CaseTable:
    """The one check of a table: every fault is found, and all are raised in one CaseTableError with row numbers.

    Rows are numbered as a spreadsheet shows them, the header being row 1. Rows with an unreadable image or an
    unknown condition are faults, or with "exclude" are left out and listed in `CaseTable.excluded`. `decode` reads
    every image; without it files only have to exist, and without `check_images` not even that (embeddings suffice).
    `anywhere`: images may lie in any folder below `root`. Without image ids the names of the files are taken. The hash
    of each file goes into the table; where it has one that differs, the file was replaced, which is a fault, and so is
    one file in two splits. Of a `shard` the table is its rows; what needs no image is checked in all.
    """
    root, rows, notes = Path(root), [f"{source} row {number}" for number in row_numbers(frame)], list[str]()
    _require_columns(frame, source)
    frame = _with_image_ids(_clean(frame), notes)
    faults = [
        Fault(rows[position], what)
        for find in (_id_faults, _split_faults, _range_faults)
        for position, what in find(frame, rows)
    ]
    excluded = dict[int, Fault]()
    conditions = _condition_problems(frame, taxonomy)
    if shard:
        frame, rows, conditions = _taken(shard.rows(len(frame)), frame, rows, conditions)
    several = _respell(frame, root, anywhere, notes) if check_images else {}
    faults = [*(Fault(rows[position], what) for position, what in several.items()), *faults]
    n_own = len(faults)
    for position, what in conditions.items():
        _sort_out(Fault(rows[position], what), position, unknown, faults, excluded)
    for position, reason in _image_problems(frame, root, decode).items() if check_images else ():
        if position in several:
            continue
        fault = Fault(rows[position], f"image '{frame[c.IMAGE_PATH].iloc[position]}': {reason}")
        _sort_out(fault, position, unreadable, faults, excluded)
    faults += _file_faults(frame, rows, root) if check_images else []
    if faults:
        for note in id_notes(frame):
            say_once(source, note)
        title = f"{source} has {len(faults)} fault(s):"
        hint = "\nImages or conditions can be left out by choice: --unreadable exclude, --unknown exclude."
        raise CaseTableError(describe_faults(title, faults) + hint * (len(faults) > n_own))
    if len(excluded) == len(frame):
        raise CaseTableError(describe_faults(f"{source}: no row is left, all are excluded:", list(excluded.values())))
    log_excluded(source, list(excluded.values()))
    kept = frame.drop(index=list(excluded)).reset_index(drop=True)
    notes += [*_read_as(kept, taxonomy), *id_notes(kept), *(same_files(kept) if check_images else ())]
    for note in notes:
        say_once(source, note)
    return CaseTable(in_tree_names(kept, taxonomy), taxonomy, root, tuple(excluded.values()), tuple(notes))


def _taken(
    part: slice, frame: pd.DataFrame, rows: list[str], problems: dict[int, str]
) -> tuple[pd.DataFrame, list[str], dict[int, str]]:
    """Some rows, what they are called and their problems, by their positions among these rows."""
    own = {position - part.start: what for position, what in problems.items() if part.start <= position < part.stop}
    return frame.iloc[part].reset_index(drop=True), rows[part], own


def say_once(source: str, note: str) -> None:
    """Log a note once, however often a table, or a copy of it in a run, is read."""
    if note not in SAID:
        SAID.add(note)
        logger.warning("%s: %s", source, note)


def _positions(wrong: pd.Series) -> list[int]:
    return [int(i) for i in np.flatnonzero(wrong)]


def _sort_out(fault: Fault, position: int, choice: Choice, faults: list[Fault], excluded: dict[int, Fault]) -> None:
    if choice == "exclude":
        excluded.setdefault(position, fault)
    else:
        faults.append(fault)


def _require_columns(frame: pd.DataFrame, source: str) -> None:
    lacking = [name for name in c.REQUIRED if name not in frame]
    if lacking:
        hints = "".join(suggest(name, map(str, frame.columns)) for name in lacking)
        likely = {
            ours: theirs[0] for ours, theirs in proposed_columns(map(str, frame.columns)).items() if ours in lacking
        }
        raise CaseTableError(
            f"{source} must have the columns {', '.join(c.REQUIRED)}; {', '.join(lacking)} missing, it has "
            f"{list(frame.columns)}.{hints} Name your own with "
            f"{in_words(likely) or 'e.g. --column condition=diagnosis'}"
        )
    if frame.empty:
        raise CaseTableError(f"{source} has no rows; it must have one an image.")


def _clean(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.reset_index(drop=True).copy()
    for name in c.TEXT:
        if name in frame:
            if name in (c.IMAGE_ID, c.CASE_ID) and pd.api.types.is_float_dtype(frame[name]):
                raise CaseTableError(
                    f"column '{name}' must be text, got floating point numbers, which corrupt long ids; an empty cell "
                    f"among whole numbers makes them so. Write it as text, or read it with dtype={{'{name}': str}}."
                )
            nested = frame[name].map(lambda cell: isinstance(cell, list | tuple | dict | set | np.ndarray))
            if nested.any():
                raise CaseTableError(
                    f"column '{name}' must have one value in each cell, got {frame[name][nested].iloc[0]!r} and "
                    f"{int(nested.sum()) - 1} other(s) like it. Write a row for each, or a text."
                )
            frame[name] = frame[name].astype(object).map(as_text)
    return frame


def _with_image_ids(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    if c.IMAGE_ID not in frame:
        paths = frame[c.IMAGE_PATH].str.replace("\\", "/", regex=False)
        stems = paths.map(lambda path: PurePosixPath(path).stem)
        longer = paths.map(lambda path: str(PurePosixPath(path).parent / PurePosixPath(path).stem))
        frame[c.IMAGE_ID] = next((ids for ids in (stems, longer) if ids.is_unique), paths)
        notes.append("image_id is the name of each file, as the table has none.")
    return frame


def _respell(frame: pd.DataFrame, root: Path, anywhere: bool, notes: list[str]) -> dict[int, str]:
    """Take, in `frame`, the file that a path spelt another way can only mean; what is wrong where it can be several."""
    spellings, below = Spellings(), Anywhere(root) if anywhere else None
    paths, taken, wrong = list(frame[c.IMAGE_PATH]), list[str](), dict[int, str]()
    for position, name in enumerate(paths):
        if not name or "\0" in name or os.path.lexists(root / name):
            continue
        found = spellings.find(root, name)
        fit = [found] if found else below.find(name) if below else []
        if len(fit) == 1:
            paths[position] = fit[0]
            taken.append(f"'{name}' as '{fit[0]}'")
        elif fit:
            wrong[position] = f"image '{name}' may be any of {len(fit)} files: {some_of(fit)}. Name its folder, too."
    frame[c.IMAGE_PATH] = pd.Series(paths, dtype=object)
    if taken:
        notes.append(f"{len(taken)} image path(s) were found under another spelling: {some_of(taken)}.")
    return wrong


def _image_problems(frame: pd.DataFrame, root: Path, decode: bool) -> dict[int, str]:
    """Images that can't be read, and why: by position."""
    spellings, problems = Spellings(), dict[int, str]()
    for position, reason in unreadable_images([root / path for path in frame[c.IMAGE_PATH]], decode=decode).items():
        beside = spellings.beside(root / frame[c.IMAGE_PATH].iloc[position]) if "does not exist" in reason else []
        problems[position] = f"{reason}.{f' There is {some_of(beside)}.' if beside else ''}"
    return problems


def _file_faults(frame: pd.DataFrame, rows: Sequence[str], root: Path) -> list[Fault]:
    """Files that were replaced since the table was made, and files that are in two splits; writes their hashes."""
    found = file_hashes([root / path for path in frame[c.IMAGE_PATH]])
    said = frame[c.IMAGE_HASH] if c.IMAGE_HASH in frame else [""] * len(frame)
    faults = [
        Fault(
            rows[position],
            f"image '{frame[c.IMAGE_ID].iloc[position]}' was replaced since the table was made: its image_hash is "
            f"'{before}', that of the file is '{now}'. Restore the file, or empty the cell if the new one is meant.",
        )
        for position, (before, now) in enumerate(zip(said, found, strict=True))
        if before and now and before != now
    ]
    frame[c.IMAGE_HASH] = found
    return [*faults, *two_splits(frame, rows)]


def _read_as(frame: pd.DataFrame, taxonomy: Taxonomy) -> list[str]:
    """Which conditions the tree spells in another way, in words."""
    names = taxonomy.names()
    read = {name: names[taxonomy.index(name)] for name in frame[c.CONDITION].unique()}
    other = [f"'{name}' as '{own}'" for name, own in read.items() if name != own]
    return [f"{len(other)} condition(s) read by the tree's spelling or synonyms: {some_of(other)}."] if other else []


Problems = Iterator[tuple[int, str]]  # a row's position, and what is wrong with it


def _id_faults(frame: pd.DataFrame, rows: Sequence[str]) -> Problems:
    for name in (*c.REQUIRED, c.IMAGE_ID):
        yield from ((i, f"{name} must not be empty.") for i in _positions(frame[name] == ""))
    for i in _positions(frame[c.IMAGE_ID].duplicated() & (frame[c.IMAGE_ID] != "")):
        value = frame[c.IMAGE_ID].iloc[i]
        first = int(np.flatnonzero(frame[c.IMAGE_ID] == value)[0])
        yield i, f"image_id '{value}' is already that of row {_number(rows, first)}."
    for name in (c.IMAGE_ID, c.CASE_ID):
        for i, what in damaged_ids(frame[name]).items():
            yield i, f"{name} {what}. Take it from the original, and write the column as text."
        for i in _positions(~frame[name].map(str.isprintable)):
            yield i, f"{name} {frame[name].iloc[i]!a} has characters that can't be seen. Remove them."


def _number(rows: Sequence[str], position: int) -> str:
    return rows[position].rpartition(" ")[2]


def _split_faults(frame: pd.DataFrame, rows: Sequence[str]) -> Problems:
    if c.SPLIT not in frame:
        return
    for i in _positions(~frame[c.SPLIT].isin([*c.SPLITS, ""])):
        yield i, f"split must be one of {list(c.SPLITS)}, got '{frame[c.SPLIT].iloc[i]}'."
    first: dict[str, tuple[str, int]] = {}
    for i, (case, split) in enumerate(zip(frame[c.CASE_ID], frame[c.SPLIT], strict=True)):
        other, row = first.setdefault(case, (split, i))
        if other != split:
            where = f"'{other}' (row {_number(rows, row)}) and '{split}'"
            yield i, f"case '{case}' is in two splits, {where}; a case must be in one."


def _range_faults(frame: pd.DataFrame, rows: Sequence[str]) -> Problems:
    for name, low, high in ((c.FITZPATRICK, 1, 6), (c.MONK, 1, 10)):
        if name not in frame:
            continue
        cells = frame[name].astype(object).map(as_text)
        given = cells.where(cells != "", None)
        numbers = pd.to_numeric(given, errors="coerce")
        wrong = given.notna() & ~(numbers.between(low, high) & (numbers % 1 == 0))
        for i in _positions(wrong):
            yield i, f"{name} must be a whole number from {low} to {high} or empty, got '{given.iloc[i]}'."
        frame[name] = numbers.astype("Int64") if not wrong.any() else numbers


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
