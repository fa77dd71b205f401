from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hierderm.config.loading import with_overrides
from hierderm.config.settings import Config
from hierderm.data.table import CaseTable
from hierderm.experiment.run import prepare_cases, train_run
from hierderm.model.backbone import load_backbone
from hierderm.model.network import Network
from hierderm.training.gradient.module import TrainingModule


def chosen(config: Config, folder: Path) -> tuple[int, pd.DataFrame]:
    table, _ = prepare_cases(config, folder)
    history = train_run(config, table, folder).history
    number = json.loads((folder / "finished.json").read_text())["chosen_epoch"]
    assert (
        f"| chosen epoch | {number} of {len(history)}, by validation mean_map_at_r |"
        in (folder / "model" / "README.md").read_text()
    )
    return number, history


@pytest.mark.parametrize("schedule", ["joint", "coarse_then_fine"])
def test_only_epochs_with_all_losses_in_force_are_chosen(toy_config: Config, tmp_path: Path, schedule: str) -> None:
    # 6 epochs, half of them coarse: shares 0, 0, 1/3, 1, 1, 1. So the first three can't be chosen.
    config = with_overrides(
        toy_config,
        {"training.epochs": 6, "loss.schedule": schedule, "loss.coarse_fraction": 0.5, "training.patience": 6},
    )
    number, history = chosen(config, tmp_path)
    figures = history["mean_map_at_r"].to_numpy()
    first = 0 if schedule == "joint" else 3
    assert number == first + 1 + int(figures[first:].argmax())
    assert history["classification_loss"].isna().sum() == (0 if schedule == "joint" else 2)


def test_early_stopping_counts_from_the_best_epoch(toy_config: Config, tmp_path: Path) -> None:
    settings = {"training.epochs": 30, "training.patience": 2, "training.backbone_learning_rate": 1e-12,
                "training.learning_rate": 1e-12, "loss.schedule": "joint"}  # fmt: skip
    number, history = chosen(with_overrides(toy_config, settings), tmp_path)
    assert number == 1
    assert len(history) == 3


def test_a_loss_of_the_tree_gets_fine_labels_once_and_batches_by_category(toy_config: Config, toy: CaseTable) -> None:
    settings = {"loss.contrastive": "HiMulConE", "loss.contrastive_levels": {"coarse": 2.0, "fine": 3.0}}
    config = with_overrides(toy_config, settings)
    network = Network(load_backbone(config.backbone), config.model, toy.taxonomy, toy.taxonomy.fine_level)
    module = TrainingModule(network, config, toy.part("train"), toy.part("validation"), lambda *_: {})
    [(weight, labels)] = module.contrastive_labels
    assert weight == 1.0
    np.testing.assert_array_equal(labels, toy.part("train").fine)
    np.testing.assert_array_equal(module.group_labels, toy.part("train").labels(0))
