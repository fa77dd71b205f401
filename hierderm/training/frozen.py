"""What the methods on features of a frozen backbone share: their data, and the choice of a setting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

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
from hierderm.types import Floats, IntArray, Vectors


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
    validation_features: Vectors
    widths: dict[str, int]

    @classmethod
    def load(cls, settings: OnFeatures, config: BackboneConfig, table: CaseTable, store: FeatureStore) -> FrozenData:
        """Read the images with the frozen backbone, or take what is cached."""
        backbone = load_backbone(config, "layers" if "layers" in settings.features else "output")
        views, validation_features = store.for_training(
            backbone, table, settings.views, settings.augmentation, seed=settings.seed
        )
        widths = {"layers": backbone.dim, "output": backbone.output_dim}
        chosen: dict[str, int] = {name: widths[name] for name in dict.fromkeys(settings.features)}
        train, validation = table.part(c.TRAIN), table.part(c.VALIDATION)
        return cls(backbone, train, validation, views, validation_features, chosen)

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
        return validation_scores(found.embed(self.validation_features[:, : found.n_features]), self.validation)


def best_of(tried: Iterable[tuple[dict[str, Any], Discriminants]], by: str) -> tuple[Discriminants, pd.DataFrame, int]:
    """The first of the settings with the highest `by`; all settings as a history; the row of the best.

    ConfigError where `by` is undefined for all.
    """
    rows: list[dict[str, Any]] = []
    best: tuple[Discriminants, int] | None = None
    for row, found in tried:
        if best is None or row[by] > rows[best[1]][by] or np.isnan(rows[best[1]][by]):
            best = found, len(rows)
        rows.append(row)
    assert best is not None  # settings name at least one value of each
    if np.isnan(rows[best[1]][by]):
        raise ConfigError(f"no setting has a defined {by}: no held-out image has another case of its node to find.")
    return best[0], pd.DataFrame(rows), best[1]


def choose(data: FrozenData, tried: Iterable[tuple[dict[str, Any], Discriminants]], by: str) -> Fitted:
    """The model of the setting with the highest `by`."""
    best, history, chosen = best_of(tried, by)
    return Fitted(Network.from_discriminants(data.backbone, best, data.train.taxonomy), history, chosen)


class Linear(NamedTuple):
    """A linear function of features: `weight`, shape (n_outputs, n_features), and `bias`, (n_outputs,)."""

    weight: Floats
    bias: Floats

    def on_raw_features(self, centre: Floats, spread: Floats | float) -> Linear:
        """The same function of features before `centre` was taken from them and they were divided by `spread`."""
        weight = self.weight.astype(np.float64) / spread
        return Linear(weight, self.bias - weight @ centre)


def discriminants(embedding: Linear, logits: Linear, classes: IntArray, n_fine: int) -> Discriminants:
    """An embedding without node probabilities; conditions that are not among `classes` get a probability of 0."""
    weight, bias = np.zeros((n_fine, logits.weight.shape[1])), np.full(n_fine, -np.inf)
    weight[classes], bias[classes] = logits
    own_weight, own_bias = embedding.weight.astype(np.float64), embedding.bias.astype(np.float64)
    return Discriminants(own_weight, own_bias, weight, bias, np.zeros((n_fine, 0)))
