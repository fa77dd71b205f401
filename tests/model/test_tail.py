"""Stem and tail together are the backbone, and only the tail has gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hierderm.config.settings import BackboneConfig
from hierderm.model.backbone import Backbone, Features, load_backbone
from hierderm.model.tail import Stem, Tail


def backbone(name: str, siglip: Path, features: Features) -> Backbone:
    torch.manual_seed(0)
    if name == "siglip":
        return load_backbone(BackboneConfig(f"hf:{siglip}"), features).eval()
    return load_backbone(BackboneConfig(name, "random"), features).eval()


@pytest.mark.parametrize("features", ["output", "layers"])
@pytest.mark.parametrize("name", ["siglip", "timm:test_vit", "timm:test_efficientnet"])
@pytest.mark.parametrize("n_blocks", [1, 2, 9])
def test_stem_and_tail_are_the_backbone(small_siglip: Path, name: str, features: Features, n_blocks: int) -> None:
    whole = backbone(name, small_siglip, features)
    side = whole.preprocessing.size
    images = torch.randn(3, 3, side, side)
    with torch.no_grad():
        expected = whole(images)
    stem = Stem(whole, n_blocks)
    with torch.no_grad():
        vectors = stem(images)
        assert vectors.shape == (3, stem.dim)
        torch.testing.assert_close(Tail(stem)(vectors), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(whole(images), expected)  # the hooks of the stem change nothing


def test_gradients_reach_the_last_blocks_alone(small_siglip: Path) -> None:
    whole = backbone("timm:test_efficientnet", small_siglip, "output")
    stem = Stem(whole, 1)
    side = whole.preprocessing.size
    with torch.no_grad():
        vectors = stem(torch.randn(2, 3, side, side))
    whole.requires_grad_(False)
    whole.blocks[-1].requires_grad_(True)
    Tail(stem)(vectors).sum().backward()
    learning = {
        name for name, weight in whole.named_parameters() if weight.grad is not None and weight.grad.abs().sum() > 0
    }
    last = len(whole.blocks) - 1
    assert learning and all(name.startswith(f"encoder.blocks.{last}.") for name in learning)
