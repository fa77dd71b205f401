"""Image encoders by name, behind one small interface: images in, one vector each out.

    hierderm:tiny                       the small SigLIP that ships with the package
    hierderm:lite0                      a small CNN of ImageNet's photographs, from a package: see `packaged`
    timm:vit_base_patch16_siglip_224    any timm model; weights from the hub or from a safetensors file
    hf:google/siglip2-base-patch16-224  any transformers vision model, from the hub or a folder

Weights are safetensors, except those of packages. A vector is the encoder's output, or that followed by the statistics
of every block.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from hierderm.config.settings import BackboneConfig, ForwardEngine
from hierderm.data.preprocessing import Preprocessing
from hierderm.errors import CheckpointError
from hierderm.model import packaged, timm, transformers
from hierderm.model.packaged import PACKAGED
from hierderm.model.tiny import FOLDER as TINY_FOLDER
from hierderm.model.weights import LOADING, reason_of

TINY = "hierderm:tiny"
Features = Literal["layers", "output"]
BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # torch's names of what a processor has, the last of ARM

# What the hooks on the blocks write to: the list of the call that is running, so that threads can share a backbone.
_LAYERS: ContextVar[list[Tensor] | None] = ContextVar("layers", default=None)


class Library(Protocol):
    """Where encoders come from: a module with these three functions."""

    def load(self, name: str, source: str, weights: str) -> tuple[nn.Module, Preprocessing, dict[str, Any]]:
        """Encoder, preprocessing, and as plain JSON what `build` needs. `name` is for messages."""

    def build(self, architecture: dict[str, Any]) -> nn.Module:
        """The encoder without weights: a checkpoint brings them."""

    def output(self, encoder: nn.Module, images: Tensor) -> Tensor:
        """The encoder's vector of each preprocessed image, shape (n, dim)."""


# A new library is a module and an entry here: the part of a name before its colon.
LIBRARIES: dict[str, Library] = {"timm": timm, "hf": transformers}


class Backbone(nn.Module):
    """An encoder with its preprocessing. Threads may share one.

    `dim`: length of its vectors, of which the first `output_dim` are the encoder's output. `architecture`: what
    `build_backbone` needs to make the same encoder without weights, plain JSON; its "features" says what the vectors
    are. `blocks`: the repeated blocks, input side first. `engine`: what computes vectors without gradients, where they
    are computed on the CPU: torch, ONNX Runtime, or with "auto" the faster where there are many images. With the
    "precision" "bf16" in the architecture torch multiplies matrices in bfloat16; vectors are float32 all the same.
    `mirrors`: a vector is the mean over the image and its mirror images, so that it is the same for all four.
    """

    engine: ForwardEngine = "auto"

    def __init__(self, encoder: nn.Module, preprocessing: Preprocessing, architecture: dict[str, Any]) -> None:
        super().__init__()
        self.encoder, self.preprocessing, self.architecture = encoder, preprocessing, architecture
        self.mirrors = bool(architecture.get("mirrors"))
        if self.mirrors:
            self.register_buffer("n_mirrors", torch.tensor(4))  # among the weights, for their hash: other vectors
        if self.in_bf16:
            _require_bf16()
        if self.features == "layers":
            # Once and for all calls: hooks that came and went with a call would also collect the calls of others.
            # They belong to the blocks, which stay the same when adapters are put around the encoder.
            self.blocks[0].register_forward_pre_hook(_collect_input, with_kwargs=True)
            for block in self.blocks:
                block.register_forward_hook(_collect_output)
        self.dim, self.output_dim = self._lengths()

    def _lengths(self) -> tuple[int, int]:
        """Of the vectors and of the output; CheckpointError where a blank image has none."""
        side = self.preprocessing.size
        blank = torch.zeros(1, 3, side, side)
        try:
            with torch.no_grad():
                vectors, output = self.eval()(blank), self._output(blank)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:  # sizes that contradict each other
            raise CheckpointError(
                f"{self.architecture['name']}: its settings do not fit together, an image of {side} pixels has no "
                f"vector ({reason_of(error)}). Restore its configuration."
            ) from None
        return int(vectors.shape[1]), int(output.shape[1])

    @property
    def features(self) -> Features:
        """What the vectors are: the encoder's output, or that followed by the statistics of every block."""
        features: Features = self.architecture["features"]
        return features

    @property
    def in_bf16(self) -> bool:
        return self.architecture.get("precision") == "bf16"

    def forward(self, images: Tensor) -> Tensor:
        """Preprocessed images, shape (n, 3, size, size), float32, to vectors, shape (n, dim).

        Of images with views, shape (n, 1 + views, 3, size, size), the vector is the mean.
        """
        return mean_vectors(self.vectors, images, mirrors=self.mirrors)

    def vectors(self, images: Tensor) -> Tensor:
        """The vectors of the images as they are, without their mirror images."""
        return self._layers(images) if self.features == "layers" else self._output(images)

    def _layers(self, images: Tensor) -> Tensor:
        """The output, then mean and standard deviation over places of what enters the first block and leaves each.

        What an image is made of (colour, texture) is known to the first layers and forgotten by the last: features of
        all layers transfer better to data unlike those of the pretraining (Evci et al. 2022, arXiv 2201.03529).
        """
        output, layers = self.collected(images)
        return torch.cat([output, *map(self.statistics, layers)], dim=1)

    def collected(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The output, and where the vectors are those of all layers what enters the first block and leaves each."""
        layers: list[Tensor] = []
        token = _LAYERS.set(layers)
        try:
            output = self._output(images)
            return output, [values.float() for values in layers] if self.in_bf16 else layers
        finally:
            _LAYERS.reset(token)

    def statistics(self, values: Tensor) -> Tensor:
        """Mean and standard deviation over places of what a block gives, shape (n, 2 * n_channels)."""
        last = values.dim() == 3 or getattr(self.encoder, "output_fmt", "NCHW") == "NHWC"  # timm's name of a layout
        places = [dim for dim in range(1, values.dim()) if dim != (values.dim() - 1 if last else 1)]
        mean = values.mean(dim=places, keepdim=True).flatten(1)  # as in `var`, so that a graph computes it once
        return torch.cat([mean, (values.var(dim=places, unbiased=False) + 1e-6).sqrt()], dim=1)

    def _output(self, images: Tensor) -> Tensor:
        library = LIBRARIES[self.architecture["library"]]
        if not self.in_bf16:
            return library.output(self.encoder, images)
        with torch.autocast(images.device.type, torch.bfloat16):
            return library.output(self.encoder, images).float()

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


def mean_vectors(vectors: Callable[[Tensor], Tensor], images: Tensor, *, mirrors: bool) -> Tensor:
    """The mean of `vectors` over the views of images, and with `mirrors` over the three mirror images of each.

    `images`: shape (n, 3, height, width), or with views (n, n_views, 3, height, width).
    """
    views = images.unbind(1) if images.dim() == 5 else (images,)
    sides: list[list[int]] = [[], [-1], [-2], [-2, -1]] if mirrors else [[]]
    each = (view.flip(axes) if axes else view for view in views for axes in sides)  # a copy at a time in memory
    if torch.compiler.is_exporting() and mirrors:  # a graph goes through the backbone once, not four times
        together = vectors(torch.cat(list(each)))
        return together.reshape(-1, images.shape[0], together.shape[1]).mean(dim=0)
    found = [vectors(one) for one in each]
    return torch.stack(found).mean(dim=0) if len(found) > 1 else found[0]


def load_backbone(config: BackboneConfig, features: Features = "output") -> Backbone:
    """The backbone of a name with its weights; CheckpointError where name, file or weights are wrong.

    `features`: an image's vector is the encoder's output, or with "layers" that and the statistics of every block.
    """
    library, _, source = config.name.partition(":")
    if config.name == TINY:
        library, source = "hf", str(TINY_FOLDER)
    elif config.name in PACKAGED:
        library = "timm"
    if library not in LIBRARIES or not source:
        own = ", ".join(f"'{name}'" for name in (TINY, *PACKAGED))
        raise CheckpointError(
            f"a backbone must be {own}, 'timm:<model>' or 'hf:<repository or folder>', got '{config.name}'."
        )
    with LOADING:
        if config.name in PACKAGED:
            encoder, preprocessing, architecture = packaged.load(config.name, config.weights)
        else:
            encoder, preprocessing, architecture = LIBRARIES[library].load(config.name, source, config.weights)
    architecture |= {"name": config.name, "library": library, "features": features}
    # Only what is not the default, so that names of cached features stay as they were.
    architecture |= {"precision": config.precision} if config.precision != "32" else {}
    architecture |= {"mirrors": True} if config.mirrors else {}
    preprocessing = replace(preprocessing, views=config.views)
    backbone = Backbone(encoder, preprocessing, architecture)
    backbone.engine = config.engine
    return backbone


def build_backbone(architecture: dict[str, Any], preprocessing: Preprocessing) -> Backbone:
    """The encoder that `architecture` describes, without weights: a checkpoint brings them."""
    library = LIBRARIES.get(str(architecture.get("library")))
    if library is None:
        raise CheckpointError(f"the saved architecture {str(architecture)[:80]} is not one of hierderm's.")
    with LOADING:
        encoder = library.build(architecture)
    return Backbone(encoder, preprocessing, architecture)


def _require_bf16() -> None:
    """CheckpointError where neither a GPU nor the processor multiplies in bfloat16: float32 is faster there."""
    on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if not on_gpu and not any(torch.cpu.get_capabilities().get(name) for name in BF16):
        raise CheckpointError(
            "backbone.precision = 'bf16' needs a processor that multiplies in bfloat16 (AVX512-BF16, AMX) or a GPU "
            "that does; this machine has none. Use '32'; a model that was made in bf16 must be made anew."
        )


def _collect_input(_: nn.Module, values: tuple[Any, ...], named: dict[str, Any]) -> None:
    layers = _LAYERS.get()
    if layers is not None:
        layers.append(values[0] if values else named["hidden_states"])


def _collect_output(_: nn.Module, __: Any, result: Any) -> None:
    layers = _LAYERS.get()
    if layers is not None:
        layers.append(result[0] if isinstance(result, tuple) else result)
