"""One model by one of the methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hierderm.config.methods import Gradient, Method, OnFeatures, Vanilla
from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.model.backbone import load_backbone
from hierderm.training.choosing import with_usable_monitor
from hierderm.training.features import FeatureStore
from hierderm.training.fitted import Fitted
from hierderm.training.frozen import FrozenData
from hierderm.training.methods import gradient, lda, linear_probe, tree_lda, vanilla

# A new method is a file with `fit`, an entry here, and its settings in hierderm.config.methods.
FITS: dict[str, Callable[[Any, BackboneConfig, CaseTable, FeatureStore, Path], Fitted]] = {
    "vanilla": vanilla.fit,
    "linear_probe": linear_probe.fit,
    "lda": lda.fit,
    "tree_lda": tree_lda.fit,
    "gradient": gradient.fit,
}


def fit(settings: Method, backbone: BackboneConfig, table: CaseTable, store: FeatureStore, folder: Path) -> Fitted:
    """Make a model by the method of `settings`.

    Args:
        settings: The settings of one of the methods.
        backbone: The backbone by name.
        table: Cases with a split; the method learns from 'train' and chooses by 'validation'.
        store: Where features of frozen backbones are kept.
        folder: The run folder, for what a method keeps to go on after a kill.

    Returns:
        The model, its history and the row of the history that was chosen.

    Raises:
        ConfigError: Settings that do not fit the data.
        CheckpointError: A backbone that can't be loaded.
    """
    torch.manual_seed(getattr(settings, "seed", 0))
    chosen = with_usable_monitor(settings, table)
    found = FITS[settings.method](chosen, backbone, table, store, folder)
    return replace(found, by=getattr(chosen, "monitor", ""))


def cache_features(settings: Method, backbone: BackboneConfig, table: CaseTable, store: FeatureStore) -> None:
    """Embed what a method on a frozen backbone learns from, where the store lacks it."""
    if isinstance(settings, OnFeatures):
        FrozenData.load(settings, backbone, table, store)
    elif isinstance(settings, Gradient) and is_frozen(settings):
        gradient.frozen_features(settings, load_backbone(backbone, settings.features), table, store)
    elif isinstance(settings, Vanilla):
        store.features(load_backbone(backbone), table)


def is_frozen(settings: Method) -> bool:
    """Whether a model of these settings leaves the backbone as it is, so that cached features serve it."""
    return not isinstance(settings, Gradient) or settings.freeze == "frozen"
