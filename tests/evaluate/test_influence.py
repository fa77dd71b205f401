from __future__ import annotations

import numpy as np
import pytest

from hierderm.embeddings import unit_length
from hierderm.evaluate.figures import linearised
from hierderm.evaluate.influence import heights_without
from hierderm.evaluate.ranking import Labelled
from hierderm.evaluate.retrieval import RetrievalScores, retrieval_scores


def pictures(n: int, seed: int, rare: bool = True) -> Labelled:
    """Three levels, several pictures a case; with `rare`, classes of two cases, whose queries can be lost."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(0, n // 3 if rare else 6, n)
    labels = np.stack([fine // 4, fine // 2, fine])
    return Labelled(unit_length(rng.normal(size=(n, 4)) + labels[0][:, None]), labels, rng.integers(0, n // 2, n))


def sums(scores: RetrievalScores, theta: RetrievalScores, figure: tuple[int | str, str]) -> float:
    """Sum over queries, a query without a value counting as the mean (it drops out)."""
    values, of_theta = (
        (s.tree if figure[0] == "tree" else s.levels[int(figure[0])].values)[figure[1]] for s in (scores, theta)
    )
    mean = np.nanmean(of_theta)
    return float(np.where(np.isnan(values), mean, values)[~np.isnan(of_theta)].sum())


def without(gallery: Labelled, item: int) -> Labelled:
    keep = np.arange(len(gallery)) != item
    return Labelled(gallery.embeddings[keep], gallery.labels[:, keep], gallery.cases[keep])


LEVEL = ("recall_at_1", "recall_at_10", "precision_at_10", "r_precision", "map_at_r", "mrr", "knn_accuracy")
FIGURES = [(level, name) for level in (0, 1, 2) for name in LEVEL] + [
    ("tree", n) for n in ("ndcg", "hap", "lca_height_at_10")
]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_influence_is_the_change_when_the_item_is_left_out(seed: int) -> None:
    """Against the slow oracle: all rankings anew without the item."""
    queries = pictures(26, seed)
    scores = retrieval_scores(queries, influence=True)
    for item in range(len(queries)):
        fewer = retrieval_scores(queries, without(queries, item))
        for figure in FIGURES:
            place, name = figure
            found = scores.tree_influence if place == "tree" else scores.levels[int(place)].influence
            change = sums(scores, scores, figure) - sums(fewer, scores, figure)
            assert found[name][item] == pytest.approx(change, abs=1e-9), (figure, item)


def test_the_influence_on_severity_is_that_of_a_ratio() -> None:
    queries = pictures(30, 5)
    scores = retrieval_scores(queries, influence=True)
    severity = scores.tree["mistake_severity"]
    for item in range(len(queries)):
        fewer = retrieval_scores(queries, without(queries, item)).tree["mistake_severity"]
        change = np.nansum(severity) - np.nansum(fewer)
        n = float((~np.isnan(severity)).sum() - (~np.isnan(fewer)).sum())
        assert scores.tree_influence["mistake_severity"][item] == pytest.approx(change - np.nanmean(severity) * n)


def test_heights_without_by_hand() -> None:
    np.testing.assert_allclose(heights_without(np.array([0, 2, 1]), 2), [(1 - 0) / 2, (1 - 2) / 2])
    np.testing.assert_allclose(heights_without(np.array([0, 2]), 2), [2 - 1, 0 - 1])  # nothing comes after
    assert heights_without(np.array([1]), 2).tolist() == [0]


def test_linearised_values_keep_the_mean() -> None:
    values, influence = np.array([1.0, 0.0, np.nan, 1.0]), np.array([0.5, -0.1, 0.3, 0.0])
    found = linearised(values, influence)
    assert found.mean() == pytest.approx(2 / 3)
    expected = 2 / 3 + (np.array([1 / 3, -2 / 3, 0, 1 / 3]) + influence - 0.175) * 4 / 3
    np.testing.assert_allclose(found, expected)
    assert np.isnan(linearised(np.full(3, np.nan), np.zeros(3))).all()
