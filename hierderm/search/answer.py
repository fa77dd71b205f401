"""From the nearest cases to an answer: a ranked differential at every level, and how far to trust it.

The conditions of the hits vote, weighted by similarity; votes are summed up the tree. Validation queries say how
often a vote share of that size was right (the stated confidence) and from which share on an answer at a level keeps
to the wanted error rate. Below it the answer is one level coarser, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hierderm.embeddings import Aggregation
from hierderm.errors import SearchError
from hierderm.evaluation.metrics.selective import controlled_threshold
from hierderm.search.result import SearchResult
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import FloatArray, IntArray, Mask

TEMPERATURES = tuple(float(t) for t in np.geomspace(0.005, 1.0, 24))
BIN = 25  # validation queries that one point of the confidence curve is made from
DEFAULT_TEMPERATURE = 0.05


@dataclass(frozen=True)
class LevelCalibration:
    """Of one level: from which vote share on to answer (None: never), and what share was how often right.

    `shares`, `accuracies`: knots of the rising curve from the share of the leading node to its accuracy, both in
    [0, 1]; `answered`, `right`: of the `n_queries` validation queries, how many pass the threshold and are right.
    """

    threshold: float | None
    shares: tuple[float, ...]
    accuracies: tuple[float, ...]
    n_queries: int
    answered: int
    right: int

    def confidence(self, share: float) -> float:
        """How often validation queries with this share for their leading node were right, in [0, 1]."""
        return float(np.interp(share, self.shares, self.accuracies))


@dataclass(frozen=True)
class Calibration:
    """How to read votes: made from validation queries by `calibrate`, for `k` hits found with `aggregation`.

    `temperature`: of the weights exp(similarity / temperature), > 0; `wanted`: the accuracy that answers keep to.
    """

    k: int
    temperature: float
    wanted: float
    levels: tuple[LevelCalibration, ...]
    aggregation: Aggregation = "best"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Calibration:
        levels = [
            LevelCalibration(**{**row, "shares": tuple(row["shares"]), "accuracies": tuple(row["accuracies"])})
            for row in content["levels"]
        ]
        return cls(**{**content, "levels": tuple(levels)})


@dataclass(frozen=True)
class Candidate:
    """A node of the differential: its share of the votes, in [0, 1], and on the levels above, its parent."""

    name: str
    share: float
    parent: str = ""


@dataclass(frozen=True)
class Answer:
    """What the hits say. `level`: the finest level that can be answered, None to abstain; `node`: the answer there.

    `confidence`: how often such an answer was right on validation, None without calibration; `differential`: for
    each level, coarse first, its nodes by falling share; `reason`: in words, why this level.
    """

    level: int | None
    node: str
    confidence: float | None
    differential: tuple[tuple[Candidate, ...], ...]
    reason: str


def vote(hits: SearchResult, fine: IntArray, n_fine: int, temperature: float) -> FloatArray:
    """Each query's share of votes for every condition, shape (n_queries, n_fine), rows summing to 1 (0 without hits).

    A hit votes with exp((similarity - the best similarity) / temperature) for its condition; `fine`: the gallery's
    condition numbers, shape (n_images,). The weights are those of soft nearest neighbours (Goldberger et al. 2004).
    """
    if temperature <= 0:
        raise SearchError(f"temperature must be > 0, got {temperature}.")
    found = hits.rows >= 0
    similarity = np.where(found, hits.similarity.astype(np.float64), -np.inf)
    best = similarity.max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.where(found, np.exp((similarity - np.where(np.isfinite(best), best, 0)) / temperature), 0.0)
    votes = np.zeros((len(hits), n_fine))
    np.add.at(votes, (np.arange(len(hits))[:, None], fine[np.where(found, hits.rows, 0)]), weights)
    total = votes.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(votes, total, out=np.zeros_like(votes), where=total > 0))


def calibrate(
    hits: SearchResult, gallery_fine: IntArray, query_fine: IntArray, taxonomy: Taxonomy, *, wanted: float = 0.8
) -> Calibration:
    """Learn from validation queries, whose conditions `query_fine` are known, how to read votes.

    Their own cases must have been left out of `hits`. The temperature is the one with the highest likelihood. The
    confidence of a share is the accuracy in bins of 25 queries of like shares, smoothed towards a half by two imagined
    queries (Laplace) so that a few lucky ones don't make certainty, and made rising (isotonic regression). A
    threshold is the lowest share such that the accuracy of the answers is `wanted` or more (`controlled_threshold`).
    """
    if not 0 < wanted < 1:
        raise SearchError(f"the wanted accuracy must be between 0 and 1, got {wanted}.")
    if len(hits) != len(query_fine) or not len(hits):
        raise SearchError(f"calibration needs hits for each validation query, got {len(hits)} for {len(query_fine)}.")
    n_fine = taxonomy.size(-1)

    def likelihood(temperature: float) -> float:
        votes = vote(hits, gallery_fine, n_fine, temperature)
        on_truth = votes[np.arange(len(votes)), query_fine]
        return float(np.log(0.99 * on_truth + 0.01 / n_fine).mean())

    temperature = max(TEMPERATURES, key=likelihood)
    votes = vote(hits, gallery_fine, n_fine, temperature)
    levels = []
    for level in range(taxonomy.n_levels):
        shares = taxonomy.sum_up(votes, level)
        right = shares.argmax(axis=1) == taxonomy.to_level(query_fine, level)
        levels.append(_calibrate_level(shares.max(axis=1), right, wanted))
    return Calibration(hits.rows.shape[1], temperature, wanted, tuple(levels))


def _calibrate_level(shares: FloatArray, right: Mask, wanted: float) -> LevelCalibration:
    from sklearn.isotonic import IsotonicRegression

    bins = np.array_split(np.argsort(shares, kind="stable"), max(1, len(shares) // BIN))
    centres = np.array([shares[inside].mean() for inside in bins])
    smoothed = np.array([(right[inside].sum() + 1) / (len(inside) + 2) for inside in bins])
    rising = IsotonicRegression().fit_transform(centres, smoothed)
    threshold = controlled_threshold(shares, right, wanted)
    passed = shares >= threshold if threshold is not None else np.zeros(len(shares), dtype=bool)
    return LevelCalibration(
        threshold,
        tuple(float(x) for x in centres),
        tuple(float(y) for y in rising),
        len(shares),
        int(passed.sum()),
        int(right[passed].sum()),
    )


def answer(
    hits: SearchResult,
    gallery_fine: IntArray,
    taxonomy: Taxonomy,
    calibration: Calibration | None,
    *,
    calibrated_for: bool = True,
) -> Answer:
    """What the hits of one query say, at the finest level whose threshold they pass.

    `calibrated_for`: False where the search differs from the one that was calibrated (filters, a cap, another k);
    then shares are given without a confidence, as without a calibration.
    """
    temperature = calibration.temperature if calibration else DEFAULT_TEMPERATURE
    votes = vote(hits, gallery_fine, taxonomy.size(-1), temperature)[0]
    differential = tuple(ranked_nodes(votes, taxonomy, level) for level in range(taxonomy.n_levels))
    if not differential[0]:
        return Answer(None, "", None, differential, "No case was found.")
    if calibration is None or not calibrated_for:
        why = "the index was not calibrated" if calibration is None else "the search was narrowed"
        return Answer(None, "", None, differential, f"Shares only, without a confidence: {why}.")
    return _answer_by(calibration, differential, taxonomy.level_names)


def _answer_by(
    calibration: Calibration, differential: tuple[tuple[Candidate, ...], ...], level_names: Sequence[str]
) -> Answer:
    finest = len(differential) - 1
    for level in range(finest, -1, -1):
        first, learnt = differential[level][0], calibration.levels[level]
        if learnt.threshold is not None and first.share >= learnt.threshold:
            confidence = learnt.confidence(first.share)
            reason = (
                f"The nearest cases agree on the {level_names[level]}: {first.share:.0%} of the votes. "
                f"Of the {learnt.answered} validation cases answered at this level, {learnt.right} were right."
            )
            if level < finest and calibration.levels[finest].threshold is None:
                reason = f"No share of votes for a {level_names[finest]} was reliable on validation cases. {reason}"
            elif level < finest:
                reason = f"The nearest cases disagree on the {level_names[finest]}. {reason}"
            return Answer(level, first.name, confidence, differential, reason)
    leading = differential[0][0]
    return Answer(
        None, "", calibration.levels[0].confidence(leading.share), differential,
        f"The nearest cases disagree too much for an answer: at this share of votes ({leading.share:.0%} for "
        f"{leading.name}) it would be wrong more often than the {1 - calibration.wanted:.0%} allowed.",
    )  # fmt: skip


def ranked_nodes(shares: FloatArray, taxonomy: Taxonomy, level: int) -> tuple[Candidate, ...]:
    """The nodes of a level by falling share, those without any left out. `shares`: of conditions, shape (n_fine,)."""
    level_shares = taxonomy.sum_up(shares[None], level)[0]
    nodes, above = taxonomy.levels[level], taxonomy.names(level - 1) if level else ()
    return tuple(
        Candidate(nodes[number].name, float(level_shares[number]), above[nodes[number].parent] if level else "")
        for number in np.argsort(-level_shares, kind="stable")
        if level_shares[number] > 0
    )
