"""The worst group by skin tone, body site and source."""

from __future__ import annotations

import numpy as np

from hierderm.evaluation.catalogue import Key
from hierderm.evaluation.inference.groups import FEWEST_CASES, groups_of
from hierderm.evaluation.scores import Scores
from hierderm.evaluation.subject import Subject
from hierderm.types import FloatArray


def worst_groups(subject: Subject) -> Scores:
    """Recall@1 of the worst group of each grouping, of those with at least 10 cases; the choice is not resampled."""
    found: dict[Key, FloatArray] = {}
    cases = subject.test.case_ids
    for column, names in groups_of(subject.test.frame).items():
        large = [g for g in sorted(set(names) - {""}) if len(np.unique(cases[names == g])) >= FEWEST_CASES]
        for level, name in subject.levels:
            values = subject.retrieval.levels[level].values["recall_at_1"]
            group_values = {group: np.where(names == group, values, np.nan) for group in large}
            means = {group: float(np.nanmean(v)) for group, v in group_values.items() if not np.isnan(v).all()}
            if len(means) > 1:
                found[name, f"recall_at_1_of_worst_{column}"] = group_values[min(means, key=lambda g: means[g])]
    return Scores(found)
