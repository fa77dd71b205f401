"""Soft labels: a case of several plausible conditions with weights, as dermatologists gave them for SCIN."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from hierderm import columns as c
from hierderm.taxonomy.tree import Taxonomy
from hierderm.types import FloatArray, Floats, IntArray, Vectors


def differentials(frame: pd.DataFrame, taxonomy: Taxonomy) -> Vectors:
    """Each image's weights of the conditions, shape (n_images, n_fine), rows summing to 1.

    From the `weights` column; a row without weights is sure of its condition.
    """
    result = np.zeros((len(frame), taxonomy.size(-1)), dtype=np.float32)
    texts = frame[c.WEIGHTS] if c.WEIGHTS in frame else [""] * len(frame)
    for row, (text, condition) in enumerate(zip(texts, frame[c.CONDITION], strict=True)):
        for name, weight in (json.loads(text) if text else {condition: 1.0}).items():
            result[row, taxonomy.index(name)] += weight
    return np.asarray(result / result.sum(axis=1, keepdims=True))


def expected_relevance(query_weights: Floats, gallery_weights: Floats, nearest: IntArray, k: int) -> FloatArray:
    """Mean over the first k of the probability that query and neighbour agree, shape (n_queries,), in [0, 1].

    The condition of each is drawn from its differential: sum over nodes of the product of both weights. With labels
    that are certain it is precision@k. `query_weights`, `gallery_weights`: weights of the nodes of a level, shape
    (n, n_nodes); `nearest`: positions in the gallery, shape (n_queries, at least k), -1 where there is none.
    """
    total = np.zeros(len(query_weights))
    for place in nearest[:, :k].T:
        agree = (query_weights * gallery_weights[place]).sum(axis=1)
        total += np.where(place >= 0, agree, 0.0)
    return total / k


def is_plausible(query_weights: Floats, nodes: IntArray) -> FloatArray:
    """1 where the node has a weight in the query's differential, shape (n_queries,); nan where the node is -1."""
    given = query_weights[np.arange(len(nodes)), nodes] > 0
    return np.where(nodes >= 0, given.astype(np.float64), np.nan)
