"""Are the classifier's probabilities calibrated, and what can be answered at a wanted error rate?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hierderm.evaluation.catalogue import TREE, Key
from hierderm.evaluation.metrics import calibration as cal
from hierderm.evaluation.metrics.classification import hierarchical_scores, hierarchical_scores_by_image, set_overlap
from hierderm.evaluation.metrics.group_sums import Weights
from hierderm.evaluation.metrics.selective import AnswerRule
from hierderm.evaluation.scores import Scores, Statistic
from hierderm.evaluation.subject import Subject
from hierderm.types import FloatArray, Floats, IntArray

CURVE_POINTS = 60  # of a risk-coverage curve in the report


@dataclass(frozen=True)
class _Learnt:
    """From one validation image a case: the temperature, and at it the probabilities of both splits.

    `fine`: conditions of the validation images; images of one case are not independent, so each case has one.
    """

    temperature: float
    validation: FloatArray
    fine: IntArray
    test: FloatArray


def calibration(subject: Subject) -> Scores:
    """Calibration errors and risk-coverage; with validation images conformal sets and answers on the tree, too."""
    if subject.test.probabilities is None:
        return Scores()
    learnt = _learn(subject)
    parts = [_calibration_errors(subject, subject.test.probabilities, learnt)]
    if learnt is not None:
        parts += [_conformal_sets(subject, learnt), _answers(subject, learnt)]
    return Scores.joined(parts)


def _learn(subject: Subject) -> _Learnt | None:
    validation, probabilities = subject.validation, subject.test.probabilities
    if validation is None or validation.probabilities is None or probabilities is None:
        return None
    _, first = np.unique(validation.case_ids, return_index=True)
    fine, given = subject.fine_of(validation)[first], validation.probabilities[first]
    temperature = cal.temperature(given, fine)
    return _Learnt(temperature, cal.scaled(given, temperature), fine, cal.scaled(probabilities, temperature))


def _calibration_errors(subject: Subject, probabilities: Floats, learnt: _Learnt | None) -> Scores:
    tree, bins = subject.taxonomy, subject.config.calibration_bins
    per_image: dict[Key, FloatArray] = {}
    statistics: list[Statistic] = []
    details: dict[str, Any] = {"reliability": {}, "risk_coverage": {}}
    for level, name in subject.levels:
        labels = subject.labels(level)
        given = tree.sum_up(probabilities, level)
        per_image[name, "brier"] = cal.brier(given, labels)
        confidence, right = _leading(given, labels)
        statistics += [_error(name, "ece", confidence, right, bins), _error(name, "aurc", confidence, right, bins)]
        if learnt is not None:
            confidence, right = _leading(tree.sum_up(learnt.test, level), labels)
            statistics.append(_error(name, "ece_scaled", confidence, right, bins))
        details["reliability"][name] = cal.reliability(confidence, right, bins)
        coverage, risk = cal.risk_coverage(confidence, right)
        steps = np.unique(np.linspace(0, len(coverage) - 1, min(len(coverage), CURVE_POINTS)).astype(int))
        details["risk_coverage"][name] = [[float(coverage[i]), float(risk[i])] for i in steps]
    return Scores(per_image, statistics=tuple(statistics), details=details)


def _leading(probabilities: Floats, labels: IntArray) -> tuple[FloatArray, FloatArray]:
    """Probability of the leading node of each image, and 1 where it is right."""
    return probabilities.max(axis=1).astype(np.float64), (probabilities.argmax(axis=1) == labels).astype(np.float64)


def _error(level: str, name: str, confidence: FloatArray, right: FloatArray, n_bins: int) -> Statistic:
    def compute(weights: Weights, _: IntArray | None) -> FloatArray:
        if name == "aurc":
            return cal.aurc(confidence, right, weights)[:, None]
        return cal.calibration_error(confidence, right, n_bins, weights)[:, None]

    return Statistic(((level, name),), compute)


def _conformal_sets(subject: Subject, learnt: _Learnt) -> Scores:
    tree = subject.taxonomy
    per_image: dict[Key, FloatArray] = {}
    details: dict[str, Any] = {}
    for level, name in subject.levels:
        labels, validation_labels = subject.labels(level), tree.to_level(learnt.fine, level)
        error = subject.config.conformal_error
        threshold = cal.conformal_threshold(tree.sum_up(learnt.validation, level), validation_labels, error)
        sets = cal.conformal_sets(tree.sum_up(learnt.test, level), threshold)
        per_image[name, "conformal_coverage"] = sets[np.arange(len(labels)), labels].astype(np.float64)
        per_image[name, "conformal_size"] = sets.sum(axis=1).astype(np.float64)
        if 0 < level == tree.fine_level:
            per_image[TREE, "conformal_nodes"] = cal.n_nodes(sets, tree).astype(np.float64)
        details[name] = cal.coverage_by_class(sets, labels, subject.labels(0), tree.names(0))
    return Scores(per_image, details={"conformal": details})


def _answers(subject: Subject, learnt: _Learnt) -> Scores:
    tree = subject.taxonomy
    rule = AnswerRule.learn(learnt.validation, learnt.fine, tree, 1 - subject.config.answer_error)
    found = rule.apply(learnt.test, tree)
    answered = found.level >= 0
    common, depth = set_overlap(subject.fine, found.node, found.level, tree)
    wrong = np.where(answered, (common < depth).astype(np.float64), np.nan)
    per_image: dict[Key, FloatArray] = {
        (TREE, "answer_rate"): answered.astype(np.float64),
        (TREE, "answer_error"): wrong,
        (TREE, "answer_depth"): depth.astype(np.float64),
    }
    names, length = ("precision", "recall", "f1"), tree.path_length[subject.fine]
    macro = hierarchical_scores_by_image(common, depth, length)
    per_image |= {(TREE, f"answer_{name}_macro"): values for name, values in zip(names, macro, strict=True)}
    keys = tuple((TREE, f"answer_{name}") for name in names)
    statistic = Statistic(keys, lambda weights, _: hierarchical_scores(common, depth, length, weights))
    levels = [
        {
            "level": name,
            "answered": int((found.level == level).sum()),
            "wrong": int(np.nansum(wrong[found.level == level])),
            "why_never": rule.why_never(level),
        }
        for level, name in subject.levels
    ]
    details = {
        "n_validation": len(learnt.fine),
        "temperature": learnt.temperature,
        "thresholds": [level.threshold for level in rule.levels],
        "by_level": levels,
    }
    return Scores(per_image, statistics=(statistic,), details={"answers": details})
