"""The table of categories: how each is retrieved and clustered, and where its images went."""

from __future__ import annotations

from typing import Any

import numpy as np

from hierderm.evaluation.metrics.clustering import category_rows
from hierderm.evaluation.metrics.ranking import K
from hierderm.evaluation.subject import Subject
from hierderm.types import FloatArray


def category_table(subject: Subject) -> list[dict[str, Any]]:
    """For each category its coarse scores, fine recall@1, the mean height of its neighbours, where its images went."""
    retrieval, names, labels = subject.retrieval, subject.taxonomy.names(0), subject.labels(0)
    coarse, fine = retrieval.levels[0].values, retrieval.levels[-1].values
    columns = {
        **{name: coarse[name] for name in ("recall_at_1", "map_at_r", "r_precision", "mrr")},
        "fine_recall_at_1": fine["recall_at_1"],
        f"lca_height_at_{K}": retrieval.tree[f"lca_height_at_{K}"],
    }
    rows = []
    for row in category_rows(labels, subject.clusters(0, 1)[0]):
        inside = labels == row.label
        rows.append(
            {
                "category": names[row.label],
                "n_images": row.n_images,
                "n_cases": len(np.unique(subject.test.case_ids[inside])),
                **{name: _mean_or_none(values[inside]) for name, values in columns.items()},
                "share_in_main_cluster": row.share_in_main_cluster,
                "purity_of_main_cluster": row.purity_of_main_cluster,
                "went_to": [[names[label], share] for label, share in row.went_to],
            }
        )
    return rows


def _mean_or_none(values: FloatArray) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None
