"""Is a query like anything that the index holds? A conformal test of its distance to the nearest case.

It has two parts, of which the larger counts: the distance of the embeddings, and that of the looks of the images, since
a model may place noise, pages of text or a single colour right among its cases. Both are compared with those of the
validation cases, each to the nearest case but its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

import numpy as np
from scipy.special import betaincinv

from hierderm.errors import SearchError
from hierderm.types import FloatArray, Floats, IntArray, Positive, Share, Vectors

FALSE_ALARMS = 0.05  # share of the queries like the validation cases that may be refused
MOST = 20_000  # images whose looks a query is compared with
SHRINKAGE = 0.05  # of the covariance of looks towards a sphere
PARTS = ("in what the model sees", "in colours and detail")
SURE = 0.95  # probability of the interval of the true share


@dataclass(frozen=True)
class Scale:
    """What makes two kinds of distance comparable: (distance - `centre`) / `spread`."""

    centre: float
    spread: Positive

    @classmethod
    def of(cls, distances: FloatArray) -> Scale | None:
        """From the median, 0, to the 95th percentile, 1; None where no distance is known."""
        known = distances[np.isfinite(distances)]
        if not len(known):
            return None
        centre = float(np.median(known))
        return cls(centre, max(float(np.quantile(known, 0.95)) - centre, 1e-6))


@dataclass(frozen=True)
class Judged:
    """How a query does in the test.

    `share`: its conformal p-value, in (0, 1]; `refused`: whether it is too unlike; `reason`: in words, '' if not.
    """

    share: float
    refused: bool
    reason: str = ""


@dataclass(frozen=True)
class Likeness:
    """How far from the nearest case a query may be, learnt from validation cases.

    Attributes:
        wanted: Share of the queries like the validation cases that may be refused, in (0, 1).
        embedding: Scale of the distances of embeddings, 1 - similarity; None where no case found another.
        look: Scale of the distances of looks; None where no image could be read.
        scores: Of the validation cases, ascending: the larger of the two scaled distances.
    """

    wanted: Share
    embedding: Scale | None
    look: Scale | None
    scores: tuple[float, ...]

    @classmethod
    def learn(cls, distances: FloatArray, wanted: float = FALSE_ALARMS) -> Likeness:
        """Learn from the distances of validation cases to the nearest other case.

        Args:
            distances: Of embeddings and of looks, shape (n_cases, 2), nan where one is not known.
            wanted: Share of the queries like these cases that may be refused, in (0, 1).
        """
        if not 0 < wanted < 1:
            raise SearchError(f"the wanted share of false alarms must be between 0 and 1, got {wanted}.")
        bare = cls(wanted, Scale.of(distances[:, 0]), Scale.of(distances[:, 1]), ())
        scores = bare._scaled(distances).max(axis=1)
        return cls(wanted, bare.embedding, bare.look, tuple(np.sort(scores[np.isfinite(scores)]).tolist()))

    def p_values(self, distances: FloatArray) -> FloatArray:
        """The conformal p-values of queries, shape (n_queries,): (1 + validation cases as far away) / (1 + all).

        A query that is exchangeable with the validation cases has p <= a with probability at most a (Vovk et al. 2005,
        Algorithmic Learning in a Random World, section 2.2). nan where none is known. `distances`: as in `learn`.
        """
        scores = self._scaled(distances).max(axis=1)
        as_far = len(self.scores) - np.searchsorted(self.scores, scores, side="left")
        return np.where(np.isfinite(scores), (1 + as_far) / (1 + len(self.scores)), np.nan)

    def judge(self, distances: FloatArray, *, n_images: int = 1) -> Judged | None:
        """The test of one query of `n_images`, distances of shape (2,); None where neither is known."""
        p = float(self.p_values(distances[None])[0])
        if np.isnan(p):
            return None
        if p > self.wanted:
            return Judged(p, False)
        part, n = PARTS[int(self._scaled(distances[None])[0].argmax())], len(self.scores)
        as_far = round(p * (n + 1)) - 1
        these = "This image is" if n_images == 1 else "These images are"
        reason = (
            f"{these} unlike the images of the index, most of all {part}: of the {n} validation cases "
            f"{as_far or 'none'} {'was' if as_far <= 1 else 'were'} as far from every other case. So there is no "
            "answer, and the nearest cases say nothing."
        )
        return Judged(p, True, reason)

    def describe(self) -> str:
        """What the test does and how often it is wrong, in a sentence."""
        n = len(self.scores)
        last = floor(self.wanted * (n + 1) + 1e-9)  # validation cases this far out, or further, refuse
        if not last:
            needed = next(m for m in range(n, 10**9) if floor(self.wanted * (m + 1) + 1e-9))
            return (
                f"queries unlike the index are never refused: {n} validation cases are too few, for {self.wanted:.0%} "
                f"of false alarms it takes {needed} or more"
            )
        low, high = (float(betaincinv(last, n + 1 - last, tail)) for tail in ((1 - SURE) / 2, (1 + SURE) / 2))
        parts = [part for part, scale in zip(PARTS, (self.embedding, self.look), strict=True) if scale is not None]
        return (
            f"queries unlike the index {' or '.join(parts)} are refused, and at most {self.wanted:.0%} of those like "
            f"the validation cases: {self.false_alarms()} of {n}, each left out in turn; of new ones {low:.1%} to "
            f"{high:.1%} ({SURE:.0%} interval)"
        )

    def false_alarms(self) -> int:
        """How many validation cases would be refused by the test that the others make."""
        scores = np.asarray(self.scores)
        as_far = len(scores) - np.searchsorted(scores, scores, side="left")  # among them the case itself
        return int((as_far / max(1, len(scores)) <= self.wanted + 1e-9).sum())

    def _scaled(self, distances: FloatArray) -> FloatArray:
        """Both distances of queries on one scale, shape (n_queries, 2), -inf where one is not known."""
        columns = [
            np.full(len(distances), -np.inf) if scale is None else (found - scale.centre) / scale.spread
            for scale, found in zip((self.embedding, self.look), distances.T, strict=True)
        ]
        scaled = np.stack(columns, axis=1)
        return np.where(np.isnan(scaled), -np.inf, scaled)


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
