"""Metrics against other people's: worked values of their test suites, and their packages on the same data."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hiclass import metrics as hiclass

from hierderm.embeddings import unit_length
from hierderm.evaluation.metrics.calibration import brier, calibration_error
from hierderm.evaluation.metrics.classification import hierarchical_scores, hierarchical_scores_by_image, set_overlap
from hierderm.evaluation.metrics.hierarchy import hierarchical_average_precision, ndcg
from hierderm.evaluation.metrics.ranking import Labelled, Rankings, Relevant
from hierderm.evaluation.metrics.retrieval import retrieval_scores
from hierderm.evaluation.metrics.terms import LevelMetric, map_at_r, precision_at, r_precision, reciprocal_rank, sums
from hierderm.taxonomy.tree import Taxonomy, taxonomy_from_paths

RNG = np.random.default_rng(0)


def rankings(depths: np.ndarray, n_levels: int) -> Rankings:
    """Rankings of the items 0, 1, 2, ... in this order, which agree with the query on that many levels."""
    return Rankings.from_order(np.broadcast_to(np.arange(depths.shape[1]), depths.shape), depths, n_levels)


def test_average_precision_of_open_metric_learning() -> None:
    """Of its test of retrieval metrics: relevant places counted from 0, and the average precision of each."""
    places = [[0, 1, 3], [0, 3, 4], [1, 2, 4], [2, 3, 4], [0], [3]]
    depths = np.array([np.isin(np.arange(5), of_query) for of_query in places]).astype(int)
    expected = [0.9166, 0.7, 0.5888, 0.4777, 1, 0.25]
    assert hierarchical_average_precision(rankings(depths, 1)) == pytest.approx(expected, abs=1e-4)


def test_r_precision_and_map_at_r_of_pytorch_metric_learning() -> None:
    """Of its test of the AccuracyCalculator: labels of the nearest five of queries with the labels 1 1 2 3 4, which have
    3 3 5 4 5 relevant items in all; those behind the fifth place lie at 100 and more.
    """
    queries, totals = np.array([1, 1, 2, 3, 4]), np.array([3, 3, 5, 4, 5])
    nearest = np.array([[0, 1, 1, 2, 2], [1, 0, 1, 1, 3], [4, 4, 4, 4, 2], [3, 1, 3, 1, 3], [0, 0, 4, 2, 2]])
    found = [np.flatnonzero(row == label) + 1 for row, label in zip(nearest, queries, strict=True)]
    places = [np.append(near, 100 + np.arange(total))[:total] for near, total in zip(found, totals, strict=True)]
    relevant = Relevant(totals, np.concatenate(places))
    precision, average = sums([LevelMetric(r_precision), LevelMetric(map_at_r)], relevant)
    assert precision == pytest.approx([2 / 3, 2 / 3, 1 / 5, 1 / 2, 1 / 5])
    assert average == pytest.approx([(1 / 2 + 2 / 3) / 3, (1 + 2 / 3) / 3, 1 / 25, (1 + 2 / 3) / 4, 1 / 15])


def test_precision_of_mteb() -> None:
    """Of its test of the retrieval evaluator: a query with the relevant places 1 and 2, and one with 1."""
    relevant = Relevant(np.array([2, 1]), np.array([1, 2, 1]))
    at = [LevelMetric(partial(precision_at, k=k)) for k in (1, 2, 3)]
    assert sums(at, relevant).mean(axis=1) == pytest.approx([1, 0.75, 0.5])


def test_ndcg_ap_and_reciprocal_rank_of_ir_measures() -> None:
    """Random rankings of 30 documents with graded relevance; ours has the exponential gain, which is given to theirs."""
    import ir_measures as ir

    depths = RNG.integers(0, 4, (6, 30))
    depths[:, 0] = 0  # not every first one is relevant
    made = rankings(depths, 3)
    run = [ir.ScoredDoc(f"q{q}", f"d{n}", float(-n)) for q in range(6) for n in range(30)]

    def theirs(measure: Any, gain: np.ndarray) -> list[float]:
        qrels = [ir.Qrel(f"q{q}", f"d{n}", int(gain[depths[q, n]])) for q in range(6) for n in range(30)]
        values = {value.query_id: value.value for value in ir.iter_calc([measure], qrels, run)}
        return [values[f"q{query}"] for query in range(6)]

    assert ndcg(made) == pytest.approx(theirs(ir.nDCG, 2 ** np.arange(4) - 1), abs=1e-4)
    one_level = rankings((depths > 0).astype(int), 1)
    assert hierarchical_average_precision(one_level) == pytest.approx(theirs(ir.AP, np.array([0, 1, 1, 1])), abs=1e-4)
    found = sums([LevelMetric(reciprocal_rank)], one_level.relevant(0))[0]
    assert found == pytest.approx(theirs(ir.RR, np.array([0, 1, 1, 1])), abs=1e-4)


def test_retrieval_of_pytorch_metric_learning() -> None:
    """The same embeddings and labels, each image its own case."""
    import torch
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    embeddings, labels = unit_length(RNG.normal(size=(60, 5))).astype(np.float64), np.arange(60) % 6
    ours = retrieval_scores(Labelled(embeddings, labels[None], np.arange(60).astype(str))).levels[0].values
    names = {"precision_at_1": "recall_at_1", "r_precision": "r_precision", "mean_average_precision_at_r": "map_at_r"}
    calculator = AccuracyCalculator(
        include=tuple(names), k="max_bin_count", knn_func=CustomKNN(CosineSimilarity()), device=torch.device("cpu")
    )
    theirs = calculator.get_accuracy(torch.tensor(embeddings), torch.tensor(labels))
    for name, own in names.items():
        assert ours[own].mean() == pytest.approx(theirs[name]), name


TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")
LABELS = RNG.integers(0, 9, 200)
PROBABILITIES = RNG.dirichlet(np.full(9, 0.4), 200).astype(np.float32)


def paths(tree: Taxonomy, conditions: np.ndarray, level: int | None = None) -> np.ndarray:
    """Names of the paths as hiclass wants them: '' below the answer, and in place of a repeat."""
    found = []
    for condition in conditions:
        nodes = tree.ancestors[condition]
        names = ["" if tree.repeats(n)[k] else f"{n}{tree.names(n)[k]}" for n, k in enumerate(nodes)]
        found.append([name if level is None or n <= level else "" for n, name in enumerate(names)])
    return np.array(found)


@pytest.mark.parametrize("level", [0, 1])
def test_brier_score_and_calibration_error_of_hiclass(level: int) -> None:
    """Its functions want the classifier for its classes, separator and unique labels alone."""
    given, labels = TREE.sum_up(PROBABILITIES, level), TREE.to_level(LABELS, level)
    predicted = given.argmax(axis=1)
    true, found = (np.array([[f"{k}"] for k in numbers]) for numbers in (labels, predicted))
    classifier = SimpleNamespace(
        classes_=[np.array([f"{k}" for k in range(TREE.size(level))])], separator_="::", _disambiguate=lambda rows: rows
    )
    assert brier(given, labels).mean() == pytest.approx(
        hiclass._multiclass_brier_score(classifier, true, given, 0), rel=1e-5
    )
    right = (predicted == labels).astype(float)
    theirs = hiclass._expected_calibration_error(classifier, true, given, found, 0, n_bins=10)
    assert calibration_error(given.max(axis=1).astype(float), right, 10) == pytest.approx(theirs, rel=1e-5)


UNEQUAL = taxonomy_from_paths(
    [("A", "a", "one"), ("A", "a", "two"), ("A", "m", ""), ("B", "", ""), ("C", "c", "three"), ("C", "c", "four")],
    ("top", "middle", "condition"),
    id="unequal",
)


@pytest.mark.parametrize("tree", [TREE, UNEQUAL], ids=["equal depth", "unequal depth"])
@pytest.mark.parametrize("level", [0, 1, None])
def test_hierarchical_scores_of_hiclass(tree: Taxonomy, level: int | None) -> None:
    """Micro and macro, answers that stop early, and conditions that stand higher up, which hiclass knows without repeats."""
    true, predicted = (RNG.integers(0, tree.size(-1), 120) for _ in range(2))
    at = tree.fine_level if level is None else level
    common, depth = set_overlap(true, tree.to_level(predicted, at), np.full(120, at), tree)
    length = tree.path_length[true]
    wanted, found = paths(tree, true), paths(tree, predicted, level)
    ours = hierarchical_scores(common, depth, length)
    macro = [values.mean() for values in hierarchical_scores_by_image(common, depth, length)]
    for number, score in enumerate((hiclass.precision, hiclass.recall, hiclass.f1)):
        more = {"zero_division": 0.0} if score is hiclass.f1 else {}
        assert ours[number] == pytest.approx(score(wanted, found, **more))
    assert macro[0] == pytest.approx(hiclass.precision(wanted, found, average="macro"))
    assert macro[1] == pytest.approx(hiclass.recall(wanted, found, average="macro"))
    with np.errstate(all="ignore"), pytest.warns(Warning) if (common == 0).any() else np.errstate():
        assert macro[2] == pytest.approx(hiclass.f1(wanted, found, average="macro"))
