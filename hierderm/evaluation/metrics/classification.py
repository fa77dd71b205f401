"""Classification from probabilities of the conditions: accuracy, and credit by the tree."""

from __future__ import annotations

import numpy as np

from hierderm.evaluation.metrics.group_sums import Weights, group_sums, once
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import FloatArray, Floats, IntArray


def in_top(probabilities: Floats, labels: IntArray, k: int) -> FloatArray:
    """1 where the label is among the k most probable classes, shape (n,); of equal ones those of lower number."""
    rows = np.arange(len(labels))
    label_probability = probabilities[rows, labels][:, None]
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    place = ((probabilities > label_probability) | ((probabilities == label_probability) & before)).sum(axis=1)
    return np.asarray(place < k, dtype=np.float64)


def class_scores(labels: IntArray, predicted: IntArray, weights: Weights | None = None) -> FloatArray:
    """Balanced accuracy and macro F1, both in [0, 1], shape (..., 2).

    Balanced accuracy is the mean recall of the classes that occur among the labels (Brodersen et al. 2010); macro F1
    the mean F1 of the classes that occur among labels or predictions, as in scikit-learn. Of no image both are nan.

    `weights`: how often each image counts, shape (..., n_images); by default once.
    """
    weights = once(len(labels)) if weights is None else weights
    n = int(max(labels.max(), predicted.max())) + 1
    true, counts = (group_sums(weights, classes, n) for classes in (labels, predicted))
    hits = group_sums(weights, labels, n, (labels == predicted).astype(np.float64))
    return np.stack([_mean_share(hits, true), _mean_share(2 * hits, true + counts)], axis=-1)


def _mean_share(part: FloatArray, whole: FloatArray) -> FloatArray:
    """The mean of `part / whole` over the classes with any, shape (...); nan where there is none."""
    n_classes = (whole > 0).sum(axis=-1)
    total = np.asarray((part / np.maximum(whole, 1)).sum(axis=-1))
    return np.asarray(np.divide(total, n_classes, out=np.full(total.shape, np.nan), where=n_classes > 0))


def set_overlap(true: IntArray, node: IntArray, level: IntArray, taxonomy: Taxonomy) -> tuple[IntArray, IntArray]:
    """Of answers at any level: common ancestors with the truth, and ancestors of the answer, both shape (n,).

    `true`: conditions; `node`: the answer's number on its `level`, -1 for no answer (no ancestors). A node counts as
    its own ancestor, the root and repeats (`Taxonomy.repeats`) do not count. Hierarchical precision is the sum of the
    first over the sum of the second, recall over that of `Taxonomy.path_length` (Kiritchenko et al. 2005; Silla and
    Freitas 2011, section 5.2).
    """
    common, depth = np.zeros(len(true), dtype=np.int64), np.zeros(len(true), dtype=np.int64)
    for number in range(taxonomy.n_levels):
        rows = (level == number) & (node >= 0)
        path = _path(node[rows], number, taxonomy)  # (n_rows, number + 1)
        counts = np.stack([~taxonomy.repeats(above)[path[:, above]] for above in range(number + 1)], axis=1)
        common[rows] = (counts & (path == taxonomy.ancestors[true[rows], : number + 1])).sum(axis=1)
        depth[rows] = counts.sum(axis=1)
    return common, depth


def _path(node: IntArray, level: int, taxonomy: Taxonomy) -> IntArray:
    """The ancestors of nodes on a level, coarse first, themselves last, shape (n, level + 1)."""
    columns = [node]
    for number in range(level, 0, -1):
        parents = np.array([child.parent for child in taxonomy.levels[number]], dtype=np.int64)
        columns.append(parents[columns[-1]])
    return np.stack(columns[::-1], axis=1)


def hierarchical_scores(
    common: IntArray, depth: IntArray, length: IntArray, weights: Weights | None = None
) -> FloatArray:
    """Hierarchical precision, recall and F1 of `set_overlap`, in [0, 1], shape (..., 3).

    `length`: of the true paths, shape (n,), as `common` and `depth`. Precision is nan where nothing is answered, all
    are of no image. `weights`: as of `class_scores`.
    """
    times = once(len(common)) if weights is None else weights
    counts = np.stack([common, depth, length], axis=1)
    hits, answered, possible = np.moveaxis(times.astype(np.float64) @ counts.astype(np.float64), -1, 0)
    whole = np.stack([answered, possible, answered + possible], axis=-1)
    parts = np.stack([hits, hits, 2 * hits], axis=-1)
    return np.asarray(np.divide(parts, whole, out=np.full(parts.shape, np.nan), where=whole > 0))


def hierarchical_scores_by_image(
    common: IntArray, depth: IntArray, length: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The same of each image, shape (n,): their means are the macro scores, where no path counts more for its length.

    Precision is nan where nothing is answered, recall and F1 are 0.
    """
    precision = np.divide(common, depth, out=np.full(len(common), np.nan), where=depth > 0)
    return precision, np.asarray(common / length), np.asarray(2 * common / (depth + length))
