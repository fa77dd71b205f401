"""One rule for answers on the tree: the finest node whose answers keep to a wanted accuracy, learnt on validation."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import bdtr

from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Count, FloatArray, Floats, IntArray, Mask, Share

STEPS = 25  # thresholds that are tried, from the surest queries down
RISK = 0.1  # probability with which a threshold may be too low
FIRST_ERRORS = (3, 1)  # wrong answers that the first test can bear, with enough queries and with few: one test that
# fails ends the search, and the first is of the fewest queries
BIN = 25  # validation queries that one point of the confidence curve is made from, about


@dataclass(frozen=True)
class LevelRule:
    """How one level answers.

    Attributes:
        threshold: Score of the leading node from which on it is answered, in [0, 1]; None: never.
        shares: Knots of the confidence curve, scores of the leading node, ascending.
        accuracies: How often the leading node was right at each knot, in [0, 1], ascending.
        n_queries: Validation queries that no finer level answers; threshold and curve are learnt on these.
        answered: How many of them pass the threshold.
        right: How many of those were right.
    """

    threshold: Share | None
    shares: tuple[Share, ...]
    accuracies: tuple[Share, ...]
    n_queries: Count
    answered: Count
    right: Count

    def confidence(self, score: Floats | float) -> FloatArray:
        """How often validation queries whose leading node had this score were right, in [0, 1], shape of `score`."""
        return np.asarray(np.interp(score, self.shares, self.accuracies))


@dataclass(frozen=True)
class Answers:
    """What a rule answers to each query, arrays of shape (n_queries,).

    `node`: number of the answer on its `level`, both -1 without one; `confidence`: how often such an answer was right
    on validation, without an answer that of the leading node of the coarsest level.
    """

    node: IntArray
    level: IntArray
    confidence: FloatArray


@dataclass(frozen=True)
class AnswerRule:
    """From which score on each level answers. `levels`: coarse first; `wanted`: accuracy of answers, in (0, 1)."""

    wanted: Share
    levels: tuple[LevelRule, ...]

    @classmethod
    def learn(cls, scores: Floats, fine: IntArray, taxonomy: Taxonomy, wanted: float) -> AnswerRule:
        """Learn from independent validation queries, one a case.

        From the finest level up, each level learns on the queries that no finer level answers, so that the accuracy
        holds among the answers of each level. The confidence curve is learnt on the same queries, or on all of them
        where fewer than 25 are left.

        Args:
            scores: Of the conditions, class probabilities or shares of votes, shape (n_queries, n_fine), rows summing
                to 1 or less. A node's score is the sum over its conditions.
            fine: The true conditions, shape (n_queries,).
            taxonomy: The tree.
            wanted: Accuracy that the answers of each level must reach, in (0, 1).
        """
        left = np.ones(len(fine), dtype=bool)
        levels: list[LevelRule] = []
        for level in range(taxonomy.fine_level, -1, -1):
            leading, node = _leading(scores, taxonomy, level)
            right = node == taxonomy.to_level(fine, level)
            threshold = controlled_threshold(leading[left], right[left], wanted)
            passed = left & (leading >= threshold) if threshold is not None else np.zeros_like(left)
            curve = _confidence_curve(leading[left], right[left]) if left.sum() >= BIN else None
            shares, accuracies = curve or _confidence_curve(leading, right)
            counts = (int(left.sum()), int(passed.sum()), int(right[passed].sum()))
            levels.append(LevelRule(threshold, shares, accuracies, *counts))
            left &= ~passed
        return cls(wanted, tuple(levels[::-1]))

    def apply(self, scores: Floats, taxonomy: Taxonomy) -> Answers:
        """The finest answer to each query; for `scores` see `learn`."""
        node, at = (np.full(len(scores), -1, dtype=np.int64) for _ in range(2))
        confidence = self.levels[0].confidence(_leading(scores, taxonomy, 0)[0])
        for level in range(taxonomy.fine_level, -1, -1):
            rule = self.levels[level]
            if rule.threshold is not None:
                leading, found = _leading(scores, taxonomy, level)
                passed = (at < 0) & (leading >= rule.threshold)
                node[passed], at[passed] = found[passed], level
                confidence[passed] = rule.confidence(leading[passed])
        return Answers(node, at, confidence)

    def why_never(self, level: int) -> str:
        """Why a level is never answered, in words; '' where it is."""
        n, needed = self.levels[level].n_queries, fewest_queries(self.wanted, FIRST_ERRORS[-1])
        queries = "validation cases" + " left open by finer levels" * (level < len(self.levels) - 1)
        if self.levels[level].threshold is not None:
            return ""
        if n < needed:
            return f"{n} {queries} are too few, for an accuracy of {self.wanted:.0%} it takes {needed} or more"
        return f"for no share of the {n} {queries} was an accuracy of {self.wanted:.0%} certain enough"


def _leading(scores: Floats, taxonomy: Taxonomy, level: int) -> tuple[FloatArray, IntArray]:
    """Score and number of the leading node of a level, each shape (n_queries,)."""
    level_scores = taxonomy.sum_up(scores, level)
    return level_scores.max(axis=1).astype(np.float64), level_scores.argmax(axis=1)


def _confidence_curve(leading: FloatArray, right: Mask) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Knots of the accuracy by the score of the leading node, made rising by isotonic regression.

    Each knot is a bin of about 25 queries of like scores, smoothed towards a half by two imagined queries (Laplace), so
    that a few right answers by chance don't make certainty.
    """
    bins = np.array_split(np.argsort(leading, kind="stable"), max(1, round(len(leading) / BIN)))
    centres = np.array([leading[inside].mean() for inside in bins])
    smoothed = np.array([(right[inside].sum() + 1) / (len(inside) + 2) for inside in bins])
    _, knot, times = np.unique(centres, return_inverse=True, return_counts=True)
    rising = isotonic_regression(np.bincount(knot, smoothed) / times, weights=times).x[knot]
    return tuple(centres.tolist()), tuple(rising.tolist())


def controlled_threshold(confidence: FloatArray, right: Mask, wanted: float) -> float | None:
    """The lowest confidence from which on answers are right with the rate `wanted`, with probability 0.9 or more.

    `confidence`, `right`: of independent validation queries, shape (n_queries,). Thresholds are tested from the surest
    down, each with a binomial test, until one fails (fixed-sequence testing, Angelopoulos et al. 2021, Learn then
    Test, arXiv 2110.01052, section 2.3). The first test is of so many queries that it passes with three errors, or
    where fewer are given with one. None where not even these pass, or fewer are given.
    """
    threshold = None
    first = next((n for e in FIRST_ERRORS if (n := fewest_queries(wanted, e)) <= len(confidence)), None)
    if first is None:
        return None
    falling = np.sort(confidence)[::-1]
    for count in np.unique(np.linspace(first, len(confidence), STEPS).astype(int)):
        candidate = float(falling[count - 1])
        answered = confidence >= candidate
        if bdtr(int((~right[answered]).sum()), int(answered.sum()), 1 - wanted) > RISK:
            break
        threshold = candidate
    return threshold


def fewest_queries(wanted: float, errors: int) -> int:
    """How many answered queries can show the accuracy `wanted`, in (0, 1), although `errors` of them are wrong.

    Worked example: of 32 queries answered at a true accuracy of 0.8, 3 or fewer are wrong with probability 0.093, of 31
    with 0.107: 32.
    """
    counts = range(errors + 1, 2**31)  # bdtr is not defined for fewer queries than errors
    return counts[bisect_left(counts, True, key=lambda count: bool(bdtr(errors, count, 1 - wanted) <= RISK))]
