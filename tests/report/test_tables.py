from __future__ import annotations

import numpy as np
import pandas as pd

from hierderm.config.settings import EvaluationConfig
from hierderm.evaluation.evaluation import Evaluation, Metric, evaluate
from hierderm.evaluation.inference.differences import Difference
from hierderm.report.tables import (
    confusion_table,
    difference_table,
    group_tables,
    level_tables,
    main_table,
    neighbour_tables,
)
from hierderm.report.words import calibration_sentences
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
    probabilities = np.where(hard[:, None], 1 / 9, 0.05 + 0.6 * np.eye(9)[FINE])
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    config = EvaluationConfig(bootstrap_rounds=50, permutations=99)
    vectors = np.eye(9)[FINE] + noise * rng.normal(size=(270, 9))
    return evaluate(vectors, frame, TREE, config=config, name="m", probabilities=probabilities)


EVALUATION = evaluated()


def model(name: str, **values: float) -> Evaluation:
    """A model with some coarse metrics, a point of the tree among them as `tree_...`."""
    metrics = tuple(
        Metric("tree" if key.startswith("tree_") else "coarse", key.removeprefix("tree_"), value, value, value, 9)
        for key, value in values.items()
    )
    return Evaluation(name, metrics, (), 9, 9, {})


def test_the_best_of_each_main_metric_is_marked() -> None:
    table = main_table([model("a", ami=0.3, map_at_r=0.5), model("b", ami=0.4, map_at_r=0.4999)])
    assert table["metrics"] == ["coarse AMI", "coarse MAP@R"]
    assert [row["model"] for row in table["rows"]] == ["a", "b"]
    marked = [[cell["marked"] for cell in row["cells"]] for row in table["rows"]]
    assert marked == [[False, True], [True, True]]  # 0.4999 is shown as 0.500, too


def test_the_best_of_a_level_goes_by_the_direction_of_the_metric() -> None:
    low = model("low", tree_mistake_severity=1.2, effective_rank=3.0, ami=0.3)
    high = model("high", tree_mistake_severity=1.5, effective_rank=9.0)
    coarse, tree = level_tables([low, high])
    assert (coarse["title"], tree["title"]) == ("coarse level", "whole tree")
    ami, rank = coarse["rows"]
    assert ami["main"] and [cell["text"] for cell in ami["cells"]] == ["0.300", "–"]
    assert rank["title"].endswith("(not ranked)") and not any(cell["marked"] for cell in rank["cells"])
    (severity,) = tree["rows"]
    assert severity["title"].endswith("(lower is better)")
    assert [cell["marked"] for cell in severity["cells"]] == [True, False]


def test_differences_by_main_metric_and_reference() -> None:
    found = [Difference("fine", "ami", "m", reference, 0.1, 0.0, 0.2) for reference in ("b", "a")]
    table = difference_table([*found, Difference("coarse", "ami", "m", "a", 0.3, 0.2, 0.4)])
    assert table["references"] == ["b", "a"]
    assert [row["title"] for row in table["rows"]] == ["coarse AMI", "fine AMI"]
    assert table["rows"][0]["cells"][0] is None and table["rows"][0]["cells"][1].value == 0.3


def test_the_worst_group_is_marked_and_small_ones_are_not() -> None:
    tones, sites = group_tables(EVALUATION)
    assert tones["title"] == "Fitzpatrick type"
    light, dark = tones["rows"]
    assert dark["cells"][0]["marked"] and not light["cells"][0]["marked"]
    assert tones["gaps"][0].startswith("coarse Recall@1: worst in V-VI, best in I-II; gap 0.")
    assert tones["gaps"][0].endswith("), significant (p = 0.010).")
    scalp = next(row for row in sites["rows"] if row["group"] == "scalp")
    assert scalp["few"] and not any(cell["marked"] for cell in scalp["cells"])


def test_tones_of_neighbours_with_the_share_in_the_test() -> None:
    (table,) = neighbour_tables(EVALUATION)
    assert table["tones"] == ["I-II", "V-VI"] and [row[0] for row in table["rows"]] == [
        "I-II",
        "V-VI",
        "all test images",
    ]


def test_confusion_is_in_shares_of_the_true_category() -> None:
    found = confusion_table(np.array([0, 0, 2, 2]), np.array([0, 2, 2, 1]), ("a", "b", "c"))
    assert found["names"] == ["a", "c"]
    assert [[cell["share"] for cell in line["cells"]] for line in found["rows"]] == [[0.5, 0.5], [0, 0.5]]


def test_calibration_in_words() -> None:
    words = " ".join(calibration_sentences(EVALUATION, 0.2, 0.9))
    assert "of the test images are answered at the fine level, with an error of" in words
    assert "contain the true class of" in words and "nominal 90%" in words
