"""What the methods on features of a frozen backbone share: their data, their scaling, and the choice of a setting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from hierderm import columns as c
from hierderm.config.methods import OnFeatures
from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.errors import ConfigError
from hierderm.evaluation.validation import validation_scores
from hierderm.model.backbone import Backbone, load_backbone
from hierderm.model.heads import Discriminants
from hierderm.model.network import Network
from hierderm.training.features import FeatureStore
from hierderm.training.fitted import Fitted
from hierderm.types import FloatArray, Floats, IntArray, Vectors


@dataclass(frozen=True)
class FrozenData:
    """Features of training and validation images, shape (n_images, dim) each.

    `views`: of the training images as they are, then of each augmented copy. `widths`: the numbers of first features
    to try, by the name of the choice in `training.features`.
    """

    backbone: Backbone
    train: CaseTable
    validation: CaseTable
    views: list[Vectors]
    of_validation: Vectors
    widths: dict[str, int]

    @classmethod
    def load(cls, settings: OnFeatures, config: BackboneConfig, table: CaseTable, store: FeatureStore) -> FrozenData:
        """Read the images with the frozen backbone, or take what is cached."""
        backbone = load_backbone(config, "layers" if "layers" in settings.features else "output")
        views = store.views(
            backbone, table, settings.views, settings.augmentation, seed=settings.seed, workers=settings.workers
        )
        whole = store.features(backbone, table, workers=settings.workers)
        widths = {"layers": backbone.dim, "output": backbone.output_dim}
        chosen: dict[str, int] = {name: widths[name] for name in dict.fromkeys(settings.features)}
        train, validation = table.part(c.TRAIN), table.part(c.VALIDATION)
        return cls(backbone, train, validation, views, whole[table.splits == c.VALIDATION], chosen)

    def stacked(self, width: int) -> Vectors:
        """The first `width` features of all views, shape (n_views * n_images, width)."""
        return np.concatenate([view[:, :width] for view in self.views])

    @cached_property
    def fine(self) -> IntArray:
        """Conditions of the rows of `stacked`; at least two must occur."""
        if len(np.unique(self.train.fine)) < 2:
            raise ConfigError("training must have images of at least two conditions, got one.")
        return np.tile(self.train.fine, len(self.views))

    def scores(self, found: Discriminants) -> dict[str, float]:
        """The validation scores of an embedding."""
        return validation_scores(found.embed(self.of_validation[:, : found.n_features]), self.validation)


def best_of(tried: Iterable[tuple[dict[str, Any], Discriminants]], by: str) -> tuple[Discriminants, pd.DataFrame, int]:
    """The first of the settings with the highest `by`; all settings as a history; the row of the best."""
    rows: list[dict[str, Any]] = []
    best: tuple[Discriminants, int] | None = None
    for row, found in tried:
        if best is None or row[by] > rows[best[1]][by]:
            best = found, len(rows)
        rows.append(row)
    assert best is not None  # settings name at least one value of each
    return best[0], pd.DataFrame(rows), best[1]


def fitted(data: FrozenData, tried: Iterable[tuple[dict[str, Any], Discriminants]], monitor: str) -> Fitted:
    """The model of the setting that has the highest `monitor` on validation."""
    scored = (({**row, **data.scores(found)}, found) for row, found in tried)
    best, history, chosen = best_of(scored, monitor)
    return Fitted(Network.from_discriminants(data.backbone, best, data.train.taxonomy), history, chosen)


def standardiser(features: Floats, components: int) -> Pipeline:
    """Features of equal spread; of more than `components`, their principal components."""
    steps: list[object] = [StandardScaler()]
    if features.shape[1] > components:
        steps.append(PCA(min(components, len(features) - 1), svd_solver="randomized", random_state=0))
    return make_pipeline(*steps).fit(features)


def linear_model(
    weight: Floats, bias: Floats, model: LinearDiscriminantAnalysis | LogisticRegression, scaler: Pipeline, n_fine: int
) -> Discriminants:
    """An embedding `weight`, `bias` of standardised features and the classes of a scikit-learn model, on raw features.

    Conditions that the model has not seen get a probability of 0.
    """
    condition_weight, condition_bias = _on_raw_features(*class_logits(model), scaler)
    every_weight, every_bias = np.zeros((n_fine, condition_weight.shape[1])), np.full(n_fine, -np.inf)
    every_weight[model.classes_], every_bias[model.classes_] = condition_weight, condition_bias
    return Discriminants(*_on_raw_features(weight, bias, scaler), every_weight, every_bias, np.zeros((n_fine, 0)))


def class_logits(model: LinearDiscriminantAnalysis | LogisticRegression) -> tuple[Floats, Floats]:
    """Weight, shape (n_classes, n_features), and bias of the logits; of two classes scikit-learn keeps one row."""
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate([np.zeros_like(weight), weight]), np.concatenate([np.zeros_like(bias), bias])
    return weight, bias


def _on_raw_features(weight: Floats, bias: Floats, scaler: Pipeline) -> tuple[FloatArray, FloatArray]:
    """A linear function of standardised features as one of the features as they are."""
    weight, bias = weight.astype(np.float64), bias.astype(np.float64)
    if len(scaler) > 1:
        weight = weight @ scaler[1].components_
        bias = bias - weight @ scaler[1].mean_
    weight = weight / scaler[0].scale_
    return np.asarray(weight), np.asarray(bias - weight @ scaler[0].mean_)
