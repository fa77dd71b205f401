"""An index as it is served, beside exact search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import hierderm.search.evaluation as module
import hierderm.search.gallery as limits
from hierderm.config.settings import EvaluationConfig
from hierderm.embeddings import EmbeddingTable
from hierderm.engines import Kind
from hierderm.errors import SearchError
from hierderm.evaluation.metrics.selective import AnswerRule, LevelRule
from hierderm.search.answer import Calibration, Worth
from hierderm.search.case_index import CaseIndex
from hierderm.search.evaluation import evaluate_index
from hierderm.search.finder import CaseFinder
from tests.search.toy import MADE_BY, TREE, random_table, table

CONFIG = EvaluationConfig(bootstrap_rounds=20)
RULES = (LevelRule(0.5, (0, 1), (0.4, 0.9), 50, 40, 36), LevelRule(0.7, (0, 1), (0.2, 0.8), 50, 30, 27))


def gallery_table(n: int = 240) -> EmbeddingTable:
    """Cases of one to five images."""
    made = random_table(n, seed=7)
    rng = np.random.default_rng(0)
    number = np.repeat(np.arange(n), rng.integers(1, 6, n))[:n]
    fine = rng.integers(0, 9, n)[number]
    return table(made.embeddings + np.eye(8)[fine % 8], [f"c{k}" for k in number], fine)


def build(kind: Kind = "flat") -> CaseIndex:
    return CaseIndex.from_embeddings(gallery_table(), TREE, kind=kind)


def slow(index: CaseIndex, k: int, allowed: np.ndarray, level: int) -> dict[str, list[float]]:
    """Each case of the index queries the others with its first three images, by definition, cases by their ids."""
    frame, vectors = index.frame, index.vectors
    nodes = TREE.to_level(TREE.encode(frame["condition"]), level)
    values: dict[str, list[float]] = {"recall_at_1": [], f"precision_at_{k}": [], f"map_at_{k}": []}
    for case in sorted(set(frame["case_id"])):
        rows = np.flatnonzero(frame["case_id"] == case)
        best: dict[str, tuple[float, int]] = {}
        for row in map(int, np.flatnonzero(allowed & (frame["case_id"] != case).to_numpy())):
            similarity = max(float(vectors[row] @ vectors[query]) for query in rows[:3])
            best[frame["case_id"][row]] = max(best.get(frame["case_id"][row], (-2.0, row)), (similarity, row))
        right = [nodes[row] == nodes[rows[0]] for _, row in sorted(best.values(), reverse=True)]
        total, first = sum(right), right[:k]
        precision = [sum(first[: i + 1]) / (i + 1) for i in range(len(first)) if first[i]]
        values["recall_at_1"].append(float(first[0]) if total else np.nan)
        values[f"precision_at_{k}"].append(sum(first) / k if total else np.nan)
        values[f"map_at_{k}"].append(sum(precision) / min(k, total) if total else np.nan)
    return values


@pytest.mark.parametrize(("within", "where"), [(None, None), (["C1", "F0"], None), (None, {"fitzpatrick": [1, 2]})])
def test_a_flat_index_against_a_slow_search(within: list[str] | None, where: dict[str, list[int]] | None) -> None:
    index = build()
    allowed = np.ones(len(index), dtype=bool)
    if within:
        allowed = index.frame["condition"].isin(["F0", "F3", "F4", "F5"]).to_numpy()
    if where:
        allowed = index.frame["fitzpatrick"].isin([1, 2]).to_numpy()
    found = evaluate_index(index, k=6, within=within, where=where, config=CONFIG)
    for level, name in enumerate(("coarse", "fine")):
        for metric, values in slow(index, 6, allowed, level).items():
            for prefix in ("index_", "exact_"):
                assert found[name, prefix + metric].value == pytest.approx(np.nanmean(values))
            assert found[name, f"index_{metric}"].count == np.isfinite(values).sum()
            assert found[name, f"loss_{metric}"].value == 0
    assert found["tree", "index_true_neighbours_at_6"].value == 1
    about = found.details["index"]
    assert (about["kind"], about["exact_queries"], about["images_within_filters"]) == (
        "flat",
        index.n_cases,
        allowed.sum(),
    )


@pytest.mark.parametrize("kind", ["hnsw", "ivf", "ivfpq"])
def test_an_approximate_index_beside_exact_search(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EXACT_BELOW", 0)
    monkeypatch.setattr(module, "TOGETHER", 50)
    found, exact = (evaluate_index(build(which), k=5, config=CONFIG) for which in (kind, "flat"))
    for metric in ("recall_at_1", "precision_at_5", "map_at_5", "knn_accuracy"):
        served, true, loss = (found["fine", prefix + metric].value for prefix in ("index_", "exact_", "loss_"))
        assert true == exact["fine", f"index_{metric}"].value
        assert loss == pytest.approx(true - served) and abs(loss) < 0.1
    assert 0.9 <= found["tree", "index_true_neighbours_at_5"].value <= 1


def test_other_cases_query_and_their_own_is_left_out() -> None:
    index = build()
    index.calibration = None
    queries = EmbeddingTable(index.vectors[:40], index.frame[:40].reset_index(drop=True), MADE_BY)
    assert evaluate_index(index, queries, config=CONFIG)["fine", "index_recall_at_1"].value < 1
    renamed = replace(queries, frame=queries.frame.assign(case_id="new " + queries.frame["case_id"]))
    assert evaluate_index(index, renamed, config=CONFIG)["fine", "index_recall_at_1"].value == 1  # the planted leak


def test_answers_are_those_that_a_finder_gives() -> None:
    index = build()
    index.calibration = Calibration(7, 0.1, Worth(100.0, 1.0), AnswerRule(0.8, RULES))
    found = evaluate_index(index, k=4, config=CONFIG)
    finder, right, depths = CaseFinder(index), [], []
    for case in sorted(set(index.frame["case_id"])):
        rows = np.flatnonzero(index.frame["case_id"] == case)
        read = finder.search_vectors(np.asarray(index.vectors[rows[:3]]), leave_out=[case]).answer
        assert read is not None
        path = index.gallery.path(int(rows[0]))
        depths.append(0 if read.level is None else read.level + 1)
        if read.level is not None:
            right.append(read.node == path[read.level])
    assert 0 < len(right) < index.n_cases
    assert found["tree", "index_answer_rate"].value == pytest.approx(len(right) / index.n_cases)
    assert found["tree", "index_answer_error"].value == pytest.approx(1 - np.mean(right))
    assert found["tree", "index_answer_depth"].value == pytest.approx(np.mean(depths))
    narrowed = evaluate_index(index, k=4, within="C1", config=CONFIG)
    assert narrowed.get(("tree", "index_answer_rate")) is None


def test_refusals() -> None:
    index = build()
    with pytest.raises(SearchError, match="needs at least one query case to be evaluated, got none"):
        evaluate_index(index, gallery_table().select(np.zeros(240, dtype=bool)))
    other = replace(gallery_table(), provenance=replace(MADE_BY, weights_hash="x" * 12))
    with pytest.raises(SearchError, match="must come from the model of the index"):
        evaluate_index(index, other)


def test_what_a_filter_of_one_node_makes_perfect_is_warned_of() -> None:
    index = build()
    index.calibration = Calibration(6, 0.1, Worth(100.0, 1.0), AnswerRule(0.8, RULES))
    assert evaluate_index(index, config=CONFIG).warnings == ()
    found = evaluate_index(index, within="C1", config=CONFIG)
    assert found["coarse", "index_recall_at_1"].value == 1 > found["fine", "index_recall_at_1"].value
    assert len(found.warnings) == 1 and "can be found are of one node at the coarse level, 'C1'" in found.warnings[0]
    both = evaluate_index(index, within="F4", config=CONFIG).warnings
    assert [f"one node at the {level} level" in text for level, text in zip(("coarse", "fine"), both, strict=True)] == [
        True
    ] * 2
    others = sorted(set(index.frame.loc[~index.frame["condition"].isin(["F3", "F4", "F5"]), "case_id"]))
    queries = EmbeddingTable(index.vectors.copy(), index.frame.copy(), MADE_BY)
    index.calibration = None
    index.remove(others)
    index.calibration = Calibration(6, 0.1, Worth(100.0, 1.0), AnswerRule(0.8, RULES))
    left = evaluate_index(index, queries, config=CONFIG)
    assert "one node at the coarse level, 'C1'" in left.warnings[0]
    finest = CaseFinder(index)
    given = [finest.search_vectors(queries.embeddings[[row]]).answer for row in range(20)]
    assert {found.level for found in given if found is not None} <= {None, 1}
    assert left["tree", "index_answer_depth"].value == 2 * left["tree", "index_answer_rate"].value  # fine ones only


def test_neighbours_that_do_not_exist_are_not_found() -> None:
    index = CaseIndex.from_embeddings(table(np.eye(8)[:2], ["a", "a"], [0, 0]), TREE)
    found = evaluate_index(index, config=CONFIG)
    assert np.isnan(found["tree", "index_true_neighbours_at_10"].value)
    assert (
        "of one case, of one node at the fine level, 'F0'" in found.warnings[1]
        and "retrieval is undefined" in found.warnings[1]
    )
