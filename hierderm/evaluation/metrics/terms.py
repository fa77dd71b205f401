"""Retrieval metrics of one level, each a sum over the relevant items of a ranking.

A metric is a function of three arguments that gives the term of each relevant item: `number`, counting the relevant
items from 1 in the order of the ranking, shape (n_relevant,); `place`, their 1-based places, same shape; `total`, how
many relevant items there are. From it follow the value of a query, the sum of the terms, and the exact change when any
item is left out of the gallery (`hierderm.evaluation.inference.influence`). A new metric is such a function and an
entry of `hierderm.evaluation.catalogue`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from hierderm.types import FloatArray, Floats, IntArray, Mask

Terms = Callable[[IntArray, IntArray, int], Floats | Mask]  # number, place, total


def recall_at(number: IntArray, place: IntArray, total: int, *, k: int) -> Floats | Mask:
    """1 where one of the first `k` is relevant, else 0 (as metric learning uses the word)."""
    return np.asarray((number == 1) & (place <= k))


def precision_at(number: IntArray, place: IntArray, total: int, *, k: int) -> Floats | Mask:
    """Share of relevant items among the first `k`, in [0, 1]; out of k also where fewer than k are relevant."""
    return (place <= k) / k


def r_precision(number: IntArray, place: IntArray, total: int) -> Floats | Mask:
    """Precision among the first R places, R the number of relevant items."""
    return (place <= total) / total


def map_at_r(number: IntArray, place: IntArray, total: int) -> Floats | Mask:
    """MAP@R = 1/R * sum over relevant places i <= R of the precision at i (Musgrave et al. 2020, arXiv 2003.08505).

    Worked example: relevant places [1, 3], R = 2: only the first counts, P(1) = 1, so 0.5.
    """
    return np.asarray((place <= total) * number / place / total)


def reciprocal_rank(number: IntArray, place: IntArray, total: int) -> Floats | Mask:
    """1 / the first relevant place, in (0, 1]."""
    return np.asarray((number == 1) / place)


def sums(metrics: Iterable[Terms], relevant: IntArray) -> FloatArray:
    """The values of some metrics for one query, shape (n_metrics,), 0 without a relevant item.

    `relevant`: the 1-based places of the relevant items, ascending.
    """
    return np.asarray(table(metrics, np.arange(1, len(relevant) + 1), relevant, len(relevant)).sum(axis=0))


def table(metrics: Iterable[Terms], number: IntArray, place: IntArray, total: int) -> FloatArray:
    """The terms of several metrics, shape (n_relevant, n_metrics)."""
    return np.stack([np.asarray(terms(number, place, total), dtype=np.float64) for terms in metrics], axis=1)


def sums_from_the_end(terms: FloatArray) -> FloatArray:
    """Sums of all rows from each on, and 0 after the last, shape (n + 1, ...)."""
    sums = np.zeros((len(terms) + 1, *terms.shape[1:]))
    np.cumsum(terms[::-1], axis=0, out=sums[-2::-1])
    return sums
