from __future__ import annotations

import numpy as np
import pytest

from hierderm.embeddings import unit_length
from hierderm.evaluation.catalogue import level_metrics, tree_changes
from hierderm.evaluation.inference.influence import GalleryEffect, heights_without, shrunk
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.metrics.retrieval import RetrievalScores, retrieval_scores


def images(n: int, seed: int, rare: bool = True) -> Labelled:
    """Three levels, several images a case; with `rare`, classes of two cases, whose queries can be lost."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(0, n // 3 if rare else 6, n)
    labels = np.stack([fine // 4, fine // 2, fine])
    return Labelled(unit_length(rng.normal(size=(n, 4)) + labels[0][:, None]), labels, rng.integers(0, n // 2, n))


def sums(scores: RetrievalScores, theta: RetrievalScores, metric: tuple[int | str, str]) -> float:
    """Sum over queries, a query without a value counting as the mean (it drops out)."""
    values, of_theta = (
        (s.tree if metric[0] == "tree" else s.levels[int(metric[0])].values)[metric[1]] for s in (scores, theta)
    )
    mean = np.nanmean(of_theta)
    return float(np.where(np.isnan(values), mean, values)[~np.isnan(of_theta)].sum())


def without(gallery: Labelled, item: int) -> Labelled:
    keep = np.arange(len(gallery)) != item
    return Labelled(gallery.embeddings[keep], gallery.labels[:, keep], gallery.cases[keep])


LEVEL = (*level_metrics(), "knn_accuracy")  # an entry of the catalogue is checked without more
METRICS = [(level, name) for level in (0, 1, 2) for name in LEVEL] + [
    ("tree", name) for name in (*tree_changes(), "lca_height_at_10")
]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_influence_is_the_change_when_the_item_is_left_out(seed: int) -> None:
    """Against the slow oracle: all rankings anew without the item."""
    queries = images(26, seed)
    scores = retrieval_scores(queries, gallery_effects=True)
    for item in range(len(queries)):
        fewer = retrieval_scores(queries, without(queries, item))
        for metric in METRICS:
            place, name = metric
            found = scores.tree_effects if place == "tree" else scores.levels[int(place)].effects
            change = sums(scores, scores, metric) - sums(fewer, scores, metric)
            assert found[name].influence[item] == pytest.approx(change, abs=1e-9), (metric, item)


def test_the_influence_on_severity_is_that_of_a_ratio() -> None:
    queries = images(30, 5)
    scores = retrieval_scores(queries, gallery_effects=True)
    severity = scores.tree["mistake_severity"]
    for item in range(len(queries)):
        fewer = retrieval_scores(queries, without(queries, item)).tree["mistake_severity"]
        change = np.nansum(severity) - np.nansum(fewer)
        n = float((~np.isnan(severity)).sum() - (~np.isnan(fewer)).sum())
        assert scores.tree_effects["mistake_severity"].influence[item] == pytest.approx(
            change - np.nanmean(severity) * n
        )


def test_heights_without_by_hand() -> None:
    heights = np.array([[0, 2, 1], [0, 2, -1], [1, -1, -1]])  # the second ranks two items, the third one
    np.testing.assert_allclose(
        heights_without(heights, heights >= 0, 2)[[0, 0, 1, 1, 2], [0, 1, 0, 1, 0]],
        [(1 - 0) / 2, (1 - 2) / 2, 2 - 1, 0 - 1, 0],
    )


def test_the_squares_are_those_of_every_single_change() -> None:
    queries = images(24, 3)
    scores = retrieval_scores(queries, gallery_effects=True)
    for metric in METRICS[len(LEVEL) : 2 * len(LEVEL)]:
        place, name = int(metric[0]), metric[1]
        now = scores.levels[place].values[name]
        mean, squares = np.nanmean(now), 0.0
        for item in range(len(queries)):
            then = retrieval_scores(queries, without(queries, item)).levels[place].values[name]
            squares += np.nansum((np.where(np.isnan(then), mean, then) - now) ** 2)
        assert scores.levels[place].effects[name].squares == pytest.approx(squares), name


def test_shrinking_leaves_what_is_no_chance() -> None:
    """100 queries, 50 items; a change for each pair: of the item alone, or of chance alone, or both."""
    rng = np.random.default_rng(0)
    of_item, chance = rng.normal(size=(1, 50)), rng.normal(size=(100, 50))
    for change, expected in ((np.repeat(of_item, 100, axis=0), 1.0), (chance, 0.0), (of_item + 10 * chance, 0.5)):
        total = change.sum(axis=0)
        found = shrunk(total, float((change**2).sum()), 100)
        assert found.var() / total.var() == pytest.approx(expected, abs=0.25)
    assert (shrunk(np.zeros(4), 0.0, 3) == 0).all()


def test_linearised_values_keep_the_mean() -> None:
    values, influence = np.array([1.0, 0.0, np.nan, 1.0]), np.array([0.5, -0.1, 0.3, 0.0])
    found = GalleryEffect(influence, 0.0).linearise(values)
    assert found.mean() == pytest.approx(2 / 3)
    assert np.isnan(GalleryEffect(np.zeros(3), 0.0).linearise(np.full(3, np.nan))).all()
