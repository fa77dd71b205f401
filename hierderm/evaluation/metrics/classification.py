"""Classification from probabilities of the conditions: accuracy, and credit by the tree."""

from __future__ import annotations

import numpy as np

from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import FloatArray, Floats, IntArray


def in_top(probabilities: Floats, labels: IntArray, k: int) -> FloatArray:
    """1 where the label is among the k most probable classes, shape (n,); of equal ones those of lower number."""
    rows = np.arange(len(labels))
    label_probability = probabilities[rows, labels][:, None]
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    place = ((probabilities > label_probability) | ((probabilities == label_probability) & before)).sum(axis=1)
    return np.asarray(place < k, dtype=np.float64)


def class_scores(labels: IntArray, predicted: IntArray, weights: IntArray | None = None) -> tuple[float, float]:
    """Balanced accuracy and macro F1, both in [0, 1]; `weights`: how often each image counts.

    Balanced accuracy is the mean recall of the classes that occur among the labels (Brodersen et al. 2010); macro F1
    the mean F1 of the classes that occur among labels or predictions, as in scikit-learn. Of no image both are nan.
    """
    if weights is not None and not weights.any():
        return float("nan"), float("nan")
    n = int(max(labels.max(), predicted.max())) + 1
    true = np.bincount(labels, weights, n)
    counts = np.bincount(predicted, weights, n)
    hits = np.bincount(labels, (labels == predicted) * (1 if weights is None else weights), n)
    occurs, either = true > 0, true + counts > 0
    return float((hits[occurs] / true[occurs]).mean()), float((2 * hits[either] / (true + counts)[either]).mean())


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
    common: IntArray, depth: IntArray, length: IntArray, weights: IntArray | None = None
) -> tuple[float, float, float]:
    """Hierarchical precision, recall and F1 over all images, in [0, 1]; precision is nan where nothing is answered.

    `common`, `depth`: of `set_overlap`; `length`: of the true paths; all shape (n,).
    """
    times = np.ones(len(common)) if weights is None else weights
    hits, answered, possible = (float((counts * times).sum()) for counts in (common, depth, length))
    precision = hits / answered if answered else float("nan")
    return precision, hits / possible, 2 * hits / (answered + possible)


def hierarchical_scores_by_image(
    common: IntArray, depth: IntArray, length: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The same of each image, shape (n,): their means are the macro scores, where no path counts more for its length.

    Precision is nan where nothing is answered, recall and F1 are 0.
    """
    precision = np.divide(common, depth, out=np.full(len(common), np.nan), where=depth > 0)
    return precision, np.asarray(common / length), np.asarray(2 * common / (depth + length))
