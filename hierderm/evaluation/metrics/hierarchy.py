"""Metrics of one ranking that give credit by the tree: a neighbour of the right category is better than none.

Relevance of an item is its depth: on how many levels, from the top, it agrees with the query (0: not even the
category; n_levels: the same condition). The height of the lowest common ancestor is n_levels - depth.

`..._changes` give the change of a metric when one item is left out: first by an irrelevant item with 0, 1, ... relevant
ones before it, shape (n_relevant + 1,), then by each relevant item, shape (n_relevant,). Relevant is what shares the
query's coarsest node. Leaving out an item moves the later ones up by one place, and a relevant one changes the best
order, too; sums from both ends give all changes in O(n_relevant).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hierderm.evaluation.metrics.ranking import Ranking
from hierderm.evaluation.metrics.terms import sums_from_the_end
from hierderm.types import FloatArray, IntArray

Changes = Callable[[Ranking], tuple[FloatArray, FloatArray]]


def ndcg(ranking: Ranking) -> float:
    """Normalised discounted cumulative gain over the whole ranking, in [0, 1]; nan without a relevant item.

    DCG = sum over items of (2^depth - 1) / log2(1 + rank), divided by that of the best order (Järvelin and
    Kekäläinen 2002; the exponential gain is that of Burges et al. 2005).

    Worked example: depths of the ranking [1, 2]: DCG = 1 / 1 + 3 / log2(3) = 2.893, best 3 / 1 + 1 / log2(3) = 3.631,
    so 0.797.
    """
    if not len(ranking.ranks):
        return float("nan")
    gains = 2.0**ranking.depths - 1
    return float((gains / np.log2(1 + ranking.ranks)).sum() / _best_gain(ranking.depths))


def ndcg_changes(ranking: Ranking) -> tuple[FloatArray, FloatArray]:
    """Changes of nDCG; see the head of this file."""
    gains, depths = 2.0**ranking.depths - 1, ranking.depths
    now, moved = gains / np.log2(1 + ranking.ranks), gains / np.log2(1 + _one_place_up(ranking))
    best = _best_gain(depths)
    by_irrelevant = sums_from_the_end(moved - now) / best
    without = np.ones(len(now))
    for depth in np.unique(depths):
        same = depths == depth
        without[same] = _best_gain(np.delete(depths, int(same.argmax())))
    return by_irrelevant, _without_each(now, moved) / without - now.sum() / best


def _best_gain(depths: IntArray) -> float:
    """DCG of the best order, the deepest first; 1 for no item, so that it divides."""
    counts = np.bincount(depths)[::-1]
    gains = np.repeat(2.0 ** np.arange(len(counts))[::-1] - 1, counts)
    return float((gains / np.log2(2 + np.arange(len(gains)))).sum()) or 1.0


def _one_place_up(ranking: Ranking) -> IntArray:
    return np.maximum(ranking.ranks - 1, 1)


def _without_each(now: FloatArray, moved: FloatArray) -> FloatArray:
    """For each item the sum of the terms of all others, the later ones moved up by a place."""
    return np.asarray(np.cumsum(now) - now + sums_from_the_end(moved)[1:])


def hierarchical_average_precision(ranking: Ranking) -> float:
    """H-AP (Ramzi et al. 2022, HAPPIER, arXiv 2207.04873, section 3.1), in [0, 1]; nan without a relevant item.

    With rel = depth / n_levels: H-AP = 1 / (sum of rel) * sum over relevant items of H-rank / rank, where an item's
    H-rank adds to its own rel, over the relevant items before it, the lesser of the two rels. With one level it is
    average precision. The paper allows any relevance that falls with the height; this is its linear one, not divided
    by the size of the level, so that conditions of any size weigh the same.

    Worked example: depths of the ranking [1, 2] of 2 levels: rel 0.5 and 1. H-ranks 0.5 and 1 + 0.5;
    H-AP = (0.5 / 1 + 1.5 / 2) / 1.5 = 0.833.
    """
    if not len(ranking.ranks):
        return float("nan")
    return float((_h_rank(ranking) / ranking.ranks).sum() / ranking.depths.sum())


def hap_changes(ranking: Ranking) -> tuple[FloatArray, FloatArray]:
    """Changes of hierarchical AP; see the head of this file."""
    depths, before = ranking.depths, _one_place_up(ranking)
    h_rank, total = _h_rank(ranking), depths.sum()
    now, moved = h_rank / ranking.ranks, h_rank / before
    left = _without_each(now, moved)
    for depth in range(1, ranking.n_levels + 1):
        # What an item of this depth had given to the H-ranks of later ones goes, too.
        shared = np.minimum(depths, depth) / before
        same = depths == depth
        left[same] -= (sums_from_the_end(shared)[1:])[same]
    without = np.maximum(total - depths, 1)  # a single item leaves nothing over 1
    return sums_from_the_end(moved - now) / total, left / without - now.sum() / total


def _h_rank(ranking: Ranking) -> FloatArray:
    """The H-rank of each relevant item, in levels: min(a, b) in steps, each level that both reach adds one."""
    h_rank = np.zeros(len(ranking.ranks))
    for depth in range(1, ranking.n_levels + 1):
        reach = ranking.depths >= depth
        h_rank[reach] += np.arange(1, reach.sum() + 1)
    return h_rank


def average_set_intersection(ranking: Ranking) -> float:
    """ASI over the first N places, N the number of relevant items, in [0, 1]; nan without a relevant item.

    ASI = mean over n = 1..N of |retrieved_n and ideal_n| / n (Fagin et al. 2003; for trees Sun et al. 2021, Dynamic
    Metric Learning). The ideal first n go from the deepest level up; among items of one depth it takes the ones that
    were retrieved, so that equals in the tree never cost anything.

    Worked example: depths of the ranking [0, 2, 1] (N = 2): n = 1: ideal {2}, retrieved {0}: 0; n = 2: ideal {2, 1},
    retrieved {0, 2}: 1/2. ASI = 0.25.
    """
    total = len(ranking.ranks)
    if not total:
        return float("nan")
    n = np.arange(1, total + 1)
    shared = np.zeros(total)
    wanted_before = np.zeros(total)
    for depth in range(ranking.n_levels, 0, -1):
        places = ranking.ranks[ranking.depths == depth]
        retrieved = np.searchsorted(places, n, side="right")
        wanted = np.minimum(n - wanted_before, len(places))
        shared += np.minimum(retrieved, wanted)
        wanted_before += wanted
    return float((shared / n).mean())


def mean_lca_height(ranking: Ranking, k: int) -> float:
    """Mean height of the lowest common ancestor over the first `k` items, in [0, n_levels]; lower is better.

    The hierarchical distance of the top k of Bertinetto et al. 2020 (Making Better Mistakes, arXiv 1912.09393,
    section 4.1). Over all that are ranked where they are fewer; nan where none is.
    """
    shown = min(k, ranking.n_ranked)
    if not shown:
        return float("nan")
    return ranking.n_levels - float(ranking.depths[ranking.ranks <= k].sum()) / shown


def mistake_severity(ranking: Ranking) -> float:
    """Height of the lowest common ancestor with a wrong nearest item, in [1, n_levels]; lower is better.

    nan where the nearest item is right: its mean is over mistakes only (arXiv 1912.09393, section 4.1). A model can
    lower it by making more, milder mistakes: never read it without recall@1.
    """
    height = mean_lca_height(ranking, 1)
    return height if height > 0 else float("nan")
