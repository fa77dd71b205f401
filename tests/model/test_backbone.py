"""Backbones offline: transformers and timm from files, agreement between them, and the refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hierderm.config import BackboneConfig
from hierderm.errors import CheckpointError
from hierderm.model.backbone import _load_timm, build_backbone, load_backbone, load_vanilla, siglip_to_timm
from hierderm.model.tiny import FOLDER

SHAPE = {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 32, "patch_size": 8}
SIGLIP = "vit_base_patch16_siglip_224"


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_saved_siglip_gives_the_embedding_of_the_model_it_came_from(small_siglip: Path, images: torch.Tensor) -> None:
    from transformers import SiglipModel

    whole = SiglipModel.from_pretrained(small_siglip).eval()
    backbone = load_vanilla(f"hf:{small_siglip}")
    with torch.no_grad():
        expected = whole.vision_model(pixel_values=images).pooler_output
        torch.testing.assert_close(backbone(images), expected, rtol=0, atol=1e-6)
    assert (backbone.dim, backbone.preprocessing.size, len(backbone.blocks)) == (32, 32, 2)


def test_timm_and_transformers_agree_on_the_same_weights(small_siglip: Path, images: torch.Tensor) -> None:
    ours = load_vanilla(f"hf:{small_siglip}")
    theirs = _load_timm(SIGLIP, str(small_siglip / "model.safetensors"), **SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), ours(images), rtol=0, atol=1e-4)


def test_timm_from_its_own_file(small_siglip: Path, images: torch.Tensor, tmp_path: Path) -> None:
    mapped = {
        key: value.contiguous() for key, value in siglip_to_timm(load_file(small_siglip / "model.safetensors")).items()
    }
    save_file(mapped, tmp_path / "timm.safetensors")
    first = _load_timm(SIGLIP, str(tmp_path / "timm.safetensors"), act_layer="gelu_tanh", **SHAPE)
    second = _load_timm(SIGLIP, str(small_siglip / "model.safetensors"), **SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(first(images), second(images))


@pytest.mark.parametrize("library", ["hf", "timm"])
def test_the_architecture_rebuilds_the_encoder(small_siglip: Path, images: torch.Tensor, library: str) -> None:
    backbone = load_vanilla(f"hf:{small_siglip}") if library == "hf" else _load_timm(SIGLIP, "random", **SHAPE)
    again = build_backbone(json.loads(json.dumps(backbone.architecture)), backbone.preprocessing)
    again.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again(images), backbone(images))


def test_the_packaged_siglip_fits_its_promise() -> None:
    assert (FOLDER / "model.safetensors").stat().st_size <= 8_000_000
    backbone = load_vanilla("hierderm:tiny")
    assert (backbone.dim, backbone.preprocessing.size) == (128, 96)
    assert next(backbone.parameters()).dtype == torch.float32
    random = load_vanilla("hierderm:tiny", "random")
    assert not torch.equal(next(random.parameters()), next(backbone.parameters()))


def test_a_convolutional_network_works_too() -> None:
    backbone = load_vanilla("timm:resnet10t", "random")
    assert backbone(torch.zeros(1, 3, backbone.preprocessing.size, backbone.preprocessing.size)).shape == (
        1,
        backbone.dim,
    )


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        (
            "siglip",
            "pretrained",
            "a backbone must be 'hierderm:tiny', 'timm:<model>' or 'hf:<repository or folder>', got",
        ),
        ("hf:", "pretrained", "a backbone must be"),
        ("timm:vit_bas_patch16_siglip_224", "random", "Closest: 'vit_base_patch16_siglip_224'"),
        ("hf:/no/such/folder", "pretrained", "hf:/no/such/folder: the folder does not exist"),
        ("timm:resnet10t", "/no/file.safetensors", "the weights file /no/file.safetensors does not exist"),
        ("hierderm:tiny", "x.safetensors", "must be 'pretrained' or 'random' for transformers models"),
    ],
)
def test_names_that_are_none(name: str, weights: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_backbone(BackboneConfig(name, weights))


def test_without_internet_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="could not be loaded .* Without internet give local weights"):
        load_backbone(BackboneConfig("hf:google/siglip2-base-patch16-224"))


def test_files_that_do_not_fit(small_siglip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small_siglip, folder)
    name = BackboneConfig(f"hf:{folder}")
    weights = load_file(folder / "model.safetensors")
    weights.pop("vision_model.post_layernorm.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"does not hold these weights .*post_layernorm\.weight"):
        load_backbone(name)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="could not be loaded"):
        load_backbone(name)
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        _load_timm(SIGLIP, str(folder / "model.safetensors"), **SHAPE)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"must hold preprocessor_config\.json"):
        load_backbone(name)


def test_weights_of_another_model_are_refused(small_siglip: Path) -> None:
    with pytest.raises(CheckpointError, match="does not hold these weights of the vision tower, or in another shape"):
        _load_timm(SIGLIP, str(small_siglip / "model.safetensors"), **{**SHAPE, "depth": 3})
