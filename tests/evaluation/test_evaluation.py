from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hierderm.config.settings import EvaluationConfig
from hierderm.embeddings import EmbeddingTable, unit_length
from hierderm.errors import CaseTableError, EmbeddingError, EvaluationWarning
from hierderm.evaluation.catalogue import METRIC_NAMES
from hierderm.evaluation.evaluation import Evaluation, evaluate_all
from hierderm.evaluation.inference.differences import paired_difference
from hierderm.taxonomy.tree import taxonomy_from_paths

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")
EVERY: Any = (
    "retrieval", "clustering", "classification", "trust", "soft_labels", "knn", "probe", "few_shot",
)  # fmt: skip
CONFIG = EvaluationConfig(bootstrap_rounds=200, kmeans_seeds=2)
N = 180
FINE = np.arange(N) % 9


def table(embeddings: np.ndarray, fine: np.ndarray = FINE) -> EmbeddingTable:
    frame = pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(N)],
            "case_id": [f"c{k // 18 * 9 + k % 9}" for k in range(N)],  # two pictures a case
            "condition": [f"F{k}" for k in fine],
        }
    )
    return EmbeddingTable(unit_length(embeddings), frame)


def noisy(noise: float, seed: int = 0) -> np.ndarray:
    return np.eye(9)[FINE] + np.random.default_rng(seed).normal(0, noise, (N, 9))


def scored(found: EmbeddingTable, config: EvaluationConfig = CONFIG) -> Evaluation:
    return evaluate_all(found, found.frame, TREE, config=config, name="scored")


def test_a_perfect_embedding_scores_one() -> None:
    evaluation = scored(table(noisy(0.02)), CONFIG)
    for name in ("recall_at_1", "map_at_r", "ami", "nmi", "purity"):
        assert evaluation["fine", name].value == pytest.approx(1)
    assert evaluation["coarse", "recall_at_1"].value == 1
    assert (evaluation.n_images, evaluation.n_cases) == (180, 90)
    assert [row["category"] for row in evaluation.categories] == ["C0", "C1", "C2"]
    json.dumps(evaluation.to_dict(), allow_nan=False)


def test_shuffled_labels_are_at_chance() -> None:
    covered = {"ami": 0, "recall_at_1": 0}
    for seed in range(10):
        shuffled = np.random.default_rng(seed).permutation(FINE)
        evaluation = scored(table(noisy(0.1), shuffled), CONFIG)
        for name, chance in (("ami", 0.0), ("recall_at_1", 19 / 179)):
            metric = evaluation["fine", name]
            covered[name] += metric.low < chance < metric.high
    assert min(covered.values()) >= 8  # of ten 95 % intervals


def test_a_case_in_training_and_test_is_refused() -> None:
    first = table(noisy(0.1))
    leaked = first.frame.assign(split=np.where(np.arange(N) < 9, "train", "test"))
    with pytest.raises(CaseTableError, match="case 'c0' is in two splits, 'train' .row 2. and 'test'"):
        evaluate_all(first, leaked, TREE, config=CONFIG)


def test_a_picture_that_occurs_in_training_under_another_case_is_told() -> None:
    embeddings = noisy(0.3)
    embeddings[N // 2 : N // 2 + 7] = embeddings[:7]  # seven training pictures are test pictures, too
    first = table(embeddings)
    frame = first.frame.assign(split=np.where(np.arange(N) < N // 2, "train", "test"), case_id=first.frame["image_id"])
    with pytest.warns(EvaluationWarning, match="7 test picture.s. have a twin .* in another training case"):
        evaluate_all(first, frame, TREE, config=CONFIG)


def test_a_collapsed_embedding_is_told() -> None:
    """Tight clusters that do not follow the labels: their silhouette is high, and it is no gain."""
    two = np.eye(9)[np.arange(N) // 9 % 2] + np.random.default_rng(0).normal(0, 0.03, (N, 9))
    nine = taxonomy_from_paths([(f"C{k}", f"F{k}") for k in range(9)], ("category", "condition"), id="nine")
    with pytest.warns(EvaluationWarning, match="The embedding has collapsed: .* 9 categories need 8 directions"):
        collapsed = evaluate_all(table(two), table(two).frame, nine, config=CONFIG, name="collapsed")
    assert collapsed["coarse", "cluster_silhouette"].value > collapsed["coarse", "label_silhouette"].value + 0.1
    assert collapsed["coarse", "ami"].value < 0.1
    assert collapsed["coarse", "label_silhouette"].value < 0.1
    with pytest.warns(EvaluationWarning, match="nearly collapsed: two pictures have a cosine of 1.000"):
        scored(table(noisy(0.1) + 30))


def test_a_perfect_embedding_has_no_warning_and_no_mistake() -> None:
    evaluation = scored(table(noisy(0.02)))
    assert evaluation.warnings == ()
    assert evaluation["tree", "lca_height_at_10"].value == 0
    assert np.isnan(evaluation["tree", "mistake_severity"].value)
    assert evaluation["fine", "agglomerative_ami"].value == pytest.approx(1)
    assert evaluation["fine", "label_silhouette"].value > 0.9
    assert evaluation["tree", "effective_rank"].value == pytest.approx(8, abs=0.3)
    assert np.isnan(evaluation["tree", "effective_rank"].low)  # a description, without an interval


def test_paired_differences() -> None:
    better, worse = (scored(table(noisy(n)), CONFIG) for n in (0.2, 0.6))
    difference = paired_difference(better, worse, ("fine", "map_at_r"), 0.95)
    assert difference is not None and difference.resolved and difference.value > 0
    assert difference.low < difference.value < difference.high
    same = paired_difference(better, better, ("fine", "map_at_r"), 0.95)
    assert same is not None and (same.value, same.low, same.high) == (0, 0, 0) and not same.resolved
    assert paired_difference(better, worse, ("fine", "top1_accuracy"), 0.95) is None
    short = scored(table(noisy(0.2)), EvaluationConfig(bootstrap_rounds=3))
    with pytest.raises(EmbeddingError, match="same images and bootstrap rounds"):
        paired_difference(better, short, ("fine", "ami"), 0.95)


def test_probabilities_give_accuracy_at_both_levels() -> None:
    probabilities = np.full((N, 9), 0.01, np.float32)
    probabilities[np.arange(N), (FINE // 3) * 3] = 0.92  # always the first condition of the right category
    first = table(noisy(0.1))
    with_probabilities = EmbeddingTable(first.embeddings, first.frame, first.provenance, probabilities)
    evaluation = scored(with_probabilities)
    assert evaluation["coarse", "top1_accuracy"].value == 1
    assert evaluation["fine", "top1_accuracy"].value == pytest.approx(1 / 3)
    assert evaluation.get(("fine", "nothing")) is None
    with pytest.raises(KeyError, match="there are"):
        _ = evaluation["fine", "nothing"]


def test_without_bootstrap_there_are_no_intervals() -> None:
    evaluation = scored(table(noisy(0.1)), EvaluationConfig(bootstrap_rounds=0))
    assert evaluation["fine", "ami"].to_dict()["low"] is None


def with_splits(probabilities: np.ndarray, embeddings: np.ndarray) -> tuple[EmbeddingTable, pd.DataFrame]:
    first = table(embeddings)
    frame = first.frame.assign(split=np.array(["train", "validation", "test"])[np.arange(N) // 18 % 3])
    return EmbeddingTable(first.embeddings, frame, first.provenance, probabilities.astype(np.float32)), frame


def test_every_family_with_all_splits() -> None:
    rng = np.random.default_rng(0)
    probabilities = 0.6 * np.eye(9)[FINE] + 0.4 * rng.dirichlet(np.ones(9), N)
    found, frame = with_splits(probabilities, noisy(0.5))
    frame["fitzpatrick"] = np.arange(N) % 6 + 1
    frame["weights"] = [f'{{"F{k}": 0.75, "F{(k + 1) % 9}": 0.25}}' for k in FINE]
    config = EvaluationConfig(bootstrap_rounds=50, kmeans_seeds=2, permutations=20, families=EVERY)
    evaluation = evaluate_all(found, frame, TREE, config=config, name="all")
    json.dumps(evaluation.to_dict(), allow_nan=False)
    assert evaluation.n_images == (frame["split"] == "test").sum()
    names = {metric.name for metric in evaluation.metrics}
    assert names <= set(METRIC_NAMES)
    assert names >= {
        "top3_accuracy", "balanced_accuracy", "crm_severity", "ece_scaled", "conformal_coverage", "answer_rate",
        "expected_relevance_at_10", "top3_has_plausible", "train_knn_accuracy", "linear_probe_accuracy", "few_shot_5",
    }  # fmt: skip
    assert evaluation["fine", "top1_accuracy"].value > 0.9
    assert evaluation["tree", "answer_rate"].value > 0
    assert {row.group for row in evaluation.groups} == {"I-II", "III-IV", "V-VI"}
    assert {row["group"] for row in evaluation.neighbours} == {"I-II", "III-IV", "V-VI"}
    assert set(evaluation.details) == {"confusion", "reliability", "risk_coverage", "conformal", "answers"}
    assert np.sum(evaluation.details["confusion"]["table"]) == evaluation.n_images


def test_a_tree_of_three_levels_is_scored_on_each() -> None:
    paths = [(f"top {k // 6}", f"C{k // 3}", f"F{k}") for k in range(9)]
    tree = taxonomy_from_paths(paths, ("branch", "category", "condition"), id="three")
    found = table(noisy(0.4))
    evaluation = evaluate_all(found, found.frame, tree, config=CONFIG)
    levels = [m.level for m in evaluation.metrics if m.name == "ami"]
    assert levels == ["coarse", "category", "fine"]


def test_a_strangers_array_and_table() -> None:
    frame = pd.DataFrame({"case_id": np.arange(N).astype(str), "condition": [f"F{k}" for k in FINE]})
    evaluation = evaluate_all(7 * noisy(0.02), frame, TREE, config=CONFIG)  # any length, no ids, no paths
    assert evaluation["fine", "map_at_r"].value == 1
    with pytest.raises(EmbeddingError, match=r"a row for each of the 180 rows of the table, .* got \(179, 9\)"):
        evaluate_all(noisy(0.1)[1:], frame, TREE)
    with pytest.raises(EmbeddingError, match="must have test images"):
        evaluate_all(noisy(0.1), frame.assign(split="train"), TREE)
    with pytest.raises(EmbeddingError, match="2 of 180 test images have no embedding, the first is image 'i3'"):
        first = table(noisy(0.1))
        evaluate_all(first.select(~np.isin(np.arange(N), [3, 5])), first.frame, TREE)


def test_shuffled_probabilities_are_answered_by_nobody() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(9), N)
    found, frame = with_splits(probabilities, noisy(0.5))
    evaluation = evaluate_all(found, frame, TREE, config=CONFIG)
    assert evaluation["tree", "answer_rate"].value == 0
    assert evaluation["fine", "conformal_size"].value > 6  # sets as large as honesty needs
