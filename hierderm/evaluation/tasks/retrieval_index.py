"""Metrics of the first neighbours through an index, and what it loses against exact search."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from hierderm.engines import FLAT_UP_TO, Engine, return_memory
from hierderm.evaluation.catalogue import TREE, Key
from hierderm.evaluation.metrics.blocks import nearest_items
from hierderm.evaluation.metrics.neighbours import RecallSample, nearest_proposed, select, tune
from hierderm.evaluation.metrics.ranking import K
from hierderm.evaluation.metrics.top_k import count_relevant, top_k_scores, true_neighbours, with_loss
from hierderm.evaluation.scores import Scores
from hierderm.evaluation.subject import Subject
from hierderm.progress import Progress
from hierderm.types import FloatArray, IntArray

logger = logging.getLogger(__name__)

WANTED_RECALL = 0.98
EXACT_PAIRS = 10**9  # a query and an image each; beyond it exact values come from a sample of the queries
FEWEST_EXACT = 200  # queries of that sample


def retrieval_index(subject: Subject) -> Scores:
    """Every test image queries an index of the others; their own cases are left out.

    `evaluation.index_kind` is the kind of index, 'auto' an exact one up to 50,000 images and 'ivf' above. Its effort is
    doubled until it finds 98 % of the true 10 nearest of a sample. Intervals are of the queries, the gallery as it is.
    """
    images, kind = subject.labelled, subject.config.index_kind
    if kind == "auto":
        kind = "flat" if len(images) <= FLAT_UP_TO else "ivf"
    chosen = exact_sample(len(images), len(images), subject.config.seed)
    about: dict[str, Any] = {"kind": kind, "images": len(images), "k": K}
    if kind == "flat":
        chosen = np.arange(len(images))
        rows = exact = nearest_items(images, k=K)
    else:
        logger.info("Building an index of kind '%s' of %s test images ...", kind, f"{len(images):,}")
        with Progress("Building an index"):
            engine = Engine.build(kind, images.embeddings)
        recall = tune(engine, RecallSample(images.embeddings, own=True), WANTED_RECALL)
        about |= {"effort": engine.effort, "max_effort": engine.max_effort, "recall_at_10": recall}
        said = (engine.effort, engine.max_effort, recall)
        logger.info("Searching with effort %d of %d: recall@10 is %.3f on a sample ...", *said)
        rows = nearest_proposed(engine, images, images, K)
        del engine
        return_memory()  # the exact search needs some
        exact = nearest_items(select(images, chosen), images, k=K)
    n_relevant = count_relevant(images, images)
    labels = images.labels
    served = top_k_scores(rows, labels, labels, n_relevant)
    true = top_k_scores(exact, labels[:, chosen], labels, n_relevant[:, chosen])
    per_image: dict[Key, FloatArray] = {}
    for (_, name), values in zip(subject.levels, with_loss(served, true, chosen), strict=True):
        per_image |= {(name, metric): column for metric, column in values.items()}
    per_image[TREE, f"index_true_neighbours_at_{K}"] = true_neighbours(rows, exact, chosen)
    return Scores(per_image, details={"retrieval_index": {**about, "exact_queries": len(chosen)}})


def exact_sample(n_queries: int, n_gallery: int, seed: int) -> IntArray:
    """The queries whose exact neighbours are searched, too: all where that is fast, else a sample, ascending."""
    n = max(FEWEST_EXACT, EXACT_PAIRS // max(1, n_gallery))
    return np.sort(np.random.default_rng(seed).permutation(n_queries)[:n])
