"""The influence of every item of a gallery on all retrieval figures, gathered query by query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hierderm.evaluation.inference.influence import Influence, add_level, add_tree, heights_without, shrunk
from hierderm.evaluation.metrics.ranking import K_VOTE, K, Ranking, vote_is_right
from hierderm.types import FloatArray, IntArray

OF_LEVEL = ("recall_at_1", f"recall_at_{K}", f"precision_at_{K}", "r_precision", "map_at_r", "mrr")
OF_TREE = ("ndcg", "hap")
HEIGHT, SUM, COUNT, BOTH = f"lca_height_at_{K}", "severity_sum", "n_mistakes", "severity_sum_and_count"


@dataclass(frozen=True)
class OnGallery:
    """What the gallery does to one figure.

    `influence`: how the presence of each item raises the sum of the values over queries, shape (n_gallery,);
    `squares`: sum over queries and items of the squared change.
    """

    influence: FloatArray
    squares: float

    def linearise(self, values: FloatArray) -> FloatArray:
        """Values of images that are queries and gallery, shape (n,), as independent ones of the same mean.

        An image that is no query with a value (nan) counts through its influence alone.
        """
        known = ~np.isnan(values)
        if not known.any():
            return values
        mean = values[known].mean()
        own = np.where(known, values - mean, 0.0)
        moved = (own + shrunk(self.influence, self.squares, int(known.sum()))) * (len(values) / known.sum())
        return np.asarray(mean + moved)


class GalleryInfluence:
    """Add the rankings of all queries one by one, then ask for what their gallery did to each figure."""

    def __init__(self, query_labels: IntArray, gallery_labels: IntArray) -> None:
        self.query_labels, self.gallery_labels = query_labels, gallery_labels
        n = gallery_labels.shape[1]
        self.levels = [Influence(OF_LEVEL, n) for _ in gallery_labels]
        self.votes = [Influence(("knn_accuracy",), n) for _ in gallery_labels]
        self.tree = Influence(OF_TREE, n)
        self.heights = Influence((HEIGHT, SUM, COUNT, BOTH), n)

    def add(
        self, query: int, ranking: Ranking, of_levels: list[dict[str, float]], of_tree: Mapping[str, float]
    ) -> None:
        """`of_levels`, `of_tree`: the figures of this query."""
        for level, (influence, values) in enumerate(zip(self.levels, of_levels, strict=True)):
            relevant = ranking.relevant(level)
            if len(relevant):  # without one the query is skipped
                add_level(influence, ranking, relevant, K, np.array([values[name] for name in OF_LEVEL]))
                self._add_vote(level, query, ranking, relevant, values["knn_accuracy"])
        add_tree(self.tree, ranking, np.array([of_tree[name] for name in OF_TREE]))
        self._add_heights(query, ranking)

    def _add_vote(self, level: int, query: int, ranking: Ranking, relevant: IntArray, now: float) -> None:
        labels, label = self.gallery_labels[level, ranking.order[: K_VOTE + 1]], int(self.query_labels[level, query])
        places = range(min(K_VOTE, len(labels)))
        changes = np.array([vote_is_right(np.delete(labels, place)[:K_VOTE], label) - now for place in places])
        if len(relevant) == 1:
            self.votes[level].lose(int(ranking.order[relevant[0] - 1]), np.array([now]))
            changes[labels[: len(changes)] == label] = 0.0  # counted as a query that is lost
        self.votes[level].add(ranking.order[: len(changes)], changes[:, None])

    def _add_heights(self, query: int, ranking: Ranking) -> None:
        first = ranking.order[: K + 1]
        heights = (self.gallery_labels[:, first] != self.query_labels[:, query, None]).sum(axis=0)
        change = np.zeros((min(K, len(first)), 4))
        change[:, 0] = heights_without(heights, K)
        if len(heights) > 1:
            change[0, 1] = heights[1] - heights[0]
            change[0, 2] = float(heights[1] > 0) - float(heights[0] > 0)
            change[0, 3] = change[0, 1] + change[0, 2]
        self.heights.add(first[: len(change)], change)

    def of_level(self, level: int, values: Mapping[str, FloatArray]) -> dict[str, OnGallery]:
        """For the figures of a level, whose `values` are of all queries."""
        found = {name: _on_gallery(self.levels[level], name, _mean(values[name])) for name in OF_LEVEL}
        found["knn_accuracy"] = _on_gallery(self.votes[level], "knn_accuracy", _mean(values["knn_accuracy"]))
        return found

    def of_tree(self, values: Mapping[str, FloatArray]) -> dict[str, OnGallery]:
        found = {name: _on_gallery(self.tree, name, _mean(values[name])) for name in OF_TREE}
        found[HEIGHT] = _on_gallery(self.heights, HEIGHT, 0.0)
        # A mean over mistakes only is a ratio: the change of its sum, less its share of the change of their number.
        severity = _mean(values["mistake_severity"])
        of_sum, of_count, of_both = (self.heights.squares_of(name, 0.0) for name in (SUM, COUNT, BOTH))
        product = (of_both - of_sum - of_count) / 2
        found["mistake_severity"] = OnGallery(
            self.heights.of(SUM, 0.0) - severity * self.heights.of(COUNT, 0.0),
            of_sum - 2 * severity * product + severity**2 * of_count,
        )
        return found


def _on_gallery(influence: Influence, name: str, mean: float) -> OnGallery:
    return OnGallery(influence.of(name, mean), influence.squares_of(name, mean))


def _mean(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0
