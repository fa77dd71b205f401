"""The first neighbours through an index, as a task."""

from __future__ import annotations

import resource
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import hierderm.evaluation.tasks.retrieval_index as module
from hierderm.config.settings import EvaluationConfig
from hierderm.embeddings import embeddings_of
from hierderm.evaluation.evaluation import evaluate
from hierderm.evaluation.subject import Subject, case_table, subject_of
from hierderm.evaluation.tasks.registry import TASKS
from hierderm.evaluation.tasks.retrieval_index import retrieval_index
from hierderm.taxonomy.tree import taxonomy_from_paths
from tests.processes import prepared

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(12)], ("category", "condition"), id="t")
SAME = ("recall_at_1", "recall_at_10", "precision_at_10", "knn_accuracy")


@pytest.fixture(scope="module")
def subject() -> Subject:
    rng = np.random.default_rng(0)
    fine = np.append(rng.integers(0, 11, 400).repeat(2), 11)  # the last condition has one image
    frame = pd.DataFrame({"case_id": np.arange(801) // 2, "condition": [f"F{k}" for k in fine]})
    table = case_table(frame, TREE)
    vectors = np.random.default_rng(1).normal(size=(12, 16))[fine] + rng.normal(0, 2, (801, 16))
    return subject_of(embeddings_of(vectors, table), table, EvaluationConfig(), name="m")


def test_a_flat_index_gives_what_the_full_ranking_gives(subject: Subject) -> None:
    found, whole = TASKS["retrieval_index"].scores(subject), TASKS["retrieval"].scores(subject)
    for level in ("coarse", "fine"):
        for name in SAME:
            for prefix in ("index_", "exact_"):
                np.testing.assert_allclose(found.per_image[level, prefix + name], whole.per_image[level, name])
            assert np.nanmax(np.abs(found.per_image[level, f"loss_{name}"])) == 0
    assert found.details["retrieval_index"] == {"kind": "flat", "images": 801, "k": 10, "exact_queries": 801}
    assert np.isnan(found.per_image["fine", "index_map_at_10"][-1])  # no other image of its condition


@pytest.mark.parametrize("kind", ["hnsw", "ivf", "ivfpq"])
def test_approximate_indexes_lose_little_and_say_how_much(subject: Subject, kind: str) -> None:
    whole = TASKS["retrieval"].scores(subject).per_image
    found = retrieval_index(replace(subject, config=EvaluationConfig(index_kind=kind)))  # type: ignore[arg-type]
    about = found.details["retrieval_index"]
    assert about["kind"] == kind and about["effort"] >= 1 and about["exact_queries"] == 801
    shares = found.per_image["tree", "index_true_neighbours_at_10"]
    assert (0.75 if kind == "ivfpq" else 0.95) < shares.mean() <= 1  # so few vectors get codes of four bits
    for name in SAME:
        served, exact, loss = (found.per_image["fine", prefix + name] for prefix in ("index_", "exact_", "loss_"))
        np.testing.assert_allclose(exact, whole["fine", name])
        np.testing.assert_allclose(loss, exact - served)
        assert abs(np.nanmean(loss)) < 0.03


def test_exact_values_of_a_sample(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXACT_PAIRS", 1)
    found = retrieval_index(replace(subject, config=EvaluationConfig(index_kind="hnsw")))
    assert found.details["retrieval_index"]["exact_queries"] == module.FEWEST_EXACT == 200
    for name in ("exact_precision_at_10", "loss_precision_at_10"):
        assert 190 <= np.isfinite(found.per_image["fine", name]).sum() <= 200
    assert np.isfinite(found.per_image["fine", "index_precision_at_10"]).sum() == 800


def evaluate_many() -> None:
    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

    n = 16_000
    vectors = np.random.default_rng(0).standard_normal((n, 32), dtype=np.float32)
    cases = pd.DataFrame({"case_id": np.arange(n) // 2, "condition": np.array(TREE.names())[np.arange(n) // 2 % 12]})
    module.EXACT_PAIRS = 1  # a sample
    before = peak()
    config = EvaluationConfig(bootstrap_rounds=20, index_kind="ivf", groups=False)
    evaluate(vectors, cases, TREE, tasks=["retrieval_index"], config=config)
    grown = peak() - before
    assert 10 < grown < 500, grown


@pytest.mark.together("processes")
def test_memory_does_not_grow_with_the_square() -> None:
    """16,000 images: all similarities would be 1,024 MB."""
    process = prepared().Process(target=evaluate_many)
    process.start()
    process.join()
    assert process.exitcode == 0
