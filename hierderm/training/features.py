"""Features of frozen backbones, computed once and kept in a folder that runs of a comparison share."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hierderm import columns as c
from hierderm.config.methods import Augmentation
from hierderm.data.dataset import ImageDataset
from hierderm.data.sampler import part_of
from hierderm.data.table import CaseTable
from hierderm.embeddings import EmbeddingTable
from hierderm.files import text_hash
from hierderm.model.backbone import Backbone
from hierderm.model.encoder import Encoder
from hierderm.model.features import best_device, feature_batches
from hierderm.model.loading import require_taxonomy
from hierderm.model.onnx_encoder import OnnxEncoder
from hierderm.model.tail import Stem
from hierderm.model.weights import weights_hash
from hierderm.training.ranks import rank, wait_for_all, world_size
from hierderm.training.shards import RowFile
from hierderm.types import Mask, Vectors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureStore:
    """Cached features, an `.npy` file each, found again for the same backbone and the same images.

    A file is named by the backbone's weights, its preprocessing, what is in the image files, and the augmentation:
    images that were replaced under the same name are embedded again. What is computed goes to the
    disk in shards: a run that was killed goes on where it was.
    """

    folder: Path

    def features(self, backbone: Backbone | Stem, table: CaseTable) -> Vectors:
        """The backbone's vector of each image of a table, shape (n_images, dim), not normalised.

        It is a map of the file into memory, which changes of the array do not reach.
        """
        return self._rows(_Source(backbone, table), np.ones(len(table), dtype=bool))

    def embed(self, encoder: Encoder, table: CaseTable) -> EmbeddingTable:
        """What `encoder.embed(table)` gives, by way of the backbone's features."""
        if encoder.taxonomy is not None:
            require_taxonomy(encoder.name, encoder.taxonomy, table.taxonomy)  # before anything slow
        if isinstance(encoder, OnnxEncoder):  # which has no features beside its embeddings
            return encoder.embed(table)
        return encoder.embed(table, features=self.features(encoder.network.backbone, table))

    def for_training(
        self,
        backbone: Backbone | Stem,
        table: CaseTable,
        n_views: int,
        augmentation: Augmentation,
        *,
        seed: int = 0,
    ) -> tuple[list[Vectors], Vectors]:
        """What a method learns from and chooses by.

        The vectors of the training images as they are, then of `n_views` augmented copies of each; and those of the
        validation images.

        Which augmentation an image gets depends on the seed and its position in the table alone, so divisions of one
        table share files, and each division adds the images that others have not trained on.
        """
        training, source = table.splits == c.TRAIN, _Source(backbone, table)
        augmented = [self._rows(source, training, _View(augmentation, seed, 1 + view)) for view in range(n_views)]
        whole = self._rows(source, np.ones(len(table), dtype=bool))
        return [vectors[training] for vectors in (whole, *augmented)], whole[table.splits == c.VALIDATION]

    def _rows(self, source: _Source, wanted: Mask, view: _View | None = None) -> Vectors:
        """Vectors of the table of which those `wanted`, shape (n_images,), are known; others may be NaN.

        A backbone that gives its output alone takes it from features of all layers where these are cached.
        """
        backbone, paths = source.backbone, source.table.paths
        layers = self._path(source, "layers", view)
        if backbone.architecture["features"] == "output" and layers.is_file():
            cached: Vectors = np.load(layers, mmap_mode="r", allow_pickle=False)
            if not np.isnan(cached[wanted, 0]).any():
                return np.array(cached[:, : backbone.output_dim])
        path = self._path(source, backbone.architecture["features"], view)
        file = RowFile(path, len(paths), backbone.dim)
        missing = np.flatnonzero(wanted & ~file.known())
        if len(missing) and file.shards:
            logger.info("%s: %d of %d images are left of a run that was stopped", path, len(missing), wanted.sum())
        wait_for_all()  # all have seen the same rows missing, and divide them
        own = part_of(missing, rank(), world_size())
        if len(own):
            file.write(own, _computed(source, view, own.tolist()))
        wait_for_all()
        return file.join()

    def _path(self, source: _Source, features: str, view: _View | None = None) -> Path:
        architecture = {**source.backbone.architecture, "features": features}
        seen = source.backbone.preprocessing if view is None else replace(source.backbone.preprocessing, views=0)
        changes = [asdict(view.augmentation), view.seed, view.view] if view else []
        key = [architecture, [source.weights_hash, seen.hash, source.table.image_hashes], changes]
        return self.folder / f"{text_hash(json.dumps(key))}.npy"


class _View(NamedTuple):
    """One augmented copy of each image."""

    augmentation: Augmentation
    seed: int
    view: int


@dataclass(frozen=True)
class _Source:
    """A backbone and the images it reads."""

    backbone: Backbone | Stem
    table: CaseTable

    @cached_property
    def weights_hash(self) -> str:
        return weights_hash(self.backbone)


def _computed(source: _Source, view: _View | None, rows: list[int]) -> Iterator[Vectors]:
    backbone = source.backbone.eval().to(best_device())
    augmentation, seed, number = view or (None, 0, 0)
    images = ImageDataset(source.table.paths, backbone.preprocessing, augmentation, seed=seed)
    images.epoch = number
    for batch in feature_batches(backbone, images, rows):
        yield batch.cpu().numpy()


@contextlib.contextmanager
def unfinished(place: Path) -> Iterator[FeatureStore]:
    """A store beside the folder that a command is to write, which goes when the command has ended.

    Where it was stopped, the store stays: the same command, given again, goes on where it was.
    """
    store = FeatureStore(place.with_name(f".{place.name}.features"))
    yield store
    if store.folder.is_dir():
        for file in store.folder.iterdir():
            if file.suffix in (".npy", ".npz", ".lock"):
                file.unlink()
        with contextlib.suppress(OSError):  # something else lies there
            store.folder.rmdir()
