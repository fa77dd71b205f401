"""Features of frozen backbones, computed once and kept in a folder that runs of a comparison share."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hierderm import columns as c
from hierderm.artifacts import replacing, text_hash
from hierderm.config.methods import Augmentation
from hierderm.data.table import CaseTable
from hierderm.model.backbone import Backbone
from hierderm.model.features import backbone_features
from hierderm.model.weights import weights_hash
from hierderm.types import Mask, Vectors


@dataclass(frozen=True)
class FeatureStore:
    """Cached features, an `.npy` file each, found again for the same backbone and the same images.

    A file is named by the backbone's weights, its preprocessing, the images' paths, sizes and times of change, and
    the augmentation: images that were replaced under the same name are embedded again.
    """

    folder: Path

    def features(self, backbone: Backbone, table: CaseTable, *, workers: int = 0) -> Vectors:
        """The backbone's vector of each image of a table, shape (n_images, dim), not normalised.

        A backbone that gives its output alone takes it from features of all layers where these are cached.
        """
        if backbone.architecture["features"] == "output":
            layers = self._path(backbone, table, "layers", [])
            if layers.is_file():
                cached: Vectors = np.load(layers, mmap_mode="r", allow_pickle=False)
                return cached[:, : backbone.output_dim].copy()
        return self._rows(backbone, table, np.ones(len(table), dtype=bool), workers=workers)

    def views(
        self,
        backbone: Backbone,
        table: CaseTable,
        n_views: int,
        augmentation: Augmentation,
        *,
        seed: int = 0,
        workers: int = 0,
    ) -> list[Vectors]:
        """The vectors of the training images as they are, then of `n_views` augmented copies of each.

        Which augmentation an image gets depends on the seed and its position in the table alone, so divisions of one
        table share files, and each division adds the images that others have not trained on.
        """
        training = table.splits == c.TRAIN
        augmented = [
            self._rows(backbone, table, training, workers=workers, augmentation=augmentation, seed=seed, view=view)
            for view in range(1, n_views + 1)
        ]
        return [vectors[training] for vectors in (self.features(backbone, table, workers=workers), *augmented)]

    def _rows(
        self,
        backbone: Backbone,
        table: CaseTable,
        wanted: Mask,
        *,
        workers: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        view: int = 0,
    ) -> Vectors:
        """Vectors of the table of which those `wanted`, shape (n_images,), are known; others may be NaN."""
        how = [asdict(augmentation), seed, view] if augmentation else []
        path = self._path(backbone, table, backbone.architecture["features"], how)
        features: Vectors = np.full((len(table), backbone.dim), np.nan, dtype=np.float32)
        if path.is_file():
            features = np.load(path, allow_pickle=False)
        missing = np.flatnonzero(wanted & np.isnan(features[:, 0]))
        if len(missing):
            rows = missing.tolist()
            features[missing] = backbone_features(
                backbone, table.paths, workers=workers, augmentation=augmentation, seed=seed, view=view, rows=rows
            )
            with replacing(path) as temporary, temporary.open("wb") as handle:
                np.save(handle, features)
        return features

    def _path(self, backbone: Backbone, table: CaseTable, features: str, how: list[object]) -> Path:
        images = [[str(path), (found := path.stat()).st_size, found.st_mtime_ns] for path in table.paths]
        model = [{**backbone.architecture, "features": features}, weights_hash(backbone), backbone.preprocessing.hash]
        return self.folder / f"{text_hash(json.dumps([model, images, how]))}.npy"
