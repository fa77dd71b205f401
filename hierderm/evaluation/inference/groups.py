"""Every metric by skin tone, body site and source: with counts, intervals, the worst group and the gap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hierderm import columns as c
from hierderm.evaluation.catalogue import direction
from hierderm.evaluation.inference.bootstrap import interval, resampled_means
from hierderm.evaluation.scores import Scores
from hierderm.json_files import Known
from hierderm.types import FloatArray, IntArray, Mask

TextArray = npt.NDArray[np.str_]
BINS = {
    c.FITZPATRICK: (("I-II", 1, 2), ("III-IV", 3, 4), ("V-VI", 5, 6)),
    c.MONK: (("1-3", 1, 3), ("4-6", 4, 6), ("7-10", 7, 10)),
}
NAMED = (c.SKIN_TONE, c.BODY_SITE, c.SOURCE)
MOST_NAMES = 12  # body sites or sources that get a row of their own
FEWEST_CASES = 10  # of a group that can be called worst
TOGETHER = 2**21  # memberships of a permutation test that are held at a time
STATISTIC_ROUNDS = 100  # of metrics that are no means: each round computes them anew in every group


@dataclass(frozen=True)
class GroupScore:
    """One metric of one group, as `Metric`, for the images of `group` in `column`."""

    column: str
    group: str
    level: str
    name: str
    value: Known
    low: Known
    high: Known
    n_images: int
    n_cases: int


@dataclass(frozen=True)
class Gap:
    """How far the best and the worst group of a column lie apart in a metric that is a mean over images.

    `low`, `high`: interval of the gap between these two groups; `p_value`: of a gap this large or larger where cases
    are assigned to groups at random (permutation test), which allows for the choice of the two extremes.
    """

    column: str
    level: str
    name: str
    worst: str
    best: str
    value: Known
    low: Known
    high: Known
    p_value: Known


def groups_of(frame: pd.DataFrame) -> dict[str, TextArray]:
    """For each grouping that the table has, the group of each image, shape (n_images,), '' where it is not known."""
    found: dict[str, TextArray] = {}
    for column, bins in BINS.items():
        if column in frame:
            tones = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
            names = np.full(len(frame), "", dtype="<U20")
            for name, low, high in bins:
                names[(tones >= low) & (tones <= high)] = name
            found[column] = names
    for column in NAMED:
        if column in frame:
            texts = frame[column].fillna("").astype(str)
            kept = texts[texts != ""].value_counts().index[:MOST_NAMES]
            rest = "others"
            while rest in set(texts):
                rest = f"all {rest}"
            found[column] = np.where(texts.isin(kept) | (texts == ""), texts, rest).astype(str)
    return {column: names for column, names in found.items() if len(set(names) - {""}) > 1}


def group_scores(
    scores: Scores,
    groups: dict[str, TextArray],
    case_ids: TextArray,
    draws: npt.NDArray[np.uint8],
    confidence: float,
) -> list[GroupScore]:
    """Every metric in every group: those over images as means in the group, the others computed on the group alone."""
    keys = list(scores.per_image)
    table = np.stack([scores.per_image[key] for key in keys], axis=1)  # (n_images, n_keys)
    rows: list[GroupScore] = []
    for column, names in groups.items():
        for group in sorted(set(names) - {""}):
            inside = names == group
            counts = (int(inside.sum()), len(np.unique(case_ids[inside])))
            rounds = resampled_means(table[inside], draws[:, inside])
            for number, key in enumerate(keys):
                known = table[inside, number]
                known = known[~np.isnan(known)]
                if len(known):
                    value = float(known.mean())
                    ends = interval(value, rounds[:, number], confidence)
                    rows.append(GroupScore(column, group, *key, value, *ends, *counts))
            rows += _statistics(scores, column, group, inside, counts, draws[:STATISTIC_ROUNDS], confidence)
    return rows


def _statistics(
    scores: Scores,
    column: str,
    group: str,
    inside: Mask,
    counts: tuple[int, int],
    draws: npt.NDArray[np.uint8],
    confidence: float,
) -> list[GroupScore]:
    rows, drawn = [], draws * inside
    some = np.flatnonzero(drawn.any(axis=1))
    for statistic in (s for s in scores.statistics if s.resampled):
        values, in_rounds = statistic.values(inside.astype(np.uint8)), statistic.replicates(drawn[some], some)
        for number, (key, value) in enumerate(zip(statistic.keys, values, strict=True)):
            ends = interval(value, in_rounds[:, number], confidence)
            rows.append(GroupScore(column, group, *key, float(value), *ends, *counts))
    return rows


def gaps(
    scores: Scores,
    groups: dict[str, TextArray],
    case_ids: TextArray,
    draws: npt.NDArray[np.uint8],
    confidence: float,
    n_permutations: int,
    seed: int,
) -> list[Gap]:
    """For each column and metric over images the gap between its best and worst group of at least 10 cases.

    A case counts for the group of its first image. Metrics of which neither way is better have no gap.
    """
    keys = [key for key in scores.per_image if direction(key[1]) != "none"]
    if not keys:
        return []
    table = np.stack([scores.per_image[key] for key in keys], axis=1)
    _, first, case = np.unique(case_ids, return_index=True, return_inverse=True)
    known = ~np.isnan(table)
    sums, counted = (
        np.array([np.bincount(case, column, minlength=len(first)) for column in columns.T], dtype=np.float64).T
        for columns in (np.where(known, table, 0), known)
    )
    found: list[Gap] = []
    for column, names in groups.items():
        case_groups = names[first]
        sizes = {group: int((case_groups == group).sum()) for group in sorted(set(case_groups) - {""})}
        large = [group for group, size in sizes.items() if size >= FEWEST_CASES]
        if len(large) < 2:
            continue
        chosen = np.isin(case_groups, large)
        member = np.searchsorted(np.array(large), case_groups[chosen])
        sign = np.array([-1.0 if direction(name) == "lower" else 1.0 for _, name in keys])
        means = _means(sums[chosen], counted[chosen], member, len(large)) * sign  # (n_groups, n_keys), higher is better
        spread = _spread(means)
        above = np.zeros(len(keys))
        for shuffled in _shuffled(member, n_permutations, seed, len(large)):
            there = _spread(_means(sums[chosen], counted[chosen], shuffled, len(large)) * sign)
            above += (there >= spread - 1e-12).sum(axis=0)
        images = {group: chosen[case] & (case_groups[case] == group) for group in large}
        rounds = {group: resampled_means(table[inside], draws[:, inside]) for group, inside in images.items()}
        for number, key in enumerate(keys):
            column_means = means[:, number]
            if np.isnan(column_means).all() or np.isnan(spread[number]):
                continue
            worst, best = large[int(np.nanargmin(column_means))], large[int(np.nanargmax(column_means))]
            apart = (rounds[best][:, number] - rounds[worst][:, number]) * sign[number]
            ends = interval(float(spread[number]), apart, confidence)
            p_value = float((above[number] + 1) / (n_permutations + 1)) if n_permutations else float("nan")
            found.append(Gap(column, *key, worst, best, float(spread[number]), *ends, p_value))
    return found


def _shuffled(member: IntArray, n: int, seed: int, n_groups: int) -> Iterator[IntArray]:
    """`member` in `n` random orders, some at a time, shape (n_some, n_cases)."""
    rng = np.random.default_rng(seed)
    some = max(1, TOGETHER // (n_groups * len(member)))
    for start in range(0, n, some):
        yield np.stack([rng.permutation(member) for _ in range(min(some, n - start))])


def _means(sums: FloatArray, counted: FloatArray, member: IntArray, n_groups: int) -> FloatArray:
    """Means of the groups, shape (..., n_groups, n_keys); `member`: the group of each case, shape (..., n_cases)."""
    members = (member[..., None, :] == np.arange(n_groups)[:, None]).astype(np.float64)
    flat = members.reshape(-1, len(sums))
    total = flat @ counted
    means = np.divide(flat @ sums, total, out=np.full(total.shape, np.nan), where=total > 0)
    return np.asarray(means.reshape(*members.shape[:-1], -1))


def _spread(means: FloatArray) -> FloatArray:
    known = ~np.isnan(means)
    high = np.where(known, means, -np.inf).max(axis=-2)
    low = np.where(known, means, np.inf).min(axis=-2)
    return np.where(known.sum(axis=-2) > 1, high - low, np.nan)


def neighbour_shares(groups: dict[str, TextArray], nearest: IntArray) -> list[dict[str, Any]]:
    """For each group of skin tone, which tones its nearest neighbours have, and the share of each tone in the test.

    `nearest`: positions of each image's neighbours, shape (n_images, k), -1 for none. Images and neighbours of unknown
    tone do not count.
    """
    rows: list[dict[str, Any]] = []
    for column in (name for name in BINS if name in groups):
        names = groups[column]
        tones = [name for name, *_ in BINS[column] if (names == name).any()]
        in_test = {tone: float((names == tone).sum() / (names != "").sum()) for tone in tones}
        for tone in tones:
            places = nearest[names == tone]
            found = names[places[places >= 0]]
            total = int((found != "").sum())
            if total:
                shares = {other: float((found == other).sum() / total) for other in tones}
                rows.append({"column": column, "group": tone, "neighbours": shares, "in_test": in_test})
    return rows
