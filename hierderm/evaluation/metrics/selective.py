"""Thresholds that keep the error rate of answers to a wanted one, learnt from validation cases."""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from hierderm.types import FloatArray, Mask

STEPS = 25  # thresholds that are tried, from the surest queries down
FEWEST = 20  # answered queries that a threshold is judged on, at least
RISK = 0.1  # probability with which a threshold may be too low


def controlled_threshold(confidence: FloatArray, right: Mask, wanted: float) -> float | None:
    """The lowest confidence from which on answers are right with the rate `wanted`, save with probability 0.1.

    `confidence`, `right`: of independent validation queries, shape (n_queries,). Thresholds are tested from the surest
    down, each with a binomial test, until one fails (fixed-sequence testing, Angelopoulos et al. 2021, Learn then
    Test, arXiv 2110.01052, section 2.3). None where not even the surest pass, or fewer than 20 queries are given.
    """
    threshold = None
    counts = np.unique(np.linspace(min(FEWEST, len(confidence)), len(confidence), STEPS).astype(int))
    falling = np.sort(confidence)[::-1]
    for count in counts[counts >= FEWEST]:
        candidate = float(falling[count - 1])
        answered = confidence >= candidate
        if binom.cdf(int((~right[answered]).sum()), int(answered.sum()), 1 - wanted) > RISK:
            break
        threshold = candidate
    return threshold
