from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hierderm.config.settings import EvaluationConfig
from hierderm.embeddings import unit_length
from hierderm.errors import BenchmarkError
from hierderm.evaluation.catalogue import HEADLINES, METRICS, MetricEntry, add_metric, direction, metric_name
from hierderm.evaluation.evaluation import evaluate
from hierderm.evaluation.metrics.ranking import Labelled, Rankings
from hierderm.evaluation.metrics.retrieval import retrieval_scores
from hierderm.taxonomy.tree import taxonomy_from_paths
from hierderm.types import FloatArray, IntArray, Mask

TREE = taxonomy_from_paths([(f"C{k // 2}", f"F{k}") for k in range(6)], ("category", "condition"), id="t")
N = 60
FINE = np.arange(N) % 6
RNG = np.random.default_rng(0)
EMBEDDINGS = unit_length(np.eye(6)[FINE] + RNG.normal(0, 0.4, (N, 6)))
FRAME = pd.DataFrame(
    {
        "case_id": np.arange(N).astype(str),
        "condition": [f"F{k}" for k in FINE],
        "fitzpatrick": RNG.integers(1, 7, N),
    }
)


def second_within_3(number: IntArray, place: IntArray, total: IntArray) -> Mask:
    """1 where two of the first three are relevant."""
    return np.asarray((number == 2) & (place <= 3))


def depth_of_nearest(rankings: Rankings) -> FloatArray:
    return rankings.found.sums(rankings.depths * (rankings.found.place == 1))


def test_a_new_retrieval_metric_is_an_entry_and_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """Value, effect of the gallery, interval, group, table: all follow."""
    monkeypatch.setitem(METRICS, "second", MetricEntry("second", "Second hit", terms=second_within_3))
    monkeypatch.setitem(METRICS, "depth", MetricEntry("depth", "Depth of nearest", rankings=depth_of_nearest))
    config = EvaluationConfig(bootstrap_rounds=50, kmeans_seeds=1, tasks=("retrieval", "hierarchy"))
    evaluation = evaluate(EMBEDDINGS, FRAME, TREE, config=config)
    similarity = EMBEDDINGS @ EMBEDDINGS.T - 9 * np.eye(N)
    nearest = np.argsort(-similarity, axis=1)[:, :3]
    expected = ((FINE[nearest] == FINE[:, None]).sum(axis=1) >= 2).mean()
    metric = evaluation["fine", "second"]
    assert metric.value == pytest.approx(expected) and metric.low < metric.value < metric.high
    assert metric_name("fine", "second") == "fine Second hit" and metric.better == "higher"
    assert {"coarse", "fine"} == set(evaluation.to_pandas().query("metric == 'second'")["level"])
    assert {row.group for row in evaluation.groups if row.name == "second"} == {"I-II", "III-IV", "V-VI"}
    assert {gap.level for gap in evaluation.gaps if gap.name == "second"} == {"coarse", "fine"}
    assert evaluation["tree", "depth"].value == pytest.approx(
        np.mean([TREE.n_levels - TREE.lca_height[a, b] for a, b in zip(FINE, FINE[nearest[:, 0]], strict=True)])
    )


def test_its_influence_is_the_change_when_an_item_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "second", MetricEntry("second", "Second hit", terms=second_within_3))
    labels, cases = TREE.ancestors[FINE].T, np.arange(N)
    queries = Labelled(EMBEDDINGS, labels, cases)
    scores = retrieval_scores(queries, gallery_effects=True).levels[1]
    for item in range(N):
        kept = cases != item
        fewer = retrieval_scores(queries, Labelled(EMBEDDINGS[kept], labels[:, kept], cases[kept])).levels[1]
        change = scores.values["second"].sum() - fewer.values["second"].sum()
        assert scores.effects["second"].influence[item] == pytest.approx(change)


def test_names_and_directions() -> None:
    assert HEADLINES == (
        ("coarse", "ami"), ("coarse", "map_at_r"), ("coarse", "recall_at_1"),
        ("fine", "ami"), ("fine", "map_at_r"), ("fine", "recall_at_1"),
    )  # fmt: skip
    assert metric_name("fine", "map_at_r") == "fine MAP@R"
    assert [direction(name) for name in ("ami", "ece", "effective_rank")] == ["higher", "lower", "none"]
    assert len({entry.title for entry in METRICS.values()}) == len(METRICS)
    with pytest.raises(BenchmarkError, match="there is a metric 'ami' already"):
        add_metric(MetricEntry("ami", "another"))


@pytest.mark.parametrize("name", ["ami low", "fine ami", "", "a/b"])
def test_a_metric_has_one_word_for_a_name(name: str) -> None:
    with pytest.raises(BenchmarkError, match=f"of letters, digits and '_', got '{name}'"):
        add_metric(MetricEntry(name, "x"))


@pytest.mark.parametrize(
    ("name", "title", "better"),
    [
        ("recall_at_20", "fine Recall@20", "higher"),
        ("index_map_at_5", "fine MAP@5, index", "higher"),
        ("loss_knn_accuracy", "fine 5-NN accuracy, exact - index", "lower"),
        ("loss_answer_error", "fine Error of answers, exact - index", "higher"),
        ("exact_answer_rate", "fine Share answered, exact", "none"),
        ("index_true_neighbours_at_10", "fine True neighbours@10, index", "higher"),
        ("recall_at_0", "fine recall_at_0", "none"),
        ("index_nothing", "fine index_nothing", "none"),
    ],
)
def test_metrics_of_the_first_k_and_of_an_index_follow_from_their_names(name: str, title: str, better: str) -> None:
    assert (metric_name("fine", name), direction(name)) == (title, better)
