"""What a backbone does to an image before it looks: size, resampling, mean and standard deviation.

It belongs to the backbone, is saved with every checkpoint and compared on load: a wrong mean is a silent failure.
torch is imported where it is used: a model in an ONNX file does without.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from hierderm.data.image_io import ImageLike, as_pixels
from hierderm.data.resizing import Pixels, resized
from hierderm.errors import CheckpointError
from hierderm.files import text_hash

if TYPE_CHECKING:
    from torch import Tensor
    from torchvision.transforms.v2.functional import InterpolationMode

Interpolation = Literal["bicubic", "bilinear", "nearest"]
Fit = Literal["squash", "crop", "crop_floor"]
_RESAMPLE: dict[Any, Interpolation] = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # PIL's numbers
# Image processors of transformers that are understood, and whether each crops where its file does not say.
_CROPS = {
    "Beit": False, "Bit": True, "Blip": False, "CLIP": True, "ChineseCLIP": True, "ConvNext": False, "DINOv3ViT": False,
    "DeiT": True, "EfficientNet": False, "Levit": True, "MobileNetV1": True, "MobileNetV2": True, "PoolFormer": True,
    "Pvt": False, "Siglip": False, "ViT": False,
}  # fmt: skip
_NEEDED_BESIDES = {
    "ConvNext": ("crop_pct",), "PoolFormer": ("crop_pct",), "EfficientNet": ("rescale_offset", "include_top"),
}  # fmt: skip
_NEEDED = ("do_resize", "size", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")


@dataclass(frozen=True)
class Preprocessing:
    """`size`: pixels a side; `fit`: squash to the square, or let the short side fit it and crop the centre.

    Where the centre lies between two pixels, "crop" takes the even one, as torchvision and timm do, and "crop_floor"
    the lower one, as transformers does.

    `crop_fraction`: the share of the resized side that is kept, in (0, 1]: the centre of `size` pixels is cut out of
    `size / crop_fraction`. `interpolation`: on pixels of 8 bits, antialiased. `views`: so many changed copies of an
    image are looked at, too, and its vector is the mean: see `fixed_views`.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bicubic"
    fit: Fit = "squash"
    crop_fraction: float = 1.0
    views: int = 0

    def __post_init__(self) -> None:
        colours = (self.mean, self.std)
        fits = (
            self.size >= 1
            and all(len(values) == 3 and np.isfinite(values).all() for values in colours)
            and min(self.std) > 0
            and 0 < self.crop_fraction <= 1
            and self.views >= 0
            and self.interpolation in _RESAMPLE.values()
            and self.fit in get_args(Fit)
        )
        if not fits:
            raise CheckpointError(
                "preprocessing must have a size in pixels, mean and std of three colours, std > 0, bicubic, bilinear "
                f"or nearest interpolation, a crop within the resized image, and views >= 0, got {asdict(self)}."
            )

    @property
    def hash(self) -> str:
        """Twelve hex digits that name this preprocessing in checkpoints and embeddings."""
        return text_hash(json.dumps(self.to_dict()))

    @property
    def mode(self) -> InterpolationMode:
        """torchvision's name; its 'nearest' takes other pixels than PIL's, timm's and transformers'."""
        from torchvision.transforms.v2.functional import InterpolationMode

        return InterpolationMode("nearest-exact" if self.interpolation == "nearest" else self.interpolation)

    def pixels(self, image: ImageLike) -> Tensor:
        """The resized image, shape (3, size, size), uint8; with `views` (1 + views, 3, size, size), itself first."""
        import torch

        from hierderm.data.dataset import fixed_views, read_pixels

        pixels = read_pixels(image)
        return torch.stack([self._fitted(pixels), *fixed_views(pixels, self)]) if self.views else self._fitted(pixels)

    def _fitted(self, pixels: Tensor) -> Tensor:
        from torchvision.transforms.v2 import functional as F

        side = [self._side, self._side] if self.fit == "squash" else [self._side]
        resized: Tensor = F.resize(pixels, side, self.mode, antialias=True)
        height, width = resized.shape[-2:]
        if height == width == self.size:
            return resized
        top, left = self._corner(height, width)
        cropped: Tensor = F.crop(resized, top, left, self.size, self.size)
        return cropped

    def array(self, image: ImageLike) -> Pixels:
        """As `pixels`, without torch and `views`."""
        pixels = as_pixels(image)
        lengths, side = pixels.shape[:2], self._side
        height, width = (
            side if self.fit == "squash" or n == min(lengths) else int(side * n / min(lengths)) for n in lengths
        )
        made = resized(pixels, height, width, self.interpolation)
        top, left = self._corner(height, width)
        return np.ascontiguousarray(made[top : top + self.size, left : left + self.size].transpose(2, 0, 1))

    @property
    def _side(self) -> int:
        """To which an image is resized before the crop."""
        return math.floor(self.size / self.crop_fraction + 1e-6)

    def _corner(self, height: int, width: int) -> tuple[int, int]:
        """Row and column where the crop of a resized image begins."""
        floored = self.fit == "crop_floor"
        top, left = ((length - self.size) / 2 for length in (height, width))
        return (math.floor(top), math.floor(left)) if floored else (round(top), round(left))

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 in [0, 255], shape (..., 3, h, w), to what the backbone takes, float32."""
        import torch
        from torchvision.transforms.v2 import functional as F

        normalised: Tensor = F.normalize(F.to_dtype(pixels, torch.float32, scale=True), list(self.mean), list(self.std))
        return normalised

    def __call__(self, image: ImageLike) -> Tensor:
        """An image as the backbone takes it: the shape of `pixels`, float32."""
        return self.normalise(self.pixels(image))

    def to_dict(self) -> dict[str, Any]:
        """All that is not the default of `views`, so that hashes stay as they were."""
        content = asdict(self)
        return content if self.views else {key: value for key, value in content.items() if key != "views"}

    @classmethod
    def from_timm(cls, config: dict[str, Any]) -> Preprocessing:
        """From timm's data configuration (`timm.data.resolve_model_data_config`); CheckpointError where none fits."""
        channels, height, width = config["input_size"]
        mode = config.get("crop_mode") or "center"
        if channels != 3 or height != width or mode not in ("center", "squash"):
            raise CheckpointError(f"images must be square, of three colours and cropped at the centre, got {config}.")
        return cls(
            size=int(height),
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            interpolation=config["interpolation"],
            fit="squash" if mode == "squash" else "crop",
            crop_fraction=height / math.floor(height / (config.get("crop_pct") or 1.0)),
        )

    @classmethod
    def from_transformers(cls, config: dict[str, Any]) -> Preprocessing:
        """From the content of a `preprocessor_config.json` for which `says_all` is true.

        CheckpointError names what is not understood: nothing is left out or guessed.
        """

        def refuse(what: str) -> CheckpointError:
            return CheckpointError(f"preprocessor_config.json: {what}. Got {config}.")

        kind = processor_kind(config)
        if kind not in _CROPS:
            raise refuse(f"hierderm does not know the image processor '{kind}', only {', '.join(_CROPS)}")
        if missing := [key for key in _NEEDED if key not in config]:
            raise refuse(f"it must give {', '.join(missing)}")
        for key in ("do_pad", "do_flip_channel_order", "do_reduce_labels", "do_thumbnail", "do_align_long_axis"):
            if config.get(key):
                raise refuse(f"'{key}' is not supported")
        if not config["do_resize"]:
            raise refuse("images must be resized, 'do_resize' is false")
        if config["resample"] not in _RESAMPLE:
            raise refuse(f"'resample' must be 0 (nearest), 2 (bilinear) or 3 (bicubic), got {config['resample']}")
        try:
            mean, std = _colours(config, kind)
            size, fit, side = _geometry(config, kind)
        except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
            raise refuse(str(error)) from None
        return cls(size, mean, std, _RESAMPLE[config["resample"]], fit, size / side)


Three = tuple[float, float, float]


def processor_kind(config: dict[str, Any]) -> str:
    """The kind of image processor that a file names, such as 'Siglip'; '' where it names none."""
    name = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    name = name.removesuffix("Fast").removesuffix("Pil")
    return name.removesuffix("ImageProcessor").removesuffix("FeatureExtractor")


def says_all(config: dict[str, Any]) -> bool:
    """Whether a file says all that its processor does; else the defaults of transformers' class must be added.

    Files of earlier versions name no class, or give sizes as numbers, whose meaning depends on it.
    """
    kind = processor_kind(config)
    crops = config.get("do_center_crop", _CROPS.get(kind))
    needed = {*_NEEDED, *_NEEDED_BESIDES.get(kind, ()), *(("do_center_crop", "crop_size") if crops else ())}
    sizes = [config.get(name) for name in ("size", "crop_size") if name in needed]
    return kind in _CROPS and needed <= set(config) and all(isinstance(size, dict) for size in sizes)


def _colours(config: dict[str, Any], kind: str) -> tuple[Three, Three]:
    """Mean and std for colours in [0, 1] that do what scaling by any factor, and then any mean and std, would do."""
    factor = 255 * (float(config["rescale_factor"]) if config["do_rescale"] else 1.0)
    factor = 1.0 if math.isclose(factor, 1.0) else factor
    offset = 1.0 if kind == "EfficientNet" and config["do_rescale"] and config.get("rescale_offset") else 0.0
    mean, std = (np.broadcast_to(np.asarray(config[key], float), 3) for key in ("image_mean", "image_std"))
    again = std if config.get("include_top") and kind == "EfficientNet" else np.ones(3)
    if not config["do_normalize"]:
        mean, std = np.zeros(3), np.ones(3)
    first, second = ((mean + offset) / factor).tolist(), (std * again / factor).tolist()
    return (first[0], first[1], first[2]), (second[0], second[1], second[2])


def _geometry(config: dict[str, Any], kind: str) -> tuple[int, Fit, int]:
    """Size of the result, how it fits, and the side it is resized to before the crop."""
    size, crop = (
        {key: _whole(value) for key, value in (config.get(name) or {}).items() if value is not None}
        for name in ("size", "crop_size")
    )
    crops = bool(config.get("do_center_crop", _CROPS[kind]))
    if set(size) == {"height", "width"} and size["height"] == size["width"]:
        fit: Fit = "squash"
        side = size["height"]
    elif set(size) == {"shortest_edge"}:
        fit, side = "crop_floor", size["shortest_edge"]
    else:
        raise ValueError(f"'size' must be square, or the shortest edge, got {size}")
    if kind == "ConvNext" and fit == "crop_floor":
        if crops:
            raise ValueError("'do_center_crop' is not supported, as this processor crops by itself")
        return (side, fit, int(side / config["crop_pct"])) if side < 384 else (side, "squash", side)
    if kind == "PoolFormer" and config["crop_pct"] is not None:
        fit, side = "crop_floor", int(side / config["crop_pct"])
    if kind == "Levit" and fit == "crop_floor":
        side = int((256 / 224) * side)
    if not crops:
        if fit == "crop_floor":
            raise ValueError("images must become square: 'size' gives the shortest edge alone, and nothing is cropped")
        return side, fit, side
    if set(crop) != {"height", "width"} or crop["height"] != crop["width"] or not 0 < crop["height"] <= side:
        raise ValueError(f"'crop_size' must be square and within the resized image ({side} pixels), got {crop}")
    if fit == "squash" and (side - crop["height"]) % 4 == 3:
        raise ValueError(f"the centre of {crop['height']} pixels lies between two pixels of {side}")
    return crop["height"], fit, side


def _whole(pixels: Any) -> int:
    if not (float(pixels).is_integer() and pixels >= 1):
        raise ValueError(f"sizes must be whole pixels from 1, got {pixels}")
    return int(pixels)
