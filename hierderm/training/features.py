"""Features of frozen backbones, computed once and kept in a folder that runs of a comparison share."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import compress
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
from hierderm.training.shards import RowFile, write_rows
from hierderm.types import Mask, Vectors

logger = logging.getLogger(__name__)


class _Views(NamedTuple):
    """Augmented copies of each image, by number; without augmentation the image itself."""

    augmentation: Augmentation | None
    seed: int
    numbers: tuple[int, ...]


PLAIN = _Views(None, 0, (0,))


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
        return self._rows(_Source(backbone, table), np.ones(len(table), dtype=bool))[0]

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
        views = _Views(augmentation, seed, tuple(range(1, 1 + n_views)))
        augmented = self._rows(source, training, views)
        whole = self.features(backbone, table)
        return [vectors[training] for vectors in (whole, *augmented)], whole[table.splits == c.VALIDATION]

    def _rows(self, source: _Source, wanted: Mask, views: _Views = PLAIN) -> list[Vectors]:
        """For each view vectors of the table of which those `wanted`, shape (n_images,), are known; others may be NaN.

        A backbone that gives its output alone takes it from features of all layers where these are cached.
        """
        cached = [self._from_layers(source, wanted, views, view) for view in views.numbers]
        missed = [view for view, vectors in zip(views.numbers, cached, strict=True) if vectors is None]
        made = iter(self._made(source, wanted, views._replace(numbers=tuple(missed))))
        return [next(made) if vectors is None else vectors for vectors in cached]

    def _from_layers(self, source: _Source, wanted: Mask, views: _Views, view: int) -> Vectors | None:
        layers = self._path(source, "layers", views, view)
        if source.backbone.architecture["features"] != "output" or not layers.is_file():
            return None
        cached: Vectors = np.load(layers, mmap_mode="r", allow_pickle=False)
        return None if np.isnan(cached[wanted, 0]).any() else np.array(cached[:, : source.backbone.output_dim])

    def _made(self, source: _Source, wanted: Mask, views: _Views) -> list[Vectors]:
        """As `_rows`, from files of the same features. Views that lack the same images are computed together."""
        backbone, n = source.backbone, len(source.table)
        paths = [self._path(source, backbone.architecture["features"], views, view) for view in views.numbers]
        files = [RowFile(path, n, backbone.dim) for path in paths]
        missing = np.zeros((n, len(files)), dtype=bool)
        for file, column in zip(files, missing.T, strict=True):
            column[:] = wanted & ~file.known()
            if column.any() and file.shards:
                logger.info(
                    "%s: %d of %d images are left of a run that was stopped", file.path, column.sum(), wanted.sum()
                )
        wait_for_all()  # all have seen the same rows missing, and divide them
        for lacking in np.unique(missing[missing.any(axis=1)], axis=0):
            own = part_of(np.flatnonzero((missing == lacking).all(axis=1)), rank(), world_size())
            if len(own):
                chosen = views._replace(numbers=tuple(np.compress(lacking, views.numbers).tolist()))
                write_rows(list(compress(files, lacking)), own, _computed(source, chosen, own.tolist()))
        wait_for_all()
        return [file.join() for file in files]

    def _path(self, source: _Source, features: str, views: _Views, view: int) -> Path:
        architecture, preprocessing = (
            {**source.backbone.architecture, "features": features},
            source.backbone.preprocessing,
        )
        seen = preprocessing if views.augmentation is None else replace(preprocessing, views=0)
        changes = [asdict(views.augmentation), views.seed, view] if views.augmentation else []
        key = [architecture, [source.weights_hash, seen.hash, source.table.image_hashes], changes]
        return self.folder / f"{text_hash(json.dumps(key))}.npy"


@dataclass(frozen=True)
class _Source:
    """A backbone and the images it reads."""

    backbone: Backbone | Stem
    table: CaseTable

    @cached_property
    def weights_hash(self) -> str:
        return weights_hash(self.backbone)


def _computed(source: _Source, views: _Views, rows: list[int]) -> Iterator[Vectors]:
    """The vectors of the views of an image one after another, image by image."""
    backbone = source.backbone.eval().to(best_device())
    images = ImageDataset(source.table.paths, backbone.preprocessing, views.augmentation, seed=views.seed)
    for batch in feature_batches(backbone, images, rows, views.numbers):
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
