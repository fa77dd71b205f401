"""From the nearest cases to an answer: a ranked differential at every level, and how far to trust it.

The conditions of the hits vote, weighted by similarity; votes count less where the nearest case is farther, and are
summed up the tree. Which share of the votes is answered at which level, and with what confidence, is the rule of
`hierderm.evaluation.metrics.selective`, and which queries are too unlike the index to be answered that of
`hierderm.search.likeness`, all learnt from validation queries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from hierderm.embeddings import Aggregation
from hierderm.errors import SearchError
from hierderm.evaluation.metrics.calibration import best_temperature
from hierderm.evaluation.metrics.selective import AnswerRule
from hierderm.search.likeness import Judged, Likeness, distances_of
from hierderm.search.result import SearchResult
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import Count, FloatArray, Floats, IntArray, Positive

TEMPERATURES = (0.005, 1.0)  # the range that is searched
DEFAULT_TEMPERATURE = 0.05
SLOPES = (
    0.001,
    3.0,
)  # of the logit of a vote's worth by a standard deviation of similarity: the range that is searched
LEAST = 1e-6  # worth of a vote, however far the case
FLOOR = 0.01  # likelihood of a condition is this share of a uniform one, so that no single query decides


@dataclass(frozen=True)
class Worth:
    """How much the votes of a query count: 1 / (1 + exp(-offset - slope * similarity)), by that of its nearest case.

    Training cases lie close to others of their condition where the model has put them there. So the nearest cases of a
    query agree, right or wrong, and how near they are tells more than how many agree. Where it tells nothing the slope
    is nearly 0, which leaves the order of queries to the votes.

    `offset`: any number; `slope`: > 0.
    """

    offset: float
    slope: Positive

    @classmethod
    def learn(cls, on_truth: FloatArray, nearest: Floats, n_fine: int) -> Worth:
        """The worth under which the true conditions are most likely; what votes are not worth goes to all alike.

        `on_truth`: the share of votes for the true condition, `nearest`: the similarity of the nearest case, nan where
        there is none; of validation queries, shape (n_queries,).
        """
        known = np.isfinite(nearest)
        share, similarity = on_truth[known], nearest[known].astype(np.float64)
        centre, spread = float(similarity.mean()), max(float(similarity.std()), 1e-6)
        place = (similarity - centre) / spread

        def cost(of: FloatArray) -> float:
            worth = expit(of[0] + of[1] * place)
            return -float(np.log((1 - FLOOR) * (share * worth + (1 - worth) / n_fine) + FLOOR / n_fine).mean())

        found = minimize(cost, [0.0, 1.0], method="L-BFGS-B", bounds=[(-10, 10), SLOPES]).x
        slope = float(found[1]) / spread
        return cls(float(found[0]) - slope * centre, slope)

    def of(self, nearest: Floats) -> FloatArray:
        """The worth where the nearest case is so similar, in [0, 1], shape of `nearest`; 0 where it is nan."""
        return np.nan_to_num(np.maximum(expit(self.offset + self.slope * nearest.astype(np.float64)), LEAST))


@dataclass(frozen=True)
class Calibration:
    """How to read votes: made from validation queries by `calibrate`, for `k` hits found with `aggregation`.

    `temperature`: of the weights exp(similarity / temperature), > 0; `worth`: how much votes count; `rule`: which share
    of votes is answered; `likeness`: which queries are refused, None for none.
    """

    k: Count
    temperature: Positive
    worth: Worth
    rule: AnswerRule
    aggregation: Aggregation = "best"
    likeness: Likeness | None = None

    def fault(self, n_levels: int) -> str:
        """In what it can't have been learnt for a tree of so many levels, in a sentence; '' where it can."""
        rules = self.rule.levels
        sound = all(
            len(rule.shares) == len(rule.accuracies) > 0
            and all(list(knots) == sorted(knots) for knots in (rule.shares, rule.accuracies))
            and rule.right <= rule.answered <= rule.n_queries
            for rule in rules
        )
        if not sound or len(rules) != n_levels:
            must = f"its calibration must have a rule for each of {n_levels} levels, with a rising curve"
            return f"{must}, got {list(rules)}."
        if self.likeness is not None and not self.likeness.is_sound():
            n_cases = self.likeness.n_cases
            return f"the distances of 'likeness' must rise and be of at most {n_cases} cases."
        return ""

    def shares(self, hits: SearchResult) -> FloatArray:
        """Each query's share of votes for every condition, as far as votes count, shape (n_queries, n_fine).

        Rows sum to the worth of their votes, in [0, 1].
        """
        return vote(hits, self.temperature, self.worth)


@dataclass(frozen=True)
class Candidate:
    """A node of the differential: its share of the votes, as far as they count, in [0, 1], and its parent."""

    name: str
    share: float
    parent: str = ""


@dataclass(frozen=True)
class Answer:
    """What the hits say. `level`: the finest level that can be answered, None to abstain; `node`: the answer there.

    `confidence`: how often such an answer was right on validation, None without calibration; `differential`: for
    each level, coarse first, its nodes by falling share; `reason`: in words, why this level; `given`: levels on which
    only one node could come, for the filter of the search or the index has no other: its share says nothing; `unlike`:
    whether the query is refused as unlike all cases of the index, then there is nothing else; `likeness`: the share of
    queries like the validation cases that are as unlike, a p-value in (0, 1], None where it was not tested.
    """

    level: int | None
    node: str
    confidence: float | None
    differential: tuple[tuple[Candidate, ...], ...]
    reason: str
    given: tuple[int, ...] = ()
    unlike: bool = False
    likeness: float | None = None


def vote(hits: SearchResult, temperature: float, worth: Worth | None = None) -> FloatArray:
    """Each query's share of votes for every condition, shape (n_queries, n_fine), rows summing to 1 (0 without hits).

    A hit votes with exp((similarity - the best similarity) / temperature) for its condition. The weights are those of
    soft nearest neighbours (Goldberger et al. 2004). `worth`: then rows sum to the worth of the query's votes.
    """
    if temperature <= 0:
        raise SearchError(f"temperature must be > 0, got {temperature}.")
    found = hits.rows >= 0
    similarity = np.where(found, hits.similarity.astype(np.float64), -np.inf)
    best = similarity.max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.where(found, np.exp((similarity - np.where(np.isfinite(best), best, 0)) / temperature), 0.0)
    votes = np.zeros((len(hits), hits.gallery.taxonomy.size(-1)))
    np.add.at(votes, (np.arange(len(hits))[:, None], hits.fine), weights)
    total = votes.sum(axis=1, keepdims=True)
    shares = np.divide(votes, total, out=np.zeros_like(votes), where=total > 0)
    return np.asarray(shares if worth is None else shares * worth.of(hits.similarity[:, 0])[:, None])


def calibrate(
    hits: SearchResult, query_fine: IntArray, *, wanted: float = 0.8, looks: FloatArray | None = None
) -> Calibration:
    """Learn from validation queries, whose conditions `query_fine` are known, how to read votes.

    Their own cases must have been left out of `hits`, and of `looks`, the distances of their looks (see
    `hierderm.search.likeness`), shape (n_queries,), None where not known. Temperature and worth are those under which
    the conditions are most likely; for thresholds and confidence see `AnswerRule`.
    """
    if not 0 < wanted < 1:
        raise SearchError(f"the wanted accuracy must be between 0 and 1, got {wanted}.")
    if len(hits) != len(query_fine) or not len(hits):
        raise SearchError(f"calibration needs hits for each validation query, got {len(hits)} for {len(query_fine)}.")
    taxonomy, nearest = hits.gallery.taxonomy, hits.similarity[:, 0]
    n_fine = taxonomy.size(-1)

    def on_truth(temperature: float) -> FloatArray:
        return np.asarray(vote(hits, temperature)[np.arange(len(hits)), query_fine])

    def cost(temperature: float) -> float:
        return -float(np.log((1 - FLOOR) * on_truth(temperature) + FLOOR / n_fine).mean())

    temperature = best_temperature(cost, *TEMPERATURES)
    worth = Worth.learn(on_truth(temperature), nearest, n_fine)
    rule = AnswerRule.learn(vote(hits, temperature, worth), query_fine, taxonomy, wanted)
    likeness = Likeness.learn(distances_of(nearest, looks))
    return Calibration(hits.rows.shape[1], temperature, worth, rule, likeness=likeness)


def answer(
    hits: SearchResult,
    calibration: Calibration | None,
    *,
    differs: str = "",
    given: tuple[int, ...] = (),
    judged: Judged | None = None,
) -> Answer:
    """What the hits of one query say, at the finest level whose threshold they pass.

    `differs`: in what the query or its search is unlike those that were calibrated, '' where it is like them; then
    shares come without a confidence, as without a calibration. `given`: see `Answer`. `judged`: whether the query is
    like the cases of the index, None where that was not tested; if it is not, the hits say nothing.
    """
    taxonomy = hits.gallery.taxonomy
    if judged is not None and judged.refused:
        nothing = ((),) * taxonomy.n_levels
        return Answer(None, "", None, nothing, judged.reason, unlike=True, likeness=judged.share)
    found = _read(hits, calibration, differs, given)
    return replace(found, likeness=None if judged is None else judged.share)


def _read(hits: SearchResult, calibration: Calibration | None, differs: str, given: tuple[int, ...]) -> Answer:
    taxonomy = hits.gallery.taxonomy
    votes = (calibration.shares(hits) if calibration else vote(hits, DEFAULT_TEMPERATURE))[0]
    differential = tuple(ranked_nodes(votes, taxonomy, level) for level in range(taxonomy.n_levels))
    if not differential[0]:
        return Answer(None, "", None, differential, "No case was found.", given)
    if calibration is None or differs:
        why = "answers of this index are not calibrated" if calibration is None else differs
        reason = f"Shares only, without a confidence: {why}."
        found = Answer(None, "", None, differential, reason)
    else:
        found = _answer_by(calibration.rule, votes, differential, taxonomy)
        if found.level in given:
            found = Answer(None, "", None, differential, "No answer and no confidence: none could be wrong.")
    only = [
        f" No other {taxonomy.level_names[level]} than '{differential[level][0].name}' could come." for level in given
    ]
    return replace(found, reason=found.reason + "".join(only), given=given)


def _answer_by(
    rule: AnswerRule, votes: FloatArray, differential: tuple[tuple[Candidate, ...], ...], taxonomy: Taxonomy
) -> Answer:
    found = rule.apply(votes[None], taxonomy)
    level, confidence = int(found.level[0]), float(found.confidence[0])
    leading, names = differential[max(level, 0)][0], taxonomy.level_names
    reasons = map(rule.why_never, range(len(names)))
    never = [f"No {name} is ever answered: {why}." for name, why in zip(names, reasons, strict=True) if why]
    if level < 0:
        undecided = (
            f"The nearest cases disagree too much, or are too far, for an answer: at this share of votes "
            f"({leading.share:.0%} for {leading.name}) it would be wrong more often than the {1 - rule.wanted:.0%} "
            "allowed."
        )
        texts = never if len(never) == len(names) else [undecided, *never]
        return Answer(None, "", confidence, differential, " ".join(texts))
    learnt = rule.levels[level]
    reason = (
        f"The nearest cases agree on the {names[level]}: {leading.share:.0%} of the votes (less where they are far). "
        f"Of the {learnt.answered} validation cases answered at this level, {learnt.right} were right "
        f"({learnt.right / learnt.answered:.0%}); of those with about this share of votes, {confidence:.0%}."
    )
    if level < taxonomy.fine_level:
        finer = rule.why_never(taxonomy.fine_level)
        why = (
            f"No {names[-1]} is ever answered: {finer}."
            if finer
            else f"The nearest cases disagree on the {names[-1]}, or are too far for it."
        )
        reason = f"{why} {reason}"
    return Answer(level, leading.name, confidence, differential, reason)


def ranked_nodes(shares: FloatArray, taxonomy: Taxonomy, level: int) -> tuple[Candidate, ...]:
    """The nodes of a level by falling share, those without any left out. `shares`: of conditions, shape (n_fine,)."""
    level_shares = taxonomy.sum_up(shares[None], level)[0]
    nodes, above = taxonomy.levels[level], taxonomy.names(level - 1) if level else ()
    return tuple(
        Candidate(nodes[number].name, float(level_shares[number]), above[nodes[number].parent] if level else "")
        for number in np.argsort(-level_shares, kind="stable")
        if level_shares[number] > 0
    )
