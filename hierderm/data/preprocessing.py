"""What a backbone does to an image before it looks: size, resampling, mean and standard deviation.

It belongs to the backbone, is saved with every checkpoint and compared on load: a wrong mean is a silent failure.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from hierderm.errors import CheckpointError
from hierderm.files import text_hash


@dataclass(frozen=True)
class Preprocessing:
    """`size`: pixels a side; `fit`: squash to the square, or crop the centre after the short side fits it.

    `crop_fraction`: with "crop", the share of the resized short side that is kept, in (0, 1].
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear", "nearest", "lanczos"] = "bicubic"
    fit: Literal["squash", "crop"] = "squash"
    crop_fraction: float = 1.0

    @property
    def hash(self) -> str:
        """Twelve hex digits that name this preprocessing in checkpoints and embeddings."""
        return text_hash(json.dumps(asdict(self)))

    @property
    def mode(self) -> F.InterpolationMode:
        return F.InterpolationMode(self.interpolation)

    def pixels(self, image: Image.Image | Tensor) -> Tensor:
        """The resized image, shape (3, size, size), uint8."""
        pixels = v2.functional.pil_to_tensor(image) if isinstance(image, Image.Image) else image
        if self.fit == "squash":
            squashed: Tensor = F.resize(pixels, [self.size, self.size], self.mode, antialias=True)
            return squashed
        short = round(self.size / self.crop_fraction)
        cropped: Tensor = F.center_crop(F.resize(pixels, [short], self.mode, antialias=True), [self.size, self.size])
        return cropped

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 in [0, 255], shape (..., 3, h, w), to what the backbone takes, float32."""
        normalised: Tensor = F.normalize(F.to_dtype(pixels, torch.float32, scale=True), list(self.mean), list(self.std))
        return normalised

    def __call__(self, image: Image.Image | Tensor) -> Tensor:
        """An image as the backbone takes it, shape (3, size, size), float32."""
        return self.normalise(self.pixels(image))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Preprocessing:
        try:
            return cls(**{**content, "mean": tuple(content["mean"]), "std": tuple(content["std"])})
        except (TypeError, KeyError) as error:
            raise CheckpointError(f"the saved preprocessing {content} is not one of hierderm's ({error}).") from None

    @classmethod
    def from_timm(cls, config: dict[str, Any]) -> Preprocessing:
        """From timm's data configuration (`timm.data.resolve_model_data_config`)."""
        return cls(
            size=int(config["input_size"][-1]),
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            interpolation=config["interpolation"],
            fit="squash" if config.get("crop_mode") == "squash" else "crop",
            crop_fraction=float(config.get("crop_pct") or 1.0),
        )

    @classmethod
    def from_transformers(cls, config: dict[str, Any]) -> Preprocessing:
        """From the content of a `preprocessor_config.json`."""
        size, crop = config.get("size") or {}, config.get("crop_size") or {}
        kernel = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}.get(config.get("resample", 3), "bicubic")
        cropped = config.get("do_center_crop") and "shortest_edge" in size
        target = crop.get("height") if cropped else size.get("height") or size.get("shortest_edge")
        if not target or "image_mean" not in config or "image_std" not in config:
            raise CheckpointError(f"preprocessor_config.json must give size, image_mean and image_std, got {config}.")
        return cls(
            size=int(target),
            mean=tuple(config["image_mean"]),
            std=tuple(config["image_std"]),
            interpolation=kernel,  # type: ignore[arg-type]
            fit="crop" if cropped else "squash",
            crop_fraction=target / size["shortest_edge"] if cropped else 1.0,
        )
