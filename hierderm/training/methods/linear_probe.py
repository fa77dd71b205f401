"""Multinomial logistic regression on the conditions: cross-entropy without the tree, a baseline on frozen features."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sklearn.linear_model import LogisticRegression

from hierderm.config.methods import LinearProbe
from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.model.heads import Discriminants
from hierderm.training.features import FeatureStore
from hierderm.training.fitted import Fitted
from hierderm.training.frozen import FrozenData, class_logits, fitted, linear_model, standardiser
from hierderm.types import Floats, IntArray


def fit(settings: LinearProbe, backbone: BackboneConfig, table: CaseTable, store: FeatureStore, folder: Path) -> Fitted:
    """The features and the penalty with the best validation score; the embedding is the centred logits."""
    data = FrozenData.load(settings, backbone, table, store)
    n_fine = table.taxonomy.size(-1)
    tried = (
        ({"features": kind, "penalty": penalty}, found)
        for kind, width in data.widths.items()
        for penalty, found in probes(settings, data.stacked(width), data.fine, n_fine)
    )
    return fitted(data, tried, settings.monitor)


def probes(
    settings: LinearProbe, features: Floats, fine: IntArray, n_fine: int
) -> Iterator[tuple[float, Discriminants]]:
    """Each penalty with its probe of `features`, shape (n_rows, n_features), of conditions `fine`, (n_rows,)."""
    scaler = standardiser(features, settings.components)
    standard = scaler.transform(features)
    for penalty in settings.penalties:
        model = LogisticRegression(C=penalty, max_iter=1000).fit(standard, fine)
        weight, bias = class_logits(model)
        yield penalty, linear_model(weight - weight.mean(axis=0), bias - bias.mean(), model, scaler, n_fine)
