"""Backbones offline: transformers and timm from files, agreement between them, and the refusals."""

from __future__ import annotations

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hierderm.config.settings import BackboneConfig
from hierderm.errors import CheckpointError
from hierderm.model import timm
from hierderm.model.backbone import Backbone, Features, build_backbone, load_backbone, mean_vectors
from hierderm.model.timm import siglip_to_timm
from hierderm.model.tiny import FOLDER
from hierderm.model.weights import weights_hash

SHAPE: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 32, "patch_size": 8}
SIGLIP = "vit_base_patch16_siglip_224"


def named(name: str, weights: str = "pretrained", features: Features = "output") -> Backbone:
    return load_backbone(BackboneConfig(name, weights), features)


def timm_siglip(weights: str, features: Features = "output", **options: Any) -> Backbone:
    """timm's SigLIP in a small shape."""
    encoder, preprocessing, architecture = timm.load("timm:siglip", SIGLIP, weights, **SHAPE | options)
    return Backbone(
        encoder, preprocessing, {"name": "timm:siglip", "library": "timm", "features": features, **architecture}
    )


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_saved_siglip_gives_the_embedding_of_the_model_it_came_from(small_siglip: Path, images: torch.Tensor) -> None:
    from transformers import SiglipModel

    whole = SiglipModel.from_pretrained(small_siglip).eval()
    backbone = named(f"hf:{small_siglip}")
    with torch.no_grad():
        expected = whole.vision_model(pixel_values=images).pooler_output
        torch.testing.assert_close(backbone(images), expected, rtol=0, atol=1e-6)
    assert (backbone.dim, backbone.preprocessing.size, len(backbone.blocks)) == (32, 32, 2)


def test_timm_and_transformers_agree_on_the_same_weights(small_siglip: Path, images: torch.Tensor) -> None:
    ours = named(f"hf:{small_siglip}")
    theirs = timm_siglip(str(small_siglip / "model.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), ours(images), rtol=0, atol=1e-4)


def test_timm_from_its_own_file(small_siglip: Path, images: torch.Tensor, tmp_path: Path) -> None:
    mapped = {
        key: value.contiguous() for key, value in siglip_to_timm(load_file(small_siglip / "model.safetensors")).items()
    }
    save_file(mapped, tmp_path / "timm.safetensors")
    first = timm_siglip(str(tmp_path / "timm.safetensors"), act_layer="gelu_tanh")
    second = timm_siglip(str(small_siglip / "model.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(first(images), second(images))


@pytest.mark.parametrize("features", ["output", "layers"])
@pytest.mark.parametrize("library", ["hf", "timm"])
def test_the_architecture_rebuilds_the_encoder(
    small_siglip: Path, images: torch.Tensor, library: str, features: Features
) -> None:
    hf = library == "hf"
    backbone = named(f"hf:{small_siglip}", features=features) if hf else timm_siglip("random", features)
    again = build_backbone(json.loads(json.dumps(backbone.architecture)), backbone.preprocessing)
    again.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again(images), backbone(images))


def test_the_packaged_siglip_fits_its_promise() -> None:
    assert (FOLDER / "model.safetensors").stat().st_size <= 8_000_000
    backbone = named("hierderm:tiny")
    assert (backbone.dim, backbone.preprocessing.size) == (128, 96)
    assert next(backbone.parameters()).dtype == torch.float32
    random = named("hierderm:tiny", "random")
    assert not torch.equal(next(random.parameters()), next(backbone.parameters()))


def test_a_convolutional_network_works_too() -> None:
    backbone = named("timm:resnet10t", "random")
    assert backbone(torch.zeros(1, 3, backbone.preprocessing.size, backbone.preprocessing.size)).shape == (
        1,
        backbone.dim,
    )


def test_features_of_all_layers_by_hand(small_siglip: Path, images: torch.Tensor) -> None:
    """Two blocks of width 32: the output, then mean and deviation of three sets of tokens."""
    output, layers = named(f"hf:{small_siglip}"), named(f"hf:{small_siglip}", features="layers")
    with torch.no_grad():
        hidden = output.encoder(pixel_values=images, output_hidden_states=True).hidden_states
        found = layers(images)
    assert layers.dim == found.shape[1] == 32 * (1 + 2 * 3)
    expected = [output(images)]
    for tokens in hidden[:3]:
        expected += [tokens.mean(dim=1), tokens.std(dim=1, unbiased=False)]
    torch.testing.assert_close(found, torch.cat(expected, dim=1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "n_features"),
    [
        ("resnet18", 512 + 2 * (256 + 512 + 512)),
        ("swin_tiny_patch4_window7_224", 768 + 2 * (96 + 96 + 192 + 384 + 768)),
    ],
)
def test_features_of_all_layers_of_maps(model: str, n_features: int) -> None:
    """Maps of channels first and of channels last."""
    backbone = named(f"timm:{model}", "random", "layers")
    side = backbone.preprocessing.size
    image = torch.randn(1, 3, side, side)
    with torch.no_grad():
        found = backbone(image)
    assert found.shape == (1, backbone.dim) and torch.isfinite(found).all()
    assert backbone.dim == n_features


@pytest.mark.parametrize("features", ["output", "layers"])
def test_an_image_and_its_mirror_images_have_one_vector(
    small_siglip: Path, images: torch.Tensor, features: Features
) -> None:
    plain = named(f"hf:{small_siglip}", features=features)
    mirrored = load_backbone(BackboneConfig(f"hf:{small_siglip}", mirrors=True), features)
    sides: list[list[int]] = [[], [3], [2], [2, 3]]
    with torch.no_grad():
        expected = sum(plain(images.flip(side)) for side in sides) / 4
        for side in sides:
            torch.testing.assert_close(mirrored(images.flip(side)), expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(plain(images), expected, atol=1e-3)
    assert weights_hash(mirrored) != weights_hash(plain)  # an index can't take one's vectors for the other's
    rebuilt = build_backbone(mirrored.architecture, mirrored.preprocessing)
    rebuilt.load_state_dict(mirrored.state_dict())
    assert rebuilt.mirrors and (rebuilt.dim, rebuilt.output_dim) == (plain.dim, plain.output_dim)


@pytest.mark.parametrize("mirrors", [False, True])
def test_the_vector_of_views_is_their_mean(small_siglip: Path, images: torch.Tensor, mirrors: bool) -> None:
    backbone = load_backbone(BackboneConfig(f"hf:{small_siglip}", mirrors=mirrors, views=1))
    assert backbone.preprocessing.views == 1
    with torch.no_grad():
        found = backbone(torch.stack([images, images.roll(5, dims=3)], dim=1))
        expected = (backbone(images) + backbone(images.roll(5, dims=3))) / 2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, backbone(images), atol=1e-3)


def test_one_mirror_image_at_a_time_is_in_memory(images: torch.Tensor) -> None:
    given: list[weakref.ref[torch.Tensor]] = []

    def vectors(one: torch.Tensor) -> torch.Tensor:
        if not one._is_view():  # of the images themselves
            given.append(weakref.ref(one))
        assert sum(known() is not None for known in given) <= 1
        return one.mean(dim=(2, 3))

    mean_vectors(vectors, torch.stack([images, images], dim=1), mirrors=True)
    assert len(given) == 6


def test_without_repeated_blocks_there_are_no_layers() -> None:
    with pytest.raises(CheckpointError, match="no repeated blocks; use training.features = 'output' and"):
        named("timm:resnet10t", "random", "layers")


def test_features_of_all_layers_have_gradients_where_tokens_are_alike(small_siglip: Path) -> None:
    backbone = named(f"hf:{small_siglip}", features="layers")
    backbone(torch.zeros(2, 3, 32, 32)).sum().backward()  # a deviation of 0 has no finite slope without a floor
    assert all(torch.isfinite(p.grad).all() for p in backbone.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        (
            "siglip",
            "pretrained",
            "a backbone must be 'hierderm:tiny', 'hierderm:lite0', 'hierderm:lite2', 'timm:<model>' or 'hf:<repository or folder>', got",
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
        named(name, weights)


def test_without_internet_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="could not be loaded .* Without internet give local weights"):
        named("hf:google/siglip2-base-patch16-224")


def test_files_that_do_not_fit(small_siglip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small_siglip, folder)
    name = f"hf:{folder}"
    weights = load_file(folder / "model.safetensors")
    weights.pop("vision_model.post_layernorm.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"does not hold these weights .*post_layernorm\.weight"):
        named(name)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="could not be loaded"):
        named(name)
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        timm_siglip(str(folder / "model.safetensors"))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"must hold preprocessor_config\.json"):
        named(name)


def test_settings_that_contradict_each_other_are_refused(small_siglip: Path, tmp_path: Path) -> None:
    """A configuration for smaller images than its preprocessing gives."""
    folder = tmp_path / "siglip"
    shutil.copytree(small_siglip, folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["size"] = {"height": 64, "width": 64}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="settings do not fit together, an image of 64 pixels has no vector"):
        named(f"hf:{folder}")


def test_weights_of_another_model_are_refused(small_siglip: Path) -> None:
    with pytest.raises(CheckpointError, match="does not hold these weights of the vision tower, or in another shape"):
        timm_siglip(str(small_siglip / "model.safetensors"), depth=3)


def test_weights_have_a_name_of_their_own(small_siglip: Path) -> None:
    one, same = named(f"hf:{small_siglip}"), named(f"hf:{small_siglip}")
    assert weights_hash(one) == weights_hash(same)
    with torch.no_grad():
        next(same.parameters()).view(-1)[0] += 1e-3
    assert weights_hash(one) != weights_hash(same)


def test_an_architecture_of_another_library_is_refused(small_siglip: Path) -> None:
    backbone = named(f"hf:{small_siglip}")
    with pytest.raises(CheckpointError, match="the saved architecture .* is not one of hierderm's"):
        build_backbone({**backbone.architecture, "library": "open_clip"}, backbone.preprocessing)


def test_bf16_is_a_part_of_the_model(small_siglip: Path, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})  # slow, but right without it
    name = f"hf:{small_siglip}"
    exact = named(name, features="layers").eval()
    made = load_backbone(BackboneConfig(name, precision="bf16"), "layers").eval()
    again = build_backbone(json.loads(json.dumps(made.architecture)), made.preprocessing).eval()
    again.load_state_dict(made.state_dict())
    with torch.inference_mode():
        expected, found = exact(images), made(images)
        torch.testing.assert_close(again(images), found, rtol=0, atol=0)
    assert found.dtype == torch.float32 and not torch.equal(found, expected)
    assert (found - expected).abs().max() < 0.03 * expected.abs().max()
    assert made.architecture == {**exact.architecture, "precision": "bf16"}


def test_bf16_where_the_processor_lacks_it(small_siglip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "amx_bf16": False})
    with pytest.raises(CheckpointError, match=r"precision = 'bf16' needs .* or a GPU that does; this machine has none"):
        load_backbone(BackboneConfig(f"hf:{small_siglip}", precision="bf16"))
