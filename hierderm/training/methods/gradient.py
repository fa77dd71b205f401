"""Two heads on one embedding, trained by losses on the tree: the loop is in `hierderm.training.gradient`."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from hierderm import columns as c
from hierderm.config.methods import Gradient, TreeLda, loss_kind
from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.errors import ConfigError
from hierderm.model.backbone import Backbone, load_backbone
from hierderm.model.heads import CosineClassifier, NetworkShape, node_membership
from hierderm.model.network import Network
from hierderm.model.tail import Stem, Tail
from hierderm.taxonomy.levels import probability_weights
from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.features import FeatureStore
from hierderm.training.fitted import Fitted
from hierderm.training.frozen import FrozenData
from hierderm.training.gradient.freezing import apply_freezing, merge_adapters
from hierderm.training.methods.tree_lda import best_analysis, best_scale, shuffled

Features = tuple[list[Tensor], Tensor]  # of each view of the training images, and of the validation images


def fit(settings: Gradient, backbone: BackboneConfig, table: CaseTable, store: FeatureStore, folder: Path) -> Fitted:
    """The epoch with the best validation score, its logits calibrated; `folder` keeps the history and what resuming
    needs.
    """
    from hierderm.training.gradient.loop import run_training
    from hierderm.training.gradient.module import TrainingModule

    start = _closed_form if settings.init == "tree_lda" else _drawn
    network, features = start(settings, backbone, table, store)
    train = table.part(c.TRAIN)
    if settings.init == "tree_lda" and settings.closed_form.shuffle:  # the control: the losses' tree is random, too
        train = replace(train, taxonomy=shuffled(table.taxonomy, settings.seed))
    tail = None
    if settings.freeze == "last_blocks" and settings.cache_activations:
        if backbone.mirrors or backbone.views:
            raise ConfigError(
                "training.cache_activations keeps what one image gives, backbone.mirrors and backbone.views take the "
                "mean over several: leave them out."
            )
        stem = Stem(network.backbone, settings.last_blocks)
        like_backbone = cast(Backbone, stem)  # it has what the store asks of one
        features, tail = frozen_features(settings, like_backbone, table, store), Tail(stem)
    module = TrainingModule(network, settings, train, table.part(c.VALIDATION), features, tail)
    network.train()
    history, chosen = run_training(module, folder)
    merge_adapters(network.backbone)
    if network.probability_level is not None:
        labels = module.validation_table.labels(network.probability_level)
        logits = module.validation_logits() / network.scale
        network.scale.fill_(best_scale(logits.double().numpy(), labels))
    return Fitted(network, history, chosen)


def _drawn(
    settings: Gradient, backbone: BackboneConfig, table: CaseTable, store: FeatureStore
) -> tuple[Network, Features | None]:
    """A network with random weights, and the features where the backbone is frozen."""
    encoder, tree = load_backbone(backbone, settings.features), table.taxonomy
    apply_freezing(encoder, settings)
    classified = tree.level_number(settings.loss.classification_level)
    weights = _probability_levels(settings, tree, classified)
    shape = replace(shape_of(settings), probability_levels=tuple(weights))
    network = Network(encoder, shape, tree, classified)
    if isinstance(network.classifier, CosineClassifier):
        network.classifier.log_scale.data.fill_(math.log(settings.classifier_scale))
    if network.node_probabilities is not None:
        network.node_probabilities.share.fill_(settings.probability_share)
        network.node_probabilities.membership.copy_(torch.from_numpy(node_membership(tree, weights, classified)))
    return network, frozen_features(settings, encoder, table, store) if settings.freeze == "frozen" else None


def frozen_features(settings: Gradient, backbone: Backbone, table: CaseTable, store: FeatureStore) -> Features:
    """The features of each view of the training images, and those of the validation images."""
    views, validation = store.for_training(backbone, table, settings.views, settings.augmentation, seed=settings.seed)
    return [torch.from_numpy(view) for view in views], torch.from_numpy(validation)


def _closed_form(
    settings: Gradient, backbone: BackboneConfig, table: CaseTable, store: FeatureStore
) -> tuple[Network, Features | None]:
    """A network that embeds and classifies as the closed form does, and the features where the backbone is frozen."""
    level = settings.loss.classification_level
    if table.taxonomy.level_number(level) != table.taxonomy.fine_level:
        raise ConfigError(
            f"init = 'tree_lda' classifies the conditions: loss.classification_level must be 'fine', got '{level}'. "
            "HXE with alpha = 50 counts the top level alone."
        )
    shared = {name: getattr(settings, name) for name in ("views", "augmentation", "monitor", "seed")}
    start = TreeLda(features=(settings.features,), **shared, **asdict(settings.closed_form))
    data = FrozenData.load(start, backbone, table, store)
    best, _, _ = best_analysis(start, data)
    centres = np.array([view.mean(axis=0, dtype=np.float64) for view in data.views])
    variances = [view.var(axis=0, dtype=np.float64) for view in data.views]
    spread = np.sqrt(np.mean(variances, axis=0) + centres.var(axis=0))
    network = Network.from_discriminants(
        data.backbone,
        best,
        table.taxonomy,
        centre=centres.mean(axis=0),
        spread=np.where(spread > 1e-6, spread, 1.0),
        projection_dim=shape_of(settings).projection_dim,
    )
    apply_freezing(network.backbone, settings)
    features = [torch.from_numpy(view) for view in data.views], torch.from_numpy(data.validation_features)
    return network, features if settings.freeze == "frozen" else None


def shape_of(settings: Gradient) -> NetworkShape:
    """The neck and heads of these settings, drawn; a loss on embeddings needs no classifier."""
    classifies = loss_kind(settings.loss.classification) == "logits"
    return NetworkShape(
        settings.neck,
        embedding_dim=settings.embedding_dim if settings.neck in ("linear", "standardised") else 0,
        projection_dim=settings.projection_dim if settings.loss.contrastive else 0,
        classifier=settings.classifier if classifies else "none",
        dropout=settings.dropout if settings.neck == "standardised" else 0.0,
    )


def _probability_levels(settings: Gradient, tree: Taxonomy, classified: int) -> dict[int, float]:
    """The levels whose node probabilities enter the embedding, with their weights.

    ConfigError where one is finer than the classes.
    """
    if not settings.probability_share or loss_kind(settings.loss.classification) != "logits":
        return {}
    weights = probability_weights(tree, settings.probability_levels, classified)
    if max(weights) > classified:
        raise ConfigError(
            f"probability_levels must not be finer than loss.classification_level, '{tree.level_names[classified]}', "
            f"got {list(settings.probability_levels)}."
        )
    return weights
