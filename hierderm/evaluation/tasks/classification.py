"""The model's own classifier, where it has one: accuracy, credit by the tree, cost-sensitive decoding."""

from __future__ import annotations

from functools import partial

import numpy as np

from hierderm.evaluation.catalogue import TREE, Key
from hierderm.evaluation.metrics.classification import class_scores, crm_decode, in_top
from hierderm.evaluation.metrics.group_sums import Weights
from hierderm.evaluation.scores import Scores, Statistic
from hierderm.evaluation.subject import Subject
from hierderm.types import FloatArray, IntArray


def classification(subject: Subject) -> Scores:
    """Top-k accuracy, balanced accuracy and macro F1 at each level, and heights of mistakes in the tree."""
    probabilities, tree = subject.test.probabilities, subject.taxonomy
    if probabilities is None:
        return Scores()
    per_image: dict[Key, FloatArray] = {}
    statistics: list[Statistic] = []
    decoded = crm_decode(probabilities, tree)
    for level, name in subject.levels:
        level_probabilities, labels = tree.sum_up(probabilities, level), subject.labels(level)
        predicted = level_probabilities.argmax(axis=1)
        per_image[name, "top1_accuracy"] = (predicted == labels).astype(np.float64)
        if level_probabilities.shape[1] > 3:
            per_image[name, "top3_accuracy"] = in_top(level_probabilities, labels, 3)
        per_image[name, "crm_accuracy"] = (tree.to_level(decoded, level) == labels).astype(np.float64)
        keys = ((name, "balanced_accuracy"), (name, "macro_f1"))
        statistics.append(Statistic(keys, partial(_class_scores, labels, predicted)))
    if tree.n_levels == 1:
        return Scores(per_image, statistics=tuple(statistics))
    predicted = probabilities.argmax(axis=1)
    for name, nodes in (("top1", predicted), ("crm", decoded)):
        height = tree.lca_height[subject.fine, nodes].astype(np.float64)
        per_image[TREE, f"{name}_height"] = height
        per_image[TREE, f"{name}_severity"] = np.where(height > 0, height, np.nan)
    per_image[TREE, "hierarchical_f1"] = 1 - per_image[TREE, "top1_height"] / tree.n_levels  # equal depths: P = R = F
    confusion = np.zeros((tree.size(0), tree.size(0)), dtype=np.int64)
    np.add.at(confusion, (subject.labels(0), tree.to_level(predicted, 0)), 1)
    details = {"confusion": {"of": "classifier", "table": confusion.tolist()}}
    return Scores(per_image, statistics=tuple(statistics), details=details)


def _class_scores(labels: IntArray, predicted: IntArray, weights: Weights, _: IntArray | None) -> FloatArray:
    return class_scores(labels, predicted, weights)
