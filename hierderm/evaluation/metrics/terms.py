"""Retrieval metrics of one level, each a sum over the relevant items of a ranking.

A metric is a function of three arguments that gives the term of each relevant item: `number`, counting the relevant
items of its query from 1 in the order of the ranking; `place`, their 1-based places; `total`, how many relevant items
its query has. All have shape (n_relevant,), the items of one query after those of another, so the function works item
by item. From it follow the value of a query, the sum of its terms, and the exact change when any item is left out of
the gallery (`hierderm.evaluation.inference.influence`). A new metric is such a function and an entry of
`hierderm.evaluation.catalogue`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from hierderm.evaluation.metrics.ranking import Relevant
from hierderm.types import FloatArray, Floats, IntArray, Mask

Terms = Callable[[IntArray, IntArray, IntArray], Floats | Mask]  # number, place, total


def recall_at(number: IntArray, place: IntArray, total: IntArray, *, k: int) -> Floats | Mask:
    """1 where one of the first `k` is relevant, else 0 (as metric learning uses the word)."""
    return np.asarray((number == 1) & (place <= k))


def precision_at(number: IntArray, place: IntArray, total: IntArray, *, k: int) -> Floats | Mask:
    """Share of relevant items among the first `k`, in [0, 1]; out of k also where fewer than k are relevant."""
    return (place <= k) / k


def r_precision(number: IntArray, place: IntArray, total: IntArray) -> Floats | Mask:
    """Precision among the first R places, R the number of relevant items."""
    return (place <= total) / total


def map_at_r(number: IntArray, place: IntArray, total: IntArray) -> Floats | Mask:
    """MAP@R = 1/R * sum over relevant places i <= R of the precision at i (Musgrave et al. 2020, arXiv 2003.08505).

    Worked example: relevant places [1, 3], R = 2: only the first counts, P(1) = 1, so 0.5.
    """
    return np.asarray((place <= total) * number / place / total)


def reciprocal_rank(number: IntArray, place: IntArray, total: IntArray) -> Floats | Mask:
    """1 / the first relevant place, in (0, 1]."""
    return np.asarray((number == 1) / place)


def sums(metrics: Iterable[Terms], relevant: Relevant) -> FloatArray:
    """The values of some metrics, shape (n_metrics, n_queries), 0 for a query without a relevant item."""
    number, place, total = relevant.number, relevant.place, relevant.total
    return np.array([relevant.sums(terms(number, place, total)) for terms in metrics])


def changes(metrics: Sequence[Terms], relevant: Relevant) -> tuple[FloatArray, FloatArray]:
    """Changes of some metrics when one item is left out, both of shape (n_metrics, n_relevant).

    First by an irrelevant item between each relevant one and the one before it: the later ones move up by a place.
    Then by each relevant item: it also takes one off their number, and off the total. 0 where it is the only one.
    """
    number, place, total = relevant.number, relevant.place, relevant.total
    number_up, place_up, fewer = number - 1, np.maximum(place - 1, 1), np.maximum(total - 1, 1)
    by_irrelevant, by_relevant = np.empty((2, len(metrics), len(place)))
    for row, terms in enumerate(metrics):
        now = np.asarray(terms(number, place, total), dtype=np.float64)
        by_irrelevant[row] = relevant.sums_from(terms(number, place_up, total) - now)
        earlier = np.asarray(terms(number, place, fewer), dtype=np.float64)
        later = np.asarray(terms(number_up, place_up, fewer), dtype=np.float64)
        by_relevant[row] = relevant.sums_before(earlier - later)
        by_relevant[row] += relevant.spread(relevant.sums(later - now)) - later
    by_relevant[:, total == 1] = 0.0
    return by_irrelevant, by_relevant
