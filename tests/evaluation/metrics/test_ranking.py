from __future__ import annotations

import numpy as np
import pytest

from hierderm.errors import EmbeddingError
from hierderm.evaluation.metrics.ranking import (
    Labelled,
    Rankings,
    case_means,
    labels_at,
    rankings_of_hits,
    votes_are_right,
)


def circle(*degrees: float) -> np.ndarray:
    return np.array([[np.cos(np.radians(d)), np.sin(np.radians(d))] for d in degrees])


def test_a_block_by_hand() -> None:
    # Three queries of a gallery of four. Depths of the first: 1, 0, 2; the second ranks one item; the third none.
    order = np.array([[3, 0, 2], [1, -1, -1], [-1, -1, -1]])
    rankings = Rankings.from_order(order, np.array([[1, 0, 2], [2, 0, 0], [0, 0, 0]]), 2)
    assert rankings.n_ranked.tolist() == [3, 1, 0]
    assert rankings.nearest(2).tolist() == [[3, 0], [1, -1], [-1, -1]]
    assert rankings.nearest(4).tolist() == [[3, 0, 2, -1], [1, -1, -1, -1], [-1] * 4]
    coarse, fine = rankings.relevant(0), rankings.relevant(1)
    assert (coarse.counts.tolist(), coarse.place.tolist()) == ([2, 1, 0], [1, 3, 1])
    assert (fine.counts.tolist(), fine.place.tolist()) == ([1, 1, 0], [3, 1])
    assert rankings.items.tolist() == [3, 2, 1] and rankings.items[rankings.which(1)].tolist() == [2, 1]
    assert rankings.depths.tolist() == [1, 2, 2]


def test_hits_give_the_first_part_of_the_ranking() -> None:
    rows = np.array([[2, 0, 1], [1, -1, -1]])  # the second search found one
    found = rankings_of_hits(rows, np.array([[0, 1], [3, 5]]), np.array([[0, 1, 0], [3, 5, 4]]))
    assert found.n_ranked.tolist() == [3, 1]
    assert found.found.place.tolist() == [1, 2, 1] and found.depths.tolist() == [1, 2, 2]


def test_votes() -> None:
    near = np.array([[2, 7, 7], [2, 2, 7], [2, 7, -1], [2, 7, -1], [-1, -1, -1], [4, -1, -1]])
    # Most votes; most votes are wrong; as many votes: the nearer one wins; nobody votes; a single one.
    assert votes_are_right(near, np.array([7, 7, 2, 7, 2, 4])).tolist() == [1, 0, 1, 0, 0, 1]
    four = np.array([[2, 7, 7, 2]])
    assert votes_are_right(four, np.array([2])) == 1 and votes_are_right(four, np.array([7])) == 0


def test_labels_at() -> None:
    labels = np.array([[5, 6], [8, 9]])
    assert labels_at(labels[0], np.array([[1, -1]])).tolist() == [[6, -1]]
    assert labels_at(labels, np.array([[1, -1]])).tolist() == [[[6, -1]], [[9, -1]]]


def test_cases_by_mean() -> None:
    labels = np.array([[0, 1, 0]])
    means = case_means(Labelled(circle(0, 90, 20), labels, np.array(["b", "a", "b"])))
    np.testing.assert_allclose(means.embeddings, circle(90, 10), atol=1e-6)
    assert means.labels.tolist() == [[1, 0]] and means.cases.tolist() == ["a", "b"]


def test_refusals() -> None:
    with pytest.raises(EmbeddingError, match=r"labels must have shape \(n_levels, 2\) and cases \(2,\)"):
        Labelled(circle(0, 1), np.zeros((1, 3), dtype=int), np.array(["a", "b"]))
    with pytest.raises(EmbeddingError, match="labels must be of 1 to 7 levels, got 8"):
        Labelled(circle(0, 1), np.zeros((8, 2), dtype=int), np.array(["a", "b"]))
