"""What a backbone sees at each place of an image: its last block's tokens, or its last map."""

from __future__ import annotations

import math
from contextvars import ContextVar
from dataclasses import replace
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from hierderm.data.image_io import ImageLike
from hierderm.errors import ModelError
from hierderm.model.backbone import Backbone
from hierderm.model.encoder import Encoder
from hierderm.types import Vectors

# What the hook on the last block writes to: the list of the call that is running, so that threads share a backbone.
_SEEN: ContextVar[list[Tensor] | None] = ContextVar("seen", default=None)
_HOOKING = Lock()


def patch_features(encoder: Encoder, image: ImageLike) -> Vectors:
    """Unit-length features of the places of an image, shape (n_rows, n_columns, n_channels), float32.

    Tokens before those of the places (class, registers) are left out. ModelError where the last block gives no places,
    or where the model is a graph of ONNX.
    """
    backbone = encoder.network.backbone
    block = backbone.blocks[-1]
    with _HOOKING:
        if _keep not in block._forward_hooks.values():
            block.register_forward_hook(_keep)
    pixels = replace(backbone.preprocessing, views=0)(image)[None].to(encoder.device)
    seen: list[Tensor] = []
    token = _SEEN.set(seen)
    try:
        with torch.inference_mode():
            backbone.vectors(pixels)  # of the image alone, without views and mirror images
    finally:
        _SEEN.reset(token)
    places = _as_grid(backbone, seen[-1][0].float())
    return torch.nn.functional.normalize(places, dim=-1).cpu().numpy()


def _as_grid(backbone: Backbone, values: Tensor) -> Tensor:
    """What a block gives of one image as (n_rows, n_columns, n_channels)."""
    if values.dim() == 3:
        last = getattr(backbone.encoder, "output_fmt", "NCHW") == "NHWC"  # timm's name of a layout
        return values if last else values.permute(1, 2, 0)
    side = math.isqrt(len(values)) if values.dim() == 2 else 0
    if side < 2:
        name = backbone.architecture["name"]
        raise ModelError(
            f"{name} does not say what it sees at which place: its last block gives {tuple(values.shape)}."
        )
    places: Tensor = values[len(values) - side * side :].unflatten(0, (side, side))
    return places


def _keep(_: nn.Module, __: Any, result: Any) -> None:
    seen = _SEEN.get()
    if seen is not None:
        seen.append(result[0] if isinstance(result, tuple) else result)
