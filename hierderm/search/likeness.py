"""Is a query like anything that the index holds? A conformal test of its distance to the nearest case.

It has two parts: the distance of the embeddings, and that of the looks of the images, since a model may place noise,
pages of text or a single colour right among its cases. Each is compared with the distances of the validation cases to
the nearest case but their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from scipy.special import betaincinv

from hierderm.errors import SearchError
from hierderm.types import Count, FloatArray, Floats, IntArray, Share, Vectors

FALSE_ALARMS = 0.05  # share of the queries like the validation cases that may be refused
MOST = 20_000  # images whose looks a query is compared with
SHRINKAGE = 0.05  # of the covariance of looks towards a sphere
PARTS = ("in what the model sees", "in colours and detail")
SURE = 0.95  # probability of the interval of the true share


@dataclass(frozen=True)
class Judged:
    """How a query does in the test.

    `share`: its p-value, in (0, 1]; `refused`: whether it is too unlike; `reason`: in words, '' if not.
    """

    share: float
    refused: bool
    reason: str = ""


@dataclass(frozen=True)
class Likeness:
    """How far from the nearest case a query may be, learnt from validation cases.

    Attributes:
        wanted: Share of the queries like the validation cases that may be refused, in (0, 1).
        embedding: Distances of their embeddings, 1 - similarity, ascending; empty where these are not tested.
        look: Distances of their looks, ascending; empty where no image could be read.
        n_cases: How many cases these are of.
        refused: How many of them are refused by the test that the others make.
    """

    wanted: Share
    embedding: tuple[float, ...]
    look: tuple[float, ...]
    n_cases: Count
    refused: Count

    @classmethod
    def learn(cls, distances: FloatArray, wanted: float = FALSE_ALARMS) -> Likeness:
        """Learn from the distances of validation cases to the nearest other case.

        With fewer cases than two tests take (39 for 5 %), that of the looks is alone, which finds far more, or if there
        are too few even for it, that of the embeddings.

        Args:
            distances: Of embeddings and of looks, shape (n_cases, 2), nan where one is not known.
            wanted: Share of the queries like these cases that may be refused, in (0, 1).
        """
        if not 0 < wanted < 1:
            raise SearchError(f"the wanted share of false alarms must be between 0 and 1, got {wanted}.")
        embedding, look = (np.sort(column[np.isfinite(column)]).tolist() for column in distances.T)
        if len(embedding) < _fewest(wanted, 2):
            embedding, look = ([], look) if len(look) >= _fewest(wanted, 1) else (embedding, [])
        learnt = cls(wanted, tuple(embedding), tuple(look), len(distances), 0)
        left_out = _combined(learnt._parts(distances, known=1))
        return replace(learnt, refused=int((left_out <= wanted).sum()))

    def p_values(self, distances: FloatArray) -> FloatArray:
        """The p-values of queries, shape (n_queries,): for one like the validation cases at most a with probability a.

        Of each known distance it is the conformal p-value, (1 + validation cases as far away) / (1 + all) (Vovk et al.
        2005, Algorithmic Learning in a Random World, section 2.2); of two the smaller, doubled (Bonferroni). nan where
        none is known. `distances`: as in `learn`.
        """
        return _combined(self._parts(distances))

    def judge(self, distances: FloatArray, *, n_images: int = 1) -> Judged | None:
        """The test of one query of `n_images`, distances of shape (2,); None where neither is known."""
        parts = self._parts(distances[None])
        p = float(_combined(parts)[0])
        if np.isnan(p):
            return None
        if p > self.wanted:
            return Judged(p, False)
        part = int(np.nanargmin(parts[0]))
        n = len((self.embedding, self.look)[part])
        as_far = round(parts[0, part] * (n + 1)) - 1
        these = "This image is" if n_images == 1 else "These images are"
        reason = (
            f"{these} unlike the images of the index, most of all {PARTS[part]}: of the {n} validation cases "
            f"{as_far or 'none'} {'was' if as_far <= 1 else 'were'} as far from every other case. So there is no "
            "answer, and the nearest cases say nothing."
        )
        return Judged(p, True, reason)

    def describe(self) -> str:
        """What the test does and how often it is wrong, in a sentence."""
        known = [(part, len(values)) for part, values in zip(PARTS, (self.embedding, self.look), strict=True) if values]
        needed = _fewest(self.wanted, max(1, len(known)))
        if max((n for _, n in known), default=0) < needed:
            return (
                f"queries unlike the index are never refused: {self.n_cases} validation cases are too few, for "
                f"{self.wanted:.0%} of false alarms it takes {needed} or more"
            )
        n, wrong = self.n_cases, self.refused
        low = float(betaincinv(wrong, n - wrong + 1, (1 - SURE) / 2)) if wrong else 0.0
        high = float(betaincinv(wrong + 1, n - wrong, (1 + SURE) / 2)) if wrong < n else 1.0
        return (
            f"queries unlike the index {' or '.join(part for part, _ in known)} are refused, and at most "
            f"{self.wanted:.0%} of those like the validation cases: {wrong} of {n}, each left out in turn "
            f"({low:.1%} to {high:.1%}, {SURE:.0%} interval)"
        )

    def is_sound(self) -> bool:
        """Whether the values can have been learnt: ascending, of no more cases than there are."""
        parts = (self.embedding, self.look)
        return self.refused <= self.n_cases and all(
            len(values) <= self.n_cases and list(values) == sorted(values) for values in parts
        )

    def _parts(self, distances: FloatArray, *, known: int = 0) -> FloatArray:
        """The conformal p-value of each distance, shape (n_queries, 2), nan where there is none.

        `known`: 1 for the validation cases themselves, which then are left out in turn.
        """
        found = np.full(distances.shape, np.nan)
        for part, values in enumerate((self.embedding, self.look)):
            rows = np.isfinite(distances[:, part])
            if len(values):
                as_far = len(values) - np.searchsorted(values, distances[rows, part], side="left")
                found[rows, part] = (1 + as_far - known) / (1 + len(values) - known)
        return found


def _fewest(wanted: float, n_parts: int) -> int:
    """How many validation cases it takes for the smallest p-value of several tests to be as low as `wanted`."""
    return ceil(n_parts / wanted - 1e-9) - 1


def _combined(parts: FloatArray) -> FloatArray:
    """One p-value of several of a query: the smallest, times their number; nan where there is none."""
    n_parts = np.isfinite(parts).sum(axis=1)
    smallest = np.where(np.isnan(parts), 1, parts).min(axis=1)
    return np.where(n_parts > 0, np.minimum(1, n_parts * smallest), np.nan)


@dataclass(frozen=True)
class LookSpace:
    """The looks of the images of an index, with their covariance made round.

    `points`: shape (n_points, n_look); `cases`: number of the case of each; `centre` and `factor` bring looks there.
    """

    points: FloatArray
    cases: IntArray
    centre: FloatArray
    factor: FloatArray

    @classmethod
    def of(cls, looks: Floats | None, cases: IntArray) -> LookSpace | None:
        """From looks of shape (n_images, n_look), nan where unknown; None where fewer than two are known."""
        rows = np.flatnonzero(np.isfinite(looks).all(axis=1)) if looks is not None else np.empty(0, dtype=np.int64)
        if looks is None or len(rows) < 2:
            return None
        if len(rows) > MOST:
            rows = np.sort(np.random.default_rng(0).choice(rows, MOST, replace=False))
        known = np.asarray(looks[rows], dtype=np.float64)
        centre = known.mean(axis=0)
        variance, axes = np.linalg.eigh(np.cov(known.T))
        shrunk = (1 - SHRINKAGE) * variance.clip(0) + SHRINKAGE * max(variance.mean(), 1e-12)
        factor = axes / np.sqrt(shrunk)
        return cls((known - centre) @ factor, cases[rows], centre, factor)

    def distance(self, looks: Floats | None, leave_out: Sequence[int] = ()) -> float:
        """How far the images of a query are from the nearest of other cases: that of them which is farthest.

        `looks`: shape (n_images, n_look), rows of nan where unknown; `leave_out`: numbers of cases. nan where nothing
        can be compared.
        """
        points = self.points[~np.isin(self.cases, leave_out)] if len(leave_out) else self.points
        known = looks[np.isfinite(looks).all(axis=1)] if looks is not None else np.empty((0, 0))
        if not len(points) or not len(known):
            return float("nan")
        placed = (np.asarray(known, dtype=np.float64) - self.centre) @ self.factor
        squares = (placed**2).sum(axis=1)[:, None] + (points**2).sum(axis=1) - 2 * placed @ points.T
        return float(np.sqrt(squares.min(axis=1).max().clip(0)))


def joined_looks(known: Vectors | None, new: Vectors | None, n_new: int) -> Vectors | None:
    """The looks of an index with those of `n_new` images more, nan where unknown; None where the index has none."""
    if known is None:
        return None
    added = np.full((n_new, known.shape[1]), np.nan, dtype=np.float32) if new is None else new
    if added.shape[1] != known.shape[1]:
        raise SearchError(f"looks must have length {known.shape[1]} as those of the index, got {added.shape[1]}.")
    return np.concatenate([known, added])


def distances_of(similarity: Floats, looks: Sequence[float] | FloatArray | None = None) -> FloatArray:
    """What `Likeness` reads: of embeddings and of looks, shape (n_queries, 2).

    `similarity`: of the nearest case, shape (n_queries,), nan where there is none; `looks`: None where not known.
    """
    unknown = np.full(len(similarity), np.nan)
    return np.stack([1 - similarity.astype(np.float64), unknown if looks is None else np.asarray(looks)], axis=1)
