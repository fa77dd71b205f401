"""Discriminants of the tree and node probabilities, in closed form: see `hierderm.training.tree_analysis`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import log_softmax
from sklearn.model_selection import GroupKFold

from hierderm.config.methods import TreeLda
from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.evaluation.validation import validation_scores
from hierderm.model.heads import Discriminants
from hierderm.model.network import Network
from hierderm.progress import track
from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.features import FeatureStore
from hierderm.training.fitted import Fitted
from hierderm.training.frozen import FrozenData, best_of
from hierderm.training.tree_analysis import TreeAnalysis
from hierderm.types import FloatArray, Floats, IntArray

SCALES = tuple(float(s) for s in np.geomspace(5e-4, 500, 85))  # logits may be divided by any usual temperature


def fit(settings: TreeLda, backbone: BackboneConfig, table: CaseTable, store: FeatureStore, folder: Path) -> Fitted:
    """The setting that is best on held-out images, its logits calibrated on validation."""
    data = FrozenData.load(settings, backbone, table, store)
    best, history, chosen = best_analysis(settings, data)
    return Fitted(Network.from_discriminants(data.backbone, best, table.taxonomy), history, chosen)


def best_analysis(settings: TreeLda, data: FrozenData) -> tuple[Discriminants, pd.DataFrame, int]:
    """The analysis of the best setting, its logits calibrated; all settings as a history; the row of the best."""
    tried = (
        ({"features": kind, **row}, found)
        for kind, width in data.widths.items()
        for row, found in every_setting(settings, analyse(settings, data, width), *held_out_images(data, width))
    )
    values = (settings.shrinkages, settings.decays, settings.strengths, settings.probability_shares)
    n_settings = len(data.widths) * math.prod(map(len, values))
    best, history, chosen = best_of(track(tried, "Fitting", n_settings, unit="settings"), "held_out")
    scale = best_scale(best.logits(data.validation_features[:, : best.n_features]), data.validation.fine)
    return replace(best, scale=scale), history, chosen


class Images(NamedTuple):
    """Features of images, shape (n_images, n_features), and their cases."""

    features: Floats
    table: CaseTable


def analyse(settings: TreeLda, data: FrozenData, width: int) -> TreeAnalysis:
    """The analysis of the first `width` features of all views; with `settings.shuffle` on the shuffled tree."""
    tree = data.train.taxonomy
    return TreeAnalysis(
        [view[:, :width] for view in data.views],
        data.train.fine,
        shuffled(tree, settings.seed) if settings.shuffle else tree,
        n_views=len(data.views),
        components=settings.components,
        probability_levels=settings.probability_levels,
    )


def held_out_images(data: FrozenData, width: int) -> tuple[Images, Images]:
    """The training and the validation images without augmentation."""
    return Images(data.views[0][:, :width], data.train), Images(data.validation_features[:, :width], data.validation)


def every_setting(
    settings: TreeLda, whole: TreeAnalysis, train: Images, validation: Images
) -> Iterator[tuple[dict[str, Any], Discriminants]]:
    """Each combination of values with its scores, and the analysis of all training images by it.

    The scores are those of validation, and as "held_out" the mean of `settings.monitor`, where it is defined, over
    images that were not learnt from: those of validation and, with `settings.folds`, of each part of the training
    cases in turn, embedded by the analysis of the others.
    """
    held_out = [(whole, validation)]
    n_folds = min(settings.folds, len(np.unique(train.table.case_ids)))
    if n_folds > 1:
        folds = GroupKFold(n_folds, shuffle=True, random_state=0).split(train.features, groups=train.table.case_ids)
        for _, rows in folds:
            left_out = np.isin(np.arange(len(train.table)), rows)
            part = Images(train.features[left_out], train.table.select(left_out))
            held_out.append((whole.leaving_out(left_out), part))
    sizes = np.array([len(images.table) for _, images in held_out])
    for shrinkage, decay, strength in itertools.product(settings.shrinkages, settings.decays, settings.strengths):
        setting = {"shrinkage": shrinkage, "decay": decay, "strength": strength}
        temperature = settings.probability_temperature
        found = [analysis.fit(**setting, probability_temperature=temperature) for analysis, _ in held_out]
        for share in settings.probability_shares:
            shared = [replace(discriminants, probability_share=share) for discriminants in found]
            scores = [
                validation_scores(discriminants.embed(images.features), images.table)
                for discriminants, (_, images) in zip(shared, held_out, strict=True)
            ]
            found_scores = np.array([score[settings.monitor] for score in scores])
            known = ~np.isnan(found_scores)
            mean = float(np.average(found_scores[known], weights=sizes[known])) if known.any() else float("nan")
            yield {**setting, "probability_share": share, **scores[0], "held_out": mean}, shared[0]


def best_scale(logits: FloatArray, fine: IntArray) -> float:
    """The factor of the logits under which the labels of validation images are most likely: temperature scaling."""

    def likelihood(scale: float) -> float:
        return float(log_softmax(scale * logits, axis=1)[np.arange(len(fine)), fine].mean())

    return max(SCALES, key=likelihood)


def shuffled(taxonomy: Taxonomy, seed: int) -> Taxonomy:
    """The same tree with its conditions assigned to the categories at random: a control."""
    conditions = taxonomy.levels[-1]
    order = np.random.default_rng(seed).permutation(len(conditions))
    moved = tuple(replace(node, parent=conditions[place].parent) for node, place in zip(conditions, order, strict=True))
    return replace(taxonomy, levels=(*taxonomy.levels[:-1], moved))
