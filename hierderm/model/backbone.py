"""Image encoders by name, behind one small interface: pictures in, one vector each out.

    hierderm:tiny                       the small SigLIP that ships with the package
    timm:vit_base_patch16_siglip_224    any timm model; weights from the hub or from a safetensors file
    hf:google/siglip2-base-patch16-224  any transformers vision model, from the hub or a folder

Weights are safetensors only. A SigLIP file of transformers also loads into timm's SigLIP: its keys are mapped.
A vector is the encoder's output, or that with the statistics of every block beside it (`features`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import RLock
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hierderm.config.settings import BackboneConfig
from hierderm.data.preprocessing import Preprocessing
from hierderm.errors import CheckpointError, suggest
from hierderm.model.tiny import FOLDER as TINY_FOLDER

TINY = "hierderm:tiny"

# What the hooks on the blocks write to: the list of the call that is running, so that threads can share a backbone.
_LAYERS: ContextVar[list[Tensor] | None] = ContextVar("layers", default=None)
_LOADING = RLock()  # transformers loads under global settings, so one thread at a time


def _collect_input(_: nn.Module, values: tuple[Any, ...], named: dict[str, Any]) -> None:
    layers = _LAYERS.get()
    if layers is not None:
        layers.append(values[0] if values else named["hidden_states"])


def _collect_output(_: nn.Module, __: Any, result: Any) -> None:
    layers = _LAYERS.get()
    if layers is not None:
        layers.append(result[0] if isinstance(result, tuple) else result)


class Backbone(nn.Module):
    """An encoder with its preprocessing.

    `dim`: length of its vectors, of which the first `output_dim` are the encoder's output. `architecture`: what
    `build_backbone` needs to make the same encoder without weights, plain JSON; its "features" says what the vectors
    are. `blocks`: the repeated blocks, input side first.
    """

    def __init__(self, encoder: nn.Module, preprocessing: Preprocessing, architecture: dict[str, Any]) -> None:
        super().__init__()
        self.encoder, self.preprocessing, self.architecture = encoder, preprocessing, architecture
        self.pooled = architecture["library"] == "transformers"
        if architecture["features"] == "layers":
            # Once and for all calls: hooks that came and went with a call would also collect the calls of others.
            # They belong to the blocks, which stay the same when adapters are put around the encoder.
            self.blocks[0].register_forward_pre_hook(_collect_input, with_kwargs=True)
            for block in self.blocks:
                block.register_forward_hook(_collect_output)
        with torch.no_grad():
            side = preprocessing.size
            blank = torch.zeros(1, 3, side, side)
            self.dim, self.output_dim = (int(f(blank).shape[1]) for f in (self.eval(), self._output))

    def forward(self, images: Tensor) -> Tensor:
        """Preprocessed images, shape (n, 3, size, size), float32, to vectors, shape (n, dim)."""
        return self._layers(images) if self.architecture["features"] == "layers" else self._output(images)

    def _layers(self, images: Tensor) -> Tensor:
        """The output, then mean and standard deviation over places of what enters the first block and leaves each.

        What a picture is made of (colour, texture) is known to the first layers and forgotten by the last: features of
        all layers transfer better to data unlike those of the pretraining (Evci et al. 2022, arXiv 2201.03529).
        """
        layers: list[Tensor] = []
        token = _LAYERS.set(layers)
        try:
            parts = [self._output(images)]
        finally:
            _LAYERS.reset(token)
        for values in map(self._places, layers):
            parts += [values.mean(dim=1), (values.var(dim=1, unbiased=False) + 1e-6).sqrt()]
        return torch.cat(parts, dim=1)

    def _places(self, values: Tensor) -> Tensor:
        """Tokens, or the pixels of a map, as shape (n, n_places, n_channels)."""
        if values.dim() == 3:
            return values
        last = getattr(self.encoder, "output_fmt", "NCHW") == "NHWC"  # timm's name of channels last
        return values.flatten(1, 2) if last else values.flatten(2).transpose(1, 2)

    def _output(self, images: Tensor) -> Tensor:
        output = self.encoder(images) if not self.pooled else self.encoder(pixel_values=images)
        if not self.pooled:
            return output  # type: ignore[no-any-return]
        pooled = getattr(output, "pooler_output", None)
        features: Tensor = pooled if pooled is not None else output.last_hidden_state[:, 0]
        return features.flatten(1)

    @property
    def blocks(self) -> list[nn.Module]:
        lists = [m for m in self.encoder.modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m) > 1]
        repeated = [m for m in lists if len({type(child) for child in m}) == 1]
        if not repeated:
            raise CheckpointError(
                f"{self.architecture['name']} has no repeated blocks; use training.features = 'output' and "
                "training.freeze = 'frozen' or 'full'."
            )
        return list(max(repeated, key=lambda m: sum(p.numel() for p in m.parameters())))


def load_backbone(config: BackboneConfig, features: Literal["layers", "output"] = "output") -> Backbone:
    """The backbone of a name with its weights; CheckpointError where name, file or weights are wrong.

    `features`: an image's vector is the encoder's output, or with "layers" that and the statistics of every block.
    """
    library, _, name = config.name.partition(":")
    if config.name == TINY:
        return _load_transformers(TINY, str(TINY_FOLDER), config.weights, features)
    if library == "hf" and name:
        return _load_transformers(config.name, name, config.weights, features)
    if library == "timm" and name:
        return _load_timm(name, config.weights, features)
    raise CheckpointError(
        f"a backbone must be '{TINY}', 'timm:<model>' or 'hf:<repository or folder>', got '{config.name}'."
    )


def load_vanilla(name: str, weights: str = "pretrained") -> Backbone:
    """The backbone as its authors mean it to be used: a picture's vector is the encoder's output."""
    return load_backbone(BackboneConfig(name, weights))


def build_backbone(architecture: dict[str, Any], preprocessing: Preprocessing) -> Backbone:
    """The encoder that `architecture` describes, without weights: a checkpoint brings them."""
    if architecture.get("library") == "timm":
        encoder = _create_timm(architecture["model"], pretrained=False, **architecture["options"])
    elif architecture.get("library") == "transformers":
        from transformers import AutoConfig, AutoModel

        content = dict(architecture["config"])
        encoder = AutoModel.from_config(AutoConfig.for_model(content.pop("model_type"), **content))
    else:
        raise CheckpointError(f"the saved architecture {str(architecture)[:80]} is not one of hierderm's.")
    return Backbone(encoder, preprocessing, architecture)


def weights_hash(module: nn.Module) -> str:
    """Twelve hex digits over the names, types and values of a module's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()[:12]


# --- transformers ------------------------------------------------------------------------------------------------


def _load_transformers(name: str, source: str, weights: str, features: str) -> Backbone:
    from transformers import AutoConfig, AutoModel

    if weights not in ("pretrained", "random"):
        raise CheckpointError(
            f"{name}: backbone.weights must be 'pretrained' or 'random' for transformers models, got '{weights}'. "
            "Give the folder of the weights as the name, 'hf:<folder>'."
        )
    folder = Path(source)
    if folder.is_dir():
        for file in ("config.json", "preprocessor_config.json", "model.safetensors"):
            if not (folder / file).is_file() and not (file.startswith("model") and list(folder.glob("model-*"))):
                raise CheckpointError(f"{name}: the folder must hold {file}, it does not.")
    elif source.startswith((".", "/", "~")):
        raise CheckpointError(f"{name}: the folder does not exist.")
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
                _require_complete(name, report["missing_keys"], report["mismatched_keys"])
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(_not_loaded(name, error, "hf:<folder> with config.json and model.safetensors")) from None
    architecture = {"name": name, "library": "transformers", "config": json.loads(vision.to_json_string(False))}
    architecture["features"] = features
    architecture["config"].pop("dtype", None)
    return Backbone(encoder, preprocessing, architecture)


def _preprocessor_config(source: str) -> dict[str, Any]:
    path = Path(source) / "preprocessor_config.json"
    if not path.is_file():
        from transformers.utils.hub import cached_file

        path = Path(str(cached_file(source, "preprocessor_config.json")))
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _not_loaded(name: str, error: Exception, local: str) -> str:
    reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    return f"{name}: could not be loaded ({reason}). Without internet give local weights: {local}."


def _require_complete(name: str, missing: Any, mismatched: Any) -> None:
    if missing or mismatched:
        some = [str(key) for key in [*missing, *mismatched]]
        raise CheckpointError(
            f"{name}: the file does not hold these weights of the vision tower, or in another shape: "
            f"{', '.join(some[:3])}{f' and {len(some) - 3} more' if len(some) > 3 else ''}. Is it another model?"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' report of unused towers, and its progress bars, off the terminal; one thread at a time."""
    from transformers.utils import logging as transformers_logging

    with _LOADING:
        level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity(logging.CRITICAL)
        transformers_logging.disable_progress_bar()
        try:
            yield
        finally:
            transformers_logging.set_verbosity(level)
            if bars:
                transformers_logging.enable_progress_bar()


# --- timm --------------------------------------------------------------------------------------------------------


def _load_timm(model: str, weights: str, features: str = "output", **options: Any) -> Backbone:
    from timm.data.config import resolve_model_data_config

    name = f"timm:{model}"
    if weights in ("pretrained", "random"):
        try:
            encoder = _create_timm(model, pretrained=weights == "pretrained", **options)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(_not_loaded(name, error, "backbone.weights = '<file>.safetensors'")) from None
    else:
        state = _read_safetensors(name, Path(weights))
        if any(key.endswith("head.probe") for key in state):  # a SigLIP of transformers
            options = {"act_layer": "gelu_tanh", **options}
            state = siglip_to_timm(state)
        encoder = _create_timm(model, pretrained=False, **options)
        shapes = {key: value.shape for key, value in encoder.state_dict().items()}
        state = {key: value for key, value in state.items() if key in shapes}  # classifier and text tower stay out
        wrong = [key for key, value in state.items() if value.shape != shapes[key]]
        _require_complete(name, sorted(set(shapes) - set(state)), wrong)
        encoder.load_state_dict(state)
    data = resolve_model_data_config(encoder)
    if "img_size" in options:
        data["input_size"] = (3, options["img_size"], options["img_size"])
    architecture = {"name": name, "library": "timm", "model": model, "options": options, "features": features}
    return Backbone(encoder, Preprocessing.from_timm(data), architecture)


def _create_timm(model: str, *, pretrained: bool, **options: Any) -> nn.Module:
    import timm

    if not timm.is_model(model.split(".")[0]):
        raise CheckpointError(f"timm has no model '{model}'.{suggest(model, timm.list_models())}")
    encoder: nn.Module = timm.create_model(model, pretrained=pretrained, num_classes=0, **options)
    return encoder


def _read_safetensors(name: str, path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{name}: the weights file {path} does not exist.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{name}: {path} is not a whole safetensors file ({error}).") from None


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
