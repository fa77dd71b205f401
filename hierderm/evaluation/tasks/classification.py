"""The model's own classifier, where it has one: accuracy, credit by the tree, cost-sensitive decoding."""

from __future__ import annotations

from functools import partial

import numpy as np

from hierderm.evaluation.catalogue import TREE, Key
from hierderm.evaluation.metrics.classification import class_scores, hierarchical_scores_by_image, in_top, set_overlap
from hierderm.evaluation.metrics.decoding import crm_decode, hf_decode, set_f
from hierderm.evaluation.metrics.group_sums import Weights
from hierderm.evaluation.metrics.hops import hops
from hierderm.evaluation.scores import Scores, Statistic
from hierderm.evaluation.subject import Subject
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import FloatArray, Floats, IntArray


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
    per_image |= _credit_by_tree(probabilities, subject.fine, tree)
    confusion = np.zeros((tree.size(0), tree.size(0)), dtype=np.int64)
    np.add.at(confusion, (subject.labels(0), tree.to_level(predicted, 0)), 1)
    details = {"confusion": {"of": "classifier", "table": confusion.tolist()}}
    return Scores(per_image, statistics=tuple(statistics), details=details)


def _credit_by_tree(probabilities: Floats, fine: IntArray, tree: Taxonomy) -> dict[Key, FloatArray]:
    """Hierarchical F1 of the top 1 and of the best set of nodes, and how well all conditions are ranked."""
    predicted = probabilities.argmax(axis=1)
    overlap = set_overlap(fine, predicted, np.full(len(fine), tree.fine_level), tree)
    best = hf_decode(probabilities, tree)
    ranked = hops(probabilities, fine, tree, (None, 5))
    return {
        (TREE, "hierarchical_f1"): hierarchical_scores_by_image(*overlap, tree.path_length[fine])[2],
        (TREE, "optimal_f1"): set_f(best, fine, tree),
        (TREE, "optimal_nodes"): best.sum(axis=1).astype(np.float64),
        (TREE, "hops"): ranked[0],
        (TREE, "hops_at_5"): ranked[1],
    }


def _class_scores(labels: IntArray, predicted: IntArray, weights: Weights, _: IntArray | None) -> FloatArray:
    return class_scores(labels, predicted, weights)
