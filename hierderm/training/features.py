"""Features of frozen backbones, computed once and kept in a folder that runs of a comparison share."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hierderm import columns as c
from hierderm.config.methods import Augmentation
from hierderm.data.table import CaseTable
from hierderm.files import replacing, text_hash
from hierderm.model.backbone import Backbone
from hierderm.model.features import backbone_features
from hierderm.model.tail import Stem
from hierderm.model.weights import weights_hash
from hierderm.types import Mask, Vectors


@dataclass(frozen=True)
class FeatureStore:
    """Cached features, an `.npy` file each, found again for the same backbone and the same images.

    A file is named by the backbone's weights, its preprocessing, the images' paths, sizes and times of change, and
    the augmentation: images that were replaced under the same name are embedded again.
    """

    folder: Path

    def features(self, backbone: Backbone | Stem, table: CaseTable, *, workers: int = 0) -> Vectors:
        """The backbone's vector of each image of a table, shape (n_images, dim), not normalised."""
        return self._rows(_Source(backbone, table, workers), np.ones(len(table), dtype=bool))

    def for_training(
        self,
        backbone: Backbone | Stem,
        table: CaseTable,
        n_views: int,
        augmentation: Augmentation,
        *,
        seed: int = 0,
        workers: int = 0,
    ) -> tuple[list[Vectors], Vectors]:
        """What a method learns from and chooses by.

        The vectors of the training images as they are, then of `n_views` augmented copies of each; and those of the
        validation images.

        Which augmentation an image gets depends on the seed and its position in the table alone, so divisions of one
        table share files, and each division adds the images that others have not trained on.
        """
        training, source = table.splits == c.TRAIN, _Source(backbone, table, workers)
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
                return cached[:, : backbone.output_dim].copy()
        path = self._path(source, backbone.architecture["features"], view)
        features: Vectors = np.full((len(paths), backbone.dim), np.nan, dtype=np.float32)
        if path.is_file():
            features = np.load(path, allow_pickle=False)
        missing = np.flatnonzero(wanted & np.isnan(features[:, 0]))
        if len(missing):
            changes = view._asdict() if view else {}
            features[missing] = backbone_features(
                backbone, paths, workers=source.workers, rows=missing.tolist(), **changes
            )
            with replacing(path) as temporary, temporary.open("wb") as handle:
                np.save(handle, features)
        return features

    def _path(self, source: _Source, features: str, view: _View | None = None) -> Path:
        architecture = {**source.backbone.architecture, "features": features}
        key = [architecture, source.identity, [asdict(view.augmentation), view.seed, view.view] if view else []]
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
    workers: int

    @cached_property
    def identity(self) -> list[object]:
        """What the features depend on apart from the architecture: weights, preprocessing and the files' state."""
        images = [[str(path), (found := path.stat()).st_size, found.st_mtime_ns] for path in self.table.paths]
        return [weights_hash(self.backbone), self.backbone.preprocessing.hash, images]
