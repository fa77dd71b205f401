"""Agreement with weighted differentials."""

from __future__ import annotations

import numpy as np

from hierderm import columns as c
from hierderm.evaluation.catalogue import Key
from hierderm.evaluation.metrics.ranking import K
from hierderm.evaluation.metrics.soft_labels import differentials, expected_relevance, is_plausible
from hierderm.evaluation.scores import Scores
from hierderm.evaluation.subject import Subject
from hierderm.types import FloatArray


def soft_labels(subject: Subject) -> Scores:
    """Are neighbours and predictions plausible; nothing where no case has several plausible conditions."""
    if c.WEIGHTS not in subject.test.frame:
        return Scores()
    weights, tree = differentials(subject.test.frame, subject.taxonomy), subject.taxonomy
    if not ((weights > 0).sum(axis=1) > 1).any():
        return Scores()
    per_image: dict[Key, FloatArray] = {}
    nearest = subject.retrieval.nearest
    first = nearest[:, 0]
    for level, name in subject.levels:
        level_weights, labels = tree.sum_up(weights, level).astype(np.float64), subject.labels(level)
        for k in (1, K):
            per_image[name, f"expected_relevance_at_{k}"] = expected_relevance(level_weights, level_weights, nearest, k)
        per_image[name, "nearest_is_plausible"] = is_plausible(level_weights, np.where(first >= 0, labels[first], -1))
        if subject.test.probabilities is not None:
            order = np.argsort(-tree.sum_up(subject.test.probabilities, level), axis=1, kind="stable")
            per_image[name, "top1_is_plausible"] = is_plausible(level_weights, order[:, 0])
            hits = [is_plausible(level_weights, order[:, place]) for place in range(min(3, order.shape[1]))]
            per_image[name, "top3_has_plausible"] = np.max(hits, axis=0)
    return Scores(per_image)
