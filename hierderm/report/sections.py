"""Tables of the report that are more than figures by model: groups, confusion, trust."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hierderm.evaluation.catalogue import METRICS, Key, direction, metric_name
from hierderm.evaluation.evaluation import Evaluation
from hierderm.evaluation.inference.groups import FEWEST_CASES, Gap, GroupScore
from hierderm.types import IntArray

GROUP_FIGURES: tuple[Key, ...] = (
    ("coarse", "recall_at_1"), ("coarse", "map_at_r"), ("fine", "recall_at_1"), ("fine", "map_at_r"),
    ("coarse", "top1_accuracy"), ("coarse", "ami"),
)  # fmt: skip
COLUMN_NAMES = {"fitzpatrick": "Fitzpatrick type", "monk": "Monk tone", "body_site": "Body site", "source": "Source"}


def group_tables(evaluation: Evaluation) -> list[dict[str, Any]]:
    """For each grouping its groups down and some figures across, the worst of each figure marked, and the gaps."""
    tables = []
    for column in dict.fromkeys(row.column for row in evaluation.groups):
        of_column = [row for row in evaluation.groups if row.column == column]
        keys = [key for key in GROUP_FIGURES if any((row.level, row.name) == key for row in of_column)]
        found = {(row.group, (row.level, row.name)): row for row in of_column}
        worst = {key: _worst([row for row in of_column if (row.level, row.name) == key]) for key in keys}
        rows = []
        for group in dict.fromkeys(row.group for row in of_column):
            any_row = next(row for row in of_column if row.group == group)
            cells = [_group_cell(found.get((group, key)), worst[key] == group) for key in keys]
            counts = {"n_images": any_row.n_images, "n_cases": any_row.n_cases, "few": any_row.n_cases < FEWEST_CASES}
            rows.append({"group": group, **counts, "cells": cells})
        gaps = [gap for gap in evaluation.gaps if gap.column == column and (gap.level, gap.name) in keys]
        tables.append(
            {
                "title": COLUMN_NAMES.get(column, column),
                "figures": [metric_name(*key) for key in keys],
                "rows": rows,
                "gaps": [_gap_sentence(gap) for gap in gaps],
            }
        )
    return tables


def _worst(rows: Sequence[GroupScore]) -> str:
    large = [row for row in rows if row.n_cases >= FEWEST_CASES and not np.isnan(row.value)]
    if len(large) < 2:
        return ""
    sign = -1.0 if direction(large[0].name) == "lower" else 1.0
    return min(large, key=lambda row: sign * row.value).group


def _group_cell(row: GroupScore | None, worst: bool) -> dict[str, Any]:
    if row is None or np.isnan(row.value):
        return {"text": "–", "interval": "", "worst": False}
    interval = "" if np.isnan(row.low) else f"{row.low:.3f} to {row.high:.3f}"
    return {"text": f"{row.value:.3f}", "interval": interval, "worst": worst}


def _gap_sentence(gap: Gap) -> str:
    certainty = "more than chance would give" if gap.p_value < 0.05 else "no more than chance may give"
    return (
        f"{metric_name(gap.level, gap.name)}: worst {gap.worst}, best {gap.best}, a gap of {gap.value:.3f} "
        f"({gap.low:.3f} to {gap.high:.3f}); {certainty} (p {gap.p_value:.3f})."
    )


def neighbour_table(evaluation: Evaluation) -> list[dict[str, Any]]:
    """What skin tones the neighbours of each group have, beside their share in the test."""
    tables = []
    for column in dict.fromkeys(row["column"] for row in evaluation.neighbours):
        rows = [row for row in evaluation.neighbours if row["column"] == column]
        tones = list(rows[0]["in_test"])
        lines = [[row["group"], *(f"{row['neighbours'][tone]:.0%}" for tone in tones)] for row in rows]
        lines.append(["all test pictures", *(f"{rows[0]['in_test'][tone]:.0%}" for tone in tones)])
        tables.append({"title": COLUMN_NAMES.get(column, column), "tones": tones, "lines": lines})
    return tables


def confusion_rows(true: IntArray, found: IntArray, names: Sequence[str]) -> dict[str, Any]:
    """Which category the nearest picture is of, as shares of each true category, in the order of the tree."""
    shown = np.unique(true)
    table = np.zeros((len(names), len(names)))
    np.add.at(table, (true, found), 1)
    lines = []
    for row in shown:
        shares = table[row][shown] / table[row].sum()
        cells = [{"share": round(float(s), 3), "text": f"{s:.0%}" if s >= 0.005 else ""} for s in shares]
        lines.append({"name": names[row], "n": int(table[row].sum()), "cells": cells})
    return {"names": [names[row] for row in shown], "lines": lines}


def trust_sentences(evaluation: Evaluation, wanted_error: float, stated_coverage: float) -> list[str]:
    """What the model can answer, and whether its sets hold what they state; nothing without a classifier."""
    answers = evaluation.details.get("answers")
    if answers is None:
        return []
    sentences = []
    for row in answers["by_level"]:
        n, wrong = row["answered"], row["wrong"]
        share = n / evaluation.n_images
        if n:
            sentences.append(
                f"{share:.0%} of the test pictures are answered at the {row['level']} level, {wrong / n:.0%} of "
                "them wrongly "
                f"({wrong} of {n}); {wanted_error:.0%} were allowed."
            )
        else:
            sentences.append(
                f"No test picture can be answered at the {row['level']} level with {wanted_error:.0%} errors."
            )
    for level, rows in evaluation.details["conformal"].items():
        metric, size = evaluation.get((level, "conformal_coverage")), evaluation.get((level, "conformal_size"))
        if metric is not None and size is not None:
            least = min(rows, key=lambda row: row["coverage"])
            sentences.append(
                f"{level.capitalize()} conformal sets state {stated_coverage:.0%} and hold the truth in "
                f"{metric.value:.0%} "
                f"({metric.low:.0%} to {metric.high:.0%}), with {size.value:.1f} nodes on average; least for "
                f"{least['category']}: {least['coverage']:.0%} of {least['n_images']}."
            )
    return sentences


def collapse_sentences(evaluations: Sequence[Evaluation]) -> list[str]:
    """Where clusters are tighter than the first model's and agree no better with the labels."""
    first, found = evaluations[0], []
    for evaluation in evaluations[1:]:
        for level in ("coarse", "fine"):
            tight, base = (e.get((level, "cluster_silhouette")) for e in (evaluation, first))
            ami, base_ami = (e.get((level, "ami")) for e in (evaluation, first))
            if tight and base and ami and base_ami and tight.value > base.value + 0.05 and ami.value <= base_ami.value:
                found.append(
                    f"{evaluation.model}: its {level} clusters are tighter than those of {first.model} (silhouette "
                    f"{tight.value:.3f} beside {base.value:.3f}), but agree no better with the labels "
                    f"({METRICS['ami'].title} {ami.value:.3f} beside {base_ami.value:.3f}): no gain."
                )
    return found
