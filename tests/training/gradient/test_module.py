from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from torch import nn

from hierderm.config.loading import with_overrides
from hierderm.config.methods import Gradient, Loss
from hierderm.config.settings import BackboneConfig, Config
from hierderm.data.table import CaseTable
from hierderm.errors import TaxonomyError
from hierderm.experiment.run import prepare, train
from hierderm.model.backbone import load_backbone
from hierderm.model.network import Network
from hierderm.training.features import FeatureStore
from hierderm.training.fit import fit
from hierderm.training.gradient import module
from hierderm.training.gradient.module import TrainingModule
from hierderm.training.methods.gradient import shape_of


def chosen(config: Config, folder: Path) -> tuple[int, pd.DataFrame]:
    run = train(config, prepare(config.data, config.split, folder)[0], folder)
    number, history = run.chosen + 1, run.history
    assert (
        f"| chosen | epoch {number} ({number} of {len(history)}), by mean_retrieval on validation |"
        in (folder / "model" / "README.md").read_text()
    )
    return number, history


@pytest.mark.parametrize("schedule", ["joint", "coarse_then_fine"])
def test_only_epochs_with_all_losses_in_force_are_chosen(toy_config: Config, tmp_path: Path, schedule: str) -> None:
    settings = {"training.epochs": 3, "training.loss.schedule": schedule, "training.patience": 6}
    if schedule == "coarse_then_fine":
        # 6 epochs, half of them coarse: shares 0, 0, 1/3, 1, 1, 1. So the first three can't be chosen.
        settings |= {"training.epochs": 6, "training.loss.coarse_fraction": 0.5}
    config = with_overrides(toy_config, settings)
    number, history = chosen(config, tmp_path)
    scores = history["mean_retrieval"].to_numpy()
    first = 0 if schedule == "joint" else 3
    assert number == first + 1 + int(scores[first:].argmax())
    assert history["classification_loss"].isna().sum() == (0 if schedule == "joint" else 2)


def test_early_stopping_counts_from_the_best_epoch(toy_config: Config, tmp_path: Path) -> None:
    settings = {"training.epochs": 30, "training.patience": 2, "training.backbone_learning_rate": 1e-12,
                "training.learning_rate": 1e-12, "training.loss.schedule": "joint"}  # fmt: skip
    number, history = chosen(with_overrides(toy_config, settings), tmp_path)
    assert number == 1
    assert len(history) == 3


def test_a_loss_of_the_tree_gets_fine_labels_once_and_batches_by_category(small_siglip: Path, toy: CaseTable) -> None:
    settings = Gradient(loss=Loss(contrastive="HiMulConE"))
    backbone = load_backbone(BackboneConfig(f"hf:{small_siglip}"))
    network = Network(backbone, shape_of(settings), toy.taxonomy, toy.taxonomy.fine_level)
    module = TrainingModule(network, settings, toy.part("train"), toy.part("validation"))
    [(weight, labels)] = module.contrastive_labels
    assert weight == 1.0
    np.testing.assert_array_equal(labels, toy.part("train").fine)
    np.testing.assert_array_equal(module.group_labels, toy.part("train").labels(0))


def test_the_validation_loss_is_that_of_the_model(toy_config: Config, tmp_path: Path) -> None:
    """Cross-entropy of the chosen epoch's model, from its probabilities before they were calibrated."""
    config = with_overrides(toy_config, {"training.loss.schedule": "joint"})
    run = train(config, prepare(config.data, config.split, tmp_path)[0], tmp_path)
    validation = run.table.splits == "validation"
    probabilities = run.embeddings().probabilities
    assert probabilities is not None
    logits = np.log(probabilities[validation]) / float(run.encoder.network.scale)
    on_truth = softmax(logits, axis=1)[np.arange(validation.sum()), run.table.fine[validation]]
    found = run.history["validation_classification_loss"][run.chosen]
    assert found == pytest.approx(-np.log(on_truth).mean(), abs=1e-3)


def test_a_level_named_twice_does_not_count_twice(small_siglip: Path, toy: CaseTable) -> None:
    """'coarse' is there by default, and the tree calls that level 'category'."""
    settings = Gradient(loss=Loss(contrastive_levels={"coarse": 1.0, "fine": 1.0, "category": 1.0}))
    backbone = load_backbone(BackboneConfig(f"hf:{small_siglip}"))
    network = Network(backbone, shape_of(settings), toy.taxonomy, toy.taxonomy.fine_level)
    with pytest.raises(TaxonomyError, match=r"each level must be named once, got \['coarse', 'fine', 'category'\]"):
        TrainingModule(network, settings, toy.part("train"), toy.part("validation"))


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"freeze": "full", "init": "tree_lda", "views": 0}, False),
        ({"freeze": "last_blocks", "last_blocks": 1, "init": "random"}, False),
        ({"freeze": "full", "init": "random"}, True),
    ],
)
def test_the_statistics_that_the_heads_start_from_stay(
    toy_config: Config,
    toy: CaseTable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    change: bool,
) -> None:
    better = count(0.1, 0.1)  # so that the epoch is chosen, not the start
    monkeypatch.setattr(module, "validation_scores", lambda *_: {"mean_retrieval": next(better)})
    name, own = "timm:test_efficientnet", {f"training.{key}": value for key, value in settings.items()}
    start = {"backbone.name": name, "backbone.weights": "random", "training.features": "output", "training.epochs": 1}
    config = with_overrides(toy_config, start | {"training.loss.schedule": "joint"} | own)
    torch.manual_seed(0)
    network = fit(config.training, config.backbone, toy, FeatureStore(tmp_path), tmp_path).network
    found = [layer for layer in network.backbone.modules() if isinstance(layer, nn.BatchNorm2d)]
    means = torch.cat([layer.running_mean for layer in found if layer.running_mean is not None])
    assert bool((means != 0).any()) == change  # random weights have means of 0
