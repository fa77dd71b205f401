"""What a backbone sees at each place, for tokens and for maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hierderm.config.settings import BackboneConfig
from hierderm.embeddings import Provenance
from hierderm.errors import ModelError
from hierderm.model.backbone import load_backbone
from hierderm.model.encoder import Encoder
from hierderm.model.loading import load
from hierderm.model.network import Network
from hierderm.model.patches import patch_features


def half_white(side: int, right: bool) -> Image.Image:
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    pixels[:, side // 2 :] = 255
    return Image.fromarray(pixels if right else np.ascontiguousarray(pixels[:, ::-1]))


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("hierderm:tiny", (8, 8)),  # 96 pixels in patches of 12
        ("timm:test_vit@random", (10, 10)),  # 160 in patches of 16, and a class token
        ("timm:test_efficientnet@random", (5, 5)),  # a map of channels first
        ("timm:test_convnext@random", (5, 5)),
    ],
)
def test_places_are_where_they_are(name: str, grid: tuple[int, int]) -> None:
    encoder = load(name)
    side = encoder.network.backbone.preprocessing.size
    before = encoder.encode(half_white(side, True))
    found = patch_features(encoder, half_white(side, True))
    assert found.shape[:2] == grid and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)
    left, right = (
        found[:, columns].reshape(-1, found.shape[-1]).mean(axis=0) for columns in (slice(2), slice(-2, None))
    )
    assert (left @ right) / np.linalg.norm(left) / np.linalg.norm(right) < 0.999  # black is not white
    np.testing.assert_array_equal(encoder.encode(half_white(side, True)), before)


def test_tokens_by_hand(small_siglip: Path) -> None:
    encoder = load(f"hf:{small_siglip}")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    backbone = encoder.network.backbone
    with torch.inference_mode():
        states = backbone.encoder(pixel_values=backbone.preprocessing(image)[None], output_hidden_states=True)
        tokens = torch.nn.functional.normalize(states.hidden_states[-1][0], dim=1).numpy()
    np.testing.assert_allclose(patch_features(encoder, image).reshape(16, -1), tokens, atol=1e-5)


def test_mirror_images_change_no_place(small_siglip: Path) -> None:
    made = [load_backbone(BackboneConfig(f"hf:{small_siglip}", mirrors=mirrors)) for mirrors in (False, True)]
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    plain, mirrored = (patch_features(Encoder(Network(backbone), Provenance("m")), image) for backbone in made)
    np.testing.assert_allclose(mirrored, plain, atol=1e-6)


def test_a_backbone_without_places(small_siglip: Path) -> None:
    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.blocks(images.mean(dim=(2, 3)))
            return found

    backbone = load_backbone(BackboneConfig(f"hf:{small_siglip}"))
    backbone.encoder, backbone.architecture["library"] = Flat(), "timm"
    with pytest.raises(ModelError, match=r"does not say what it sees at which place: its last block gives \(3,\)"):
        patch_features(Encoder(Network(backbone), Provenance("flat")), half_white(32, True))
