from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hierderm.config.loading import with_overrides
from hierderm.config.methods import LOGIT_LOSSES, TREE_LOSSES, Gradient, Loss
from hierderm.config.settings import Config
from hierderm.data.table import CaseTable
from hierderm.experiment.run import train
from hierderm.training.losses.registry import OUR_LOSSES
from hierderm.training.methods.gradient import shape_of


@pytest.mark.parametrize(
    "settings",
    [
        {"freeze": "frozen", "neck": "residual", "views": 1},
        {"freeze": "frozen", "neck": "standardised", "features": "layers", "views": 1, "batch_size": 0},
        {"freeze": "last_blocks", "last_blocks": 1, "sampler.kind": "class_balanced"},
        {"freeze": "lora", "lora_rank": 2},
        {"loss.classification": "LogitAdjusted", "loss.contrastive": "MultiSimilarityLoss", "projection_dim": 0},
        {"loss.classification": "ArcFaceLoss", "sampler.kind": "shuffle"},
        {"loss.contrastive": "", "tensorboard": True},
        {"loss.contrastive": "HiMulConE", "loss.classification": "HXE"},
        {"loss.contrastive_levels": {"coarse": 1.0, "fine": 0.5}, "loss.schedule": "joint"},
    ],
    ids=lambda settings: ",".join(map(str, settings.values())),
)
def test_every_way_to_train(toy_config: Config, toy: CaseTable, tmp_path: Path, settings: dict[str, object]) -> None:
    config = with_overrides(toy_config, {f"training.{name}": value for name, value in settings.items()})
    run = train(config, toy, tmp_path)
    assert len(run.history) == 2
    assert np.isfinite(run.history["train_loss"]).all()
    embedded = run.embeddings()
    assert (embedded.probabilities is None) == (settings.get("loss.classification") == "ArcFaceLoss")
    assert len(embedded) == len(toy) and (tmp_path / "curves.png").is_file()


def test_settings_and_registry_agree_on_what_a_loss_takes() -> None:
    kinds = {kind: {name for name, loss in OUR_LOSSES.items() if loss.kind == kind} for kind in ("logits", "tree")}
    assert kinds == {"logits": set(LOGIT_LOSSES), "tree": set(TREE_LOSSES)}


def test_training_learns(toy_config: Config, toy: CaseTable, tmp_path: Path) -> None:
    config = with_overrides(toy_config, {"training.epochs": 8, "training.backbone_learning_rate": 1e-3})
    history = train(config, toy, tmp_path).history
    assert history["contrastive_loss"].iloc[-1] < history["contrastive_loss"].iloc[0]
    assert history["classification_loss"].dropna().iloc[-1] < history["classification_loss"].dropna().iloc[0]


def test_all_images_in_one_batch(toy_config: Config, toy: CaseTable, tmp_path: Path) -> None:
    """An epoch is one step: the scheduler has as many steps as there are epochs."""
    settings = {"training.freeze": "frozen", "training.neck": "linear", "training.views": 0, "training.batch_size": 0}
    train(with_overrides(toy_config, settings), toy, tmp_path)
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == checkpoint["epoch"] + 1 == 2


def test_the_shape_has_only_what_the_settings_use() -> None:
    assert shape_of(Gradient()).classifier == "cosine" and shape_of(Gradient()).embedding_dim == 128
    without = shape_of(Gradient(neck="residual", loss=Loss(contrastive="", classification="ArcFaceLoss")))
    assert (without.embedding_dim, without.projection_dim, without.classifier, without.dropout) == (0, 0, "none", 0.0)


def test_learnt_values_are_in_the_weights_and_not_in_the_header(
    toy_config: Config, toy: CaseTable, tmp_path: Path
) -> None:
    config = with_overrides(toy_config, {"training.classifier_scale": 5.0, "training.epochs": 1})
    run = train(config, toy, tmp_path)
    header = (tmp_path / "model" / "hierderm.json").read_text()
    assert "scale" not in json.loads(header)["content"]["shape"]
    assert run.encoder.network.classifier is not None
    scale = run.encoder.network.classifier.log_scale
    assert isinstance(scale, torch.Tensor) and float(scale.detach().exp()) == pytest.approx(5.0, rel=0.1)
