"""The backbone's preprocessing against the libraries whose files it is read from: the same pixels, or a refusal."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_eval
from transformers import AutoImageProcessor

from hierderm.config.methods import Augmentation
from hierderm.data.dataset import Augmenter
from hierderm.data.preprocessing import _CROPS, Preprocessing, says_all
from hierderm.errors import CheckpointError
from hierderm.model.transformers import _preprocessor_config, quiet

RNG = np.random.default_rng(0)
SMOOTH = [
    Image.fromarray(RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    for size in ((61, 40), (42, 63))
]  # wide, and high
PLAIN = {
    "do_resize": True, "size": {"height": 32, "width": 32}, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "image_processor_type": "ViTImageProcessor",
}  # fmt: skip


def processor(config: dict[str, Any]) -> Any:
    """The class of transformers, as made from a file of this content."""
    import transformers

    with quiet():
        return getattr(transformers, config["image_processor_type"])(**config)


FORMS: list[dict[str, Any]] = [
    {"size": {"height": 30, "width": 30}},
    {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 33, "width": 33}},
    {"size": {"shortest_edge": 40}, "do_center_crop": False},
    {"size": {"shortest_edge": 400}, "do_center_crop": False},
    {"size": 36, "crop_size": 32},
    {"size": {"height": 40, "width": 40}, "do_center_crop": True, "crop_size": {"height": 30, "width": 30}},
    {"size": {"height": 40, "width": 40}, "do_center_crop": True, "crop_size": {"height": 37, "width": 37}},
    {"size": {"height": 30, "width": 40}},
    {"size": {"longest_edge": 40}},
    {"size": {"height": 20, "width": 20}, "do_center_crop": True, "crop_size": {"height": 30, "width": 30}},
    *({"resample": code} for code in range(6)),
    {"do_normalize": False}, {"do_rescale": False}, {"do_resize": False}, {"rescale_factor": 1 / 127.5},
    {"rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": False},
    {"include_top": True, "do_normalize": False}, {"image_mean": 0.5, "image_std": 0.25}, {"crop_pct": 0.8},
    {"do_pad": True, "pad_size": {"height": 500, "width": 500}},
]  # fmt: skip
SMALL = {
    True: {"size": {"shortest_edge": 40}, "crop_size": {"height": 35, "width": 35}},
    False: {"size": {"height": 35, "width": 35}},
}


@pytest.mark.parametrize(
    "kind", ["ViT", "CLIP", "DeiT", "ConvNext", "PoolFormer", "Levit", "EfficientNet", "DINOv3ViT"]
)
def test_pixels_are_those_of_transformers_or_the_file_is_refused(kind: str) -> None:
    small = {"size": {"shortest_edge": 35}} if kind == "ConvNext" else SMALL[_CROPS[kind]]
    read = []
    for changes in FORMS:
        config = {"image_processor_type": f"{kind}ImageProcessor", **small, **changes}
        known = processor(config)
        try:
            own = Preprocessing.from_transformers(known.to_dict())
        except CheckpointError as error:
            assert str(error).startswith("preprocessor_config.json: ")
            continue
        read.append(config)
        # DINOv3 resizes colours that are not rounded to 8 bits
        most = 0.15 if kind == "DINOv3ViT" else 1e-6
        for image in SMOOTH:
            try:
                theirs = known(image, return_tensors="pt")["pixel_values"][0].double()
            except (AttributeError, TypeError):
                break  # a file that transformers itself can't use
            ours = own(image).double()
            assert ours.shape == theirs.shape, config
            difference = (ours - theirs).abs() * torch.tensor(own.std)[:, None, None]  # in colours from 0 to 1
            assert difference.max() < most and difference.mean() < max(1e-6, most / 30), config
    assert len(read) >= 11


def test_common_files_are_not_refused() -> None:
    for kind in _CROPS:
        assert says_all(content := processor({"image_processor_type": f"{kind}ImageProcessor"}).to_dict())
        assert Preprocessing.from_transformers(content).size >= 224


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_processor_type": "Siglip2ImageProcessor"}, "does not know the image processor 'Siglip2', only Beit, Bit"),
        ({"image_processor_type": ""}, "does not know the image processor ''"),
        ({"size": {"height": 3}}, r"'size' must be square, or the shortest edge, got \{'height': 3\}"),
        ({"size": {"shortest_edge": 32}}, "images must become square: 'size' gives the shortest edge alone"),
        ({"do_resize": False}, "images must be resized, 'do_resize' is false"),
        ({"resample": 1}, r"'resample' must be 0 \(nearest\), 2 \(bilinear\) or 3 \(bicubic\), got 1"),
        ({"do_center_crop": True, "crop_size": {"height": 64, "width": 64}}, "'crop_size' must be square and within"),
        ({"do_flip_channel_order": True}, "'do_flip_channel_order' is not supported"),
        ({"image_std": [0, 1, 1]}, "preprocessing must have a size in pixels, mean and std of three colours, std > 0"),
        ({"image_mean": [0, 1]}, "could not be broadcast|cannot be broadcast|not compatible|broadcast"),
    ],
)  # fmt: skip
def test_refusals(changes: dict[str, Any], message: str) -> None:
    assert Preprocessing.from_transformers(PLAIN).size == 32
    with pytest.raises(CheckpointError, match=message):
        Preprocessing.from_transformers(PLAIN | changes)
    with pytest.raises(CheckpointError, match="it must give do_rescale, image_std"):
        Preprocessing.from_transformers({k: v for k, v in PLAIN.items() if k not in ("do_rescale", "image_std")})


@pytest.mark.parametrize(
    ("written", "size", "fit", "side"),
    [
        (
            {"feature_extractor_type": "CLIPFeatureExtractor", "size": 40, "crop_size": 32, "resample": 3},
            32,
            "crop_floor",
            40,
        ),
        ({"image_processor_type": "ViTImageProcessor", "size": 40, "resample": 2}, 40, "squash", 40),
        ({"image_processor_type": "DeiTImageProcessorFast"}, 224, "squash", 256),
        ({"size": {"height": 48, "width": 48}}, 48, "squash", 48),  # the class is that of the model
    ],
)
def test_what_a_file_leaves_open_is_filled_in_by_transformers(
    tmp_path: Path, written: dict[str, Any], size: int, fit: str, side: int
) -> None:
    import json

    assert not says_all(written)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}', encoding="utf-8")
    with quiet():
        own = Preprocessing.from_transformers(_preprocessor_config(str(tmp_path)))
        known = AutoImageProcessor.from_pretrained(tmp_path)
    assert (own.size, own.fit, round(own.size / own.crop_fraction)) == (size, fit, side)
    torch.testing.assert_close(own(SMOOTH[0]), known(SMOOTH[0], return_tensors="pt")["pixel_values"][0])


@pytest.mark.parametrize("mode", ["center", "squash", None])
@pytest.mark.parametrize("pct", [0.9, 0.95, 0.875, 1.0, None])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_pixels_are_those_of_timm(mode: str | None, pct: float | None, interpolation: str) -> None:
    config: dict[str, Any] = {"input_size": (3, 56, 56), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2), "crop_pct": pct or 1.0,
              "crop_mode": mode, "interpolation": interpolation}  # fmt: skip
    own = Preprocessing.from_timm(config)
    theirs = transforms_imagenet_eval(
        56, crop_pct=pct or 1.0, crop_mode=mode, interpolation=interpolation, mean=config["mean"], std=config["std"]
    )
    assert round(own.size / own.crop_fraction) == math.floor(56 / (pct or 1.0))
    for image in SMOOTH:
        difference = (own(image) - theirs(image)).abs() * 0.2 * 255
        if interpolation == "nearest":
            assert (difference > 0.01).float().mean() < 0.05  # PIL and torch break ties in another way
        else:
            assert difference.max() < 2.01 and difference.mean() < 0.2  # and round 8 bits in another order


@pytest.mark.parametrize(
    "changes",
    [{"input_size": (1, 56, 56)}, {"input_size": (3, 56, 64)}, {"crop_mode": "border"}, {"interpolation": "lanczos"}],
)
def test_what_timm_can_do_besides_is_refused(changes: dict[str, Any]) -> None:
    config = {"input_size": (3, 56, 56), "mean": (0.5,) * 3, "std": (0.2,) * 3, "crop_pct": 0.9, "crop_mode": "center",
              "interpolation": "bicubic"}  # fmt: skip
    Preprocessing.from_timm(config)
    with pytest.raises(CheckpointError, match=r"images must be square|bicubic, bilinear or nearest interpolation"):
        Preprocessing.from_timm(config | changes)


@pytest.mark.parametrize("side", [0, -3, 32.5, "x", [32]])
def test_sizes_are_whole_pixels(side: Any) -> None:
    with pytest.raises(CheckpointError, match=r"sizes must be whole pixels from 1, got|preprocessor_config.json: "):
        Preprocessing.from_transformers(PLAIN | {"size": {"height": side, "width": side}})
    assert Preprocessing.from_transformers(PLAIN | {"size": {"height": 32.0, "width": 32.0}}).size == 32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "preprocessor_config.json"),
        ("[]", "preprocessor_config.json"),
        ('{"image_processor_type": 3}', "transformers can't read .*preprocessor_config.json: "),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content, encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}', encoding="utf-8")
    with quiet(), pytest.raises(CheckpointError, match=message):
        _preprocessor_config(str(tmp_path))


def test_views_are_the_image_and_the_same_changes_of_every_image() -> None:
    """Drawn with the seeds 1000 and 1001, whatever came before; of a far larger image, on a smaller copy that stays apart."""
    plain = Preprocessing(40, (0.5,) * 3, (0.5,) * 3, fit="crop", crop_fraction=0.8)
    viewed, augment = replace(plain, views=2), Augmenter(Augmentation(), plain)
    large = SMOOTH[0].resize((610, 400))
    small = large.copy()
    small.thumbnail((91, 60))  # 1.5 times the side
    for image, room in ((SMOOTH[0], SMOOTH[0]), (SMOOTH[1], SMOOTH[1]), (large, small)):
        pixels = torch.from_numpy(np.array(room)).permute(2, 0, 1)
        expected = torch.stack([plain.pixels(image), augment(pixels, 1000), augment(pixels, 1001)])
        torch.testing.assert_close(viewed.pixels(image), expected, rtol=0, atol=0)
    assert large.size == (610, 400)
    assert viewed(large).shape == (3, 3, 40, 40)
    assert viewed.hash != plain.hash and Preprocessing(**viewed.to_dict()) == viewed
    assert "views" not in plain.to_dict()  # models and caches of before keep their hash
    with pytest.raises(CheckpointError, match=r"a crop within the resized image, and views >= 0, got"):
        replace(plain, views=-1)
