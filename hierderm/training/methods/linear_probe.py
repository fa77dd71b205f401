"""Multinomial logistic regression on the conditions: cross-entropy without the tree, a baseline on frozen features."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from hierderm.config.methods import LinearProbe
from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.evaluation.metrics import probing
from hierderm.model.heads import Discriminants
from hierderm.training.features import FeatureStore
from hierderm.training.fitted import Fitted
from hierderm.training.frozen import FrozenData, Linear, choose, discriminants


def fit(settings: LinearProbe, backbone: BackboneConfig, table: CaseTable, store: FeatureStore, folder: Path) -> Fitted:
    """The features and the penalty with the best validation score; the embedding is the centred logits."""
    data = FrozenData.load(settings, backbone, table, store)
    tried = (probes(settings, data, kind) for kind in data.widths)
    return choose(data, itertools.chain.from_iterable(tried), settings.monitor)


def probes(settings: LinearProbe, data: FrozenData, kind: str) -> list[tuple[dict[str, Any], Discriminants]]:
    """The penalties that were tried, from the strongest until the score falls, each with its scores and its probe."""
    tried: list[tuple[dict[str, Any], Discriminants]] = []

    def score(probe: probing.LinearProbe) -> float:
        found = as_discriminants(probe, data.train.taxonomy.size(-1))
        scores = data.scores(found)
        tried.append(({"features": kind, "penalty": probe.penalty, **scores}, found))
        return scores[settings.monitor]

    features = data.stacked(data.widths[kind])
    probing.fit_linear_probe(features, data.fine, penalties=settings.penalties, score=score)
    return tried


def as_discriminants(probe: probing.LinearProbe, n_fine: int) -> Discriminants:
    """The probe on features that are not standardised; its embedding is the logits, which are centred."""
    logits = Linear(probe.weight, probe.bias).on_raw_features(probe.centre, probe.spread)
    return discriminants(logits, logits, probe.classes, n_fine)
