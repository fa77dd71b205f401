"""Decodings that are best in expectation: by hand, and against every set of nodes there is."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hierderm.evaluation.metrics.classification import hierarchical_scores_by_image, set_overlap
from hierderm.evaluation.metrics.decoding import crm_decode, hf_decode, node_paths, set_f
from hierderm.evaluation.metrics.hops import hops
from hierderm.taxonomy.tree import Taxonomy, taxonomy_from_paths

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")
UNEQUAL = taxonomy_from_paths([("A", "a1"), ("A", "a2"), ("B", ""), ("C", "c1")], ("category", "condition"), id="u")
PROBABILITIES = np.random.default_rng(0).dirichlet(np.ones(9), 40)


def test_cost_sensitive_decoding_by_hand() -> None:
    """F0 leads with 0.4 but its category has 0.4 in all; F3 to F5 have 0.2 each, 0.6 in all.

    Expected heights: F0: 0.6 * 2 = 1.2. F3: 0.4 * 2 + 0.4 * 1 = 1.2, with F3 at 0.21 and F0 at 0.39 less: 1.17 to 1.22.
    """
    probabilities = np.array([[0.39, 0, 0, 0.21, 0.2, 0.2, 0, 0, 0]])
    assert probabilities.argmax() == 0
    assert crm_decode(probabilities, TREE).tolist() == [3]


def test_cost_sensitive_decoding_against_a_slow_oracle() -> None:
    for row, decoded in zip(PROBABILITIES, crm_decode(PROBABILITIES, TREE), strict=True):
        costs = [sum(p * TREE.lca_height[k, j] for j, p in enumerate(row)) for k in range(9)]
        assert costs[decoded] == pytest.approx(min(costs))


def test_the_best_set_by_hand() -> None:
    """A has 0.9, its conditions 0.5 and 0.4: {A} is worth 2 * 0.9 / 3, {A, a1} 2 * 1.4 / 4, {A, a1, a2} 2 * 1.8 / 5.

    So the set holds both conditions. With a1 at 0.8 and a2 at 0.1 it is {A, a1}: 2 * 1.7 / 4 against 2 * 1.8 / 5.
    """
    names = [name for level in range(2) for name in UNEQUAL.names(level)]
    assert names == ["A", "B", "C", "a1", "a2", "B", "c1"]
    both, one = hf_decode(np.array([[0.5, 0.4, 0.1, 0], [0.8, 0.1, 0.1, 0]]), UNEQUAL)
    assert node_paths(UNEQUAL).shape == (4, 6)  # B stands for itself once
    assert np.flatnonzero(both).tolist() == [0, 3, 4] and np.flatnonzero(one).tolist() == [0, 3]
    truth = np.array([0, 2])  # a1: two of three nodes, of a path of two; B: nothing
    assert set_f(np.stack([both, one]), truth, UNEQUAL) == pytest.approx([4 / 5, 0])


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.sampled_from([0.5, 1.0, 2.0]))
def test_no_set_of_nodes_is_better_in_expectation(weights: list[float], beta: float) -> None:
    p = (np.array(weights) + 1e-3) / (sum(weights) + 4e-3)
    paths = [{"A", "a1"}, {"A", "a2"}, {"B"}, {"C", "c1"}]
    names = ["A", "B", "C", "a1", "a2", "c1"]

    def expected(nodes: set[str]) -> float:
        return sum(
            float(q) * (1 + beta**2) * len(nodes & path) / (len(nodes) + beta**2 * len(path))
            for q, path in zip(p, paths, strict=True)
        )

    found = {names[number] for number in np.flatnonzero(hf_decode(p[None], UNEQUAL, beta)[0])}
    every = chain.from_iterable(combinations(names, k) for k in range(1, 7))
    assert expected(found) == pytest.approx(max(expected(set(nodes)) for nodes in every))
    assert all(path & found == path for path in paths if path & found - {"A", "C"})  # with the ancestors of each


@pytest.mark.parametrize("tree", [TREE, taxonomy_from_paths([(f"F{k}",) for k in range(9)], ("condition",), id="f")])
def test_the_best_set_beats_top_1_and_the_cost_sensitive_condition_in_expectation(tree: Taxonomy) -> None:
    """Labels drawn from the probabilities: the mean F1 of many draws is the expectation that each rule looks at."""
    rng = np.random.default_rng(1)
    p = np.repeat(PROBABILITIES, 400, axis=0)
    labels = (p.cumsum(axis=1) > rng.random((len(p), 1))).argmax(axis=1)
    scores = [set_f(hf_decode(p, tree), labels, tree).mean()]
    for nodes in (crm_decode(p, tree), p.argmax(axis=1)):
        overlap = set_overlap(labels, nodes, np.full(len(p), tree.fine_level), tree)
        scores.append(hierarchical_scores_by_image(*overlap, tree.path_length[labels])[2].mean())
    assert scores[0] > scores[1] + 0.01 and scores[1] >= scores[2] - 0.005


def test_padding_changes_nothing() -> None:
    """The tree with one more level, on which every condition repeats itself: the same choices and scores."""
    short = [("A", "a1"), ("A", "a2"), ("B", "b1"), ("C", "c1"), ("C", "c2"), ("C", "c3")]
    tree = taxonomy_from_paths(short, ("category", "condition"), id="t")
    padded = taxonomy_from_paths([(*path, "") for path in short], ("category", "condition", "once more"), id="p")
    p, labels = np.random.default_rng(2).dirichlet(np.ones(6), 50), np.arange(50) % 6
    assert (hf_decode(p, padded) == hf_decode(p, tree)).all()
    assert (set_f(hf_decode(p, padded), labels, padded) == set_f(hf_decode(p, tree), labels, tree)).all()
    np.testing.assert_allclose(hops(p, labels, padded, (None, 3)), hops(p, labels, tree, (None, 3)))
    for level in range(3):  # answers on each level: the last is the one before, over again
        at = np.full(50, level)
        found = set_overlap(labels, padded.to_level(crm_decode(p, padded), level), at, padded)
        real = np.minimum(at, 1)
        wanted = set_overlap(labels, tree.to_level(crm_decode(p, padded), min(level, 1)), real, tree)
        np.testing.assert_array_equal(found, wanted)
    assert (padded.path_length == tree.path_length).all()
