"""Splits by case, stratified by condition, near-duplicates together; long tails go to training and are counted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hierderm import columns as c
from hierderm.config.settings import SplitConfig
from hierderm.data.image_io import perceptual_hashes
from hierderm.data.table import CaseTable
from hierderm.progress import track
from hierderm.types import IntArray


@dataclass(frozen=True)
class SplitReport:
    """What a split did: images and cases of each part, and what could not be stratified."""

    images: dict[str, int]
    cases: dict[str, int]
    single_group_conditions: int  # conditions with one group of cases: they stay in training
    cases_joined: int  # cases that share a group with another because images of theirs look the same
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
    groups = cases
    if config.near_duplicates >= 0:
        groups = join_near_duplicates(cases, perceptual_hashes(table.paths), config.near_duplicates)
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
        hash=done.split_hash,
    )
    return done, report


def join_near_duplicates(cases: IntArray, hashes: npt.NDArray[np.uint64], max_distance: int) -> IntArray:
    """Groups of cases linked by images whose hashes differ in at most `max_distance` of 256 bits.

    `cases`: case number of each image, shape (n_images,); `hashes`: shape (n_images, 4), uint64. Returns the group
    number of each image, shape (n_images,): cases of a chain of look-alikes share one.
    """
    first, second = [], []
    starts = range(0, len(hashes), 512)  # blocks, so that memory does not grow with the square
    for start in track(
        starts, "Comparing images", unit="blocks"
    ):  # blocks, so that memory does not grow with the square
        block = hashes[start : start + 512]
        distance = np.zeros((len(block), len(hashes)), dtype=np.uint16)
        for word in range(hashes.shape[1]):
            distance += np.bitwise_count(block[:, None, word] ^ hashes[None, :, word])
        row, column = np.nonzero(distance <= max_distance)
        first.append(cases[row + start])
        second.append(cases[column])
    links = np.concatenate(first), np.concatenate(second)
    n_cases = int(cases.max()) + 1
    graph = coo_array((np.ones(len(links[0]), dtype=np.int8), links), shape=(n_cases, n_cases))
    return connected_components(graph, directed=False)[1][cases].astype(np.int64)


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
    single = sum(len(of_condition) == 1 for of_condition in members)
    part = np.full(len(condition), c.TRAIN, dtype="<U10")
    if config.folds:
        offset = 0
        for of_condition in (m for m in members if len(m) > 1):
            part[of_condition[(np.arange(len(of_condition)) + offset) % config.folds == config.fold]] = c.TEST
            offset += len(of_condition)
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
    for of_condition in members:
        if len(of_condition) == 1:
            continue
        free = of_condition[part[of_condition] == c.TRAIN]
        seen += len(of_condition)
        wanted = int(np.floor(fraction * seen + 0.5)) - given
        take = max(0, min(wanted, len(free) - 1))
        part[free[:take]] = name
        given += take
