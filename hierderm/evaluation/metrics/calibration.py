"""Are probabilities calibrated, and how large must sets be that hold the truth?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from hierderm.embeddings import by_blocks
from hierderm.evaluation.metrics.group_sums import Weights, group_sums, once
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import FloatArray, Floats, IntArray, Mask

SMALLEST = 1e-7  # a probability that stands for 0 in logarithms


def bin_of(confidence: FloatArray, n_bins: int) -> IntArray:
    """The bin of each confidence, of `n_bins` equally wide ones over [0, 1], shape (n,)."""
    return np.minimum((confidence * n_bins).astype(np.int64), n_bins - 1)


def calibration_error(
    confidence: FloatArray, right: FloatArray, n_bins: int, weights: Weights | None = None
) -> FloatArray:
    """Expected calibration error, in [0, 1], shape (...): mean over images of |accuracy - confidence| of their bin.

    Equally wide bins (Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599, equation 3). Small tests raise it. nan of
    no image. `weights`: how often each image counts, shape (..., n_images); by default once.
    """
    weights = once(len(right)) if weights is None else weights
    gap = np.abs(group_sums(weights, bin_of(confidence, n_bins), n_bins, right - confidence)).sum(axis=-1)
    return _by(gap, weights.sum(axis=-1, dtype=np.float64))


def _by(values: FloatArray, counts: FloatArray) -> FloatArray:
    """`values / counts`, nan for a count of 0."""
    return np.asarray(np.divide(values, counts, out=np.full(np.shape(values), np.nan), where=counts > 0))


def reliability(confidence: FloatArray, right: FloatArray, n_bins: int) -> list[dict[str, float]]:
    """For each bin that is not empty: mean confidence, accuracy and number of images."""
    bins = bin_of(confidence, n_bins)
    return [
        {
            "confidence": float(confidence[bins == number].mean()),
            "accuracy": float(right[bins == number].mean()),
            "count": int((bins == number).sum()),
        }
        for number in np.unique(bins)
    ]


def brier(probabilities: Floats, labels: IntArray) -> FloatArray:
    """Squared distance of each image's probabilities from its label, shape (n,), in [0, 2] (Brier 1950)."""
    on_label = probabilities[np.arange(len(labels)), labels]
    squares = by_blocks(probabilities, lambda some: (some.astype(np.float64) ** 2).sum(axis=1))
    return np.asarray(squares - 2 * on_label + 1)


def risk_coverage(
    confidence: FloatArray, right: FloatArray, weights: Weights | None = None
) -> tuple[FloatArray, FloatArray]:
    """Share answered, and the error among those, when the surest are answered first; both of the distinct confidences.

    Shape (..., n_confidences). Images of equal confidence are answered together (Geifman and El-Yaniv 2017, arXiv
    1705.08500). 0 and 0 where none is answered yet; of no image the shares are nan. `weights`: as of
    `calibration_error`.
    """
    order = np.argsort(-confidence, kind="stable")
    times = (once(len(right)) if weights is None else weights)[..., order].astype(np.float64)
    last = np.append(np.diff(confidence[order]) != 0, True)
    answered, wrong = (np.cumsum(counted, axis=-1)[..., last] for counted in (times, (1 - right[order]) * times))
    return _by(answered, answered[..., -1:]), wrong / np.maximum(answered, 1)


def aurc(confidence: FloatArray, right: FloatArray, weights: Weights | None = None) -> FloatArray:
    """Area under risk-coverage, in [0, 1], shape (...): the mean error over the coverages (Geifman et al. 2019,
    arXiv 1805.08206). `weights`: as of `calibration_error`.
    """
    coverage, risk = risk_coverage(confidence, right, weights)
    return np.asarray((risk * np.diff(coverage, prepend=0, axis=-1)).sum(axis=-1))


def temperature(probabilities: Floats, labels: IntArray) -> float:
    """The temperature, in [0.05, 20], under which the labels are most likely (Guo et al. 2017, section 4.2).

    `probabilities`: of the conditions, of validation images, shape (n, n_fine).
    """
    logs = _logs(probabilities)

    def cost(temperature: float) -> float:
        return -float(log_softmax(logs / temperature, axis=1)[np.arange(len(labels)), labels].mean())

    return best_temperature(cost, 0.05, 20)


def best_temperature(cost: Callable[[float], float], low: float, high: float) -> float:
    """The temperature in [low, high] with the least `cost`, by Brent's bounded search over its logarithm."""
    found = minimize_scalar(lambda log: cost(float(np.exp(log))), bounds=(np.log(low), np.log(high)), method="bounded")
    return float(np.exp(found.x))


def scaled(probabilities: Floats, temperature: float) -> FloatArray:
    """Probabilities at another temperature, shape (n, n_fine), rows summing to 1."""
    return by_blocks(probabilities, lambda some: softmax(_logs(some) / temperature, axis=1))


def _logs(probabilities: Floats) -> FloatArray:
    return np.log(np.maximum(probabilities.astype(np.float64), SMALLEST))


def conformal_threshold(probabilities: Floats, labels: IntArray, error: float) -> float:
    """The least probability that a class must have to be in the set, so that the set has the label with 1 - error.

    Split conformal prediction with the score 1 - p(label) (Sadinle et al. 2019, arXiv 1609.00451): of n exchangeable
    calibration images, the ceil((n + 1)(1 - error))-th smallest score; 0 (every class) where that exceeds n.
    """
    n = len(labels)
    place = int(np.ceil((n + 1) * (1 - error)))
    on_label = np.sort(probabilities[np.arange(n), labels])[::-1]
    return float(on_label[place - 1]) if place <= n else 0.0


def conformal_sets(probabilities: Floats, threshold: float) -> Mask:
    """Which classes are in each image's set, shape (n, n_classes); an empty set gets the leading class."""
    sets = probabilities >= threshold
    sets[np.arange(len(sets)), probabilities.argmax(axis=1)] = True
    return sets


def n_nodes(sets: Mask, taxonomy: Taxonomy) -> IntArray:
    """How many nodes it takes to name each set of conditions, shape (n,): a node stands for all conditions under it."""
    unders = [(taxonomy.membership(level), taxonomy.parents(level)) for level in range(taxonomy.n_levels)]

    def counted(some: Mask) -> IntArray:
        whole_above = np.zeros((len(some), 1), dtype=bool)  # of the root, under which all lie: it has no name
        counts = np.zeros(len(some), dtype=np.int64)
        for under, parents in unders:
            whole = (some.astype(np.float64) @ under) == under.sum(axis=0)
            counts += (whole & ~whole_above[:, parents]).sum(axis=1)
            whole_above = whole
        return counts

    return by_blocks(sets, counted)


def coverage_by_class(
    sets: Mask, labels: IntArray, categories: IntArray, names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """How often the sets have the label, and how large they are, category by category."""
    covered = sets[np.arange(len(labels)), labels]
    return [
        {
            "category": names[number],
            "n_images": int((categories == number).sum()),
            "coverage": float(covered[categories == number].mean()),
            "size": float(sets[categories == number].sum(axis=1).mean()),
        }
        for number in np.unique(categories)
    ]
