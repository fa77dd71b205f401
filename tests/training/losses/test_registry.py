from __future__ import annotations

import pytest
import torch

import hierderm.training.losses
from hierderm.config.methods import LOSS_KINDS, loss_kind
from hierderm.errors import ConfigError
from hierderm.taxonomy.tree import Taxonomy
from hierderm.training.losses import SupConLoss
from hierderm.training.losses.registry import OUR_LOSSES, make_classification_loss, make_contrastive_loss

LABELS = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5])


def test_every_public_loss_has_a_name() -> None:
    classes = {getattr(hierderm.training.losses, name) for name in hierderm.training.losses.__all__}
    assert set(OUR_LOSSES.values()) == classes | {torch.nn.CrossEntropyLoss}
    assert OUR_LOSSES.keys() == LOSS_KINDS.keys() and loss_kind("TripletMarginLoss") == "levels"


@pytest.mark.parametrize("name", OUR_LOSSES)
def test_ours_by_name(name: str, tree: Taxonomy, embeddings: torch.Tensor, logits: torch.Tensor) -> None:
    if loss_kind(name) == "logits":
        loss = make_classification_loss(name, {}, class_counts=torch.ones(6), dim=5, taxonomy=tree)
        assert torch.isfinite(loss(logits, LABELS))
    else:
        assert torch.isfinite(make_contrastive_loss(name, {"temperature": 0.5}, tree)(embeddings, LABELS))


def test_options_reach_the_loss(tree: Taxonomy) -> None:
    supcon = make_contrastive_loss("SupCon", {"temperature": 0.5})
    assert isinstance(supcon, SupConLoss) and supcon.temperature == 0.5
    weights = make_contrastive_loss("TreeSupCon", {"level_weights": {"group": 2.0}}, tree).level_weights
    assert weights == {1: 2.0}


@pytest.mark.parametrize("name", ["ArcFaceLoss", "CosFaceLoss", "SubCenterArcFaceLoss", "ProxyAnchorLoss"])
def test_losses_with_class_weights_of_their_own(name: str) -> None:
    loss = make_classification_loss(name, {}, class_counts=torch.ones(3), dim=5)
    assert torch.isfinite(loss(torch.randn(4, 5), torch.tensor([0, 1, 2, 0])))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("SupConn", {}, "unknown loss 'SupConn'. Closest: 'SupCon'"),
        ("TreeSupcon", {}, "unknown loss 'TreeSupcon'. Closest: 'TreeSupCon'"),
        ("SupCon", {"temprature": 1}, "the options .'temprature'. do not fit loss 'SupCon'"),
        ("SupCon", {"temperature": 0}, "temperature must be > 0, got 0"),
        ("SmoothHAP", {}, "loss 'SmoothHAP' needs a taxonomy, got none"),
        (
            "SmoothHAP",
            {"taxonomy": "scin"},
            r"the options of loss 'SmoothHAP' must not have \['taxonomy'\]: data, tree and",
        ),
        ("HXE", {}, "loss 'HXE' takes logits: name it in training.loss.classification, not .contrastive"),
        ("TripletMarginLoss", {"x": 1}, "do not fit loss 'TripletMarginLoss'"),
    ],
)
def test_contrastive_refusals(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_contrastive_loss(name, options)


@pytest.mark.parametrize(
    ("name", "n_classes", "message"),
    [
        ("CrossEntropi", 6, "unknown loss 'CrossEntropi'. Closest: 'CrossEntropy'"),
        ("HiMulConE", 6, "loss 'HiMulConE' takes embeddings: name it in training.loss.contrastive, not .classification"),
        ("HXE", 3, "loss 'HXE' must classify the taxonomy's finest level, 6 classes, got 3: set training.loss.classification_level = 'fine'"),
    ],
)  # fmt: skip
def test_classification_refusals(name: str, n_classes: int, message: str, tree: Taxonomy) -> None:
    with pytest.raises(ConfigError, match=message):
        make_classification_loss(name, {}, class_counts=torch.ones(n_classes), dim=5, taxonomy=tree)


def test_a_classification_loss_of_the_tree_needs_the_tree() -> None:
    with pytest.raises(ConfigError, match="loss 'SoftLabels' needs a taxonomy, got none"):
        make_classification_loss("SoftLabels", {}, class_counts=torch.ones(6), dim=5)
