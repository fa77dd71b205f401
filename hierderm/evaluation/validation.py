"""The scores that training monitors: MAP@R of the validation images at both ends of the tree."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hierderm.data.table import CaseTable
from hierderm.evaluation.metrics.blocks import over_rankings
from hierderm.evaluation.metrics.ranking import Labelled, Rankings
from hierderm.evaluation.metrics.terms import LevelMetric, map_at_r, sums
from hierderm.types import FloatArray, Floats


def validation_scores(embeddings: Floats, table: CaseTable) -> dict[str, float]:
    """Retrieval scores of a table's images among themselves, each case's own images left out.

    The mean is geometric: with an arithmetic one a gain at the coarse level, where values are larger, could pay for a
    loss at the fine level; the geometric mean weighs the relative change of each level alike.

    Args:
        embeddings: Unit-length vectors, shape (n_images, dim), row by row those of `table`.
        table: The validation images with their conditions and cases.

    Returns:
        `coarse_map_at_r`, `fine_map_at_r` and `mean_map_at_r`, each in [0, 1], means over the images that have a
        relevant one; nan where no image has.
    """
    labels = table.taxonomy.ancestors[table.fine].T
    coarse, fine = mean_map_at_r(Labelled(np.asarray(embeddings), labels, table.case_ids))[[0, -1]]
    mean = float(np.sqrt(coarse * fine))
    return {"coarse_map_at_r": float(coarse), "fine_map_at_r": float(fine), "mean_map_at_r": mean}


def level_queries(table: CaseTable, level: str) -> tuple[int, int]:
    """How many images have another case of their node on a level, and how many nodes the images are of."""
    labels = table.labels(table.taxonomy.level_number(level))
    cases = np.unique(np.stack([labels, np.unique(table.case_ids, return_inverse=True)[1]]), axis=1)[0]
    return int((np.bincount(cases)[labels] > 1).sum()), len(np.unique(labels))


def mean_map_at_r(labelled: Labelled) -> FloatArray:
    """Mean MAP@R of each level, coarse first, shape (n_levels,); nan where no query has a relevant image."""

    def add_up(block: Iterator[Rankings]) -> FloatArray:
        total = np.zeros((2, len(labelled.labels)))
        for rankings in block:
            for level in range(len(labelled.labels)):
                relevant = rankings.relevant(level)
                total[:, level] += sums([LevelMetric(map_at_r)], relevant).sum(), (relevant.counts > 0).sum()
        return total

    total, count = np.sum(list(over_rankings(add_up, labelled)), axis=0)
    return np.asarray(np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0))
