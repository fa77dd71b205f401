"""Encoders of timm: weights from the hub, at random, or from a safetensors file.

A SigLIP file of transformers also loads into timm's SigLIP: its keys are mapped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hierderm.data.preprocessing import Preprocessing
from hierderm.errors import CheckpointError, suggest
from hierderm.model.weights import not_loaded, read_safetensors, require_complete


def load(name: str, source: str, weights: str, **options: Any) -> tuple[nn.Module, Preprocessing, dict[str, Any]]:
    """Encoder, preprocessing and architecture of timm's model `source`. `options`: of `timm.create_model`."""
    from timm.data.config import resolve_model_data_config

    if weights in ("pretrained", "random"):
        try:
            encoder = _create(source, pretrained=weights == "pretrained", **options)
        except (OSError, RuntimeError) as error:
            raise not_loaded(
                name,
                error,
                f"backbone.weights = '<file>.safetensors', or as a model's name '{name}@<file>.safetensors'",
            ) from None
    else:
        state = read_safetensors(name, Path(weights))
        if any(key.endswith("head.probe") for key in state):  # a SigLIP of transformers
            options = {"act_layer": "gelu_tanh", **options}
            state = siglip_to_timm(state)
        encoder = _create(source, pretrained=False, **options)
        shapes = {key: value.shape for key, value in encoder.state_dict().items()}
        state = {key: value for key, value in state.items() if key in shapes}  # classifier and text tower stay out
        wrong = [key for key, value in state.items() if value.shape != shapes[key]]
        require_complete(name, sorted(set(shapes) - set(state)), wrong)
        encoder.load_state_dict(state)
    data = resolve_model_data_config(encoder)
    if "img_size" in options:
        data["input_size"] = (3, options["img_size"], options["img_size"])
    return encoder, Preprocessing.from_timm(data), {"model": source, "options": options}


def build(architecture: dict[str, Any]) -> nn.Module:
    """The encoder that `load` described, with random weights."""
    return _create(architecture["model"], pretrained=False, **architecture["options"])


def output(encoder: nn.Module, images: Tensor) -> Tensor:
    """The pooled features of preprocessed images, shape (n, dim)."""
    features: Tensor = encoder(images)
    return features


def _create(model: str, *, pretrained: bool, **options: Any) -> nn.Module:
    import timm

    if not timm.is_model(model.split(".")[0]):
        raise CheckpointError(f"timm has no model '{model}'.{suggest(model, timm.list_models())}")
    encoder: nn.Module = timm.create_model(model, pretrained=pretrained, **{"num_classes": 0, **options})
    return encoder


_RENAMES = (
    ("embeddings.patch_embedding", "patch_embed.proj"),
    ("encoder.layers", "blocks"),
    ("layer_norm", "norm"),
    ("self_attn.out_proj", "attn.proj"),
    ("post_layernorm", "norm"),
    ("head.attention.out_proj", "attn_pool.proj"),
    ("head.layernorm", "attn_pool.norm"),
    ("head.mlp", "attn_pool.mlp"),
)


def siglip_to_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The vision weights of a transformers SigLIP under timm's names; projections that timm fuses are joined."""
    vision = {key.removeprefix("vision_model."): value for key, value in state.items() if "text_model" not in key}
    result: dict[str, Tensor] = {}
    for key, value in vision.items():
        if key == "embeddings.position_embedding.weight":
            result["pos_embed"] = value[None]
        elif key == "head.probe":
            result["attn_pool.latent"] = value
        elif key.startswith("head.attention.in_proj_"):
            kind, dim = key.rpartition("_")[2], len(value) // 3
            result[f"attn_pool.q.{kind}"], result[f"attn_pool.kv.{kind}"] = value[:dim], value[dim:]
        elif ".self_attn.q_proj." in key:
            parts = [vision[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            result[_renamed(key.replace("self_attn.q_proj", "attn.qkv"))] = torch.cat(parts)
        elif ".self_attn.k_proj." not in key and ".self_attn.v_proj." not in key:
            result[_renamed(key)] = value
    return result


def _renamed(key: str) -> str:
    for old, new in _RENAMES:
        key = key.replace(old, new)
    return key
