"""The scores that training monitors: retrieval among the validation images at both ends of the tree."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hierderm.data.table import CaseTable
from hierderm.evaluation.catalogue import level_metrics
from hierderm.evaluation.metrics.blocks import over_rankings
from hierderm.evaluation.metrics.ranking import Labelled, Rankings
from hierderm.evaluation.metrics.terms import sums
from hierderm.types import FloatArray, Floats

MONITORED = ("map_at_r", "recall_at_1")


def validation_scores(embeddings: Floats, table: CaseTable) -> dict[str, float]:
    """Retrieval scores of a table's images among themselves, each case's own images left out.

    `mean_map_at_r` is geometric: with an arithmetic mean a gain at the coarse level, where values are larger, could pay
    for a loss at the fine level; the geometric mean weighs the relative change of each level alike. `mean_retrieval` is
    the arithmetic mean of four shares of images, MAP@R and recall@1 of both levels: the nearest case counts, too.

    Args:
        embeddings: Unit-length vectors, shape (n_images, dim), row by row those of `table`.
        table: The validation images with their conditions and cases.

    Returns:
        `coarse_map_at_r`, `fine_map_at_r`, `mean_map_at_r`, `coarse_recall_at_1`, `fine_recall_at_1` and
        `mean_retrieval`, each in [0, 1], means over the images that have a relevant one; nan where no image has.
    """
    labels = table.taxonomy.ancestors[table.fine].T
    means = retrieval_means(Labelled(np.asarray(embeddings), labels, table.case_ids))[:, [0, -1]]
    names = [f"{level}_{metric}" for metric in MONITORED for level in ("coarse", "fine")]
    found = dict(zip(names, means.ravel().tolist(), strict=True))
    return found | {"mean_map_at_r": float(np.sqrt(means[0].prod())), "mean_retrieval": float(means.mean())}


def level_queries(table: CaseTable, level: str) -> tuple[int, int]:
    """How many images have another case of their node on a level, and how many nodes the images are of."""
    labels = table.labels(table.taxonomy.level_number(level))
    cases = np.unique(np.stack([labels, np.unique(table.case_ids, return_inverse=True)[1]]), axis=1)[0]
    return int((np.bincount(cases)[labels] > 1).sum()), len(np.unique(labels))


def retrieval_means(labelled: Labelled) -> FloatArray:
    """Means of the metrics `MONITORED`, shape (n_metrics, n_levels), coarse first; nan without a relevant image."""
    known = level_metrics()
    metrics = [known[name] for name in MONITORED]

    def add_up(block: Iterator[Rankings]) -> FloatArray:
        total = np.zeros((1 + len(MONITORED), len(labelled.labels)))
        for rankings in block:
            for level in range(len(labelled.labels)):
                relevant = rankings.relevant(level)
                total[1:, level] += sums(metrics, relevant).sum(axis=1)
                total[0, level] += (relevant.counts > 0).sum()
        return total

    count, *total = np.sum(list(over_rankings(add_up, labelled)), axis=0)
    return np.asarray(np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0))
