from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hierderm.config.settings import EvaluationConfig
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable
from hierderm.errors import EmbeddingError
from hierderm.evaluation.evaluation import Evaluation, Metric, evaluate
from hierderm.evaluation.inference.differences import Difference
from hierderm.plots import (
    PALETTE,
    calibration,
    categories,
    confusion,
    embedding_maps,
    forest,
    history,
    png,
    project,
    scores,
)
from hierderm.report.neighbours import example_groups, nearest_neighbours
from hierderm.report.page_map import map_points
from hierderm.taxonomy.tree import taxonomy_from_paths

pytestmark = pytest.mark.usefixtures("drawn")


def test_points_of_the_map() -> None:
    where = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]])
    drawn = map_points(where, np.array([0, 1, 25]), ["x", "y", "z"], [f"c{k}" for k in range(26)])
    assert [point["x"] for point in drawn["points"]] == [10, 280, 550]
    assert [item["name"] for item in drawn["legend"]] == ["c0", "c1", "c25"]
    many = map_points(np.zeros((60, 2)), np.arange(60), [""] * 60, [str(k) for k in range(60)])
    assert len({(item["colour"], item["shape"]) for item in many["legend"]}) == 60


def test_no_two_colours_look_alike() -> None:
    """Distances in Oklab (Ottosson 2020); 0.02 is about what an eye sees side by side."""
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in PALETTE])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(
        linear @ [[0.4122214708, 0.2119034982, 0.0883024619], [0.5363325363, 0.6806995451, 0.2817188376],
                  [0.0514459929, 0.1073969566, 0.6299787005]]
    )  # fmt: skip
    lab = cones @ [
        [0.2104542553, 1.9779984951, 0.0259040371], [0.7936177850, -2.4285922050, 0.7827717662],
        [-0.0040720468, 0.4505937099, -0.8086757660],
    ]  # fmt: skip
    distance = np.linalg.norm(lab[:, None] - lab, axis=2)
    assert len(set(PALETTE)) == 20 and distance[np.triu_indices(20, 1)].min() > 0.13
    assert lab[:, 0].min() > 0.35 and lab[:, 0].max() < 0.9  # on white paper and on a dark page


def test_an_image_without_another_case_has_no_neighbour() -> None:
    """With one case in the test no image may be its own nearest: that would be right always."""
    frame = pd.DataFrame({"case_id": ["a", "a"], "condition": ["F0", "F1"], "image_path": ""})
    tree = taxonomy_from_paths([("C0", "F0"), ("C0", "F1")], ("category", "condition"), id="t")
    table = CaseTable(frame, tree, Path())
    row: Any = SimpleNamespace(test=EmbeddingTable(np.eye(2, dtype=np.float32), frame))
    found = nearest_neighbours(table, row)
    assert found.nearest.shape == (2, 0) and found.first.tolist() == [-1, -1]
    assert [group["share"] for group in example_groups(table, row, found)] == ["0% of 2 queries"] * 3


def test_each_loss_has_its_own_panel_and_the_sum_none() -> None:
    names = ["train_loss", "contrastive_loss", "classification_loss", "validation_classification_loss"]
    scores = ["coarse_map_at_r", "fine_recall_at_1"]
    rows = pd.DataFrame({"epoch": [1, 2, 3]} | {name: [3.0, 2.0, 1.0] for name in [*names, *scores]})
    figure = history({"both": rows, "one": rows[["epoch", "contrastive_loss", *scores]]}, {"both": 1, "one": 2})
    assert [axes.get_title() for axes in figure.axes] == [
        "contrastive loss", "coarse MAP@R, validation", "classification loss (dashed: validation)",
        "fine recall@1, validation",
    ]  # fmt: skip
    # Lines of a panel: each model's values and the epoch it was chosen at; dashed in addition the validation loss.
    assert [len(axes.lines) for axes in figure.axes] == [4, 4, 4, 4]
    assert [next(iter(np.asarray(line.get_xdata()))) for line in figure.axes[3].lines] == [1, 2, 1, 3]


def test_a_forest_of_one_pair_has_a_row_for_each_metric() -> None:
    """Filled where the interval excludes 0; blue is better and red worse, whichever way the metric goes."""
    one = [
        Difference("fine", "map_at_r", "a", "b", 0.1, 0.02, 0.2),
        Difference("fine", "ece", "a", "b", 0.1, 0.05, 0.3),
        Difference("fine", "ami", "a", "b", -0.1, -0.3, 0.1),
    ]
    figure = forest(one)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "fine MAP@R", "fine Expected calibration error (less is better)", "fine AMI",
    ]  # fmt: skip
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [str(line.get_markerfacecolor()) for line in points] == [PALETTE[0], PALETTE[1], "white"]
    assert figure.get_supxlabel().startswith("a − b\n")
    with pytest.raises(EmbeddingError, match="at least one difference"):
        forest([])


def test_a_forest_of_several_pairs_has_a_panel_for_each_metric() -> None:
    several = [
        Difference("fine", name, "a", other, 0.1, 0.02, 0.2) for name in ("ami", "map_at_r") for other in ("b", "c")
    ]
    figure = forest(several[:3], columns=1)
    first, second = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["fine AMI", "fine MAP@R"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["b", "c"]
    assert [len(axes.lines) for axes in (first, second)] == [5, 3]  # the line at 0, and of each an interval and a point
    assert figure.get_supxlabel().startswith("a − the other model\n")
    mixed = forest([several[0], Difference("fine", "ami", "x" * 50, "c", 0.1, 0.02, 0.2)])
    assert mixed.axes[0].get_yticklabels()[1].get_text() == "x" * 39 + "…" and mixed.get_supxlabel().startswith(
        "difference"
    )


def test_scores_have_a_mark_for_each_model_and_metric() -> None:
    def model(name: str, **values: float) -> Evaluation:
        metrics = [Metric("fine", key, value, value - 0.1, value + 0.1, 9) for key, value in values.items()]
        return Evaluation(name, tuple(metrics), (), 20, 10, {})

    both = scores([model("a", ami=0.5, map_at_r=0.4), model("b", ami=np.nan, map_at_r=0.3, hap=0.2)])
    (axes,) = both.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fine AMI", "fine MAP@R"]
    assert sum(line.get_linestyle() == "None" for line in axes.lines) == 3
    assert "20 images of 10 cases" in axes.get_xlabel()
    assert [text.get_text() for text in scores(model("a", ami=0.5)).axes[0].texts] == ["0.500"]
    with pytest.raises(EmbeddingError, match="needs one of the headline metrics"):
        scores(model("a", ami=np.nan))


def test_plots_of_an_evaluation() -> None:
    """Each is a figure; those of probabilities say what they need."""
    rng = np.random.default_rng(0)
    tree = taxonomy_from_paths([("C0", "F0"), ("C0", "F1"), ("C1", "F2")], ("category", "condition"), id="t")
    fine = np.arange(60) % 3
    frame = pd.DataFrame({"case_id": np.arange(60).astype(str), "condition": [f"F{k}" for k in fine]})
    config = EvaluationConfig(bootstrap_rounds=5, tasks=("retrieval", "classification", "calibration"))
    vectors = np.eye(3)[fine] + rng.normal(size=(60, 3))
    found = evaluate(vectors, frame, tree, config=config, probabilities=rng.dirichlet(np.ones(3), 60))
    assert [axes.get_title() for axes in calibration(found).axes[::2]] == ["coarse: reliability", "fine: reliability"]
    assert len(categories([found, found]).axes[0].patches) == 4  # two categories, two models
    places = project(vectors[:5])
    assert places.shape == (5, 2)
    assert len(embedding_maps({"mine": places}, fine[:5] // 2, tree.names(0)).axes) == 1
    assert png(confusion(fine, fine, tree.ancestors[:, 0])).startswith(b"\x89PNG")
    without = evaluate(vectors, frame, tree, config=config)
    with pytest.raises(EmbeddingError, match="calibration needs class probabilities"):
        calibration(without)
    assert found.to_pandas("groups").empty and len(found.to_pandas("categories")) == 2
