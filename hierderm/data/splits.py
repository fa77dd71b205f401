"""Splits by case, stratified by condition, near-duplicates together; long tails go to training and are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hierderm import columns as c
from hierderm.config.settings import SplitConfig
from hierderm.data.checks import say_once
from hierderm.data.look_alikes import fingerprints_of, look_alikes
from hierderm.data.table import CaseTable
from hierderm.errors import some_of
from hierderm.types import IntArray


@dataclass(frozen=True)
class SplitReport:
    """What a split did: images and cases of each part, and what could not be stratified."""

    images: dict[str, int]
    cases: dict[str, int]
    single_group_conditions: int  # conditions with one group of cases: they stay in training
    cases_joined: int  # cases that share a group with another because images of theirs are the same photograph
    largest_group: int  # cases of the largest such group, 1 without any
    hash: str


def split_cases(table: CaseTable, config: SplitConfig) -> tuple[CaseTable, SplitReport]:
    """Divide a table by case into training, validation and test; cases with near-duplicate images stay together.

    Args:
        table: The cases; a split column that is there is replaced.
        config: Shares or folds, and the seed.

    Returns:
        The table with its column `split`, and how many images and cases each part has.
    """
    _, cases = np.unique(table.case_ids, return_inverse=True)
    hashes = tuple(table.image_hashes)
    pairs = _same_files(hashes)
    if config.near_duplicates:
        pairs = np.unique(np.concatenate([pairs, _look_alikes(tuple(table.paths), hashes)]), axis=0)
    groups = join_cases(cases, pairs)
    _say_joined(table, pairs[cases[pairs[:, 0]] != cases[pairs[:, 1]]])
    names, single = assign_splits(groups, table.fine, config)
    frame = table.frame.copy()
    frame[c.SPLIT] = names
    done = replace(table, frame=frame)
    n_in_group = np.bincount(np.unique(np.stack([groups, cases]), axis=1)[0])
    report = SplitReport(
        images={part: int((names == part).sum()) for part in c.SPLITS},
        cases={part: len(np.unique(cases[names == part])) for part in c.SPLITS},
        single_group_conditions=single,
        cases_joined=int(n_in_group[n_in_group > 1].sum()),
        largest_group=int(n_in_group.max()),
        hash=done.split_hash,
    )
    return done, report


def join_cases(cases: IntArray, pairs: IntArray) -> IntArray:
    """Groups of cases linked by pairs of their images, shape (n_pairs, 2), also by chains of pairs.

    `cases`: case number of each image, shape (n_images,). Returns the group number of each image, shape (n_images,).
    """
    n_cases = int(cases.max()) + 1
    links = cases[pairs[:, 0]], cases[pairs[:, 1]]
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), links), shape=(n_cases, n_cases))
    return connected_components(graph, directed=False)[1][cases].astype(np.int64)


def _same_files(hashes: Sequence[str]) -> IntArray:
    """Pairs of the first image of a file and every other image of it, shape (n_pairs, 2)."""
    first: dict[str, int] = {}
    found = [(first.setdefault(name, row), row) for row, name in enumerate(hashes) if name]
    return np.array([pair for pair in found if pair[0] != pair[1]], dtype=np.int64).reshape(-1, 2)


@lru_cache(maxsize=1)
def _look_alikes(paths: tuple[Path, ...], hashes: tuple[str, ...]) -> IntArray:
    """The look-alikes among images, which all folds of a table share. `hashes`: of the files, which may change."""
    return look_alikes(fingerprints_of(paths, hashes))


def _say_joined(table: CaseTable, pairs: IntArray) -> None:
    """Name the pairs of images of different cases that are the same photograph, those of two conditions apart."""
    images = table.frame[c.IMAGE_ID].to_numpy(dtype=str)
    differ = table.fine[pairs[:, 0]] != table.fine[pairs[:, 1]]
    for what, some in (("", pairs), (", with two conditions", pairs[differ])):
        if len(some):
            named = some_of([f"'{images[a]}' and '{images[b]}'" for a, b in some])
            say_once("split", f"{len(some)} pair(s) of images of two cases are the same photograph{what}: {named}.")


def assign_splits(groups: IntArray, fine: IntArray, config: SplitConfig) -> tuple[npt.NDArray[np.str_], int]:
    """The split of each image, shape (n_images,), and how many conditions have a single group.

    A group counts for the rarest condition among its images. A condition with one group goes to training; of the
    others at least one group stays in training. Over the conditions, from common to rare, the parts are filled so
    that their running totals keep to the fractions: rare conditions are neither all left out nor all held out.
    """
    rng = np.random.default_rng(config.seed)
    condition = _condition_of_groups(groups, fine)
    members = [rng.permutation(np.flatnonzero(condition == number)) for number in np.unique(condition)]
    members.sort(key=len, reverse=True)
    single = sum(len(rows) == 1 for rows in members)
    part = np.full(len(condition), c.TRAIN, dtype="<U10")
    if config.folds:
        offset = 0
        for rows in (m for m in members if len(m) > 1):
            part[rows[(np.arange(len(rows)) + offset) % config.folds == config.fold]] = c.TEST
            offset += len(rows)
    else:
        _fill(part, members, config.test_fraction, c.TEST)
    _fill(part, members, config.validation_fraction, c.VALIDATION)
    return part[groups], single


def _condition_of_groups(groups: IntArray, fine: IntArray) -> IntArray:
    pairs = np.unique(np.stack([groups, fine]), axis=1)
    n_groups_of = np.bincount(pairs[1])
    order = np.lexsort((pairs[1], n_groups_of[pairs[1]]))  # rarest first, ties by number
    condition = np.full(groups.max() + 1, -1, dtype=np.int64)
    for group, number in pairs[:, order[::-1]].T:  # the rarest is written last
        condition[group] = number
    return condition


def _fill(part: npt.NDArray[np.str_], members: list[IntArray], fraction: float, name: str) -> None:
    seen = given = 0
    for rows in members:
        if len(rows) == 1:
            continue
        free = rows[part[rows] == c.TRAIN]
        seen += len(rows)
        wanted = int(np.floor(fraction * seen + 0.5)) - given
        take = max(0, min(wanted, len(free) - 1))
        part[free[:take]] = name
        given += take
