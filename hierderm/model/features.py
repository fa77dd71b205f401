"""The forward pass of a backbone over image files, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from hierderm.data.dataset import ImageDataset
from hierderm.model.backbone import Backbone
from hierderm.model.tail import Stem
from hierderm.progress import Progress
from hierderm.types import Vectors

if TYPE_CHECKING:
    from hierderm.config.methods import Augmentation


def best_device() -> torch.device:
    """A GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@torch.inference_mode()
def backbone_features(
    backbone: Backbone | Stem,
    paths: Sequence[Path],
    *,
    batch_size: int = 64,
    workers: int = 0,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    view: int = 0,
    rows: Sequence[int] | None = None,
) -> Vectors:
    """The backbone's vector of each image, shape (n_images, dim), float32, not normalised.

    With `augmentation` of the images changed by it; `seed`, `view` and an image's position among `paths` decide on the
    changes. `rows`: positions of the images that are wanted, by default all. The backbone is moved to `best_device`.
    """
    backbone.eval().to(best_device())
    images = ImageDataset(paths, backbone.preprocessing, augmentation, seed=seed)
    images.epoch = view
    batches = feature_batches(backbone, images, rows, batch_size=batch_size, workers=workers)
    return torch.cat([torch.zeros(0, backbone.dim), *(batch.float().cpu() for batch in batches)]).numpy()


def feature_batches(
    backbone: Backbone | Stem, images: ImageDataset, rows: Sequence[int] | None = None, *, batch_size: int, workers: int
) -> Iterator[Tensor]:
    """The features of one batch after another, on the backbone's device. Call it in inference mode."""
    device = next((weight.device for weight in backbone.parameters()), torch.device("cpu"))
    chosen = images if rows is None else Subset(images, rows)
    loader = DataLoader(chosen, batch_size=batch_size, num_workers=workers)
    with Progress("Embedding", len(chosen), unit="images") as progress:
        for batch, _ in loader:
            yield backbone(batch.to(device))
            progress.update(len(batch))
