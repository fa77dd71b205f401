from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import hierderm.evaluation.evaluation as module
import hierderm.evaluation.subject as subject_module
from hierderm.config.settings import EvaluationConfig
from hierderm.embeddings import EmbeddingTable, unit_length
from hierderm.errors import BenchmarkError, CaseTableError, EmbeddingError, EvaluationWarning
from hierderm.evaluation.catalogue import METRICS
from hierderm.evaluation.evaluation import Evaluation, evaluate
from hierderm.evaluation.inference.differences import paired_difference
from hierderm.evaluation.subject import case_table
from hierderm.taxonomy.file import write_taxonomy
from hierderm.taxonomy.tree import taxonomy_from_paths

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")
EVERY: Any = (
    "retrieval", "hierarchy", "clustering", "classification", "calibration", "soft_labels", "knn", "linear_probe",
    "few_shot", "groups",
)  # fmt: skip
CONFIG = EvaluationConfig(bootstrap_rounds=200, kmeans_seeds=2)
N = 180
FINE = np.arange(N) % 9


def table(embeddings: np.ndarray, fine: np.ndarray = FINE) -> EmbeddingTable:
    frame = pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(N)],
            "case_id": [f"c{k // 18 * 9 + k % 9}" for k in range(N)],  # two images a case
            "condition": [f"F{k}" for k in fine],
        }
    )
    return EmbeddingTable(unit_length(embeddings), frame)


def noisy(noise: float, seed: int = 0) -> np.ndarray:
    return np.eye(9)[FINE] + np.random.default_rng(seed).normal(0, noise, (N, 9))


def scored(found: EmbeddingTable, config: EvaluationConfig = CONFIG) -> Evaluation:
    return evaluate(found, found.frame, TREE, config=config, name="scored")


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
        evaluate(first, leaked, TREE, config=CONFIG)


def test_an_image_that_occurs_in_training_under_another_case_is_reported() -> None:
    embeddings = noisy(0.3)
    embeddings[N // 2 : N // 2 + 7] = embeddings[:7]  # seven training images are test images, too
    first = table(embeddings)
    frame = first.frame.assign(split=np.where(np.arange(N) < N // 2, "train", "test"), case_id=first.frame["image_id"])
    with pytest.warns(EvaluationWarning, match="7 test image.s. have a twin .* in another training case"):
        evaluate(first, frame, TREE, config=CONFIG)


def test_a_collapsed_embedding_is_reported() -> None:
    """Tight clusters that do not follow the labels: their silhouette is high, and it is no gain."""
    two = np.eye(9)[np.arange(N) // 9 % 2] + np.random.default_rng(0).normal(0, 0.03, (N, 9))
    nine = taxonomy_from_paths([(f"C{k}", f"F{k}") for k in range(9)], ("category", "condition"), id="nine")
    with pytest.warns(EvaluationWarning, match="The embedding has collapsed: .* 9 categories need 8 directions"):
        collapsed = evaluate(table(two), table(two).frame, nine, config=CONFIG, name="collapsed")
    assert collapsed["coarse", "cluster_silhouette"].value > collapsed["coarse", "label_silhouette"].value + 0.1
    assert collapsed["coarse", "ami"].value < 0.1
    assert collapsed["coarse", "label_silhouette"].value < 0.1
    with pytest.warns(EvaluationWarning, match="nearly collapsed: two images have a cosine of 1.000"):
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
    assert difference is not None and difference.significant and difference.value > 0
    assert difference.low < difference.value < difference.high
    same = paired_difference(better, better, ("fine", "map_at_r"), 0.95)
    assert same is not None and (same.value, same.low, same.high) == (0, 0, 0) and not same.significant
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


def test_every_task_with_all_splits() -> None:
    rng = np.random.default_rng(0)
    probabilities = 0.6 * np.eye(9)[FINE] + 0.4 * rng.dirichlet(np.ones(9), N)
    found, frame = with_splits(probabilities, noisy(0.5))
    frame["fitzpatrick"] = np.arange(N) % 6 + 1
    frame["weights"] = [f'{{"F{k}": 0.75, "F{(k + 1) % 9}": 0.25}}' for k in FINE]
    config = EvaluationConfig(bootstrap_rounds=50, kmeans_seeds=2, permutations=20, tasks=EVERY)
    evaluation = evaluate(found, frame, TREE, config=config, name="all")
    json.dumps(evaluation.to_dict(), allow_nan=False)
    assert evaluation.n_images == (frame["split"] == "test").sum()
    names = {metric.name for metric in evaluation.metrics}
    assert names <= set(METRICS)
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
    evaluation = evaluate(found, found.frame, tree, config=CONFIG)
    levels = [m.level for m in evaluation.metrics if m.name == "ami"]
    assert levels == ["coarse", "category", "fine"]


def test_an_external_array_and_table() -> None:
    frame = pd.DataFrame({"case_id": np.arange(N).astype(str), "condition": [f"F{k}" for k in FINE]})
    evaluation = evaluate(7 * noisy(0.02), frame, TREE, config=CONFIG)  # any length, no ids, no paths
    assert evaluation["fine", "map_at_r"].value == pytest.approx(1)
    with pytest.raises(EmbeddingError, match=r"a row for each of the 180 rows of the table, .* got \(179, 9\)"):
        evaluate(noisy(0.1)[1:], frame, TREE)
    with pytest.raises(EmbeddingError, match="must have test images"):
        evaluate(noisy(0.1), frame.assign(split="train"), TREE)
    with pytest.raises(EmbeddingError, match="2 of 180 test images have no embedding, the first is image 'i3'"):
        first = table(noisy(0.1))
        evaluate(first.select(~np.isin(np.arange(N), [3, 5])), first.frame, TREE)


def test_shuffled_probabilities_are_answered_by_nobody() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(9), N)
    found, frame = with_splits(probabilities, noisy(0.5))
    evaluation = evaluate(found, frame, TREE, config=CONFIG)
    assert evaluation["tree", "answer_rate"].value == 0
    assert evaluation["fine", "conformal_size"].value > 6  # sets as large as honesty needs


class Colours:
    """A model is anything with `encode`: this one reads one text file an image and knows nothing else of hierderm."""

    def encode(self, images: list[Path]) -> list[list[float]]:
        return [[float(number) for number in path.read_text().split()] for path in images]


def test_a_model_a_file_and_an_array_are_evaluated_alike(tmp_path: Path) -> None:
    vectors = noisy(0.5)
    np.save(tmp_path / "vectors.npy", vectors)
    for number, vector in enumerate(vectors):
        (tmp_path / f"{number}.txt").write_text(" ".join(map(repr, vector.tolist())))
    frame = table(vectors).frame.assign(image_path=[f"{k}.txt" for k in range(N)])
    frame.to_csv(tmp_path / "cases.csv", index=False)
    write_taxonomy(TREE, tmp_path / "tree.csv")
    saved = EmbeddingTable(unit_length(vectors), frame)
    saved.save(tmp_path / "saved")
    config = EvaluationConfig(bootstrap_rounds=10, groups=False)
    expected = evaluate(vectors, frame, TREE, tasks=["retrieval"], config=config)
    for source in (Colours(), tmp_path / "vectors.npy", str(tmp_path / "saved"), saved):
        found = evaluate(source, tmp_path / "cases.csv", tmp_path / "tree.csv", tasks=["retrieval"], config=config)
        pd.testing.assert_frame_equal(found.to_pandas(), expected.to_pandas(), atol=1e-6)
    with pytest.raises(BenchmarkError, match="unknown task or suite 'retreival'"):
        evaluate(vectors, frame, TREE, tasks=["retreival"])
    with pytest.raises(EmbeddingError, match="the taxonomy must be that of the table, t 1"):
        evaluate(vectors, case_table(frame, TREE), "scin")


def test_the_table_and_the_short_form_of_an_evaluation() -> None:
    evaluation = scored(table(noisy(0.4)))
    found = evaluation.to_pandas()
    assert list(found) == ["level", "metric", "value", "low", "high", "count", "skipped", "better"]
    height = found[found["metric"] == "lca_height_at_10"]
    assert height["value"].tolist() == [evaluation["tree", "lca_height_at_10"].value]
    assert (height["level"].tolist(), height["better"].tolist()) == (["tree"], ["lower"])
    short = repr(evaluation)
    assert short.startswith(f"Evaluation('scored': {len(found)} metrics of 180 images of 90 cases; coarse AMI ")
    assert len(short) < 400


def test_with_many_images_the_first_neighbours_come_through_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOP_K_ABOVE", 100)
    found, config = table(noisy(0.5)), EvaluationConfig(bootstrap_rounds=20)
    with pytest.warns(EvaluationWarning, match=r"more than 100 test images the default tasks are retrieval_index, cla"):
        evaluation = evaluate(found, found.frame, TREE, config=config)
    assert evaluation.get(("fine", "map_at_r")) is None and evaluation["fine", "index_map_at_10"].low > 0
    assert "(retrieval, hierarchy, clustering, soft_labels) run by name" in evaluation.warnings[0]
    named = evaluate(found, found.frame, TREE, config=replace(config, tasks=("retrieval", "hierarchy")))
    assert named.get(("fine", "map_at_r")) is not None and named.warnings == ()
    assert evaluation["fine", "index_recall_at_1"].value == named["fine", "recall_at_1"].value


def test_ranking_all_by_all_is_announced(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(subject_module, "ANNOUNCED_FROM", 100)
    monkeypatch.setattr(subject_module, "ANNOUNCED_QUERIES", 10)
    found = table(noisy(0.5))
    with caplog.at_level("INFO", logger="hierderm"):
        evaluate(found, found.frame, TREE, config=EvaluationConfig(tasks=("retrieval",), bootstrap_rounds=5))
    assert re.search(r"Each of 180 images ranks all others, for MAP@R, nDCG and the like: about \d+ s\.", caplog.text)
