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
from dataclasses import dataclass

import numpy as np

from hierderm.evaluation.metrics.ranking import Relevant
from hierderm.types import FloatArray, Floats, IntArray, Mask

Terms = Callable[[IntArray, IntArray, IntArray], Floats | Mask]  # number, place, total


@dataclass(frozen=True)
class LevelMetric:
    """A metric: its terms, and how many of the first relevant items can have one that is not 0, None for all.

    Items after the `first` are not looked at, which saves most of the time of a metric like recall@1.
    """

    terms: Terms
    first: int | None = None


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


def sums(metrics: Iterable[LevelMetric], relevant: Relevant) -> FloatArray:
    """The values of some metrics, shape (n_metrics, n_queries), 0 for a query without a relevant item."""
    values = []
    for metric in metrics:
        which, head = relevant.first(metric.first)
        values.append(head.sums(metric.terms(head.number, head.place, relevant.total[which])))
    return np.array(values)


def changes(metrics: Sequence[LevelMetric], relevant: Relevant) -> tuple[FloatArray, FloatArray]:
    """Changes of some metrics when one item is left out, both of shape (n_metrics, n_relevant).

    First by an irrelevant item between each relevant one and the one before it: the later ones move up by a place.
    Then by each relevant item: it also takes one off their number, and off the total. 0 where it is the only one.
    """
    by_irrelevant, by_relevant = np.zeros((2, len(metrics), len(relevant.place)))
    for row, metric in enumerate(metrics):
        # One more than the first: it may become one of them.
        which, head = relevant.first(None if metric.first is None else metric.first + 1)
        terms, number, place, total = metric.terms, head.number, head.place, relevant.total[which]
        place_up, fewer = np.maximum(place - 1, 1), np.maximum(total - 1, 1)
        now = np.asarray(terms(number, place, total), dtype=np.float64)
        by_irrelevant[row, which] = head.sums_from(terms(number, place_up, total) - now)
        earlier = np.asarray(terms(number, place, fewer), dtype=np.float64)
        later = np.asarray(terms(number - 1, place_up, fewer), dtype=np.float64)
        if metric.first is not None:
            by_relevant[row] = relevant.spread(head.sums(earlier - now))  # without an item after them
        by_relevant[row, which] = head.sums_before(earlier - later) - later + head.spread(head.sums(later - now))
    by_relevant[:, relevant.total == 1] = 0.0
    return by_irrelevant, by_relevant
