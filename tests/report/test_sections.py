from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from hierderm.config.settings import EvaluationConfig
from hierderm.evaluation.evaluation import Evaluation, Metric, evaluate
from hierderm.report.map import map_points
from hierderm.report.sections import (
    collapse_sentences,
    confusion_rows,
    group_tables,
    neighbour_table,
    trust_sentences,
)
from hierderm.taxonomy.tree import taxonomy_from_paths

TREE = taxonomy_from_paths([(f"C{k // 3}", f"F{k}") for k in range(9)], ("category", "condition"), id="t")
FINE = np.arange(270) % 9


def evaluated() -> Evaluation:
    rng = np.random.default_rng(0)
    hard = np.arange(270) % 2 == 1
    noise = np.where(hard, 2.0, 0.2)[:, None]
    frame = pd.DataFrame(
        {
            "case_id": np.arange(270).astype(str),
            "condition": [f"F{k}" for k in FINE],
            "fitzpatrick": np.where(hard, 6, 1),
            "body_site": np.where(np.arange(270) < 5, "scalp", "arm"),
            "split": np.array(["test", "test", "validation"])[np.arange(270) // 9 % 3],
        }
    )
    probabilities = np.where(hard[:, None], 1 / 9, 0.05 + 0.6 * np.eye(9)[FINE] - 0.00625 * 0)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    config = EvaluationConfig(bootstrap_rounds=50, permutations=99)
    vectors = np.eye(9)[FINE] + noise * rng.normal(size=(270, 9))
    return evaluate(vectors, frame, TREE, config=config, name="m", probabilities=probabilities)


EVALUATION = evaluated()


def test_the_worst_group_is_marked_and_small_ones_are_not() -> None:
    tones, sites = group_tables(EVALUATION)
    assert tones["title"] == "Fitzpatrick type"
    light, dark = tones["rows"]
    assert dark["cells"][0]["worst"] and not light["cells"][0]["worst"]
    assert "coarse Recall@1: worst V-VI, best I-II" in tones["gaps"][0] and "more than chance" in tones["gaps"][0]
    scalp = next(row for row in sites["rows"] if row["group"] == "scalp")
    assert scalp["few"] and not any(cell["worst"] for cell in scalp["cells"])


def test_tones_of_neighbours_with_the_share_in_the_test() -> None:
    (table,) = neighbour_table(EVALUATION)
    assert table["tones"] == ["I-II", "V-VI"] and table["lines"][-1][0] == "all test pictures"


def test_confusion_is_in_shares_of_the_true_category() -> None:
    found = confusion_rows(np.array([0, 0, 2, 2]), np.array([0, 2, 2, 1]), ("a", "b", "c"))
    assert found["names"] == ["a", "c"]
    assert [[cell["share"] for cell in line["cells"]] for line in found["lines"]] == [[0.5, 0.5], [0, 0.5]]


def test_what_can_be_answered_in_words() -> None:
    words = " ".join(trust_sentences(EVALUATION, 0.2, 0.9))
    assert "are answered at the fine level" in words
    assert "conformal sets state 90% and hold the truth in" in words
    assert trust_sentences(replace(EVALUATION, details={}), 0.2, 0.9) == []


def test_tighter_clusters_that_are_no_gain_are_named() -> None:
    def model(name: str, silhouette: float, ami: float) -> Evaluation:
        metrics = [Metric("coarse", n, v, v, v, 9) for n, v in (("cluster_silhouette", silhouette), ("ami", ami))]
        return Evaluation(name, tuple(metrics), (), 9, 9, {})

    first, collapsed, better = model("vanilla", 0.03, 0.3), model("tight", 0.23, 0.25), model("good", 0.2, 0.4)
    (sentence,) = collapse_sentences([first, collapsed, better])
    assert sentence.startswith(
        "tight: its coarse clusters are tighter than those of vanilla (silhouette 0.230 beside 0.030)"
    )


def test_points_of_the_map() -> None:
    where = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]])
    drawn = map_points(where, np.array([0, 1, 25]), ["x", "y", "z"], [f"c{k}" for k in range(26)])
    assert [point["x"] for point in drawn["points"]] == [10, 280, 550]
    assert [item["name"] for item in drawn["legend"]] == ["c0", "c1", "c25"]
    many = map_points(np.zeros((25, 2)), np.arange(25), [""] * 25, [str(k) for k in range(25)])
    assert many["legend"][0]["shape"] == "circle" and many["legend"][20]["shape"] == "square"
