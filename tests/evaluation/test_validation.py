from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierderm.config.settings import EvaluationConfig
from hierderm.data.table import CaseTable
from hierderm.embeddings import unit_length
from hierderm.evaluation.evaluation import evaluate
from hierderm.evaluation.metrics.ranking import Labelled
from hierderm.evaluation.validation import level_queries, retrieval_means, validation_scores
from hierderm.taxonomy.tree import taxonomy_from_paths

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")
N = 120
FINE = np.where(np.arange(N) < 30, 8, np.arange(N) % 9)


def cases() -> CaseTable:
    """Two images a case."""
    frame = pd.DataFrame(
        {
            "image_id": np.arange(N).astype(str),
            "image_path": "",
            "case_id": [f"{k // 18}-{FINE[k]}" for k in range(N)],
            "condition": [f"F{k}" for k in FINE],
        }
    )
    return CaseTable(frame, TREE, Path())


def test_the_monitored_values_are_those_of_the_evaluation() -> None:
    embeddings = unit_length(np.eye(9)[FINE] + np.random.default_rng(0).normal(0, 0.5, (N, 9)))
    found = validation_scores(embeddings, cases())
    config = EvaluationConfig(bootstrap_rounds=0)
    evaluation = evaluate(embeddings, cases(), TREE, config=config)
    for level in ("coarse", "fine"):
        for metric in ("map_at_r", "recall_at_1"):
            assert found[f"{level}_{metric}"] == pytest.approx(evaluation[level, metric].value)
    four = [found[f"{level}_{metric}"] for level in ("coarse", "fine") for metric in ("map_at_r", "recall_at_1")]
    assert found["mean_retrieval"] == pytest.approx(sum(four) / 4)


def test_the_geometric_mean_weighs_both_levels() -> None:
    categories = np.eye(3)[FINE // 3]
    perfect = unit_length(np.hstack([categories, np.eye(9)[FINE]]))
    assert validation_scores(perfect, cases())["mean_map_at_r"] == pytest.approx(1)
    found = validation_scores(categories, cases())
    assert found["coarse_map_at_r"] == pytest.approx(1) and found["fine_map_at_r"] < 0.7
    assert found["mean_map_at_r"] == pytest.approx(np.sqrt(found["fine_map_at_r"]))


def test_without_relevant_images_the_score_is_undefined() -> None:
    alone = Labelled(np.eye(3), np.array([[0, 1, 2]]), np.array(["a", "b", "c"]))
    np.testing.assert_array_equal(retrieval_means(alone), [[np.nan], [np.nan]])
    one_a_condition = cases().select(np.arange(9, 18) + 30)
    found = validation_scores(np.eye(9), one_a_condition)
    assert (
        found["coarse_map_at_r"] >= 0
        and np.isnan([found["fine_recall_at_1"], found["mean_map_at_r"], found["mean_retrieval"]]).all()
    )


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), min_size=1, max_size=12))
def test_a_score_is_defined_where_an_image_has_another_case_to_find(rows: list[tuple[int, int]]) -> None:
    """Cases may hold several conditions; the count is that of a loop over all pairs."""
    frame = pd.DataFrame(
        {
            "image_id": np.arange(len(rows)).astype(str),
            "image_path": "",
            "case_id": [f"c{case}" for _, case in rows],
            "condition": [f"F{fine}" for fine, _ in rows],
        }
    )
    table = CaseTable(frame, TREE, Path())
    scores = validation_scores(np.eye(len(rows)), table)
    for level, size in (("coarse", 3), ("fine", 1)):
        n = sum(any(a // size == b // size and one != other for b, other in rows) for a, one in rows)
        assert level_queries(table, level) == (n, len({fine // size for fine, _ in rows}))
        assert np.isnan(scores[f"{level}_map_at_r"]) == (n == 0)
    assert np.isnan(scores["mean_map_at_r"]) == np.isnan(scores["fine_map_at_r"])
