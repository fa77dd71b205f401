"""The backbone as it is: the baseline that learns nothing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hierderm import columns as c
from hierderm.config.methods import Vanilla
from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.embeddings import unit_length
from hierderm.evaluation.validation import validation_scores
from hierderm.model.backbone import load_backbone
from hierderm.model.network import Network
from hierderm.training.features import FeatureStore
from hierderm.training.fitted import Fitted


def fit(settings: Vanilla, backbone: BackboneConfig, table: CaseTable, store: FeatureStore, folder: Path) -> Fitted:
    """The backbone's output at unit length, with its scores on validation."""
    encoder = load_backbone(backbone)
    features = store.features(encoder, table)[table.splits == c.VALIDATION]
    scores = validation_scores(unit_length(features), table.part(c.VALIDATION))
    return Fitted(Network(encoder), pd.DataFrame([scores]), 0)
