from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

from hierderm.config.settings import BackboneConfig
from hierderm.data.table import CaseTable
from hierderm.errors import CheckpointError
from hierderm.model.backbone import load_backbone
from hierderm.model.heads import Discriminants, NetworkShape
from hierderm.model.network import Network
from hierderm.taxonomy.tree import taxonomy_from_paths


def network(siglip: Path, toy: CaseTable, level: int = 1, **shape: Any) -> Network:
    shape = {"classifier": "cosine", **shape}
    return Network(load_backbone(BackboneConfig(f"hf:{siglip}")), NetworkShape(**shape), toy.taxonomy, level).eval()


@pytest.mark.parametrize("neck", ["identity", "linear", "standardised", "residual"])
@pytest.mark.parametrize("classifier", ["cosine", "linear"])
def test_outputs(small_siglip: Path, toy: CaseTable, neck: str, classifier: str) -> None:
    outputs = network(small_siglip, toy, neck=neck, classifier=classifier, projection_dim=8)(torch.randn(2, 3, 32, 32))
    assert outputs.embedding.shape == (2, 32)
    assert outputs.projection.shape == (2, 8)
    assert outputs.logits.shape == (2, 9)
    for vectors in (outputs.embedding, outputs.projection):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_coarse_probabilities_are_the_fine_ones_summed(small_siglip: Path, toy: CaseTable) -> None:
    model = network(small_siglip, toy)
    logits = torch.randn(4, 9)
    fine, coarse = model.probabilities(logits, 1), model.probabilities(logits, 0)
    expected = toy.taxonomy.sum_up(fine.numpy(), 0)
    torch.testing.assert_close(coarse, torch.from_numpy(expected))
    flat = network(small_siglip, toy, level=0)
    assert flat(torch.randn(1, 3, 32, 32)).logits.shape == (1, 3)
    assert (model.probability_level, flat.probability_level) == (1, 0)
    with pytest.raises(ValueError, match="level 1 is finer than the classified level 0"):
        flat.probabilities(torch.randn(1, 3), 1)


def test_a_residual_neck_begins_at_the_backbones_embedding(small_siglip: Path, toy: CaseTable) -> None:
    features = torch.randn(3, 32)
    plain, residual = (network(small_siglip, toy, neck=neck) for neck in ("identity", "residual"))
    torch.testing.assert_close(residual.embed(features), plain.embed(features))


def test_no_classifier_no_logits(small_siglip: Path, toy: CaseTable) -> None:
    assert network(small_siglip, toy, classifier="none")(torch.randn(1, 3, 32, 32)).logits is None


def test_a_linear_neck_makes_embeddings_of_any_length(small_siglip: Path, toy: CaseTable) -> None:
    assert network(small_siglip, toy, neck="linear", embedding_dim=5).dim == 5
    assert network(small_siglip, toy, neck="identity", embedding_dim=5).dim == 32


def test_a_standardised_neck_learns_the_spread_of_its_features(small_siglip: Path, toy: CaseTable) -> None:
    model = network(small_siglip, toy, neck="standardised", dropout=0.0, embedding_dim=0)
    other = network(small_siglip, toy, neck="standardised", dropout=0.0, embedding_dim=0)
    other.load_state_dict(model.state_dict())
    features = torch.randn(64, 32)
    scales = torch.linspace(1, 100, 32)
    with torch.no_grad():
        for net, values in ((model, features), (other, scales * features + 7)):
            net.train()
            for _ in range(200):  # running statistics settle
                net.embed(values)
            net.eval()
        torch.testing.assert_close(model.embed(features), other.embed(scales * features + 7), atol=1e-3, rtol=0)


def test_a_backbone_as_it_is(small_siglip: Path, toy: CaseTable) -> None:
    backbone = load_backbone(BackboneConfig(f"hf:{small_siglip}"))
    vanilla = Network(backbone).eval()
    features = torch.randn(3, backbone.dim)
    outputs = vanilla.heads(features)
    torch.testing.assert_close(outputs.embedding, torch.nn.functional.normalize(features))
    assert outputs.logits is None and vanilla.taxonomy is None and vanilla.probability_level is None
    assert set(vanilla.state_dict()) == {f"backbone.{name}" for name in backbone.state_dict()}
    with pytest.raises(ValueError, match="without a taxonomy has no classes"):
        vanilla.probabilities(torch.zeros(1, 2), 0)
    with pytest.raises(CheckpointError, match="must have a taxonomy"):
        Network(backbone, NetworkShape("discriminants", embedding_dim=2))


def test_levels_between_the_classified_one_and_the_top() -> None:
    """Three levels, the middle one classified: its nodes are summed up to the top."""
    paths = [(f"A{k // 4}", f"B{k // 2}", f"C{k}") for k in range(8)]
    tree = taxonomy_from_paths(paths, ("top", "middle", "bottom"), id="t")
    model = Network(FakeBackbone(4), NetworkShape(classifier="linear"), tree, 1)  # type: ignore[arg-type]
    middle = model.probabilities(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), 1)
    torch.testing.assert_close(
        model.probabilities(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), 0), middle.reshape(1, 2, 2).sum(2)
    )


@pytest.mark.parametrize("levels", [(), (1,), (0, 1)])
def test_discriminants_as_a_layer(toy: CaseTable, levels: tuple[int, ...]) -> None:
    """By hand: the features are the discriminants, and the logits are those of the conditions."""
    rng = np.random.default_rng(0)
    found = Discriminants(
        np.eye(5), np.arange(5.0), rng.normal(size=(9, 5)), rng.normal(size=9),
        np.hstack([np.zeros((9, 0)), *(toy.taxonomy.membership(level) for level in levels)]), levels, 0.3, 2.0,
    )  # fmt: skip
    found.condition_bias[4] = -np.inf  # a condition that was never seen
    model = Network.from_discriminants(FakeBackbone(7), found, toy.taxonomy)  # type: ignore[arg-type]
    features = rng.normal(size=(6, 7))
    outputs = model.heads(torch.from_numpy(features).float())
    np.testing.assert_allclose(outputs.embedding.detach(), found.embed(features[:, :5]), atol=1e-6)
    assert model.dim == 5 + sum(toy.taxonomy.size(level) for level in levels)
    assert outputs.logits is not None
    probabilities = model.probabilities(outputs.logits, 1).detach().numpy()
    np.testing.assert_allclose(probabilities, softmax(2.0 * found.logits(features[:, :5]), axis=1), atol=1e-6)
    assert (probabilities[:, 4] == 0).all()
    again = Network(FakeBackbone(7), model.shape, toy.taxonomy, 1)  # type: ignore[arg-type]
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.heads(torch.ones(1, 7)), model.heads(torch.ones(1, 7)))


class FakeBackbone(torch.nn.Module):
    """A backbone of which only the length of its features is asked."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
