"""Two heads on one embedding, trained by losses on the tree: the loop is in `hierderm.training.gradient`."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import torch
from torch import Tensor

from hierderm import columns as c
from hierderm.config.methods import LOGIT_LOSSES, Gradient
from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.model.backbone import Backbone, load_backbone
from hierderm.model.heads import CosineClassifier, NetworkShape
from hierderm.model.network import Network
from hierderm.training.features import FeatureStore
from hierderm.training.fitted import Fitted
from hierderm.training.gradient.freezing import apply_freezing, merge_adapters

logger = logging.getLogger(__name__)


def fit(settings: Gradient, backbone: BackboneConfig, table: CaseTable, store: FeatureStore, folder: Path) -> Fitted:
    """The epoch with the best validation score; `folder` keeps the history and what resuming needs."""
    from hierderm.training.gradient.loop import run_training
    from hierderm.training.gradient.module import TrainingModule

    encoder = load_backbone(backbone, settings.features)
    apply_freezing(encoder, settings)
    network = Network(
        encoder, shape_of(settings), table.taxonomy, table.taxonomy.level_number(settings.loss.classification_level)
    )
    if isinstance(network.classifier, CosineClassifier):
        network.classifier.log_scale.data.fill_(math.log(settings.classifier_scale))
    features = frozen_features(settings, encoder, table, store) if settings.freeze == "frozen" else None
    module = TrainingModule(network, settings, table.part(c.TRAIN), table.part(c.VALIDATION), features)
    network.train()
    history, chosen = run_training(module, folder)
    merge_adapters(encoder)
    return Fitted(network, history, chosen)


def shape_of(settings: Gradient) -> NetworkShape:
    """The neck and heads of these settings; a loss on embeddings needs no classifier."""
    classifies = settings.loss.classification in LOGIT_LOSSES
    return NetworkShape(
        settings.neck,
        embedding_dim=settings.embedding_dim if settings.neck in ("linear", "standardised") else 0,
        projection_dim=settings.projection_dim if settings.loss.contrastive else 0,
        classifier=settings.classifier if classifies else "none",
        dropout=settings.dropout if settings.neck == "standardised" else 0.0,
    )


def frozen_features(
    settings: Gradient, backbone: Backbone, table: CaseTable, store: FeatureStore
) -> tuple[list[Tensor], Tensor]:
    """The features of each view of the training images, and those of the validation images."""
    views, validation = store.for_training(
        backbone, table, settings.views, settings.augmentation, seed=settings.seed, workers=settings.workers
    )
    return [torch.from_numpy(view) for view in views], torch.from_numpy(validation)
