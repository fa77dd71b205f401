from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from hierderm.config import EvaluationConfig
from hierderm.embeddings import EmbeddingTable, unit_length
from hierderm.errors import EmbeddingError
from hierderm.evaluate.summary import evaluate_embeddings, paired_difference
from hierderm.taxonomy import taxonomy_from_paths

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")
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


def test_a_perfect_embedding_scores_one() -> None:
    evaluation = evaluate_embeddings(table(noisy(1e-3)), TREE, CONFIG, name="perfect")
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
        evaluation = evaluate_embeddings(table(noisy(0.1), shuffled), TREE, CONFIG, name="chance")
        for name, chance in (("ami", 0.0), ("recall_at_1", 19 / 179)):
            metric = evaluation["fine", name]
            covered[name] += metric.low < chance < metric.high
    assert min(covered.values()) >= 8  # of ten 95 % intervals


def test_training_cases_in_the_test_are_refused() -> None:
    with pytest.raises(EmbeddingError, match="2 case.s. of the evaluation are training cases, e.g. 'c0'"):
        evaluate_embeddings(table(noisy(0.1)), TREE, CONFIG, name="x", train_case_ids=np.array(["c0", "c5", "new"]))


def test_paired_differences() -> None:
    better, worse = (evaluate_embeddings(table(noisy(n)), TREE, CONFIG, name=f"{n}") for n in (0.2, 0.6))
    difference = paired_difference(better, worse, ("fine", "map_at_r"), 0.95)
    assert difference is not None and difference.resolved and difference.value > 0
    assert difference.low < difference.value < difference.high
    same = paired_difference(better, better, ("fine", "map_at_r"), 0.95)
    assert same is not None and (same.value, same.low, same.high) == (0, 0, 0) and not same.resolved
    assert paired_difference(better, worse, ("fine", "top1_accuracy"), 0.95) is None
    short = evaluate_embeddings(table(noisy(0.2)), TREE, EvaluationConfig(bootstrap_rounds=3), name="s")
    with pytest.raises(EmbeddingError, match="same images and bootstrap rounds"):
        paired_difference(better, short, ("fine", "ami"), 0.95)


def test_probabilities_give_accuracy_at_both_levels() -> None:
    probabilities = np.full((N, 9), 0.01, np.float32)
    probabilities[np.arange(N), (FINE // 3) * 3] = 0.92  # always the first condition of the right category
    first = table(noisy(0.1))
    with_probabilities = EmbeddingTable(first.embeddings, first.frame, first.provenance, probabilities)
    evaluation = evaluate_embeddings(with_probabilities, TREE, CONFIG, name="p")
    assert evaluation["coarse", "top1_accuracy"].value == 1
    assert evaluation["fine", "top1_accuracy"].value == pytest.approx(1 / 3)
    assert evaluation.get(("fine", "nothing")) is None
    with pytest.raises(KeyError, match="there are"):
        _ = evaluation["fine", "nothing"]


def test_without_bootstrap_there_are_no_intervals() -> None:
    evaluation = evaluate_embeddings(table(noisy(0.1)), TREE, EvaluationConfig(bootstrap_rounds=0), name="x")
    assert evaluation["fine", "ami"].to_dict()["low"] is None
