"""One evaluation from several: seeds of training, folds whose test cases differ, and repeats of a whole division."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hierderm.errors import EmbeddingError, some_of
from hierderm.evaluation.catalogue import Key, metric_name
from hierderm.evaluation.evaluation import Evaluation, Metric
from hierderm.evaluation.inference.bootstrap import interval
from hierderm.types import FloatArray


def combine(parts: Sequence[Sequence[Sequence[Evaluation]]], confidence: float, seed: int) -> Evaluation:
    """The one evaluation of all repeats of all folds of all seeds of a model: `parts[repeat][fold][seed]`."""
    repeats, n_runs = [], 0
    for folds in parts:
        combined = []
        for seeds in folds:
            n_runs += len(seeds)
            combined.append(combine_seeds(seeds, confidence, seed + n_runs))
        repeats.append(combine_folds(combined, confidence))
    return combine_repeats(repeats, confidence, seed)


def combine_seeds(evaluations: Sequence[Evaluation], confidence: float, seed: int) -> Evaluation:
    """The mean over trainings that differ in their seed alone, on the same cases; its interval includes the variance
    between seeds.

    Each bootstrap round draws as many of the seeds, with replacement, on its draw of the cases, the same for all
    metrics: tasks that are combined apart get the values they get together. The spread this adds is widened by
    S / (S - 1), as the variance of S seeds about their own mean is too small by that. Few seeds estimate it poorly: 3
    are a start.
    """
    _require_same_cases(evaluations, "seeds can be combined on the same test cases only.")
    return _mean(evaluations, confidence, np.random.default_rng([seed, *evaluations[0].model.encode()]), "trainings")


def combine_repeats(evaluations: Sequence[Evaluation], confidence: float, seed: int) -> Evaluation:
    """The mean over divisions of the same cases into folds, each with `combine_folds`; its interval includes
    the variance between divisions.

    The draws of cases must be the same in all (`inference.bootstrap.case_draws`). The variance between
    divisions (who trains, who is whose neighbour) is drawn as that between seeds, but alike for all models: they share
    the divisions.
    In `per_image` an image has the mean over the divisions in which it has a value: one whose condition has no other
    case in a fold's gallery may have one in another division's.
    """
    order = [np.argsort(evaluation.case_ids, kind="stable") for evaluation in evaluations]
    aligned = [
        replace(
            evaluation,
            case_ids=evaluation.case_ids[rows],
            per_image={key: values[rows] for key, values in evaluation.per_image.items()},
        )
        for evaluation, rows in zip(evaluations, order, strict=True)
    ]
    _require_same_cases(aligned, "repeats must test the same cases; use divisions of one table.")
    return _mean(aligned, confidence, np.random.default_rng(seed), "divisions")


def _require_same_cases(evaluations: Sequence[Evaluation], otherwise: str) -> None:
    if any(not np.array_equal(evaluations[0].case_ids, other.case_ids) for other in evaluations[1:]):
        raise EmbeddingError(otherwise)


def _mean(evaluations: Sequence[Evaluation], confidence: float, rng: np.random.Generator, what: str) -> Evaluation:
    if len(evaluations) == 1:
        return evaluations[0]
    first, n = evaluations[0], len(evaluations)
    metrics, replicates = [], {}
    n_rounds = next((len(rounds) for rounds in first.replicates.values()), 0)
    drawn = rng.integers(n, size=(n, n_rounds))
    for key, found in _defined(evaluations).items():
        metric, values = found[0][key], np.array([evaluation[key].value for evaluation in found])
        value, k = float(values.mean()), len(found)
        rounds = [evaluation.replicates[key] for evaluation in found if key in evaluation.replicates]
        if len(rounds) < k:
            metrics.append(replace(metric, value=value))
            continue
        excess = (values[drawn % k].mean(axis=0) - value) * np.sqrt(k / (k - 1)) if k > 1 else 0.0
        replicates[key] = np.stack(rounds).mean(axis=0) + excess  # of rounds, shape (k, n_rounds)
        low, high = interval(value, replicates[key], confidence)
        metrics.append(replace(metric, value=value, low=low, high=high))
    per_image = {
        key: _mean_of_known(np.stack([e.per_image[key] for e in evaluations if key in e.per_image]))
        for key in dict.fromkeys(key for evaluation in evaluations for key in evaluation.per_image)
    }
    texts = _warnings(evaluations, what)
    return replace(first, metrics=tuple(metrics), replicates=replicates, per_image=per_image, warnings=texts)


def _defined(evaluations: Sequence[Evaluation]) -> dict[Key, list[Evaluation]]:
    """For each metric the evaluations in which it is defined; all that have it where it is in none."""
    keys = dict.fromkeys((metric.level, metric.name) for evaluation in evaluations for metric in evaluation.metrics)
    having = {key: [evaluation for evaluation in evaluations if evaluation.get(key)] for key in keys}
    return {key: [e for e in found if not np.isnan(e[key].value)] or found for key, found in having.items()}


def _warnings(evaluations: Sequence[Evaluation], what: str) -> tuple[str, ...]:
    """The warnings of all, and which metrics are means over some of them only."""
    n = len(evaluations)
    partly = [f"{metric_name(*key)} ({len(found)})" for key, found in _defined(evaluations).items() if len(found) < n]
    said = [f"Means over those of the {n} {what} in which the metric is defined: {some_of(partly)}."] if partly else []
    return tuple(dict.fromkeys([*said, *(text for evaluation in evaluations for text in evaluation.warnings)]))


def _mean_of_known(values: FloatArray) -> FloatArray:
    """Mean over the first axis of what is not NaN; NaN where all are."""
    n_known = (~np.isnan(values)).sum(axis=0)
    unknown = np.full(values.shape[1], np.nan)
    return np.asarray(np.divide(np.nansum(values, axis=0), n_known, out=unknown, where=n_known > 0))


def combine_folds(evaluations: Sequence[Evaluation], confidence: float) -> Evaluation:
    """The mean over folds, each weighted by its images with a value, and all their cases together.

    Each fold is scored on its own test cases, gallery and clusters: retrieval among a k-th of the cases is harder or
    easier than among all, so values of other numbers of folds do not compare. Categories, groups and curves are those
    of the first fold, as examples; gaps are left out.
    """
    if len(evaluations) == 1:
        return evaluations[0]
    first = evaluations[0]
    every_case = [set(evaluation.case_ids.tolist()) for evaluation in evaluations]
    if sum(map(len, every_case)) != len(set.union(*every_case)):
        raise EmbeddingError("folds must not share test cases; use splits of one k-fold division.")
    metrics: list[Metric] = []
    replicates: dict[Key, FloatArray] = {}
    for key in _defined(evaluations):
        found = [m for m in (evaluation.get(key) for evaluation in evaluations) if m is not None]
        defined = [m for m in found if not np.isnan(m.value)]
        weights = np.array([m.count for m in defined], dtype=np.float64)
        value = float(np.average([m.value for m in defined], weights=weights)) if defined else float("nan")
        with_rounds = [
            e.replicates[key] for e in evaluations if (m := e.get(key)) in defined and m and key in e.replicates
        ]
        if with_rounds:
            replicates[key] = np.average(np.stack(with_rounds), axis=0, weights=weights)
        ends = interval(value, replicates.get(key, np.array([])), confidence)
        n_skipped = sum(m.skipped for m in found)
        metrics.append(Metric(*key, value, *ends, sum(m.count for m in found), n_skipped))
    shared = [key for key in first.per_image if all(key in evaluation.per_image for evaluation in evaluations)]
    return replace(
        first,
        metrics=tuple(metrics),
        replicates=replicates,
        n_images=sum(evaluation.n_images for evaluation in evaluations),
        n_cases=sum(evaluation.n_cases for evaluation in evaluations),
        per_image={key: np.concatenate([e.per_image[key] for e in evaluations]) for key in shared},
        case_ids=np.concatenate([evaluation.case_ids for evaluation in evaluations]),
        gaps=(),
        warnings=_warnings(evaluations, "folds"),
    )
