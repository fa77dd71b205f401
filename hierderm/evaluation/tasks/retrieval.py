"""Nearest neighbours among the test images of other cases: each level, whole cases, and credit by the tree."""

from __future__ import annotations

import numpy as np

from hierderm import columns as c
from hierderm.embeddings import Aggregation
from hierderm.evaluation.catalogue import TREE, Key
from hierderm.evaluation.inference.influence import GalleryEffect
from hierderm.evaluation.metrics.blocks import nearest_items
from hierderm.evaluation.metrics.collapse import mean_cosine, twin_distance, twins
from hierderm.evaluation.metrics.retrieval import case_scores
from hierderm.evaluation.scores import Scores
from hierderm.evaluation.subject import Subject
from hierderm.types import FloatArray

AGGREGATIONS: tuple[Aggregation, ...] = ("best", "mean")
CASE_METRICS = ("recall_at_1", "map_at_r")


def retrieval(subject: Subject) -> Scores:
    """Images, and where cases have several of them whole cases, at each level."""
    per_image: dict[Key, FloatArray] = {}
    per_case: dict[Key, FloatArray] = {}
    effects: dict[Key, GalleryEffect] = {}
    for level, name in subject.levels:
        found = subject.retrieval.levels[level]
        per_image |= {(name, metric): values for metric, values in found.values.items()}
        effects |= {(name, metric): effect for metric, effect in found.effects.items()}
    if len(np.unique(subject.test.case_ids)) < len(subject.test):
        for aggregation in AGGREGATIONS:
            cases = case_scores(subject.labelled, aggregation, metrics=CASE_METRICS, gallery_effects=True)
            for level, name in subject.levels:
                for metric in CASE_METRICS:
                    key = (name, f"case_{metric}_{aggregation}")
                    per_case[key] = cases.levels[level].values[metric]
                    effects[key] = cases.levels[level].effects[metric]
    return Scores(per_image, per_case, effects, warnings=_twins(subject))


def hierarchy(subject: Subject) -> Scores:
    """The same rankings with credit by the tree; nothing where the tree has one level."""
    if subject.taxonomy.n_levels == 1:
        return Scores()
    found = subject.retrieval
    return Scores(
        {(TREE, metric): values for metric, values in found.tree.items()},
        gallery_effects={(TREE, metric): effect for metric, effect in found.tree_effects.items()},
    )


def _twins(subject: Subject) -> tuple[str, ...]:
    """A warning for images that occur twice under different cases: a leak that ids do not show."""
    test, warnings = subject.test, []
    parts = (("test", subject.test), ("training", subject.train), ("validation", subject.validation))
    if mean_cosine(test.embeddings) > 0.999:
        return ()  # every image is every other's twin: the warning of the collapse says so
    distance = twin_distance(test.embeddings, subject.retrieval.nearest)
    above = np.floor((1 - distance) * 1e4) / 1e4  # in digits that models share
    for name, part in parts:
        if part is None:
            continue
        own = part is test
        nearest = subject.retrieval.nearest if own else nearest_items(subject.labelled, subject.label(part), k=1)
        found = twins(test.embeddings, part.embeddings, nearest[:, 0], distance)
        having = np.flatnonzero(found >= 0)
        if len(having):
            first, second = test.frame.iloc[having[0]], part.frame.iloc[found[having[0]]]
            pair = [f"image '{image[c.IMAGE_ID]}' of case '{image[c.CASE_ID]}'" for image in (first, second)]
            warnings.append(
                f"{len(having)} test image(s) have a twin (cosine above {above:g}) in another {name} case, "
                f"the first is {pair[0]} with {pair[1]}. Look at them: one image under two cases inflates the scores, "
                "and such cases must be joined or kept in one split. Where they differ, the embedding makes them one "
                "point."
            )
    return tuple(warnings)
