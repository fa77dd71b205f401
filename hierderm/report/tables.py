"""The tables of the report as text, from evaluations and their differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hierderm.evaluation.catalogue import HEADLINES, METRICS, TREE, Key, direction, metric_name
from hierderm.evaluation.evaluation import Evaluation, Metric
from hierderm.evaluation.inference.differences import Difference
from hierderm.evaluation.inference.groups import FEWEST_CASES, GroupScore
from hierderm.report.words import gap_sentence
from hierderm.types import IntArray

GROUP_METRICS: tuple[Key, ...] = (
    ("coarse", "recall_at_1"), ("coarse", "map_at_r"), ("fine", "recall_at_1"), ("fine", "map_at_r"),
    ("coarse", "top1_accuracy"), ("coarse", "ami"),
)  # fmt: skip
GROUPINGS = {
    "fitzpatrick": "Fitzpatrick type", "monk": "Monk tone", "skin_tone": "Skin tone", "body_site": "Body site",
    "source": "Source",
}  # fmt: skip
DIRECTIONS = {"lower": " (lower is better)", "higher": "", "none": " (not ranked)"}
CATEGORY_COLUMNS = {
    "recall_at_1": "Recall@1",
    "map_at_r": "MAP@R",
    "r_precision": "R-precision",
    "mrr": "MRR",
    "fine_recall_at_1": "Fine Recall@1",
    "lca_height_at_10": "LCA height, top 10",
    "share_in_main_cluster": "Share in main cluster",
    "purity_of_main_cluster": "Purity of main cluster",
}


def main_table(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Models down, main metrics across; the best of each column marked."""
    columns = {key: _cells(key, evaluations) for key in HEADLINES}
    shown = [key for key, cells in columns.items() if cells]
    rows = [
        {"model": evaluation.model, "cells": [columns[key][number] for key in shown]}
        for number, evaluation in enumerate(evaluations)
    ]
    return {"metrics": [metric_name(*key) for key in shown], "rows": rows}


def level_tables(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """For each level, the whole tree last: metrics down, models across; the best of each row marked."""
    levels = dict.fromkeys(metric.level for evaluation in evaluations for metric in evaluation.metrics)
    tables = []
    for level in sorted(levels, key=lambda level: level == TREE):
        rows = [
            {"title": entry.title + DIRECTIONS[direction(name)], "main": (level, name) in HEADLINES, "cells": cells}
            for name, entry in METRICS.items()
            if (cells := _cells((level, name), evaluations))
        ]
        title = "whole tree" if level == TREE else f"{level} level"
        tables.append({"title": title, "models": [evaluation.model for evaluation in evaluations], "rows": rows})
    return [table for table in tables if table["rows"]]


def difference_table(differences: Sequence[Difference]) -> dict[str, Any]:
    """Main metrics down, other models across."""
    references = list(dict.fromkeys(d.reference for d in differences))
    found = {(d.level, d.name, d.reference): d for d in differences}
    rows = [
        {"title": metric_name(*key), "cells": [found.get((*key, reference)) for reference in references]}
        for key in HEADLINES
    ]
    return {"references": references, "rows": [row for row in rows if any(row["cells"])]}


def category_table(evaluation: Evaluation) -> dict[str, Any]:
    """A row a category, the largest first."""
    names = [key for key in evaluation.categories[0] if key in CATEGORY_COLUMNS]
    rows = [
        [
            row["category"],
            str(row["n_images"]),
            str(row["n_cases"]),
            *("–" if row[name] is None else f"{row[name]:.3f}" for name in names),
            ", ".join(f"{category} {share:.0%}" for category, share in row["went_to"][:3]),
        ]
        for row in sorted(evaluation.categories, key=lambda row: -row["n_images"])
    ]
    titles = [
        "Category",
        "Images",
        "Cases",
        *(CATEGORY_COLUMNS[name] for name in names),
        "Majority category of its clusters",
    ]
    return {"titles": titles, "rows": rows}


def confusion_table(true: IntArray, found: IntArray, names: Sequence[str]) -> dict[str, Any]:
    """The category of the nearest image as shares of each true category, in the order of the tree."""
    shown = np.unique(true)
    table = np.zeros((len(names), len(names)))
    np.add.at(table, (true, found), 1)
    rows = []
    for category in shown:
        shares = table[category][shown] / table[category].sum()
        cells = [{"share": round(float(s), 3), "text": f"{s:.0%}" if s >= 0.005 else ""} for s in shares]
        rows.append({"name": names[category], "n": int(table[category].sum()), "cells": cells})
    return {"names": [names[category] for category in shown], "rows": rows}


def group_tables(evaluation: Evaluation) -> list[dict[str, Any]]:
    """For each grouping: groups down, some metrics across, the worst of each column marked, and the gaps."""
    tables = []
    for column in dict.fromkeys(row.column for row in evaluation.groups):
        scores = {(row.group, (row.level, row.name)): row for row in evaluation.groups if row.column == column}
        keys = [key for key in GROUP_METRICS if any(key == scored for _, scored in scores)]
        worst = {key: _worst([row for (_, scored), row in scores.items() if scored == key]) for key in keys}
        rows = []
        for group in dict.fromkeys(group for group, _ in scores):
            n_images, n_cases = next((row.n_images, row.n_cases) for (name, _), row in scores.items() if name == group)
            cells = [_cell(scores.get((group, key)), worst[key] == group) for key in keys]
            rows.append(
                {
                    "group": group,
                    "n_images": n_images,
                    "n_cases": n_cases,
                    "few": n_cases < FEWEST_CASES,
                    "cells": cells,
                }
            )
        gaps = [gap for gap in evaluation.gaps if gap.column == column and (gap.level, gap.name) in keys]
        tables.append(
            {
                "title": GROUPINGS.get(column, column),
                "metrics": [metric_name(*key) for key in keys],
                "rows": rows,
                "gaps": [gap_sentence(gap) for gap in gaps],
            }
        )
    return tables


def neighbour_tables(evaluation: Evaluation) -> list[dict[str, Any]]:
    """For each scale of skin tones the tones of each group's neighbours, in the last row those of all test images."""
    tables = []
    for column in dict.fromkeys(row["column"] for row in evaluation.neighbours):
        rows = [row for row in evaluation.neighbours if row["column"] == column]
        shares = {row["group"]: row["neighbours"] for row in rows} | {"all test images": rows[0]["in_test"]}
        tones = list(rows[0]["in_test"])
        lines = [[group, *(f"{share[tone]:.0%}" for tone in tones)] for group, share in shares.items()]
        tables.append({"title": GROUPINGS.get(column, column), "tones": tones, "rows": lines})
    return tables


def _cells(key: Key, evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """The metric of each model with the best marked; empty where no model has it."""
    metrics = [evaluation.get(key) for evaluation in evaluations]
    values = [metric.value for metric in metrics if metric is not None and not np.isnan(metric.value)]
    if not values:
        return []
    best = {"lower": min(values), "higher": max(values), "none": np.nan}[direction(key[1])]
    return [_cell(metric, metric is not None and round(metric.value, 3) == round(best, 3)) for metric in metrics]


def _cell(score: Metric | GroupScore | None, marked: bool) -> dict[str, Any]:
    if score is None or np.isnan(score.value):
        return {"text": "–", "interval": "", "marked": False}
    interval = "" if np.isnan(score.low) else f"{score.low:.3f} to {score.high:.3f}"
    return {"text": f"{score.value:.3f}", "interval": interval, "marked": marked}


def _worst(rows: Sequence[GroupScore]) -> str:
    large = [row for row in rows if row.n_cases >= FEWEST_CASES and not np.isnan(row.value)]
    if len(large) < 2:
        return ""
    sign = -1.0 if direction(large[0].name) == "lower" else 1.0
    return min(large, key=lambda row: sign * row.value).group
