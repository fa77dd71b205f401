from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hierderm.config.settings import ModelConfig
from hierderm.data.table import CaseTable
from hierderm.model.backbone import load_vanilla
from hierderm.model.network import Network


def network(siglip: Path, toy: CaseTable, level: int = 1, **model: object) -> Network:
    config = ModelConfig(**model)  # type: ignore[arg-type]
    return Network(load_vanilla(f"hf:{siglip}"), config, toy.taxonomy, level).eval()


@pytest.mark.parametrize("neck", ["identity", "linear", "standardised", "residual"])
@pytest.mark.parametrize("classifier", ["cosine", "linear"])
def test_outputs(small_siglip: Path, toy: CaseTable, neck: str, classifier: str) -> None:
    settings: dict[str, Any] = {"neck": neck, "classifier": classifier, "projection_dim": 8, "embedding_dim": 0}
    outputs = network(small_siglip, toy, **settings)(torch.randn(2, 3, 32, 32))
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
