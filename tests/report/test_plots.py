from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable
from hierderm.report.neighbours import example_groups, nearest_neighbours
from hierderm.report.plots import PALETTE, history_figure, map_points
from hierderm.taxonomy.tree import taxonomy_from_paths


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


def test_each_loss_has_its_own_panel_and_the_sum_none(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr("hierderm.report.plots.png", figures.append)
    names = ["train_loss", "contrastive_loss", "classification_loss", "validation_classification_loss"]
    history = pd.DataFrame({"epoch": [0, 1, 2]} | {name: [3.0, 2.0, 1.0] for name in [*names, "coarse_map_at_r"]})
    history_figure(
        {"both": history, "one": history[["epoch", "contrastive_loss", "coarse_map_at_r"]]}, {"both": 1, "one": 2}
    )
    (figure,) = figures
    assert [axes.get_title() for axes in figure.axes] == [
        "contrastive loss", "classification loss (dashed: validation)", "coarse MAP@R, validation",
    ]  # fmt: skip
    # Lines of a panel: each model's values and the epoch it was chosen at; dashed in addition the validation loss.
    assert [len(axes.lines) for axes in figure.axes] == [4, 4, 4]
    assert [next(iter(np.asarray(line.get_xdata()))) for line in figure.axes[2].lines] == [1, 2, 1, 3]
