"""Metrics of rankings that give credit by the tree: a neighbour of the right category is better than none.

Relevance of an item is its depth: on how many levels, from the top, it agrees with the query (0: not even the
category; n_levels: the same condition). The height of the lowest common ancestor is n_levels - depth.

A metric takes a block of rankings and gives a value a query. `..._changes` give the change of a metric when one item is
left out, twice in shape (n_found,): by an irrelevant item between each relevant one and the one before it, and by each
relevant item. Relevant is what shares the query's coarsest node. Leaving out an item moves the later ones up by one
place, and a relevant one changes the best order, too; sums from both ends give all changes in O(n_found).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hierderm.evaluation.metrics.ranking import Rankings
from hierderm.types import FloatArray, IntArray

Changes = Callable[[Rankings], tuple[FloatArray, FloatArray]]


def ndcg(rankings: Rankings) -> FloatArray:
    """Normalised discounted cumulative gain over the whole ranking, in [0, 1]; nan without a relevant item.

    DCG = sum over items of (2^depth - 1) / log2(1 + rank), divided by that of the best order (Järvelin and
    Kekäläinen 2002; the exponential gain is that of Burges et al. 2005).

    Worked example: depths of the ranking [1, 2]: DCG = 1 / 1 + 3 / log2(3) = 2.893, best 3 / 1 + 1 / log2(3) = 3.631,
    so 0.797.
    """
    found = rankings.found
    gained = found.sums(_gains(rankings) / np.log2(1 + found.place))
    return _where_found(rankings, gained / _best_gain(_counts(rankings)))


def ndcg_changes(rankings: Rankings) -> tuple[FloatArray, FloatArray]:
    """Changes of nDCG; see the head of this file."""
    found, gains, counts = rankings.found, _gains(rankings), _counts(rankings)
    now, moved = gains / np.log2(1 + found.place), gains / np.log2(1 + _one_place_up(rankings))
    best = _best_gain(counts)
    by_irrelevant = found.sums_from(moved - now) / found.spread(best)
    one_fewer = np.stack(
        [_best_gain(np.maximum(counts - one, 0)) for one in np.eye(len(counts), dtype=int)[:, :, None]]
    )
    left = _without_each(rankings, now, moved)
    without = one_fewer[rankings.depths - 1, found.row]
    return by_irrelevant, left / without - found.spread(found.sums(now) / best)


def _gains(rankings: Rankings) -> FloatArray:
    return np.asarray((2.0 ** np.arange(rankings.n_levels + 1) - 1)[rankings.depths])


def _counts(rankings: Rankings) -> IntArray:
    """How many items of each depth from 1 on each query has, shape (n_levels, n_queries)."""
    deeper = np.stack([rankings.relevant(level).counts for level in range(rankings.n_levels)])
    return np.asarray(deeper - np.append(deeper[1:], np.zeros_like(deeper[:1]), axis=0))


def _best_gain(counts: IntArray) -> FloatArray:
    """DCG of the best order, the deepest first, shape (n_queries,); 1 for no item, so that it divides.

    `counts`: as of `_counts`.
    """
    discounts = np.append(0, np.cumsum(1 / np.log2(2 + np.arange(counts.sum(axis=0).max(initial=0)))))
    best, before = np.zeros(counts.shape[1]), np.zeros(counts.shape[1], dtype=np.int64)
    for depth in range(len(counts), 0, -1):
        after = before + counts[depth - 1]
        best += (2.0**depth - 1) * (discounts[after] - discounts[before])
        before = after
    return np.where(best > 0, best, 1.0)


def _one_place_up(rankings: Rankings) -> IntArray:
    return np.maximum(rankings.found.place - 1, 1)


def _without_each(rankings: Rankings, now: FloatArray, moved: FloatArray) -> FloatArray:
    """For each item the sum of the terms of all others of its query, the later ones moved up by a place."""
    found = rankings.found
    return np.asarray(found.sums_before(now - moved) + found.spread(found.sums(moved)) - moved)


def _where_found(rankings: Rankings, values: FloatArray) -> FloatArray:
    """nan for queries without a relevant item."""
    return np.where(rankings.found.counts > 0, values, np.nan)


def hierarchical_average_precision(rankings: Rankings) -> FloatArray:
    """H-AP (Ramzi et al. 2022, HAPPIER, arXiv 2207.04873, section 3.1), in [0, 1]; nan without a relevant item.

    With rel = depth / n_levels: H-AP = 1 / (sum of rel) * sum over relevant items of H-rank / rank, where an item's
    H-rank adds to its own rel, over the relevant items before it, the lesser of the two rels. With one level it is
    average precision. The paper allows any relevance that falls with the height; this is its linear one, not divided
    by the size of the level, so that conditions of any size weigh the same.

    Worked example: depths of the ranking [1, 2] of 2 levels: rel 0.5 and 1. H-ranks 0.5 and 1 + 0.5;
    H-AP = (0.5 / 1 + 1.5 / 2) / 1.5 = 0.833.
    """
    found = rankings.found
    return _where_found(rankings, found.sums(_h_rank(rankings) / found.place) / _total_depth(rankings))


def hap_changes(rankings: Rankings) -> tuple[FloatArray, FloatArray]:
    """Changes of hierarchical AP; see the head of this file."""
    found, depths, before = rankings.found, rankings.depths, _one_place_up(rankings)
    h_rank, total = _h_rank(rankings), _total_depth(rankings)
    now, moved = h_rank / found.place, h_rank / before
    left = _without_each(rankings, now, moved)
    for depth in range(1, rankings.n_levels + 1):
        # What an item of this depth had given to the H-ranks of later ones goes, too.
        shared = np.minimum(depths, depth) / before
        same = depths == depth
        left[same] -= (found.sums_from(shared) - shared)[same]
    without = np.maximum(found.spread(total) - depths, 1)  # a single item leaves nothing over 1
    by_irrelevant = found.sums_from(moved - now) / found.spread(total)
    return by_irrelevant, left / without - found.spread(found.sums(now) / total)


def _h_rank(rankings: Rankings) -> IntArray:
    """The H-rank of each relevant item, in levels: min(a, b) in steps, each level that both reach adds one."""
    h_rank = rankings.found.number.copy()
    for level in range(1, rankings.n_levels):
        h_rank[rankings.which(level)] += rankings.relevant(level).number
    return h_rank


def _total_depth(rankings: Rankings) -> IntArray:
    """The sum of the depths of each query's items, shape (n_queries,); 1 without any, so that it divides."""
    counts = [rankings.relevant(level).counts for level in range(rankings.n_levels)]
    return np.asarray(np.maximum(np.sum(counts, axis=0), 1))


def average_set_intersection(rankings: Rankings) -> FloatArray:
    """ASI over the first N places, N the number of relevant items, in [0, 1]; nan without a relevant item.

    ASI = mean over n = 1..N of |retrieved_n and ideal_n| / n (Fagin et al. 2003; for trees Sun et al. 2021, Dynamic
    Metric Learning). The ideal first n go from the deepest level up; among items of one depth it takes the ones that
    were retrieved, so that equals in the tree never cost anything.

    Worked example: depths of the ranking [0, 2, 1] (N = 2): n = 1: ideal {2}, retrieved {0}: 0; n = 2: ideal {2, 1},
    retrieved {0, 2}: 1/2. ASI = 0.25.
    """
    found, depths = rankings.found, rankings.depths
    n, shared, wanted_before = found.number, np.zeros(len(found.place)), np.zeros(len(found.place), dtype=np.int64)
    within = found.place <= found.total
    at = np.arange(len(n)) - n + found.place  # where n is the place of the item, in its query
    for depth, counts in zip(range(rankings.n_levels, 0, -1), _counts(rankings)[::-1], strict=True):
        here = np.zeros(len(n), dtype=bool)
        here[at[within & (depths == depth)]] = True
        retrieved = found.sums_before(here) + here
        wanted = np.minimum(n - wanted_before, found.spread(counts))
        shared += np.minimum(retrieved, wanted)
        wanted_before += wanted
    return _where_found(rankings, found.sums(shared / n) / np.maximum(found.counts, 1))


def mean_lca_height(rankings: Rankings, k: int) -> FloatArray:
    """Mean height of the lowest common ancestor over the first `k` items, in [0, n_levels]; lower is better.

    The hierarchical distance of the top k of Bertinetto et al. 2020 (Making Better Mistakes, arXiv 1912.09393,
    section 4.1). Over all that are ranked where they are fewer; nan where none is.
    """
    shown = np.minimum(k, rankings.n_ranked)
    depths = rankings.found.sums(np.where(rankings.found.place <= k, rankings.depths, 0))
    return np.where(shown > 0, rankings.n_levels - depths / np.maximum(shown, 1), np.nan)


def mistake_severity(rankings: Rankings) -> FloatArray:
    """Height of the lowest common ancestor with a wrong nearest item, in [1, n_levels]; lower is better.

    nan where the nearest item is right: its mean is over mistakes only (arXiv 1912.09393, section 4.1). A model can
    lower it by making more, milder mistakes: never read it without recall@1.
    """
    height = mean_lca_height(rankings, 1)
    return np.where(height > 0, height, np.nan)
