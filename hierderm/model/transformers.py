"""Encoders of transformers, from the hub or from a folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hierderm.data.preprocessing import Preprocessing, says_all
from hierderm.errors import CheckpointError, HierdermError
from hierderm.json_files import read_json
from hierderm.model.weights import LOADING, not_loaded, require_complete

PROCESSOR = "preprocessor_config.json"


def load(name: str, source: str, weights: str) -> tuple[nn.Module, Preprocessing, dict[str, Any]]:
    """Encoder, preprocessing and architecture of the vision model in `source`, a repository or a folder."""
    from transformers import AutoConfig, AutoModel

    if weights not in ("pretrained", "random"):
        raise CheckpointError(
            f"{name}: the weights must be 'pretrained' or 'random' for transformers models, got '{weights}'. "
            "Give the folder of the weights as the name, 'hf:<folder>'."
        )
    _require_whole(name, source)
    try:
        with quiet():
            config = AutoConfig.from_pretrained(source)
            vision = getattr(config, "vision_config", config)
            preprocessing = Preprocessing.from_transformers(_preprocessor_config(source))
            if weights == "random":
                encoder = AutoModel.from_config(vision)
            else:
                encoder, report = AutoModel.from_pretrained(
                    source, config=vision, use_safetensors=True, output_loading_info=True, dtype=torch.float32
                )
                require_complete(name, report["missing_keys"], report["mismatched_keys"])
    except HierdermError:
        raise
    except Exception as error:  # transformers raises errors of all kinds on a damaged configuration
        raise not_loaded(name, error, "hf:<folder> with config.json and model.safetensors") from None
    content = json.loads(vision.to_json_string(False))
    content.pop("dtype", None)
    return encoder, preprocessing, {"config": content}


def build(architecture: dict[str, Any]) -> nn.Module:
    """The encoder that `load` described, with random weights."""
    from transformers import AutoConfig, AutoModel

    content = dict(architecture["config"])
    with quiet():
        encoder: nn.Module = AutoModel.from_config(AutoConfig.for_model(content.pop("model_type"), **content))
    return encoder


def output(encoder: nn.Module, images: Tensor) -> Tensor:
    """The pooled output of preprocessed images, or the first token where there is none, shape (n, dim)."""
    result = encoder(pixel_values=images)
    pooled = getattr(result, "pooler_output", None)
    features: Tensor = pooled if pooled is not None else result.last_hidden_state[:, 0]
    return features.flatten(1)


def _require_whole(name: str, source: str) -> None:
    folder = Path(source)
    if folder.is_dir():
        for file in ("config.json", PROCESSOR, "model.safetensors"):
            if not (folder / file).is_file() and not (file.startswith("model") and list(folder.glob("model-*"))):
                raise CheckpointError(f"{name}: the folder must hold {file}, it does not.")
    elif source.startswith((".", "/", "~")):
        raise CheckpointError(f"{name}: the folder does not exist.")


def _preprocessor_config(source: str) -> dict[str, Any]:
    """What the image processor of a model does, with the defaults of its class where the file leaves any open."""
    path = Path(source) / PROCESSOR
    if not path.is_file():
        from transformers.utils.hub import cached_file

        path = Path(str(cached_file(source, PROCESSOR)))
    content: dict[str, Any] = read_json(path, dict[str, Any], CheckpointError, again="Download it again.")
    if says_all(content):
        return content
    from transformers import AutoImageProcessor  # slow to import

    try:
        completed: dict[str, Any] = AutoImageProcessor.from_pretrained(source).to_dict()
    except Exception as error:  # it raises all kinds of errors
        raise CheckpointError(f"transformers can't read {path}: {error}.") from None
    return completed


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' report of unused towers, and its progress bars, off the terminal; one thread at a time."""
    from transformers.utils import logging as transformers_logging

    with LOADING:
        level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity(logging.CRITICAL)
        transformers_logging.disable_progress_bar()
        try:
            yield
        finally:
            transformers_logging.set_verbosity(level)
            if bars:
                transformers_logging.enable_progress_bar()
