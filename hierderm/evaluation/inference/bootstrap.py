"""Intervals by resampling cases, paired between models.

Images of a case are not independent, so whole cases are drawn. The same draws serve every model of a comparison:
the difference between two models is then resampled on the same cases.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hierderm.types import FloatArray

BLOCK = 64  # rounds at a time: memory grows with the images, not with images times rounds
WEIGHTS = 2**24  # weights at a time


def case_draws(
    case_ids: npt.NDArray[np.str_], n_rounds: int, seed: int, among: npt.NDArray[np.str_] | None = None
) -> npt.NDArray[np.uint8]:
    """How often each image counts in each round, shape (n_rounds, n_images): its case is drawn with replacement.

    `among`: the case ids that are drawn from, where `case_ids` are a part of them; by default `case_ids` alone. Parts
    of one whole, the folds of a division or of another, then see the same draws of the same cases.
    """
    every = np.unique(case_ids if among is None else among)
    cases = np.searchsorted(every, case_ids)
    n_cases = len(every)
    rng = np.random.default_rng(seed)
    draws = np.empty((n_rounds, len(cases)), dtype=np.uint8)
    block = max(1, min(BLOCK, WEIGHTS // n_cases))
    for start in range(0, n_rounds, block):
        some = len(draws[start : start + block])
        drawn = rng.integers(n_cases, size=(some, n_cases)) + n_cases * np.arange(some)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=some * n_cases).reshape(some, n_cases)
        draws[start : start + some] = counts.astype(np.uint8)[:, cases]  # no case comes 256 times
    return draws


def resampled_means(values: FloatArray, draws: npt.NDArray[np.uint8]) -> FloatArray:
    """The mean over images in every round, shape (n_rounds,) or (n_rounds, n_columns); nan values do not count.

    `values`: shape (n_images,) or (n_images, n_columns). nan where no image with a value was drawn.
    """
    known = ~np.isnan(values)
    filled, counted = np.where(known, values, 0.0), known.astype(np.float64)
    blocks = []
    rounds = max(1, min(BLOCK, WEIGHTS // max(1, len(values))))
    for start in range(0, len(draws), rounds):
        weights = draws[start : start + rounds].astype(np.float64)
        total = weights @ counted
        blocks.append(np.divide(weights @ filled, total, out=np.full(total.shape, np.nan), where=total > 0))
    return np.concatenate(blocks) if blocks else np.empty((0, *values.shape[1:]))


def interval(value: float, replicates: FloatArray, confidence: float = 0.95) -> tuple[float, float]:
    """Lower and upper end of the interval of `value`: the quantiles of its replicates, centred on `value`.

    Drawing a case twice puts twins into a cluster together, which raises agreement measures in every round; centring
    takes this bias out (Efron and Tibshirani 1993, section 10.2). nan, nan where there is nothing to resample.
    """
    known = replicates[~np.isnan(replicates)]
    if len(known) == 0 or np.isnan(value):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(known - known.mean(), [tail, 1 - tail])
    return value + float(low), value + float(high)
